"""The colour of a leaf: by the family of layers that its class belongs to."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Family(NamedTuple):
    """Colours of a family; text in a node has the colour of its stroke."""

    fill: str
    stroke: str


_CONVOLUTION = Family("#ffe8e8", "#c53030")
_NORM = Family("#e6fffa", "#2c7a7b")
_ACTIVATION = Family("#faf5ff", "#6b46c1")
_POOLING = Family("#fefcbf", "#b7791f")
_LINEAR = Family("#ebf8ff", "#2b6cb0")
_ATTENTION = Family("#f0fff4", "#2f855a")
_RECURRENT = Family("#fdf2f8", "#b83280")
_EMBEDDING = Family("#fffaf0", "#c05621")
_RESHAPE = Family("#edf2f7", "#4a5568")

# PyTorch keeps one source file for each family, so its own order decides about future layers too.
_BY_SOURCE = {
    "torch.nn.modules.conv": _CONVOLUTION,
    "torch.nn.modules.batchnorm": _NORM,
    "torch.nn.modules.instancenorm": _NORM,
    "torch.nn.modules.normalization": _NORM,
    "torch.nn.modules.activation": _ACTIVATION,
    "torch.nn.modules.pooling": _POOLING,
    "torch.nn.modules.linear": _LINEAR,
    "torch.nn.modules.transformer": _ATTENTION,
    "torch.nn.modules.rnn": _RECURRENT,
    "torch.nn.modules.sparse": _EMBEDDING,
    "torch.nn.modules.dropout": _RESHAPE,
    "torch.nn.modules.flatten": _RESHAPE,
    "torch.nn.modules.fold": _RESHAPE,
    "torch.nn.modules.padding": _RESHAPE,
    "torch.nn.modules.pixelshuffle": _RESHAPE,
    "torch.nn.modules.upsampling": _RESHAPE,
}
# Where the source file says too little.
_BY_CLASS: dict[type[nn.Module], Family | None] = {
    nn.MultiheadAttention: _ATTENTION,
    nn.Identity: None,
}


def family(module: nn.Module) -> Family | None:
    """The family of a layer or of the layer it derives from; None for all other modules."""
    for ancestor in type(module).__mro__:
        if ancestor in _BY_CLASS:
            return _BY_CLASS[ancestor]
        if ancestor.__module__ in _BY_SOURCE:
            return _BY_SOURCE[ancestor.__module__]
    return None
