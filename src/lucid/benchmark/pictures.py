"""Profiles drawn: the time of every layer, and rooflines (Williams et al. 2009, CACM 52(4))."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.benchmark.profile import Profile, Step
from lucid.drawing import BLUE, INK, ORANGE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["layer_times", "roofline"]

# Colour and marker.
_KINDS = {
    "stem": ("#8250c4", "s"),
    "depthwise": (ORANGE, "^"),
    "pointwise": (BLUE, "o"),
    "depthwise + pointwise": ("#2f9e77", "D"),
    "dense": ("#b8374a", "v"),
    "pool": ("#8a9199", "P"),
}
_PRECISIONS = {
    "int8": BLUE,
    "bfloat16": "#2f9e77",
    "float32": ORANGE,
    "float32-split": "#8250c4",
}


def layer_times(profiles: Sequence[Profile]) -> Figure:
    """A bar for each step, and a line where it would end at the machine's peak.

    Args:
        profiles: of one network in several precisions.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(9, 0.6 + 1.9 * len(profiles))
    with style():
        rows = figure.subplots(len(profiles), 1, squeeze=False)[:, 0]
        for axes, one in zip(rows, profiles, strict=True):
            places = np.arange(len(one.steps))
            times = [1e6 * step.seconds for step in one.steps]
            axes.bar(places, times, color=[_KINDS[step.kind][0] for step in one.steps], width=0.8)
            if one.peak is not None:
                least = [1e6 * step.multiply_adds / one.peak for step in one.steps]
                axes.hlines(least, places - 0.4, places + 0.4, color=INK, linewidth=1.6)
            axes.set_title(_title(one), loc="left")
            axes.set_ylabel("µs")
            axes.set_xlim(-0.7, len(places) - 0.3)
            axes.grid(visible=False, axis="x")
            axes.set_xticks(places, [""] * len(places))
        rows[-1].set_xticks(
            places,
            [_short(step) for step in profiles[-1].steps],
            rotation=60,
            ha="right",
            rotation_mode="anchor",
        )
        _times_legend(figure, profiles)
    return figure


def roofline(profiles: Sequence[Profile], bandwidths: Mapping[int, float]) -> Figure:
    """What each step reaches, by how much it computes with a byte, below what limits it.

    Args:
        profiles: of one network in several precisions.
        bandwidths: bytes a second by the size of the array in bytes, as ``bandwidths`` gives them.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    every = [step for one in profiles for step in one.steps if step.multiply_adds]
    tops = [one.peak for one in profiles if one.peak is not None]
    left, right = min(map(_density, every)) / 4, max(map(_density, every)) * 2
    # Room below the lowest point, where the dashed lines begin and say what they are.
    low, high = min(map(_rate, every)) / 4, 1.5 * max([*map(_rate, every), *tops])
    # As high as the axes are, on which a decade is as long in both directions.
    figure = new_figure(8.4, 6.2 * np.log(high / low) / np.log(right / left) + 0.6)
    from matplotlib.ticker import LogLocator

    with style():
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high), aspect="equal")
        for size, rate in bandwidths.items():
            start = max(left, low / rate)
            end = min(right, max([*tops, high / 1.5]) / rate)
            axes.plot((start, end), (start * rate, end * rate), color=INK, linestyle="--")
            axes.annotate(
                f"{_size(size)}: {rate / 1e9:,.0f} GB/s",
                (start * 1.2, start * 1.2 * rate),
                xytext=(-4, 4),
                textcoords="offset points",
                rotation=45,
                rotation_mode="anchor",
            )
        for one in profiles:
            color = _PRECISIONS[one.precision]
            if one.peak is not None:
                axes.axhline(one.peak, color=color)
                axes.annotate(
                    f"{one.instruction}: {one.peak / 1e9:,.0f} G/s",
                    (right, one.peak),
                    xytext=(-4, 4),
                    textcoords="offset points",
                    ha="right",
                )
            for step in one.steps:
                if step.multiply_adds:
                    axes.plot(
                        _density(step),
                        _rate(step),
                        _KINDS[step.kind][1],
                        color=color,
                        markersize=7,
                        markeredgecolor="white",
                        markeredgewidth=0.6,
                    )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(lambda _value, _place: "")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g}")
        axes.set_xlabel("multiply-adds for a byte of weights and activations")
        axes.set_ylabel("billions of multiply-adds a second")
        _roofline_legend(figure, profiles)
    return figure


def _roofline_legend(figure: Figure, profiles: Sequence[Profile]) -> None:
    from matplotlib.lines import Line2D

    shown = {step.kind for one in profiles for step in one.steps if step.multiply_adds}
    handles = [
        Line2D([], [], color=_PRECISIONS[one.precision], label=f"{one.precision} on {one.isa}")
        for one in profiles
    ]
    handles += [
        Line2D([], [], color=INK, marker=marker, linestyle="", label=kind)
        for kind, (_, marker) in _KINDS.items()
        if kind in shown
    ]
    handles.append(Line2D([], [], color=INK, linestyle="--", label="loads from an array"))
    figure.legend(handles=handles, loc="outside right center")


def _times_legend(figure: Figure, profiles: Sequence[Profile]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = {step.kind for one in profiles for step in one.steps}
    handles: list[Line2D | Patch] = [
        Patch(color=color, label=kind) for kind, (color, _) in _KINDS.items() if kind in shown
    ]
    handles.append(Line2D([], [], color=INK, linewidth=1.6, label="at the peak"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _density(step: Step) -> float:
    return step.multiply_adds / step.bytes


def _rate(step: Step) -> float:
    return step.multiply_adds / step.seconds


def _title(one: Profile) -> str:
    share = "" if one.share is None else f", {one.share:.0%} of the peak"
    return f"{one.precision} on {one.isa}: {1e3 * one.seconds:.2f} ms{share}"


def _short(step: Step) -> str:
    return step.name.replace("depthwise", "dw").replace("pointwise", "pw")


def _size(size: int) -> str:
    for name, unit in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} bytes"
