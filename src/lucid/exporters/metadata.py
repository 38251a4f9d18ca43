"""What every exported file says about its network, in the format's own metadata or beside it."""

from __future__ import annotations

from typing import Any

from lucid.network import FloatNetwork, Int8Network

__all__ = ["describe"]


def describe(network: FloatNetwork | Int8Network) -> dict[str, Any]:
    """``class_names``, ``preprocessing`` and ``metrics`` as JSON values.

    Where the network came from is left out: it lists the photos of training by name, which is of no
    use on a device, and nothing to hand out unasked.
    """
    found = network.description_json()
    del found["provenance"]
    return found
