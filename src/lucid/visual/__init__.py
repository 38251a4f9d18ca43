"""Pictures of modules."""

from lucid.visual.mermaid import build_module_mermaid_chart
from lucid.visual.render import write_chart

__all__ = ["build_module_mermaid_chart", "write_chart"]
