"""What a MobileNet-V1 is made of, without PyTorch: its arguments, its channels, its tensors.

Howard et al. 2017, arXiv:1704.04861, Table 1. The model, the checkpoint reader and the cost model
all read this one description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from lucid.checks import check_choice, check_integer, check_names, check_number
from lucid.errors import ConfigError

Activation = Literal["relu", "relu6"]
Padding = Literal["symmetric", "same"]
ChannelRounding = Literal["truncate", "minimum8", "multiple8"]
Kind = Literal["stem", "depthwise", "pointwise"]

ACTIVATIONS: tuple[Activation, ...] = ("relu", "relu6")
PADDINGS: tuple[Padding, ...] = ("symmetric", "same")
CHANNEL_ROUNDINGS: tuple[ChannelRounding, ...] = ("truncate", "minimum8", "multiple8")

# The names under which ``lucid.models`` registers what is described here.
MODEL_NAMES = ("mobilenet",)

# Above these no tensor of the network fits a machine; a checkpoint that asks for more is refused
# before anything is allocated.
MAX_WIDTH_MULTIPLIER = 16.0
MAX_CLASSES = 1_000_000
MAX_IN_CHANNELS = 1024
MAX_HEAD_CHANNELS = 65_536

STEM_CHANNELS = 32

# The pointwise convolution before the pool, where a model has one.
HEAD = "head"


@dataclass(frozen=True)
class Stage:
    """One attribute of the model between ``conv1`` and the pool: its depthwise separable blocks.

    ``out_channels`` hold at width multiplier 1.0; the first block has ``stride``, the others 1.
    A stage of several blocks is a Sequential, a stage of one is the block itself.
    """

    name: str
    out_channels: int
    stride: int
    blocks: int

    @property
    def is_sequence(self) -> bool:
        """Whether the attribute is a Sequential of blocks."""
        return self.blocks > 1


# arXiv:1704.04861, Table 1. The table gives the last depthwise layer stride 2 with an unchanged
# 7x7 output, which can't both be; MobileNetArguments.last_stride chooses.
STAGES: tuple[Stage, ...] = (
    Stage("conv2", 64, 1, 1),
    Stage("conv3", 128, 2, 2),
    Stage("conv4", 256, 2, 2),
    Stage("conv5", 512, 2, 6),
    Stage("conv6", 1024, 2, 1),
    Stage("conv7", 1024, 2, 1),
)


@dataclass(frozen=True)
class Convolution:
    """One convolution with the batch norm and activation behind it; its kernel is square.

    ``name`` is the attribute path of the module that holds the three, such as
    ``conv3.0.depthwise``.
    """

    name: str
    kind: Kind
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(out channels, in channels of a group, kernel, kernel)."""
        return (self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel)

    @property
    def tensor_paths(self) -> tuple[str, str]:
        """Paths of convolution and batch norm; a block numbers its parts, conv1 and head don't."""
        if self.name in ("conv1", HEAD):
            return f"{self.name}.conv", f"{self.name}.bn"
        return f"{self.name}.0", f"{self.name}.1"

    def output_side(self, side: int) -> int:
        """Pixels out for pixels in along one axis; symmetric and SAME padding agree on it."""
        return -(-side // self.stride)


@dataclass(frozen=True)
class MobileNetArguments:
    """The arguments of ``lucid.models.MobileNet``, which explains them; checkpoints store them.

    Raises:
        ConfigError: an argument has the wrong type or is out of range.
    """

    width_multiplier: float
    num_classes: int = 1000
    last_stride: int = 2
    activation: Activation = "relu"
    padding: Padding = "symmetric"
    channel_rounding: ChannelRounding = "truncate"
    in_channels: int = 3
    batch_norm_epsilon: float = 1e-5
    dropout: float = 0.0
    head_channels: int = 0

    def __post_init__(self) -> None:
        check_number(
            "width_multiplier",
            self.width_multiplier,
            f"a number above 0 and at most {MAX_WIDTH_MULTIPLIER:g}",
            lambda width: 0 < width <= MAX_WIDTH_MULTIPLIER,
        )
        check_integer("num_classes", self.num_classes, 1, MAX_CLASSES)
        check_integer("last_stride", self.last_stride, 1, 2)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("padding", self.padding, PADDINGS)
        check_choice("channel_rounding", self.channel_rounding, CHANNEL_ROUNDINGS)
        check_integer("in_channels", self.in_channels, 1, MAX_IN_CHANNELS)
        check_number(
            "batch_norm_epsilon",
            self.batch_norm_epsilon,
            "a number above 0 and at most 1",
            lambda epsilon: 0 < epsilon <= 1,
        )
        check_number(
            "dropout", self.dropout, "a number from 0 to below 1", lambda share: 0 <= share < 1
        )
        check_integer("head_channels", self.head_channels, 0, MAX_HEAD_CHANNELS)
        if self.channels(STEM_CHANNELS) < 1:
            raise ConfigError(
                "width_multiplier must give every layer at least one channel, that is "
                f"1/{STEM_CHANNELS} or more; got {self.width_multiplier!r}"
            )

    def channels(self, base: int) -> int:
        """Channels of a layer that has ``base`` channels at width multiplier 1.0."""
        scaled = self.width_multiplier * base
        if self.channel_rounding == "minimum8":
            return max(int(scaled), 8)
        if self.channel_rounding == "multiple8":
            rounded = max(8, int(scaled + 4) // 8 * 8)
            return rounded if rounded >= 0.9 * scaled else rounded + 8
        return int(scaled)

    @property
    def feature_channels(self) -> int:
        """Channels of the pooled features that the classifier sees."""
        return self.head_channels or self.channels(STAGES[-1].out_channels)

    def to_dict(self) -> dict[str, Any]:
        """The arguments by name, as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MobileNetArguments:
        """Rebuild the arguments from ``to_dict``; raises ConfigError that names what is wrong."""
        known = [field.name for field in fields(cls)]
        check_names("MobileNet", values, known, required=["width_multiplier"])
        return cls(**values)


def convolutions(arguments: MobileNetArguments) -> Iterator[Convolution]:
    """The convolutions in the order in which an image passes them: 27, or 28 with a head."""
    channels = arguments.channels(STEM_CHANNELS)
    yield Convolution("conv1", "stem", arguments.in_channels, channels, 3, 2, 1)
    for stage in STAGES:
        out_channels = arguments.channels(stage.out_channels)
        for block in range(stage.blocks):
            path = f"{stage.name}.{block}" if stage.is_sequence else stage.name
            stride = stage_stride(stage, arguments) if block == 0 else 1
            yield Convolution(
                f"{path}.depthwise", "depthwise", channels, channels, 3, stride, channels
            )
            yield Convolution(f"{path}.pointwise", "pointwise", channels, out_channels, 1, 1, 1)
            channels = out_channels
    if arguments.head_channels:
        yield Convolution(HEAD, "pointwise", channels, arguments.head_channels, 1, 1, 1)


def stage_stride(stage: Stage, arguments: MobileNetArguments) -> int:
    """Stride of the first block of a stage."""
    return arguments.last_stride if stage is STAGES[-1] else stage.stride


def tensor_shapes(arguments: MobileNetArguments) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor in the model's state dict, in its order.

    All are float32 but ``num_batches_tracked``, which is a scalar int64.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for convolution in convolutions(arguments):
        weight, norm = convolution.tensor_paths
        shapes[f"{weight}.weight"] = convolution.weight_shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (convolution.out_channels,)
        shapes[f"{norm}.num_batches_tracked"] = ()
    shapes["fc.weight"] = (arguments.num_classes, arguments.feature_channels)
    shapes["fc.bias"] = (arguments.num_classes,)
    return shapes
