"""From a chain of layers to the MobileNet that it is: arguments and tensors, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from lucid.architecture import (
    ACTIVATIONS,
    CHANNEL_ROUNDINGS,
    HEAD,
    MAX_WIDTH_MULTIPLIER,
    PADDINGS,
    STAGES,
    STEM_CHANNELS,
    Activation,
    Convolution,
    MobileNetArguments,
    Padding,
    convolutions,
)
from lucid.container import naming
from lucid.errors import CheckpointError, ConfigError
from lucid.importers.parts import (
    TENSORFLOW_EPSILON,
    BatchNorm,
    ConvolutionPart,
    Found,
    PartPadding,
    refuse,
)

_DECIMALS_OF_PUBLISHED = 2  # of width multipliers
_DECIMALS = 4

_PLAIN = tuple(convolutions(MobileNetArguments(1.0)))
_WITH_HEAD = tuple(convolutions(MobileNetArguments(1.0, head_channels=1)))
_LAST_DEPTHWISE = f"{STAGES[-1].name}.depthwise"


def find_arguments(found: Found, sides: Iterable[int]) -> MobileNetArguments:
    """The arguments of the MobileNet that has the layers found.

    Args:
        found: its first layer is a stem; see ``dense_stem``.
        sides: the resolutions at which padding must agree, in pixels.
    Raises:
        CheckpointError: no MobileNet has such layers; the first layer that differs is named.
    """
    parts = found.convolutions
    by_name = _by_name(parts)
    channels = {name.split(".")[0]: len(part.weight) for name, part in by_name.items()}
    head_channels = channels.pop(HEAD, 0)
    width = _find_width(tuple(channels.values()))
    classifier = found.classifier
    with naming("arguments"):
        arguments = replace(
            width,
            num_classes=1 if classifier is None else len(classifier.weight),
            last_stride=by_name[_LAST_DEPTHWISE].stride,
            activation=_find_activation(parts),
            in_channels=parts[0].weight.shape[1],
            batch_norm_epsilon=_find_epsilon(parts),
            head_channels=head_channels,
        )
    for part, expected in zip(parts, convolutions(arguments), strict=True):
        if part.weight.shape != expected.weight_shape or part.groups != expected.groups:
            raise refuse(
                part.name,
                f"a {expected.kind} convolution with weights {expected.weight_shape}",
                f"weights {part.weight.shape} in {part.groups} groups",
            )
    if classifier is not None and classifier.weight.shape[1:] != (arguments.feature_channels,):
        raise refuse(
            classifier.name,
            f"a classifier of {arguments.feature_channels} features",
            f"weights {classifier.weight.shape}",
        )
    return replace(arguments, padding=_find_padding(arguments, parts, sides))


def dense_stem(part: ConvolutionPart) -> ConvolutionPart:
    """A first layer that looks at each input channel alone, as an equal one that looks at all.

    TensorFlow Lite for Microcontrollers' person detection starts so, on one grey channel.
    """
    out_channels, _, *kernel = part.weight.shape
    if part.groups == 1 or part.weight.shape[1] != 1 or out_channels % part.groups:
        return part
    weight = np.zeros((out_channels, part.groups, *kernel), np.float32)
    every = np.arange(out_channels)
    weight[every, every * part.groups // out_channels] = part.weight[:, 0]
    return replace(part, weight=weight, groups=1)


def to_tensors(
    arguments: MobileNetArguments, norms: Iterable[BatchNorm], found: Found
) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint, in the order of ``lucid.architecture.tensor_shapes``."""
    tensors: dict[str, np.ndarray] = {}
    for convolution, part, norm in zip(
        convolutions(arguments), found.convolutions, norms, strict=True
    ):
        weight, batch_norm = convolution.tensor_paths
        tensors[f"{weight}.weight"] = part.weight
        tensors[f"{batch_norm}.weight"] = norm.scale
        tensors[f"{batch_norm}.bias"] = norm.shift
        tensors[f"{batch_norm}.running_mean"] = norm.mean
        tensors[f"{batch_norm}.running_var"] = norm.variance
        tensors[f"{batch_norm}.num_batches_tracked"] = np.array(0)
    if found.classifier is None:
        tensors["fc.weight"] = np.zeros((1, arguments.feature_channels), np.float32)
        tensors["fc.bias"] = np.zeros(1, np.float32)
    else:
        tensors["fc.weight"] = found.classifier.weight
        tensors["fc.bias"] = found.classifier.bias
    return tensors


