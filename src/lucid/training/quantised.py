"""An int8 network as a torch module that can be trained in its own arithmetic.

Evaluated, it gives the bits of ``lucid.reference``: whole numbers travel in float tensors, and
every step rounds as ``lucid.network.integer`` says. Trained, gradients pass each rounding as if it
were not there, and stop where a value is clamped (the straight-through estimator of Bengio et al.
2013, arXiv:1308.3432). Scales learn too, with the gradients of Esser et al. 2019, arXiv:1902.08153
(LSQ), which follow by themselves: a scale stands in the multipliers on both sides of a rounding.

Parameters are in units that make one learning rate fit all: weights in steps of their scale, biases
in steps of the output, scales in changes that move the largest value by about a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lucid.network import Int8Layer, Int8Network, Int8Pool, Layer
from lucid.network.integer import MAX_ACTIVATION, MAX_WEIGHT

# Whole numbers below this are exact in float32, and so are their sums in any order.
_EXACT = 2**24

# Where the parameter of a scale moves by 1, the scale moves by this share.
_SHARE = 1 / 128

# The classifier's biases are in logits, whose natural step is much smaller than 1.
_LOGIT_STEP = 1 / 16


class QuantisedNetwork(nn.Module):
    """The layers of an int8 network, trainable.

    float32 bytes (N, C, H, W), whole numbers 0 to 255 -> float32 logits (N, classes).

    Args:
        network: where training starts; before it, the module computes exactly what this does.
    """

    def __init__(self, network: Int8Network) -> None:
        super().__init__()
        self._start = network
        self.layers = nn.ModuleList()
        zero = 255 * np.asarray(network.preprocessing.mean, np.float64)
        outside = np.asarray(network.outside, np.float32)
        for layer in network.layers:
            if isinstance(layer, Int8Pool):
                self.layers.append(_Pool(layer))
            else:
                self.layers.append(_Layer(layer, zero, outside))
            zero, outside = np.zeros(layer.out_channels), np.zeros(layer.out_channels, np.float32)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of bytes."""
        scale = torch.ones((), dtype=torch.float64, device=x.device)
        for layer in self.layers:
            x, scale = layer(x, scale)
        return x

    @torch.no_grad()
    def to_network(self) -> Int8Network:
        """What the module computes in evaluation, bit for bit.

        Raises:
            NetworkError: training led to numbers that could overflow.
        """
        layers: list[Int8Layer | Int8Pool] = []
        scale = 1.0
        for layer in self.layers:
            assert isinstance(layer, _Layer | _Pool)
            layers.append(layer.to_layer(scale))
            scale = layers[-1].output_scale
        return Int8Network(layers=tuple(layers), **self._start.description_fields())


