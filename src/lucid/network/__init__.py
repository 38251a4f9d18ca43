"""The network as a list of plain layer records, which everything that runs or ships it reads.

``layers`` and ``sized_layers`` know its structure and its costs, ``FloatNetwork`` and
``Int8Network`` its folded weights too. No PyTorch.
"""

from __future__ import annotations

from lucid.network.file import is_network, network_bytes, read_network, write_network
from lucid.network.floating import FloatLayer, FloatNetwork, FloatPool
from lucid.network.integer import Int8Layer, Int8Network, Int8Pool
from lucid.network.layers import (
    MAX_SIDE,
    Kind,
    Layer,
    SizedLayer,
    Totals,
    layers,
    sized_layers,
    totals,
)

__all__ = [
    "MAX_SIDE",
    "FloatLayer",
    "FloatNetwork",
    "FloatPool",
    "Int8Layer",
    "Int8Network",
    "Int8Pool",
    "Kind",
    "Layer",
    "SizedLayer",
    "Totals",
    "is_network",
    "layers",
    "network_bytes",
    "read_network",
    "sized_layers",
    "totals",
    "write_network",
]
