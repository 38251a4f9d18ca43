"""Networks for the C export, and its runtime as a library that runs any of them."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.exporters.c.plan import Plan
from lucid.exporters.c.weights import in_order
from lucid.images import Pixels, Preprocessing
from lucid.network import FloatLayer, FloatNetwork, FloatPool, Int8Layer, Int8Network, layers
from lucid.quantization import measure_ranges, quantise

RUNTIME = Path(str(files("lucid.exporters"))) / "c" / "runtime"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror")
GUARD = 64


def random_pixels(count: int, side: int, channels: int, seed: int = 0) -> Pixels:
    """Noise with patches of black and white: uint8 (N, side, side, channels)."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    pixels[:, : side // 3] = 0
    pixels[:, :, 2 * side // 3 :] //= 2
    return pixels


def c_network(side: int, color: str = "RGB", *, seed: int = 0, **arguments: Any) -> Int8Network:
    """A MobileNet with random weights, quantised, whose logits depend on the image."""
    random = np.random.default_rng(seed)
    channels = 3 if color == "RGB" else 1
    found: list[FloatLayer | FloatPool] = []
    for layer in layers(MobileNetArguments(in_channels=channels, **arguments)):
        if layer.kind == "pool":
            found.append(FloatPool(**layer.to_dict()))
            continue
        fan_in = int(np.prod(layer.weight_shape[1:]))
        weight = random.normal(0, np.sqrt(2 / fan_in), layer.weight_shape).astype(np.float32)
        if layer.kind == "depthwise":  # small maps see little but the middle of the window
            weight[:, :, 1, 1] += 1
        bias = random.normal(0, 0.05, layer.out_channels).astype(np.float32)
        found.append(FloatLayer(**layer.to_dict(), weight=weight, bias=bias))
    network = FloatNetwork(
        layers=tuple(found),
        class_names=tuple(f"class {k}" for k in range(found[-1].out_channels)),
        preprocessing=Preprocessing(
            side, color=color, mean=(0.4, 0.5, 0.6)[:channels], std=(0.25,) * channels
        ),
    )
    pixels = random_pixels(2, side, channels, seed)
    int8 = quantise(network, measure_ranges(network, [pixels]))
    logits = reference.run(int8, pixels)
    assert np.abs(logits[0] - logits[1]).max() > 0, "the logits do not depend on the image"
    return int8


def compile_runtime(folder: Path, *flags: str) -> ctypes.CDLL:
    """The runtime as a shared library for this machine, with its own names."""
    library = folder / "runtime.so"
    units = [str(path) for path in sorted(RUNTIME.glob("*.c")) if path.name != "verify.c"]
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", *flags, *units, "-o", str(library)], check=True
    )
    return ctypes.CDLL(str(library))


