"""How drawings look: colours, letters, axes. matplotlib is loaded at the first figure."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from lucid.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of axes and letters.
INK = "#3b4148"
# Of data: they stand out on light and dark ground, and to the colour-blind.
BLUE, ORANGE = "#3987d6", "#e0792f"

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "grid.alpha": 0.25,
    "grid.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters: small files, any script, can be searched
    "svg.hashsalt": "lucid",  # the same drawing gives the same bytes
    "text.color": INK,
    "text.parse_math": False,  # a class name may hold a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
}


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches: no window, no global state that would keep it alive.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure: Figure = require("matplotlib.figure", extra="train").Figure(
        (width, height), layout="constrained"
    )
    return figure


def style() -> AbstractContextManager[None]:
    """Within it, what is drawn and saved looks like all drawings.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    context: AbstractContextManager[None] = require("matplotlib", extra="train").rc_context(_STYLE)
    return context