class _Layer(nn.Module):
    """A convolution or the classifier: bytes, their scale -> bytes or logits, their scale."""

    # Buffers: scales before training, the unit of the bias, and what stands for 0 in the input and
    # lies outside it.
    _weight_scale: Tensor
    _output_scale: Tensor
    _bias_step: Tensor
    _zero: Tensor
    _outside: Tensor

    def __init__(
        self, layer: Int8Layer, zero: NDArray[np.float64], outside: NDArray[np.float32]
    ) -> None:
        super().__init__()
        self._structure = Layer(**layer.to_dict())
        self._is_dense = layer.kind == "dense"
        weight = layer.weight.astype(np.float32)
        taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2, dtype=np.float64)  # (O, I)
        step = _LOGIT_STEP if self._is_dense else layer.output_scale
        unit = layer.input_scale * layer.weight_scale.astype(np.float64) / step  # (O,)
        bias = layer.bias + (taps * zero).sum(axis=1)
        self.weight = nn.Parameter(torch.from_numpy(weight))
        # float64, for a bias may be too large for float32 beside its step.
        self.bias = nn.Parameter(torch.from_numpy(bias * unit))
        self.weight_change = nn.Parameter(torch.zeros(layer.out_channels, dtype=torch.float64))
        if not self._is_dense:
            self.output_change = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("_weight_scale", torch.from_numpy(layer.weight_scale.copy()).double())
        self.register_buffer("_output_scale", torch.tensor(layer.output_scale, dtype=torch.float64))
        self.register_buffer("_bias_step", torch.tensor(step, dtype=torch.float64))
        self.register_buffer("_zero", torch.from_numpy(zero))
        self.register_buffer("_outside", torch.from_numpy(outside))

    def forward(self, x: Tensor, input_scale: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias, weight_scale, output_scale = self._rounded(input_scale)
        sums = self._sums(x, weight, bias)
        multiplier = (input_scale * weight_scale / output_scale).float()
        if self._is_dense:
            return sums * multiplier, output_scale
        return _requantise(sums, multiplier, self._maximum(output_scale)), output_scale

    def to_layer(self, input_scale: float) -> Int8Layer:
        """The layer as a record, for an input of this scale."""
        scale = torch.tensor(input_scale, dtype=torch.float64, device=self.weight.device)
        weight, bias, weight_scale, output_scale = self._rounded(scale)
        return Int8Layer(
            **self._structure.to_dict(),
            weight=weight.to(torch.int8).contiguous().cpu().numpy(),
            bias=bias.to(torch.int32).cpu().numpy(),
            weight_scale=weight_scale.float().cpu().numpy(),
            input_scale=input_scale,
            output_scale=output_scale.item(),
        )

    def _rounded(self, input_scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights float32 and biases float64 in whole steps; scales, float32 values in float64."""
        weight_scale = _changed(self._weight_scale, self.weight_change)  # (O,)
        output_scale = self._output_scale
        if not self._is_dense:
            output_scale = _changed(output_scale, self.output_change)
        change = (self._weight_scale / weight_scale).float()
        change = change.view(-1, *[1] * (self.weight.ndim - 1))
        steps = _round(torch.clamp(self.weight * change, -MAX_WEIGHT, MAX_WEIGHT))
        taps = steps.flatten(2).sum(2) if steps.ndim == 4 else steps  # (O, I)
        bias = self.bias * self._bias_step / (input_scale * weight_scale)
        return steps, _round(bias - taps.double() @ self._zero_of_taps), weight_scale, output_scale

    @property
    def _zero_of_taps(self) -> Tensor:
        """What stands for 0 in the inputs that a filter sees, (I,)."""
        # Only the first layer has other values than 0, and it is no depthwise layer.
        return self._zero[: self.weight.shape[1]]

    def _sums(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The accumulators, converted to float32 as from int32."""
        products = MAX_ACTIVATION * weight.detach().abs().flatten(1).sum(1).double()  # (O,)
        dtype = torch.float32 if products.max() < _EXACT else torch.float64
        x, weight = x.to(dtype), weight.to(dtype)
        if (products + bias.detach().abs()).max() < _EXACT:
            return self._products(x, weight, bias.to(dtype))
        sums = self._products(x, weight, None)
        return (sums.double() + _per_channel(bias, sums)).float()

    def _products(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._is_dense:
            return functional.linear(x, weight, bias)
        layer = self._structure
        padding = 0
        if layer.kind == "stem":
            outside = _per_channel(self._outside.to(x.dtype), x)
            x = functional.pad(x - outside, self._border(x)) + outside
        elif layer.stride == 1 or layer.padding == "symmetric":
            padding = layer.kernel // 2
        else:
            x = functional.pad(x, self._border(x))
        groups = layer.in_channels if layer.kind == "depthwise" else 1
        return functional.conv2d(x, weight, bias, layer.stride, padding, 1, groups)

    def _border(self, x: Tensor) -> tuple[int, int, int, int]:
        """Pixels outside the image: left, right, above, below."""
        border = self._structure.border
        return (*border(x.shape[3]), *border(x.shape[2]))

    def _maximum(self, output_scale: Tensor) -> int:
        """As ``Int8Layer.maximum``."""
        if self._structure.activation != "relu6":
            return MAX_ACTIVATION
        return int(min(round(6 / output_scale.item()), MAX_ACTIVATION))


class _Pool(nn.Module):
    """The mean of each channel: bytes (N, C, H, W), their scale -> bytes (N, C), their scale."""

    _output_scale: Tensor

    def __init__(self, pool: Int8Pool) -> None:
        super().__init__()
        self._structure = Layer(**pool.to_dict())
        self.output_change = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("_output_scale", torch.tensor(pool.output_scale, dtype=torch.float64))

    def forward(self, x: Tensor, input_scale: Tensor) -> tuple[Tensor, Tensor]:
        output_scale = self._scale()
        multiplier = (input_scale / (output_scale * (x.shape[2] * x.shape[3]))).float()
        sums = x.sum(dim=(2, 3), dtype=torch.float64).float()  # (N, C), as if converted from int32
        return _requantise(sums, multiplier, MAX_ACTIVATION), output_scale

    def to_layer(self, input_scale: float) -> Int8Pool:
        """The pool as a record, for an input of this scale."""
        return Int8Pool(
            **self._structure.to_dict(), input_scale=input_scale, output_scale=self._scale().item()
        )

    def _scale(self) -> Tensor:
        return _changed(self._output_scale, self.output_change)


class _Round(torch.autograd.Function):
    """Round half to even; the gradient passes."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        return values.round()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Requantise(torch.autograd.Function):
    """``lucid.reference.requantise`` in one step, so that training keeps one tensor a layer."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, multiplier: Tensor, maximum: int) -> Tensor:
        scaled = sums * multiplier
        ctx.save_for_backward(scaled, multiplier)
        ctx.maximum = maximum
        return scaled.round().clamp_(0, maximum)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        scaled, multiplier = ctx.saved_tensors
        # 0 where the value is clamped.
        gradient = torch.ops.aten.hardtanh_backward(gradient, scaled, 0, ctx.maximum)
        of_multiplier = (gradient * scaled).sum_to_size(multiplier.shape) / multiplier
        return gradient.mul_(multiplier), of_multiplier, None


def _round(values: Tensor) -> Tensor:
    rounded: Tensor = _Round.apply(values)  # type: ignore[no-untyped-call]
    return rounded + 0.0  # -0.0 is no whole number


def _requantise(sums: Tensor, multiplier: Tensor, maximum: int) -> Tensor:
    """Bytes of accumulators (N, C, ...); ``multiplier`` is (C,) or ()."""
    if multiplier.ndim:
        multiplier = _per_channel(multiplier, sums)
    output: Tensor = _Requantise.apply(sums, multiplier, maximum)  # type: ignore[no-untyped-call]
    return output


def _changed(scale: Tensor, change: Tensor) -> Tensor:
    """A scale after training: a float32 value, in float64, where multipliers are computed."""
    return (scale * (change * _SHARE).exp()).float().double()


def _per_channel(values: Tensor, batch: Tensor) -> Tensor:
    """Values (C,) shaped to go with a batch (N, C) or (N, C, H, W)."""
    return values.view(-1, *[1] * (batch.ndim - 2))
