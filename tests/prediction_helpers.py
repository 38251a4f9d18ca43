"""A checkpoint that really tells classes apart, made in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from model_helpers import assert_sensitive, settle_batch_norm

from lucid.checkpoint import JSON, Checkpoint, write_checkpoint
from lucid.data.sources import open_data
from lucid.images import Preprocessing, load, normalise
from lucid.models import MobileNet

RESOLUTION = 32
PREPROCESSING = Preprocessing(RESOLUTION, crop_fraction=1.0)


def colour_model(data: Path) -> MobileNet:
    """Random convolutions and a classifier for ``coloured_squares``, in eval mode."""
    torch.manual_seed(0)
    model = MobileNet(0.25, 3, last_stride=1)
    samples = open_data(data).samples
    pixels = np.stack([load(sample.path, PREPROCESSING) for sample in samples])
    inputs = torch.from_numpy(normalise(pixels, PREPROCESSING))
    settle_batch_norm(model, inputs)
    labels = torch.tensor([sample.label for sample in samples])
    with torch.no_grad():
        features = model.features(inputs)["conv7"].mean((2, 3))  # (N, channels)
        means = torch.stack([features[labels == label].mean(0) for label in range(3)])
        # Towards a class is where its mean feature lies, seen from the mean of all.
        weights = means - features.mean(0)
        weights *= 5 / weights.square().sum(1).mean()
        model.fc.weight.copy_(weights)
        model.fc.bias.copy_(-weights @ features.mean(0))
    assert_sensitive(model, inputs[::6], model.conv1.conv.weight)  # one image of each class
    return model


def write_colour_checkpoint(path: Path, data: Path, **provenance: JSON) -> Path:
    """Write a checkpoint that knows the classes of the ``coloured_squares`` in ``data``."""
    model = colour_model(data)
    checkpoint = Checkpoint(
        arguments=model.arguments,
        class_names=open_data(data).class_names,
        preprocessing=PREPROCESSING,
        tensors={name: tensor.numpy() for name, tensor in model.state_dict().items()},
        provenance=provenance,
    )
    write_checkpoint(path, checkpoint)
    return path