class CLayer(ctypes.Structure):
    """lucid_layer."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "bias", "multiplier")),
        *(
            (name, ctypes.c_uint16)
            for name in (
                *("in_channels", "out_channels", "in_height", "in_width"),
                *("out_height", "out_width"),
            )
        ),
        *((name, ctypes.c_uint8) for name in ("stride", "top", "left", "maximum")),
    )


class _Stage(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("offset", "between", "work")),
        *((name, ctypes.c_uint16) for name in ("kept", "count")),
    )


class _Plan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("layers", "stages", "outside")),
        *((name, ctypes.c_uint16) for name in ("count", "streamed")),
    )


class _Run(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("memory", "rows", "image"))


class Device:
    """A network, all of whose layers are in pairs, in the runtime's structures."""

    def __init__(self, library: ctypes.CDLL, network: Int8Network, plan: Plan) -> None:
        self.library, self.network, self.plan = library, network, plan
        self.kept: list[Any] = []
        self.outside = np.array(network.outside, np.uint8)
        stages = [
            _Stage(each.offset, each.between, each.work, each.kept, each.count)
            for each in plan.stages
        ]
        self.structure = _Plan(
            self._array((CLayer * len(plan.layers))(*self._layers())),
            self._array((_Stage * len(stages))(*stages)),
            self.outside.ctypes.data,
            len(stages) - 1,
            plan.streamed,
        )

    def _array(self, values: ctypes.Array[Any]) -> int:
        self.kept.append(values)
        return ctypes.addressof(values)

    def _pointer(self, values: NDArray[Any]) -> int:
        values = np.ascontiguousarray(values)
        self.kept.append(values)
        return values.ctypes.data

    def _layers(self) -> list[CLayer]:
        found = []
        for layer, sized in zip(self.network.layers, self.plan.layers, strict=True):
            weights = bias = 0
            if isinstance(layer, Int8Layer):
                weights, bias = self._pointer(in_order(layer)), self._pointer(layer.bias)
                multiplier, maximum = layer.multiplier, layer.maximum
            else:
                multiplier = np.atleast_1d(layer.multiplier(sized.height * sized.width))
                maximum = 255
            _, height, width = sized.output_shape
            top = left = 0
            if layer.kernel == 3:
                top, left = layer.border(sized.height)[0], layer.border(sized.width)[0]
            found.append(
                CLayer(
                    *(weights, bias, self._pointer(multiplier)),
                    *(layer.in_channels, layer.out_channels, sized.height, sized.width),
                    *(height, width, layer.stride, top, left, maximum),
                )
            )
        return found

    def logits(self, image: Pixels, by_rows: bool) -> NDArray[np.float32]:
        """Of one image (H, W, C); the memory has guards on both sides, which must stay."""
        memory = np.full(self.plan.memory + 2 * GUARD, 0xA5, np.uint8)
        rows = np.full(self.plan.counters + 1, 0xA5A5, np.uint16)
        found = np.zeros(self.network.layers[-1].out_channels, np.float32)
        image = np.ascontiguousarray(image)
        plan = ctypes.byref(self.structure)
        run = _Run(
            memory.ctypes.data + GUARD, rows.ctypes.data, 0 if by_rows else image.ctypes.data
        )
        self.library.lucid_run_begin(plan, ctypes.byref(run))
        if by_rows:
            for y, row in enumerate(image):
                pushed = np.array(row)
                left = self.library.lucid_run_row(
                    plan, ctypes.byref(run), ctypes.c_void_p(pushed.ctypes.data)
                )
                assert left == len(image) - 1 - y
        else:
            self.library.lucid_run_image(plan, ctypes.byref(run))
        self.library.lucid_run_finish(plan, ctypes.byref(run), ctypes.c_void_p(found.ctypes.data))
        assert (memory[:GUARD] == 0xA5).all(), "wrote before its memory"
        assert (memory[-GUARD:] == 0xA5).all(), "wrote behind its memory"
        assert rows[-1] == 0xA5A5, "wrote behind its counters"
        return found


def deepest_stack(graphs: Sequence[Path], root: str) -> int:
    """Bytes of the deepest chain of calls from a function, from gcc's -fcallgraph-info=su.

    Fails where a function's frame is not known, or where one calls itself by whatever way.
    """
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    text = "".join(path.read_text() for path in graphs)
    for title, label in re.findall(r'^node: { title: "([^"]*)" label: "([^"]*)"', text, re.M):
        if size := re.search(r"(\d+) bytes \((static|dynamic,bounded)\)$", label):
            frames[title] = int(size[1])
        else:
            assert "bytes (" not in label, label
    for source, target in re.findall(
        r'^edge: { sourcename: "([^"]*)" targetname: "([^"]*)"', text, re.M
    ):
        calls.setdefault(source, set()).add(target)

    def deepest(name: str, above: tuple[str, ...]) -> int:
        assert name not in above, f"{name} calls itself"
        inner = (deepest(each, (*above, name)) for each in calls.get(name, ()))
        return frames.get(name, 0) + max(inner, default=0)

    assert root in frames, f"no {root} in {graphs}"
    return deepest(root, ())