def _by_name(parts: tuple[ConvolutionPart, ...]) -> dict[str, ConvolutionPart]:
    """The convolutions by lucid's names, their number, kernels and strides checked."""
    expected_layers = _WITH_HEAD if len(parts) > len(_PLAIN) else _PLAIN
    found = {}
    for part, expected in zip_longest(parts, expected_layers):
        if part is None:
            raise CheckpointError(
                f"{len(parts)} convolutions found, a MobileNet-V1 has {len(expected_layers)}; "
                f"the last one is {parts[-1].name if parts else 'missing too'}"
            )
        if expected is None:
            raise refuse(part.name, f"the end after {len(expected_layers)} convolutions", "another")
        strides = (1, 2) if expected.name == _LAST_DEPTHWISE else (expected.stride,)
        kernel = part.weight.shape[2:]
        if kernel != (expected.kernel,) * 2 or part.stride not in strides:
            raise refuse(
                part.name,
                f"a {expected.kind} convolution, kernel {(expected.kernel,) * 2}, "
                f"stride {' or '.join(map(str, strides))}",
                f"kernel {kernel}, stride {part.stride}",
            )
        found[expected.name] = part
    return found


def _find_width(channels: tuple[int, ...]) -> MobileNetArguments:
    """The roundest width multiplier, and its rule of rounding, that gives these channels."""
    bases = (STEM_CHANNELS, *(stage.out_channels for stage in STAGES))
    for width in _widths(channels[-1] / bases[-1]):
        for rounding in CHANNEL_ROUNDINGS:
            try:
                arguments = MobileNetArguments(width, channel_rounding=rounding)
            except ConfigError:  # less than one channel
                continue
            if tuple(map(arguments.channels, bases)) == channels:
                return arguments
    raise CheckpointError(
        f"the layers' channels are {channels}; no width multiplier gives them "
        f"({bases} at width 1.0)"
    )


def _widths(exact: float) -> Iterator[float]:
    """Width multipliers near one: short ones as 0.35, then itself as 0.0625, then longer ones."""
    low, high = exact * 0.9 - 0.01, min(exact * 1.1 + 0.01, MAX_WIDTH_MULTIPLIER)
    for decimals in range(_DECIMALS + 1):
        if decimals == _DECIMALS_OF_PUBLISHED + 1 and 0 < exact <= high:
            yield exact
        scale = 10**decimals
        for whole in range(max(1, math.ceil(low * scale)), int(high * scale) + 1):
            yield whole / scale


def _find_activation(parts: Iterable[ConvolutionPart]) -> Activation:
    first: Activation | None = None
    for part in parts:
        known = next((name for name in ACTIVATIONS if name == part.activation), None)
        if known is None:
            raise refuse(part.name, f"the activation {' or '.join(ACTIVATIONS)}", part.activation)
        first = first or known
        if known != first:
            raise refuse(part.name, f"the activation {first}, as before", known)
    assert first is not None
    return first


def _find_epsilon(parts: Iterable[ConvolutionPart]) -> float:
    """The epsilon of all batch norms; TensorFlow's where all are folded."""
    normed = [(part.name, part.norm.epsilon) for part in parts if isinstance(part.norm, BatchNorm)]
    for name, epsilon in normed:
        if epsilon != normed[0][1]:
            raise refuse(name, f"batch norm's epsilon {normed[0][1]:g}, as before", f"{epsilon:g}")
    return normed[0][1] if normed else TENSORFLOW_EPSILON


def _find_padding(
    arguments: MobileNetArguments, parts: tuple[ConvolutionPart, ...], sides: Iterable[int]
) -> Padding:
    """The one rule of padding that does what every layer does, at all these resolutions."""
    fitting = set(PADDINGS)
    for resolution in sides:
        side = resolution
        for part, convolution in zip(parts, convolutions(arguments), strict=True):
            allowed = _rules(part.padding, convolution, side)
            if not fitting & allowed:
                raise refuse(
                    part.name,
                    f"padding {' or '.join(sorted(fitting))}, as in the layers before"
                    if allowed
                    else "padding that keeps the size",
                    f"{part.padding} on {side} pixels (resolution {resolution})",
                )
            fitting &= allowed
            side = convolution.output_side(side)
    stated = [part.padding for part in parts if part.stride == 2]
    return next((rule for rule in PADDINGS if rule in fitting and rule in stated), min(fitting))


def _rules(padding: PartPadding, convolution: Convolution, side: int) -> set[Padding]:
    """The rules that pad a layer's input of ``side`` pixels as ``padding`` does."""
    if convolution.kernel == 1:
        return set(PADDINGS)
    if convolution.stride == 1:
        return set() if padding == "end" else set(PADDINGS)
    if side % 2:  # SAME pads an odd side by one pixel at each end
        return set() if padding == "end" else set(PADDINGS)
    return {"symmetric"} if padding == "symmetric" else {"same"}
