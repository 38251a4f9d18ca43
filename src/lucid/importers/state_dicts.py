"""Reading state dicts of PyTorch: lucid's own, timm's, transformers'.

A state dict holds tensors without the network around them, so each kind is known by the names of
its tensors, and what they don't tell is what that library's code does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lucid.architecture import MobileNetArguments, convolutions
from lucid.errors import CheckpointError, suggest
from lucid.importers.parts import (
    TENSORFLOW_EPSILON,
    Array,
    BatchNorm,
    ConvolutionPart,
    DensePart,
    Found,
    PartPadding,
)

_NORM = ("weight", "bias", "running_mean", "running_var")
_UNUSED = "num_batches_tracked"


@dataclass(frozen=True)
class _Layout:
    """How a library names its tensors and what its code does with them.

    Args:
        format: its name.
        paths: of each convolution and its batch norm.
        classifier: path of the classifier.
        has_head: whether the last of the paths is the pointwise layer before the pool.
    """

    format: str
    paths: tuple[tuple[str, str], ...]
    classifier: str
    padding: PartPadding
    activation: str
    epsilon: float
    last_stride: int
    has_head: bool = False
    resolution: int | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def read_state_dict(state: Mapping[str, Array]) -> Found:
    """Read the state dict of a lucid model or of timm.

    Raises:
        CheckpointError: it is of another network, or a tensor is missing or too many.
    """
    if "conv1.conv.weight" in state:
        return _read(state, _seed())
    if "conv_stem.weight" in state:
        return read_timm(state, {})
    if any(name.endswith("conv_stem.convolution.weight") for name in state):
        raise CheckpointError(
            "weights of transformers, which say nothing of padding and activation; "
            "give the folder that holds config.json too"
        )
    raise CheckpointError(_unknown(state))


def read_timm(state: Mapping[str, Array], config: Mapping[str, Any]) -> Found:
    """Read timm's weights with the ``config.json`` that stands beside them."""
    return _read(state, _timm(config, has_head="conv_head.weight" in state))


