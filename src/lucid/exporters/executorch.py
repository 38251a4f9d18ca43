"""From a network to an ExecuTorch program (.pte) that runs in XNNPACK as a whole.

An int8 network keeps its own weights, multipliers and bytes, which ExecuTorch stores as int8 with
the zero point -128. Its classifier computes in float32, so that logits need no scale.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lucid.errors import ConfigError, require
from lucid.exporters.formats import Files, Precision
from lucid.exporters.metadata import describe
from lucid.exporters.runners.executorch import silenced
from lucid.exporters.scales import StatedScales, state_scales
from lucid.network import FloatLayer, FloatNetwork, Int8Layer, Int8Network, Int8Pool, Layer
from lucid.network.file import Network
from lucid.network.integer import MAX_WEIGHT

__all__ = ["LARGEST_BATCH", "to_files", "to_program"]

# A program knows the largest batch that it may be given; memory is taken for the one it is given.
LARGEST_BATCH = 64

_EXTRA = "executorch"

# Bytes 0 to 255 stand in the program as -128 to 127.
_LOW, _HIGH = -128, 127


def to_files(network: Network, precision: Precision, size: tuple[int, int]) -> Files:  # noqa: ARG001
    """The program and a JSON beside it, for ``lucid.exporters.export``."""
    text = json.dumps(describe(network), ensure_ascii=False, indent=1)
    return {".pte": to_program(network, size), ".json": text.encode()}


def to_program(network: Network, size: tuple[int, int]) -> bytes:
    """``images``, bytes / 255, float32 (N, C, H, W) -> logits, float32 (N, classes).

    N is up to ``LARGEST_BATCH``.

    Args:
        size: (height, width) in pixels.
    Raises:
        MissingDependencyError: executorch is not installed.
        ConfigError: XNNPACK leaves a part of the network to slower kernels.
    """
    module = (
        _FloatModule(network, size)
        if isinstance(network, FloatNetwork)
        else _Int8Module(network, size)
    )
    images = torch.zeros(2, network.layers[0].in_channels, *size)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    with silenced():
        exir = require("executorch.exir", extra=_EXTRA)
        xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra=_EXTRA)
        passes = require("executorch.exir.passes", extra=_EXTRA)
        # They register the operators of quantised programs.
        require("torch.ao.quantization.fx._decomposed", extra=_EXTRA)
        exported = torch.export.export(
            module.eval(), (images,), dynamic_shapes=({0: batch},), strict=False
        )
        manager = exir.to_edge_transform_and_lower(
            exported, partitioner=[xnnpack.XnnpackPartitioner()]
        )
        _check_delegated(manager)
        # Images stay where the caller has them.
        planning = passes.MemoryPlanningPass(alloc_graph_input=False)
        configuration = exir.ExecutorchBackendConfig(memory_planning_pass=planning)
        content: bytes = manager.to_executorch(configuration).buffer
    return content


def _check_delegated(manager: Any) -> None:
    nodes = manager.exported_program().graph.nodes
    called = [str(node.target) for node in nodes if node.op == "call_function"]
    others = [name for name in called if "delegate" not in name and "getitem" not in name]
    if others or sum("delegate" in name for name in called) != 1:
        raise ConfigError(
            f"XNNPACK does not take the network as a whole; {', '.join(others) or called} would "
            "run in slower kernels"
        )


class _FloatModule(nn.Module):
    """A float network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: FloatNetwork, size: tuple[int, int]) -> None:
        super().__init__()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network.preprocessing, name)).reshape(1, -1, 1, 1)
            self.register_buffer(name, values)
        self.layers = nn.ModuleList()
        for layer in network.layers:
            if not isinstance(layer, FloatLayer):
                continue
            if layer.kind == "dense":
                self.classifier = _linear(layer.weight, layer.bias)
                continue
            self.layers.append(_FloatConvolution(layer, size))
            size = (layer.output_side(size[0]), layer.output_side(size[1]))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        for layer in self.layers:
            x = layer(x)
        x = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        return self.classifier(x.reshape(-1, x.shape[1]))  # type: ignore[no-any-return]


