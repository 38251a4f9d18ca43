"""The C sources of a network: constant arrays, the plan, and the runtime with the user's prefix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from lucid import __version__
from lucid.exporters.c.plan import Plan
from lucid.exporters.c.weights import in_order
from lucid.images import Pixels
from lucid.network import Int8Layer, Int8Network, Int8Pool, Layer, SizedLayer
from lucid.reference import run

__all__ = [
    "STACK_BYTES",
    "const_bytes",
    "layer_const_bytes",
    "sources",
    "table_bytes",
    "units",
    "verifier",
]

# What the deepest chain of calls takes at -O1 or higher; a test adds up what compilers say.
STACK_BYTES = 768

# Of a 32-bit device: lucid_layer, lucid_stage, and the pointer to a class name.
_LAYER_BYTES, _STAGE_BYTES, _POINTER_BYTES = 28, 16, 4

_FOLDER = files("lucid.exporters") / "c"
_KERNELS = sorted(
    each.name for each in (_FOLDER / "runtime").iterdir() if each.name.startswith("kernels_")
)
_COMPILED = ("model.c", "model_execute.c", *(f"model_{name}" for name in _KERNELS))

# The files of an export, and what they are made from; "model" stands for the prefix.
_TEMPLATES = {
    "model.h": "templates/model.h",
    "model.c": "templates/model.c",
    "model_execute.h": "runtime/execute.h",
    "model_execute.c": "runtime/execute.c",
    "model_kernels.h": "runtime/kernels.h",
    **{f"model_{name}": f"runtime/{name}" for name in _KERNELS},
    "model_image.h": "templates/image.h",
    "model_profile.h": "templates/profile.h",
    "main.c": "templates/main.c",
    "CMakeLists.txt": "templates/CMakeLists.txt",
    "library.json": "templates/library.json",
    "library.properties": "templates/library.properties",
    "examples/classify/classify.ino": "templates/sketch.ino",
    "zephyr/module.yml": "templates/module.yml",
    "zephyr/CMakeLists.txt": "templates/zephyr.cmake",
}

_LINE = 100


def sources(network: Int8Network, plan: Plan, prefix: str, image: Pixels) -> dict[str, str]:
    """The files of an export by their path in its folder.

    Args:
        plan: for the network, and for images of the size that the folder is made for.
        prefix: of all names and of the files.
        image: uint8 (H, W, C), for the examples.
    """
    values = _values(network, plan, prefix, image)
    return {
        _prefixed(path, prefix): _filled(template, prefix, values)
        for path, template in _TEMPLATES.items()
    }


def verifier(prefix: str) -> str:
    """A program that reads images from a file and writes their logits to another."""
    return _filled("runtime/verify.c", prefix, {})


def units(prefix: str) -> list[str]:
    """The files of an export that are compiled in every program."""
    return [_prefixed(name, prefix) for name in _COMPILED]


def const_bytes(layers: Iterable[Layer]) -> int:
    """Of the weights, biases and multipliers in flash."""
    return sum(map(layer_const_bytes, layers))


def layer_const_bytes(layer: Layer) -> int:
    """Of the weights, biases and multipliers of one layer in flash."""
    return 4 if layer.kind == "pool" else layer.weights + 8 * layer.out_channels


def table_bytes(plan: Plan, class_names: Sequence[str]) -> int:
    """Of the plan and the class names in flash, on a 32-bit device."""
    names = sum(len(name.encode()) + 1 + _POINTER_BYTES for name in class_names)
    return len(plan.layers) * _LAYER_BYTES + len(plan.stages) * _STAGE_BYTES + names


def _filled(template: str, prefix: str, values: Mapping[str, str]) -> str:
    """A template with the user's names, then with what is the network's own."""
    text = _prefixed((_FOLDER / template).read_text("utf-8"), prefix)
    return re.sub("@([A-Z_]+)@", lambda found: values[found[1]], text)


def _prefixed(text: str, prefix: str) -> str:
    """A file of ours, or a path, with the user's names in place of ours."""
    text = re.sub(r'"(kernels|execute)\.h"', rf'"{prefix}_\1.h"', text)
    text = re.sub(r"\b(?:lucid|model)_", f"{prefix}_", text)
    text = re.sub(r"\b(?:LUCID|MODEL)_", f"{prefix.upper()}_", text)
    return re.sub(r"\bmodel\.([hc])\b", rf"{prefix}.\1", text)


