"""What commands that take a MODEL share: it is a registered name, a checkpoint or a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from lucid.errors import ConfigError, suggest

if TYPE_CHECKING:
    from lucid.architecture import MobileNetArguments
    from lucid.description import Description
    from lucid.network import Layer

Function = TypeVar("Function", bound=Callable[..., None])

_WIDTH = 1.0
_RESOLUTION = 224

_OPTIONS = (
    click.argument("model", metavar="MODEL"),
    click.option(
        "--width",
        "width_multiplier",
        type=float,
        help=f"Width multiplier; {_WIDTH:g} if not given.",
    ),
    click.option(
        "--resolution",
        type=click.IntRange(1, 65_536),
        metavar="N",
        help=f"Input side in pixels; if not given {_RESOLUTION}, or that of the checkpoint.",
    ),
    click.option(
        "--classes", "num_classes", type=int, help="Number of classes; 1000 if not given."
    ),
    click.option(
        "--last-stride", type=int, help="Stride of the last depthwise layer; 2 if not given."
    ),
)


@dataclass(frozen=True)
class Model:
    """The model that a command was asked for.

    ``arguments`` is None for a network, ``header``, what a file says of itself, for a registered
    name; a network is its own header.
    """

    layers: tuple[Layer, ...]
    resolution: int
    arguments: MobileNetArguments | None
    header: Description | None
    file_bytes: int | None = None


def model_options(command: Function) -> Function:
    """Give a command the argument MODEL and the options that ``find_model`` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def find_model(model: str, resolution: int | None, **given: float | None) -> Model:
    """Find a model by its name, or read the header of a checkpoint or a network, without torch.

    Args:
        model: a registered name or a path; ``./NAME`` is a path whatever is registered.
        resolution: input side in pixels; None for that of the file.
        given: arguments of the model; only for a registered name, None where not given.
    Raises:
        ConfigError: there is no such model, or a file was given arguments.
        CheckpointError: the file is neither checkpoint nor network.
    """
    from lucid.architecture import MODEL_NAMES, MobileNetArguments
    from lucid.checkpoint import read_header
    from lucid.network import is_network, layers, read_network

    named = {name: value for name, value in given.items() if value is not None}
    if model in MODEL_NAMES:
        arguments = MobileNetArguments.from_dict({"width_multiplier": _WIDTH} | named)
        return Model(layers(arguments), resolution or _RESOLUTION, arguments, None)
    if not Path(model).exists():
        near = suggest(model, MODEL_NAMES) or f"; models: {', '.join(MODEL_NAMES)}"
        raise ConfigError(f"there is no model and no file {model!r}{near}")
    if named:
        raise ConfigError(
            f"{model}: a file has its own arguments; leave out --width, --classes and "
            "--last-stride, which are for the name of a model"
        )
    if is_network(model):
        network = read_network(model)
        side = resolution or network.preprocessing.resolution
        return Model(network.layers, side, None, network, Path(model).stat().st_size)
    header = read_header(model)
    side = resolution or header.preprocessing.resolution
    size = Path(model).stat().st_size
    return Model(layers(header.arguments), side, header.arguments, header, size)
