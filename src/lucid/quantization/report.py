"""What quantising cost, as one HTML page: layers, classes, the pictures that suffered most."""

from __future__ import annotations

from collections.abc import Sequence

from lucid import __version__
from lucid.evaluation.explanation import enlarge
from lucid.network import Int8Network
from lucid.page import Html, element, page, picture, svg, table
from lucid.quantization.comparison import Comparison, LayerNoise
from lucid.quantization.images import LoadedImages

__all__ = ["report", "summary"]

_ROW, _LEFT, _WIDTH = 18, 190, 760  # of the drawing, in its own units
_COLOUR = "#3987d6"


def summary(comparison: Comparison, sizes: tuple[int, int]) -> list[tuple[str, str, str]]:
    """What was measured, of the float and of the int8 network: (what, float, int8).

    Args:
        sizes: of the two files, in bytes.
    """
    rows = []
    if comparison.float_top1 is not None and comparison.int8_top1 is not None:
        rows.append(("top-1", f"{comparison.float_top1:.2%}", f"{comparison.int8_top1:.2%}"))
    if comparison.float_top5 is not None and comparison.int8_top5 is not None:
        rows.append(("top-5", f"{comparison.float_top5:.2%}", f"{comparison.int8_top5:.2%}"))
    return [
        *rows,
        ("same class as float", "", f"{comparison.agreement:.2%}"),
        ("signal to noise of logits", "", f"{comparison.logits_decibels:.1f} dB"),
        ("file", f"{sizes[0] / 1e6:.2f} MB", f"{sizes[1] / 1e6:.2f} MB"),
    ]


def report(
    comparison: Comparison,
    images: LoadedImages,
    network: Int8Network,
    *,
    title: str,
    description: str,
    sizes: tuple[int, int],
) -> str:
    """The page: summary, noise of each layer, the images whose logits changed most.

    Args:
        comparison: of the network on ``images``.
        title: such as ``"Quantising model.safetensors"``.
        description: what was measured on what, in a sentence.
        sizes: of the float and the int8 file, in bytes.
    """
    names = network.class_names
    pictures = [
        element(
            "figure",
            picture(enlarge(images.pixels[index]), f"the image {images.names[index]}"),
            element(
                "figcaption",
                _change(
                    names[comparison.float_classes[index]], names[comparison.int8_classes[index]]
                ),
                element("div", images.names[index], class_="quiet"),
            ),
        )
        for index in comparison.worst
    ]
    changed = sum(
        a != b for a, b in zip(comparison.float_classes, comparison.int8_classes, strict=True)
    )
    return page(
        title,
        element("p", description, class_="quiet"),
        table(("", "float", "int8"), summary(comparison, sizes), numbers=2),
        element(
            "p",
            f"Another class is named for {changed:,} of {comparison.images:,} images.",
        ),
        element("h2", "Signal-to-noise ratio of each layer's output"),
        element(
            "p",
            "How much larger the float output is than the int8 output's distance to it, errors of "
            "the layers before included. 6 dB more is half the error.",
            class_="quiet",
        ),
        element("div", svg(_bars(comparison.layers)), class_="scroll"),
        element("h2", "Images whose logits changed most"),
        element("div", *pictures, class_="pictures"),
        element("p", f"lucid {__version__}", class_="quiet"),
    )


def _change(before: str, after: str) -> Html:
    if before == after:
        return element("strong", before)
    return element("span", element("strong", before), " became ", element("strong", after))


def _bars(layers: Sequence[LayerNoise]) -> str:
    """A bar for each layer, as SVG; text has the colour of the page."""
    longest = max(max(layer.decibels for layer in layers), 1.0)
    room = _WIDTH - _LEFT - 60
    rows = []
    for index, layer in enumerate(layers):
        middle = index * _ROW + _ROW / 2
        length = max(layer.decibels, 0) / longest * room
        text = {"y": f"{middle:g}", "dominant_baseline": "central", "fill": "currentColor"}
        rows += [
            _shape("text", layer.name, x=_LEFT - 8, text_anchor="end", **text),
            _shape("rect", x=_LEFT, y=middle - 6, width=f"{length:.1f}", height=12, fill=_COLOUR),
            _shape("text", f"{layer.decibels:.1f} dB", x=f"{_LEFT + length + 6:.1f}", **text),
        ]
    height = len(layers) * _ROW
    return _shape(
        "svg",
        *rows,
        viewBox=f"0 0 {_WIDTH} {height}",
        width=_WIDTH,
        role="img",
        aria_label="bars of the signal-to-noise ratio of each layer",
        style="font: 12px system-ui, sans-serif",
    )


def _shape(tag: str, *children: str, **attributes: object) -> Html:
    """An element with the hyphens that SVG's names have."""
    hyphened = {name.replace("_", "-"): value for name, value in attributes.items()}
    return element(tag, *children, **hyphened)