def _values(network: Int8Network, plan: Plan, prefix: str, image: Pixels) -> dict[str, str]:
    first, last = plan.layers[0], plan.layers[-1]
    side = f"{first.width}x{first.height}"
    color = network.preprocessing.color
    logits = run(network, image[np.newaxis])[0]
    return {
        "PREFIX": prefix,
        "TITLE": f"MobileNet in int8 for {side} {color} images, {last.out_channels} classes",
        "VERSION": __version__,
        "HEIGHT": str(first.height),
        "WIDTH": str(first.width),
        "CHANNELS": str(first.in_channels),
        "COLOR": color,
        "COLOR_ORDER": "red, green, blue" if first.in_channels == 3 else "one byte each",
        "CLASSES": str(last.out_channels),
        "LAYERS": str(len(plan.layers)),
        "IMAGE_BYTES": str(plan.image_bytes),
        "STATE_BYTES": str(plan.state_bytes),
        "STACK_BYTES": str(STACK_BYTES),
        "CONST_BYTES": str(const_bytes(network.layers)),
        "MEMORY_WORDS": str(plan.memory // 4),
        "COUNTERS": str(plan.counters),
        "ARRAYS": "\n".join(_arrays(network, plan)),
        "OUTSIDE": ", ".join(map(str, network.outside)),
        "LAYER_TABLE": "".join(_layer_table(network, plan)),
        "STAGE_TABLE": "".join(
            f"    {{{each.offset}, {each.between}, {each.work}, {each.kept}, {each.count}}},\n"
            for each in plan.stages
        ),
        "STAGES": str(len(plan.stages) - 1),
        "STREAMED": str(plan.streamed),
        "CLASS_NAMES": "".join(f"    {_text(name)},\n" for name in network.class_names),
        "CONST_SIZEOF": "\n    ".join(_sizeofs(network)),
        "SCRATCH_CHECKS": "".join(_scratch_checks(plan, prefix.upper())),
        "IMAGE": _list(image.reshape(-1)),
        "LOGITS": _list(map(_float, logits)),
        "SOURCES": "".join(f"  {name}\n" for name in units(prefix)),
    }


def _arrays(network: Int8Network, plan: Plan) -> Iterator[str]:
    for index, (layer, sized) in enumerate(zip(network.layers, plan.layers, strict=True)):
        yield f"/* {layer.name} */"
        if isinstance(layer, Int8Pool):
            multipliers = np.atleast_1d(layer.multiplier(sized.height * sized.width))
        else:
            multipliers = layer.multiplier
            weights = in_order(layer)
            yield _array(f"WEIGHTS kWeights{index}", len(weights), _list(weights))
            sums = layer.weight.reshape(layer.out_channels, -1).sum(axis=1, dtype=np.int64)
            kind = layer.kind.upper()
            biases = [
                f"{kind}({bias}, {total})" for bias, total in zip(layer.bias, sums, strict=True)
            ]
            yield _array(f"static const int32_t kBias{index}", len(biases), _list(biases))
        yield _array(
            f"static const float kMultiplier{index}",
            len(multipliers),
            _list(map(_float, multipliers)),
        )


def _layer_table(network: Int8Network, plan: Plan) -> Iterator[str]:
    for index, (layer, sized) in enumerate(zip(network.layers, plan.layers, strict=True)):
        pointers, maximum = "NULL, NULL", 255
        if isinstance(layer, Int8Layer):
            pointers, maximum = f"kWeights{index}, kBias{index}", layer.maximum
        _, height, width = sized.output_shape
        top, left = _border(sized)
        numbers = [
            *(layer.in_channels, layer.out_channels),
            *(sized.height, sized.width, height, width),
            *(layer.stride, top, left),
            maximum,
        ]
        yield f"    {{{pointers}, kMultiplier{index},\n     {', '.join(map(str, numbers))}}},\n"


def _border(layer: SizedLayer) -> tuple[int, int]:
    """(rows above, columns left) of the image that the first window sees."""
    if layer.kernel == 1:
        return 0, 0
    return layer.border(layer.height)[0], layer.border(layer.width)[0]


def _sizeofs(network: Int8Network) -> Iterator[str]:
    for index, layer in enumerate(network.layers):
        if index:
            yield "+"
        if isinstance(layer, Int8Layer):
            yield f"sizeof kWeights{index} + sizeof kBias{index} +"
        yield f"sizeof kMultiplier{index}"


def _scratch_checks(plan: Plan, prefix: str) -> Iterator[str]:
    """One condition a stage: what kernels.h says they need is not more than what was planned."""
    stem = plan.layers[0]
    needs = [(f"{prefix}_STEM_WORK_BYTES({stem.output_shape[2]}, {stem.in_channels})", "work", 0)]
    for number in range(1, len(plan.stages) - 1):
        head = plan.layers[2 * number - 1]
        pixels = plan.stages[number].count * head.output_shape[2]
        needs += [
            (f"{prefix}_BETWEEN_BYTES({pixels}, {head.in_channels})", "between", number),
            (f"{prefix}_DEPTHWISE_WORK_BYTES({head.width})", "work", number),
            (f"{prefix}_POINTWISE_WORK_BYTES({head.in_channels})", "work", number),
        ]
    for need, kind, number in needs:
        yield f"    ({need} <= {getattr(plan.stages[number], kind + '_bytes')}) &&\n"


def _array(declaration: str, size: int, values: str) -> str:
    return f"{declaration}[{size}] = {{\n{values}}};"


def _list(values: Iterable[object] | NDArray[np.generic]) -> str:
    """Values in lines, each with a comma behind it."""
    lines: list[str] = []
    line = "   "
    for value in values:
        word = f" {value},"
        if len(line) + len(word) > _LINE:
            lines.append(line)
            line = "   "
        line += word
    return "\n".join([*lines, line, ""])


def _float(value: np.float32) -> str:
    """A C99 constant with every bit; zero keeps its sign."""
    return f"{float(value).hex()}f"


def _text(text: str) -> str:
    """A C string: printable ASCII as it is, all else as octal bytes, of three digits."""
    return '"' + "".join(_characters(text.encode())) + '"'


def _characters(text: bytes) -> Iterator[str]:
    for byte in text:
        plain = 32 <= byte < 127 and chr(byte) not in '"\\?'
        yield chr(byte) if plain else f"\\{byte:03o}"
