"""Quantisation-aware training: its arithmetic is the reference's, and it learns."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from network_helpers import images, int8_networks

from lucid import reference
from lucid.errors import NetworkError
from lucid.network import Int8Network
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
            parameter += (0.1 if name.endswith("change") else 20) * noise
    try:
        trained = module.to_network()
    except NetworkError:  # a bias beyond what its scale can hold
        assume(False)
    assert same_bits(logits(module, pixels), reference.run(trained, pixels))