class _FloatConvolution(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, layer: FloatLayer, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("weight", _tensor(layer.weight))
        self.register_buffer("bias", _tensor(layer.bias))
        self.layer, self.border, self.padding = layer, *_padding(layer, size)

    def forward(self, x: Tensor) -> Tensor:
        if self.border is not None:
            x = functional.pad(x, self.border)
        groups = self.layer.in_channels if self.layer.kind == "depthwise" else 1
        x = functional.conv2d(
            x, self.weight, self.bias, self.layer.stride, self.padding, groups=groups
        )
        return functional.relu(x) if self.layer.activation == "relu" else functional.relu6(x)


class _Int8Module(nn.Module):
    """An int8 network; what is rounded to bytes and back, XNNPACK computes in bytes."""

    outside: Tensor
    shift: Tensor
    pool: _Rounding
    classifier: nn.Linear

    def __init__(self, network: Int8Network, size: tuple[int, int]) -> None:
        super().__init__()
        zero = network.outside[0]
        outside = torch.tensor(network.outside, dtype=torch.float32).reshape(1, -1, 1, 1)
        self.register_buffer("outside", outside)
        self.register_buffer("shift", outside - zero)
        self.border: _Border | None = None
        self.layers = nn.ModuleList()
        for layer, scales in zip(network.layers, state_scales(network, np.float32(1)), strict=True):
            if isinstance(layer, Int8Pool):
                self.pool = _Rounding(scales.given)
            elif layer.kind == "dense":
                weight = layer.weight * scales.weight(layer)[:, np.newaxis]
                self.classifier = _linear(weight, layer.bias * scales.bias(layer))
            else:
                convolution = _Int8Convolution(layer, scales, size, zero)
                if layer.kind == "stem" and len(set(network.outside)) > 1:
                    self.border = _border(layer, size)
                    convolution.border, convolution.padding = None, 0
                self.layers.append(convolution)
                size = (layer.output_side(size[0]), layer.output_side(size[1]))
                zero = 0
        self.image = _Rounding(np.float32(1), network.outside[0])

    def forward(self, x: Tensor) -> Tensor:
        x = self._bytes(255.0 * x)
        for layer in self.layers:
            x = layer(x)
        x = self.pool(x.mean((2, 3), keepdim=True))  # (N, C, 1, 1)
        return self.classifier(x.reshape(-1, x.shape[1]))  # type: ignore[no-any-return]

    def _bytes(self, x: Tensor) -> Tensor:
        """Bytes of a picture as values; a border is added where a convolution can't do it."""
        x = x - self.outside
        if self.border is not None:  # convolutions pad all channels alike
            x = functional.pad(x, self.border) + self.shift
        return self.image(x)  # type: ignore[no-any-return]


class _Int8Convolution(nn.Module):
    """Bytes that stand for ``zero`` less, as values, to bytes as values."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    zeros: Tensor

    def __init__(
        self, layer: Int8Layer, scales: StatedScales, size: tuple[int, int], zero: int
    ) -> None:
        super().__init__()
        sums = layer.weight.reshape(layer.out_channels, -1).sum(axis=1, dtype=np.int64)
        bias = (layer.bias + zero * sums) * scales.bias(layer).astype(np.float64)
        self.register_buffer("weight", _tensor(layer.weight))
        self.register_buffer("bias", _tensor(bias.astype(np.float32)))
        self.register_buffer("scale", _tensor(scales.weight(layer)))
        self.register_buffer("zeros", torch.zeros(layer.out_channels, dtype=torch.int64))
        self.layer, self.border, self.padding = layer, *_padding(layer, size)
        self.before = _Rounding(scales.taken, zero)
        self.after = _Rounding(scales.given)
        self.largest = float(layer.maximum * scales.given)

    def forward(self, x: Tensor) -> Tensor:
        if self.border is not None:
            x = self.before(functional.pad(x, self.border))
        operators = torch.ops.quantized_decomposed
        weight = operators.dequantize_per_channel(
            self.weight, self.scale, self.zeros, 0, -MAX_WEIGHT, MAX_WEIGHT, torch.int8
        )
        groups = self.layer.in_channels if self.layer.kind == "depthwise" else 1
        x = functional.conv2d(x, weight, self.bias, self.layer.stride, self.padding, groups=groups)
        if self.layer.maximum < 255:  # else the clamp is that of a byte
            x = functional.hardtanh(x, 0.0, self.largest)
        return self.after(x)  # type: ignore[no-any-return]


class _Rounding(nn.Module):
    """Values rounded to bytes and taken as values again; the byte ``zero`` stands for 0."""

    def __init__(self, scale: np.float32, zero: int = 0) -> None:
        super().__init__()
        self.arguments = (float(scale), zero + _LOW, _LOW, _HIGH, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        operators = torch.ops.quantized_decomposed
        x = operators.quantize_per_tensor(x, *self.arguments)
        return operators.dequantize_per_tensor(x, *self.arguments)  # type: ignore[no-any-return]


_Border = tuple[int, int, int, int]


def _border(layer: Layer, size: tuple[int, int]) -> _Border:
    """What a convolution sees outside its input, as ``torch.nn.functional.pad`` takes it."""
    (top, bottom), (left, right) = (layer.border(side) for side in size)
    return left, right, top, bottom


def _padding(layer: Layer, size: tuple[int, int]) -> tuple[_Border | None, int]:
    """What is padded before a convolution, if anything, and by the convolution."""
    border = _border(layer, size)
    # What symmetric padding adds behind the image and no window sees does no harm.
    if layer.padding == "symmetric" or len(set(border)) == 1:
        return None, layer.kernel // 2
    return border, 0


def _linear(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0])
    module.load_state_dict({"weight": _tensor(weight), "bias": _tensor(bias)})
    return module


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.copy())  # those of networks are read-only
