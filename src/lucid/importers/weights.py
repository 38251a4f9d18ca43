"""Published weights in, a checkpoint out."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from lucid import __version__
from lucid.architecture import MobileNetArguments
from lucid.checkpoint import MAX_FILE_BYTES, Checkpoint, read_checkpoint
from lucid.container import naming
from lucid.errors import CheckpointError
from lucid.files import open_file
from lucid.images import Preprocessing, normalise
from lucid.importers import litert_file
from lucid.importers.assembly import dense_stem, find_arguments, to_tensors
from lucid.importers.calibration import calibration_images, generated_images
from lucid.importers.folders import read_folder
from lucid.importers.keras import read_keras
from lucid.importers.keras_files import HDF5, is_keras_archive
from lucid.importers.labels import NO_CLASSIFIER, fit_names, read_labels
from lucid.importers.litert import read_litert
from lucid.importers.parts import BatchNorm, Found
from lucid.importers.sources import find_source
from lucid.importers.state_dicts import read_state_dict
from lucid.importers.tf_slim import GZIP, find_litert
from lucid.importers.torch_files import is_of_lucid, read_pickle, read_safetensors

_DEFAULT_RESOLUTION = 224
_ZIP = b"PK\3\4"


def import_weights(
    source: str | Path,
    *,
    labels: str | Path | Sequence[str] | None = None,
    resolution: int | None = None,
    crop_fraction: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    calibrate: str | Path | None = None,
) -> Checkpoint:
    """Turn published MobileNet-V1 weights into a checkpoint that computes the same.

    The format is recognised from the content, the network from its layers; names do not matter.
    Where neither the source nor an argument says it, preprocessing is that of
    ``lucid.images.Preprocessing``; ``provenance["assumed"]`` lists the fields. A network without
    classifier gets one class, whose weights are zero, to be replaced in training.

    Args:
        source: a LiteRT file (.tflite), float or quantised, or TF-Slim's .tgz with one; a state
            dict of lucid's model or of timm (.safetensors, .pth); a Keras model (.keras, .h5); a
            folder with config.json and the weights of transformers or timm; the name of such
            a model on Hugging Face's hub, ``"OWNER/NAME"`` or ``"OWNER/NAME@REVISION"``, if there
            is no such file here; or a checkpoint of lucid, which stays what it is.
        labels: a text file with a class name a line, or the names; else those of the source.
        resolution: input side in pixels; else that of the source.
        crop_fraction: side of the centred square kept, as a share of the shorter side.
        mean: of pixel / 255, one a channel.
        std: of pixel / 255, one a channel.
        calibrate: a folder of pictures such as the network will see. Batch norms that the source
            has folded away get the statistics of these, else those of generated noise; neither
            changes what the network computes.
    Raises:
        CheckpointError: the source is damaged, or no MobileNet-V1; the layer is named.
        DownloadError: a model of that name can't be fetched; a CheckpointError.
        ConfigError: an argument is out of range.
        DataError: no picture in ``calibrate`` can be read.
        MissingDependencyError: the source needs a package of the extra ``import``, or PyTorch:
            so do its own files and networks whose batch norms are folded.
    """
    names = read_labels(labels) if isinstance(labels, str | Path) else tuple(labels or ())
    options: dict[str, Any] = {
        "resolution": resolution,
        "crop_fraction": crop_fraction,
        "mean": mean,
        "std": std,
    }
    given = {name: value for name, value in options.items() if value is not None}
    origin = find_source(source)
    with open_file(origin.weights, max_bytes=MAX_FILE_BYTES, error=CheckpointError) as file:
        content = file.read()
    if is_of_lucid(content):
        return _revise(read_checkpoint(origin.weights), names, given)
    try:
        found = (
            read_folder(origin.weights, content) if origin.has_config else _read_content(content)
        )
        found = _with_dense_stem(found)
        stated = _stated_preprocessing(found)
        preprocessing = replace(stated, **given)
        arguments = find_arguments(found, {stated.resolution, preprocessing.resolution})
        norms, statistics = _batch_norms(found, arguments, preprocessing, calibrate)
        return Checkpoint(
            arguments=arguments,
            class_names=_class_names(found, names),
            preprocessing=preprocessing,
            tensors=to_tensors(arguments, norms, found),
            provenance={
                "lucid": __version__,
                "source": origin.name,
                "format": found.format,
                "sha256": hashlib.sha256(content).hexdigest(),
                "batch_norm": statistics,
                "classifier": found.classifier is not None,
                "assumed": [
                    name for name in ("mean", "std") if name not in {*given, *found.preprocessing}
                ],
            },
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _revise(checkpoint: Checkpoint, names: tuple[str, ...], given: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint with other class names and preprocessing, where they are given."""
    if names:
        checkpoint = replace(
            checkpoint, class_names=fit_names(names, checkpoint.arguments.num_classes)
        )
    return replace(checkpoint, preprocessing=replace(checkpoint.preprocessing, **given))


def _with_dense_stem(found: Found) -> Found:
    if not found.convolutions:
        raise CheckpointError("the network has no convolution, so it is no MobileNet")
    stem, *others = found.convolutions
    return replace(found, convolutions=(dense_stem(stem), *others))


def _read_content(content: bytes) -> Found:
    if content.startswith(GZIP):
        content = find_litert(content)
    if content[4:8] == litert_file.IDENTIFIER:
        return read_litert(content)
    if content[8:9] == b"{":
        return read_state_dict(read_safetensors(content))
    if content.startswith(HDF5) or is_keras_archive(content):
        return read_keras(content)
    if content.startswith(_ZIP) and not is_zipfile(io.BytesIO(content)):
        raise CheckpointError("no whole archive of Keras or PyTorch; copy it again")
    if content.startswith((_ZIP, b"\x80")):
        return read_state_dict(read_pickle(content))
    raise CheckpointError("neither LiteRT, Keras, safetensors nor PyTorch, or damaged")


def _stated_preprocessing(found: Found) -> Preprocessing:
    """The preprocessing that the source says, with lucid's defaults where it doesn't."""
    channels = found.convolutions[0].weight.shape[1]
    if channels not in (1, 3):
        raise CheckpointError(
            f"the network takes {channels} channels; pictures have 3, grey ones 1"
        )
    with naming("preprocessing"):
        return Preprocessing(
            found.resolution or _DEFAULT_RESOLUTION,
            color="RGB" if channels == 3 else "L",
            **found.preprocessing,
        )


def _class_names(found: Found, given: tuple[str, ...]) -> tuple[str, ...]:
    if found.classifier is None:
        return (NO_CLASSIFIER,)
    return fit_names(given or found.class_names, len(found.classifier.weight))


def _batch_norms(
    found: Found,
    arguments: MobileNetArguments,
    preprocessing: Preprocessing,
    calibrate: str | Path | None,
) -> tuple[list[BatchNorm], str]:
    """The batch norms, and a word on where they are from."""
    parts = found.convolutions
    norms = [part.norm for part in parts if isinstance(part.norm, BatchNorm)]
    if len(norms) == len(parts):
        return norms, "source"
    # Now that it is known to be a MobileNet: this loads PyTorch, which takes seconds.
    from lucid.importers.statistics import batch_norms

    if calibrate is None:
        pixels = generated_images(preprocessing.channels, preprocessing.resolution)
        origin = f"{len(pixels)} generated images"
    else:
        pixels = calibration_images(calibrate, preprocessing)
        origin = f"{len(pixels)} calibration images"
    return batch_norms(arguments, parts, normalise(pixels, preprocessing)), origin