def read_transformers(
    state: Mapping[str, Array], config: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> Found:
    """Read the weights of transformers' MobileNetV1 with its configurations.

    Args:
        state: of MobileNetV1ForImageClassification or MobileNetV1Model.
        config: config.json.
        preprocessor: preprocessor_config.json, empty if there is none.
    Raises:
        CheckpointError: it is of another network, or a tensor is missing or too many.
    """
    base = "mobilenet_v1." if any(name.startswith("mobilenet_v1.") for name in state) else ""
    stems = [f"{base}conv_stem", *(f"{base}layer.{i}" for i in range(26))]
    names = config.get("id2label") or {}
    resolution, preprocessing = _transformers_preprocessing(preprocessor)
    layout = _Layout(
        format="transformers",
        paths=tuple((f"{stem}.convolution", f"{stem}.normalization") for stem in stems),
        classifier="classifier",
        padding="same" if config.get("tf_padding", True) else "symmetric",
        activation=str(config.get("hidden_act", "relu6")),
        epsilon=_number(config, "layer_norm_eps", TENSORFLOW_EPSILON),
        last_stride=1,
        resolution=resolution or int(_number(config, "image_size", 224)),
        preprocessing=preprocessing,
        class_names=tuple(str(names[key]) for key in sorted(names, key=int)),
    )
    return _read(state, layout)


def _seed() -> _Layout:
    """lucid's own model with the arguments that it has by default."""
    default = MobileNetArguments(1.0)
    return _Layout(
        format="pytorch",
        paths=tuple(layer.tensor_paths for layer in convolutions(default)),
        classifier="fc",
        padding=default.padding,
        activation=default.activation,
        epsilon=default.batch_norm_epsilon,
        last_stride=default.last_stride,
    )


def _timm(config: Mapping[str, Any], *, has_head: bool) -> _Layout:
    """timm, ``models/efficientnet.py``, ``_gen_mobilenet_v1`` and the configurations below it."""
    paths = [("conv_stem", "bn1")]
    for stage, blocks in enumerate((1, 2, 2, 6, 2)):
        for block in range(blocks):
            path = f"blocks.{stage}.{block}"
            paths += [(f"{path}.conv_dw", f"{path}.bn1"), (f"{path}.conv_pw", f"{path}.bn2")]
    if has_head:
        paths.append(("conv_head", "bn2"))
    stated = config.get("pretrained_cfg") or {}
    size = stated.get("input_size") or (3, 224, 224)
    return _Layout(
        format="timm",
        paths=tuple(paths),
        classifier="classifier",
        padding="symmetric",
        activation="relu6",
        epsilon=1e-5,
        last_stride=1,
        has_head=has_head,
        resolution=size[-1],
        preprocessing={
            "crop_fraction": stated.get("crop_pct", 0.875),
            "interpolation": stated.get("interpolation", "bicubic"),
            "mean": stated.get("mean", (0.5, 0.5, 0.5)),
            "std": stated.get("std", (0.5, 0.5, 0.5)),
        },
        class_names=tuple(map(str, stated.get("label_names") or ())),
    )


def _transformers_preprocessing(
    preprocessor: Mapping[str, Any],
) -> tuple[int | None, dict[str, Any]]:
    """Resolution and preprocessing of transformers' MobileNetV1ImageProcessor."""
    fields = {}
    for name, key in (("mean", "image_mean"), ("std", "image_std")):
        if key in preprocessor:
            fields[name] = preprocessor[key]
    filters = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
    if preprocessor.get("resample") in filters:
        fields["interpolation"] = filters[preprocessor["resample"]]
    crop, size = preprocessor.get("crop_size"), preprocessor.get("size")
    side = crop.get("height") if isinstance(crop, Mapping) else crop
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if isinstance(side, int) and isinstance(shorter, int) and 0 < side <= shorter:
        fields["crop_fraction"] = side / shorter
    return (side if isinstance(side, int) else None), fields


def _read(state: Mapping[str, Array], layout: _Layout) -> Found:
    remaining = {name for name in state if not name.endswith(f".{_UNUSED}")}

    def take(name: str, rank: int) -> Array:
        if name not in state:
            raise CheckpointError(f"tensor {name} is missing, as {layout.format} names it")
        remaining.discard(name)
        if state[name].ndim != rank or not state[name].size:
            raise CheckpointError(f"tensor {name}: expected {rank} dimensions, {state[name].shape}")
        return state[name]

    parts = []
    arguments = MobileNetArguments(
        1.0, last_stride=layout.last_stride, head_channels=int(layout.has_head)
    )
    for (path, norm), layer in zip(layout.paths, convolutions(arguments), strict=True):
        weight = take(f"{path}.weight", 4)
        scale, shift, mean, variance = (take(f"{norm}.{name}", 1) for name in _NORM)
        if any(values.shape != weight.shape[:1] for values in (scale, shift, mean, variance)):
            raise CheckpointError(f"{norm}: expected {len(weight)} channels, as in {path}")
        parts.append(
            ConvolutionPart(
                name=path,
                weight=weight,
                groups=len(weight) if layer.kind == "depthwise" else 1,
                stride=layer.stride,
                padding=layout.padding,
                activation=layout.activation,
                norm=BatchNorm(scale, shift, mean, variance, layout.epsilon),
            )
        )
    classifier = None
    if f"{layout.classifier}.weight" in remaining:
        weight = take(f"{layout.classifier}.weight", 2)
        classifier = DensePart(layout.classifier, weight, take(f"{layout.classifier}.bias", 1))
    for name in sorted(remaining):
        raise CheckpointError(
            f"layer {name.rpartition('.')[0] or name}: {layout.format}'s network has this layer, "
            "a MobileNet-V1 of lucid has none such, so it can't be imported"
        )
    return Found(
        format=layout.format,
        convolutions=tuple(parts),
        classifier=classifier,
        resolution=layout.resolution,
        preprocessing=layout.preprocessing,
        class_names=layout.class_names,
    )


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"config.json: {name} must be a number, found {value!r:.80}")
    return float(value)


def _unknown(state: Mapping[str, Array]) -> str:
    known = ("conv1.conv.weight", "conv_stem.weight", "mobilenet_v1.conv_stem.convolution.weight")
    first = next(iter(state), "none")
    return (
        f"no state dict of lucid, timm or transformers: its first tensor is {first!r:.80}"
        f"{suggest(first, known)}"
    )
