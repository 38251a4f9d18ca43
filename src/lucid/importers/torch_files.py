"""Reading the tensors of PyTorch files and of safetensors files; no code of theirs is run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError

from lucid import checkpoint
from lucid.errors import CheckpointError
from lucid.importers.parts import Array
from lucid.network import file as network

import torch  # isort: skip
import safetensors.torch  # isort: skip

# Where training scripts put the weights beside the state of the optimizer and the like.
_KEYS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
_PREFIX = "module."  # of torch.nn.parallel


def is_of_lucid(content: bytes) -> bool:
    """Whether the bytes are a checkpoint or network of lucid, which name it in the header."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return header["__metadata__"]["format"] in (checkpoint.FORMAT.name, network.FORMAT.name)
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


def read_safetensors(content: bytes) -> dict[str, Array]:
    """The tensors of a .safetensors file by name, as float32.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        return _to_arrays(safetensors.torch.load(content))
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"no whole safetensors file ({error}); copy it again") from error


def read_pickle(content: bytes) -> dict[str, Array]:
    """The tensors of a .pth or .bin file by name, as float32.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors and plain values, or no
            state dict.
    """
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler stumbles on
        reason = str(error).strip().split("\n")[0][:200]
        # Torch's own advice, to load it all the same, is no advice for a stranger's file.
        why = "" if reason.startswith("Weights only") else f" ({reason})"
        raise CheckpointError(
            f"not a PyTorch file of nothing but weights, so it isn't opened{why}; "
            "save model.state_dict()"
        ) from error
    for key in _KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"expected a state dict, found {type(loaded).__name__}")
    return _to_arrays(loaded)


def _to_arrays(tensors: Mapping[Any, Any]) -> dict[str, Array]:
    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"expected tensors only, found {name!r:.80}, a {type(tensor)}")
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise CheckpointError(f"tensor {name}: expected plain numbers, found {tensor.dtype}")
        arrays[name] = tensor.detach().float().contiguous().numpy()
    if arrays and all(name.startswith(_PREFIX) for name in arrays):
        arrays = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
    return arrays
