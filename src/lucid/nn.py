"""The ``torch.nn`` names that the models use, and the blocks they share."""

from __future__ import annotations

from lucid.architecture import Activation, Padding
from lucid.errors import require

require("torch", extra="train")

# After the check, so that a missing torch has a clear message.
import torch  # noqa: E402
from torch.nn import (  # noqa: E402
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Linear,
    Module,
    ReLU,
    ReLU6,
    Sequential,
    functional,
)

__all__ = [
    "AdaptiveAvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Conv2dSame",
    "ConvBNReLU2d",
    "Linear",
    "Module",
    "ReLU",
    "ReLU6",
    "Sequential",
    "activation",
    "conv2d",
]


class Conv2dSame(Conv2d):
    """A square convolution padded as TensorFlow's SAME: the odd pixel goes to the bottom and right.

    float32 (N, C, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    Source: TensorFlow, ``tf.nn.convolution``, notes on padding.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        top, bottom = _same_padding(input.shape[2], self.kernel_size[0], self.stride[0])
        left, right = _same_padding(input.shape[3], self.kernel_size[1], self.stride[1])
        return super().forward(functional.pad(input, (left, right, top, bottom)))


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    padding: Padding = "symmetric",
) -> Conv2d:
    """A square convolution without bias, since a batch norm follows.

    Stride 1 pads alike under both rules, so only stride 2 gets a ``Conv2dSame``.
    """
    if padding == "same" and stride > 1:
        return Conv2dSame(
            in_channels, out_channels, kernel, stride, padding=0, groups=groups, bias=False
        )
    return Conv2d(
        in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )


def activation(name: Activation) -> ReLU | ReLU6:
    """The activation module by its name; in place, since a batch norm made its input."""
    return ReLU6(inplace=True) if name == "relu6" else ReLU(inplace=True)


class ConvBNReLU2d(Module):
    """Convolution, batch norm and activation.

    float32 (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)) for odd
    kernels. The convolution has no bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        padding: Padding = "symmetric",
        relu: Activation = "relu",
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv = conv2d(
            in_channels, out_channels, kernel, stride, groups=groups, padding=padding
        )
        self.bn = BatchNorm2d(out_channels, eps=epsilon)
        self.relu = activation(relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.relu(self.bn(self.conv(x)))
        return y
