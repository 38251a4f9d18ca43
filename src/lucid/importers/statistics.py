"""Batch norm for convolutions that had it folded away, with the function unchanged.

A folded layer gives W x + b. With the mean m and variance v of W x over some images, batch norm
with these statistics, scale sqrt(v + epsilon) and shift b + m gives the same; and since a training
batch has about the same statistics, fine-tuning starts from about the same function too. With mean
0 and variance 1, which keep the function just as well, the first batch would change it beyond use.
"""

from __future__ import annotations

from collections.abc import Sequence

from lucid import nn
from lucid.architecture import Convolution, MobileNetArguments, convolutions
from lucid.importers.parts import Array, BatchNorm, ConvolutionPart

import torch  # isort: skip
from torch.nn import functional  # isort: skip


def batch_norms(
    arguments: MobileNetArguments, parts: Sequence[ConvolutionPart], images: Array
) -> list[BatchNorm]:
    """The batch norm of every convolution: as the source has it, or measured where it is folded.

    Args:
        arguments: of the network that the parts form.
        parts: its convolutions.
        images: normalised, float32 (N, C, H, W); all go through the network at once.
    """
    found = []
    x = torch.from_numpy(images)
    activation = nn.activation(arguments.activation)
    with torch.inference_mode():
        for part, convolution in zip(parts, convolutions(arguments), strict=True):
            x = _convolve(convolution, arguments, part.weight, x)
            norm = part.norm
            if not isinstance(norm, BatchNorm):
                norm = _measure(x, norm, arguments.batch_norm_epsilon)
            found.append(norm)
            x = activation(_apply(norm, x))
    return found


def _convolve(
    convolution: Convolution, arguments: MobileNetArguments, weight: Array, x: torch.Tensor
) -> torch.Tensor:
    layer = nn.conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel,
        convolution.stride,
        groups=convolution.groups,
        padding=arguments.padding,
    )
    layer.load_state_dict({"weight": torch.from_numpy(weight)}, assign=True)
    y: torch.Tensor = layer(x)
    return y


def _measure(y: torch.Tensor, bias: Array, epsilon: float) -> BatchNorm:
    """Batch norm with the statistics of ``y``, float32 (N, C, H, W), that only adds ``bias``."""
    variance, mean = torch.var_mean(y.double(), dim=(0, 2, 3), correction=0)
    return BatchNorm(
        scale=(variance + epsilon).sqrt().float().numpy(),
        shift=(torch.from_numpy(bias).double() + mean).float().numpy(),
        mean=mean.float().numpy(),
        variance=variance.float().numpy(),
        epsilon=epsilon,
    )


def _apply(norm: BatchNorm, y: torch.Tensor) -> torch.Tensor:
    mean, variance, scale, shift = (
        torch.from_numpy(values) for values in (norm.mean, norm.variance, norm.scale, norm.shift)
    )
    return functional.batch_norm(y, mean, variance, scale, shift, eps=norm.epsilon)
