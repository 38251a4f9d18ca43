"""Quantisation-aware training: its arithmetic is the reference's, and it learns."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from network_helpers import images, int8_networks
from training_helpers import QUICK, coloured_squares

from lucid import reference
from lucid.checkpoint import Checkpoint, read_checkpoint
from lucid.cli import main
from lucid.errors import DataError, NetworkError
from lucid.images import load
from lucid.lowering import lower
from lucid.network import FloatLayer, Int8Network, network_bytes, read_network
from lucid.quantization import measure_ranges, minmax_weight_scale, normalisation_folded, quantise
from lucid.training import EpochRow, Interrupted, Progress, StepState, train
from lucid.training.quantisation import finetune
from lucid.training.quantised import QuantisedNetwork


def logits(module: QuantisedNetwork, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        x = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))
        return module.eval()(x).numpy()


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    assert first.dtype == second.dtype == np.float32
    return first.tobytes() == second.tobytes()


@given(data=st.data(), network=int8_networks())
@settings(max_examples=60)
def test_untrained_it_is_the_network(data: st.DataObject, network: Int8Network) -> None:
    pixels = data.draw(images(network.layers[0].in_channels))
    module = QuantisedNetwork(network)
    assert same_bits(logits(module, pixels), reference.run(network, pixels))
    again = module.to_network()
    for layer, found in zip(network.layers, again.layers, strict=True):
        assert found.to_dict() == layer.to_dict()
        assert (found.input_scale, found.output_scale) == (layer.input_scale, layer.output_scale)
        for name in ("weight", "bias", "weight_scale"):
            if hasattr(layer, name):
                np.testing.assert_array_equal(getattr(found, name), getattr(layer, name))


@given(data=st.data(), network=int8_networks(), seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_wherever_training_goes_it_is_the_network(
    data: st.DataObject, network: Int8Network, seed: int
) -> None:
    pixels = data.draw(images(network.layers[0].in_channels))
    module = QuantisedNetwork(network)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter += (10 if name.endswith("change") else 20) * noise
    try:
        trained = module.to_network()
    except NetworkError:  # a bias beyond what its scale can hold
        assume(False)
    assert same_bits(logits(module, pixels), reference.run(trained, pixels))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="module")
def checkpoint(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "learned"
    settings = {"width": 0.25, "resolution": 32, "recipe": QUICK | {"epochs": 25}}
    return train(squares, **settings, out=out).checkpoint


def coarse(checkpoint: Checkpoint) -> Int8Network:
    """Rounded carelessly: the weights of every layer have only 16 steps on either side."""
    network = lower(checkpoint)
    names = [layer.name for layer in network.layers[:-1]]
    layers = [layer for layer in network.layers if isinstance(layer, FloatLayer)]
    stem = normalisation_folded(layers[0], network.preprocessing)[0]
    scales = {layer.name: 8 * minmax_weight_scale(layer, 1, 1) for layer in [stem, *layers[1:]]}
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    ranges = measure_ranges(network, [pixels])
    return quantise(network, {name: ranges[name] for name in names}, scales)


def distance(network: Int8Network, checkpoint: Checkpoint, data: Path) -> float:
    """Root mean square difference from the float model's logits, but for a common shift."""
    paths = sorted(data.glob("*/*.png"))
    pixels = np.stack([load(path, checkpoint.preprocessing) for path in paths])
    wanted = reference.run(lower(checkpoint), pixels)
    apart = reference.run(network, pixels) - wanted
    return float((apart - apart.mean(axis=1, keepdims=True)).std())


def test_it_comes_nearer_to_the_float_model(checkpoint: Path, squares: Path) -> None:
    source = read_checkpoint(checkpoint)
    start = coarse(source)
    rows = []

    class Listens(Progress):
        def epoch(self, row: EpochRow, epochs: int) -> None:
            rows.append((row.epoch, epochs))

    trained = finetune(start, source, squares, epochs=40, progress=Listens())
    assert rows == [(epoch, 40) for epoch in range(1, 41)]
    assert distance(trained, source, squares) < 0.7 * distance(start, source, squares)
    assert trained.provenance["finetuning"]["recipe"]["epochs"] == 40
    assert trained.class_names == source.class_names
    again = finetune(start, source, squares, epochs=40)
    assert network_bytes(again) == network_bytes(trained)
    other = finetune(start, source, squares, epochs=40, seed=1)
    assert network_bytes(other) != network_bytes(trained)


def test_labels_are_matched_by_name(checkpoint: Path, squares: Path, tmp_path: Path) -> None:
    """The data's classes may be fewer than the checkpoint's, and so stand in another order."""
    source = read_checkpoint(checkpoint)
    shutil.copytree(squares, tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "amber")
    found = []

    class Listens(Progress):
        def epoch(self, row: EpochRow, epochs: int) -> None:
            del epochs
            found.append(row.validation_top1)

    finetune(coarse(source), source, tmp_path / "two", epochs=6, progress=Listens())
    assert found[-1] == 1.0
    (tmp_path / "two" / "blue").rename(tmp_path / "two" / "blau")
    with pytest.raises(DataError, match=r"does not know the classes 'blau'; did you mean"):
        finetune(coarse(source), source, tmp_path / "two", epochs=1)


def test_ctrl_c_says_that_nothing_is_lost(checkpoint: Path, squares: Path) -> None:
    class Interrupts(Progress):
        def step(self, state: StepState) -> None:
            del state
            signal.raise_signal(signal.SIGINT)

    source = read_checkpoint(checkpoint)
    with pytest.raises(Interrupted, match="nothing was written"):
        finetune(coarse(source), source, squares, progress=Interrupts())


def test_command(checkpoint: Path, squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    arguments = ["quantize", str(checkpoint), "--calibrate", str(squares), "--out", str(out)]
    result = CliRunner().invoke(main, [*arguments, "--epochs", "2"])
    assert result.exit_code == 2
    assert "--epochs goes with --finetune" in result.stderr
    result = CliRunner().invoke(main, [*arguments, "--finetune", str(squares), "--epochs", "2"])
    assert result.exit_code == 0, result.stderr
    assert "epoch 2/2" in result.stderr
    provenance = read_network(out).provenance
    assert provenance["finetuning"]["recipe"]["epochs"] == 2
    assert provenance["calibration"]["images"]
