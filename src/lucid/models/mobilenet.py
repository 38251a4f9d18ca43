"""MobileNet-V1 (Howard et al. 2017, arXiv:1704.04861)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch.nn import functional

from lucid import nn
from lucid.architecture import (
    HEAD,
    STAGES,
    STEM_CHANNELS,
    Activation,
    ChannelRounding,
    MobileNetArguments,
    Padding,
    Stage,
    stage_stride,
)
from lucid.errors import ShapeError


@dataclass(frozen=True)
class StageFeatures:
    """What a stage gives: its attribute name, channels, and input pixels for one output pixel."""

    name: str
    channels: int
    reduction: int


class _Depthwise(nn.Module):
    """Depthwise separable convolution (arXiv:1704.04861, Figure 3, right).

    float32 (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, arguments: MobileNetArguments
    ) -> None:
        super().__init__()
        epsilon = arguments.batch_norm_epsilon
        self.depthwise = nn.Sequential(
            nn.conv2d(
                in_channels, in_channels, 3, stride, groups=in_channels, padding=arguments.padding
            ),
            nn.BatchNorm2d(in_channels, eps=epsilon),
            nn.activation(arguments.activation),
        )
        self.pointwise = nn.Sequential(
            nn.conv2d(in_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels, eps=epsilon),
            nn.activation(arguments.activation),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pointwise(self.depthwise(x))
        return y


class MobileNet(nn.Module):
    """MobileNet-V1 classifier (Howard et al. 2017, arXiv:1704.04861, Table 1).

    float32 images (N, in_channels, H, W), normalised -> float32 logits (N, num_classes). Any H and
    W of at least 1 work; 224 is the paper's. After ``model.to(dtype)`` images have that dtype.

    The keyword arguments are for weights published elsewhere; their defaults are this model's own.

    Args:
        width_multiplier: above 0, at most 16; gives each layer at least one channel.
        num_classes: 1 to 1,000,000.
        last_stride: stride of the last depthwise layer, 2 (4x4 before the pool at 224) or 1 (7x7).
        activation: ``"relu"`` or ``"relu6"``.
        padding: of convolutions with stride 2: ``"symmetric"`` (1 pixel at each side) or
            ``"same"`` (TensorFlow's: for even sizes at the bottom and right only).
        channel_rounding: channels at width a of a layer that has c at width 1.0: ``"truncate"``,
            int(a * c); ``"minimum8"``, max(int(a * c), 8), as TF-Slim; ``"multiple8"``, the nearest
            multiple of 8 that is not below 0.9 * a * c, as timm.
        in_channels: of the images, 1 to 1024.
        batch_norm_epsilon: above 0, at most 1.
        dropout: share of the pooled features dropped in training, 0 to below 1.
        head_channels: of one more pointwise layer before the pool, as timm's ``mobilenetv1_100h``
            has it: 1 to 65,536, whatever the width; 0 for none.
    Raises:
        ConfigError: an argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        width_multiplier: float,
        num_classes: int = 1000,
        *,
        last_stride: int = 2,
        activation: Activation = "relu",
        padding: Padding = "symmetric",
        channel_rounding: ChannelRounding = "truncate",
        in_channels: int = 3,
        batch_norm_epsilon: float = 1e-5,
        dropout: float = 0.0,
        head_channels: int = 0,
    ) -> None:
        super().__init__()
        self.arguments = arguments = MobileNetArguments(
            width_multiplier,
            num_classes,
            last_stride=last_stride,
            activation=activation,
            padding=padding,
            channel_rounding=channel_rounding,
            in_channels=in_channels,
            batch_norm_epsilon=batch_norm_epsilon,
            dropout=dropout,
            head_channels=head_channels,
        )
        channels = arguments.channels(STEM_CHANNELS)
        self.conv1 = nn.ConvBNReLU2d(
            in_channels,
            channels,
            3,
            2,
            padding=padding,
            relu=activation,
            epsilon=batch_norm_epsilon,
        )
        for stage in STAGES:
            setattr(self, stage.name, _stage(stage, channels, arguments))
            channels = arguments.channels(stage.out_channels)
        if head_channels:
            self.head = nn.ConvBNReLU2d(
                channels, head_channels, 1, relu=activation, epsilon=batch_norm_epsilon
            )
            channels = head_channels
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)

    @classmethod
    def from_arguments(cls, arguments: MobileNetArguments) -> Self:
        """Build the model that ``arguments`` describe."""
        return cls(**arguments.to_dict())

    @property
    def stages(self) -> tuple[StageFeatures, ...]:
        """Name, channels and reduction of each stage, in the order of ``features``."""
        reduction = 2
        found = [StageFeatures("conv1", self.arguments.channels(STEM_CHANNELS), reduction)]
        for stage in STAGES:
            reduction *= stage_stride(stage, self.arguments)
            channels = self.arguments.channels(stage.out_channels)
            found.append(StageFeatures(stage.name, channels, reduction))
        if self.arguments.head_channels:
            found.append(StageFeatures(HEAD, self.arguments.head_channels, reduction))
        return tuple(found)

    def features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The output of every stage by its name, for use as a backbone.

        float32 (N, in_channels, H, W) -> (N, channels, ceil(H / reduction), ceil(W / reduction))
        each, channels and reduction as in ``stages``.

        Raises:
            ShapeError: the input is not such a batch of images.
        """
        self._check_images(x)
        found = {}
        for stage in self.stages:
            x = getattr(self, stage.name)(x)
            found[stage.name] = x
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of images; raises ShapeError for anything else."""
        self._check_images(x)
        x = self.conv1(x)  # (N, 32a, H/2, W/2)
        for stage in STAGES:
            x = getattr(self, stage.name)(x)
        if self.arguments.head_channels:
            x = self.head(x)
        x = self.avgpool(x)  # (N, 1024a, 1, 1)
        x = torch.flatten(x, 1)  # (N, 1024a)
        if self.arguments.dropout:
            x = functional.dropout(x, self.arguments.dropout, self.training)
        logits: torch.Tensor = self.fc(x)  # (N, num_classes)
        return logits

    def replace_classifier(self, num_classes: int) -> Self:
        """Give the model a new classifier for ``num_classes`` classes and return the model.

        The new layer is freshly initialised, on the device and with the dtype of the old one; all
        other weights stay.

        Raises:
            ConfigError: num_classes is out of range.
        """
        self.arguments = replace(self.arguments, num_classes=num_classes)
        weight = self.fc.weight
        self.fc = nn.Linear(
            self.fc.in_features, num_classes, device=weight.device, dtype=weight.dtype
        )
        return self

    def extra_repr(self) -> str:
        """The two main arguments, and the others where they are not the default."""
        default = MobileNetArguments(1.0).to_dict()
        return ", ".join(
            f"{name}={value!r}"
            for name, value in self.arguments.to_dict().items()
            if name in ("width_multiplier", "num_classes") or value != default[name]
        )

    def _check_images(self, x: torch.Tensor) -> None:
        channels = self.arguments.in_channels
        shape = tuple(x.shape)
        if len(shape) != 4 or shape[1] != channels:
            raise ShapeError(
                f"MobileNet expects images (N, {channels}, H, W), got {shape}"
                + _shape_hint(shape, channels)
            )
        if shape[2] < 1 or shape[3] < 1:
            raise ShapeError(f"MobileNet expects images of at least 1x1 pixels, got {shape}")
        if not x.is_floating_point():
            raise ShapeError(
                f"MobileNet expects normalised floating-point images, got {x.dtype}; "
                "convert with (x / 255 - mean) / std"
            )
        dtype = next(self.parameters(), x).dtype
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise ShapeError(
                f"MobileNet with weights of {dtype} expects images of the same, got {x.dtype}; "
                f"convert with x.to({dtype})"
            )


def _stage(stage: Stage, in_channels: int, arguments: MobileNetArguments) -> nn.Module:
    out_channels = arguments.channels(stage.out_channels)
    blocks = [_Depthwise(in_channels, out_channels, stage_stride(stage, arguments), arguments)]
    blocks += [_Depthwise(out_channels, out_channels, 1, arguments) for _ in range(1, stage.blocks)]
    return nn.Sequential(*blocks) if stage.is_sequence else blocks[0]


def _shape_hint(shape: tuple[int, ...], channels: int) -> str:
    if len(shape) == 3:
        return "; add the batch dimension: x.unsqueeze(0)"
    if len(shape) == 4 and shape[3] == channels:
        return f"; channels are last: permute to (N, {channels}, H, W)"
    if len(shape) == 4:
        return f"; for such images build MobileNet(..., in_channels={shape[1]})"
    return ""
