"""Pictures of modules."""

import lucid.nn  # noqa: F401  first: it says what to install when torch is missing
from lucid.visual.mermaid import build_module_mermaid_chart
from lucid.visual.render import write_chart

__all__ = ["build_module_mermaid_chart", "write_chart"]
