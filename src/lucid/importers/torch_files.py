"""Reading the tensors of PyTorch files and of safetensors files; no code of theirs is run.

Only PyTorch's own files need PyTorch, which takes seconds to load.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from lucid import checkpoint
from lucid.errors import CheckpointError, require
from lucid.importers.parts import Array
from lucid.network import file as network

# Where training scripts put the weights beside the state of the optimizer and the like.
_KEYS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
# What a pickle wants to call, in what torch says of it.
_CALLED = re.compile(r"GLOBAL ([\w.]+)")

_PREFIX = "module."  # of torch.nn.parallel

# By safetensors' codes.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_BFLOAT16 = "BF16"  # the upper half of a float32


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
        CheckpointError: the file is damaged, or holds other than plain numbers.
    """
    try:
        entries = deserialize(content)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"no whole safetensors file ({error}); copy it again") from error
    return _without_prefix({name: _from_bytes(name, **entry) for name, entry in entries})


def _from_bytes(name: str, dtype: str, shape: list[int], data: bytearray) -> Array:
    if dtype == _BFLOAT16:
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in _DTYPES:
        with np.errstate(over="ignore"):  # what is infinite is refused later, by name
            values = np.frombuffer(data, _DTYPES[dtype]).astype(np.float32)
    else:
        raise CheckpointError(f"tensor {name}: expected plain numbers, found {dtype}")
    return values.reshape(shape)


def read_pickle(content: bytes) -> dict[str, Array]:
    """The tensors of a .pth or .bin file by name, as float32.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors and plain values, or no
            state dict.
        MissingDependencyError: PyTorch is not installed.
    """
    torch: Any = require("torch", extra="train")
    try:
        with warnings.catch_warnings(action="ignore"):  # of other versions of pickle
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler stumbles on
        reason = str(error).strip().split("\n")[0][:200]
        # Torch's own advice, to load it all the same, is no advice for a stranger's file.
        why = "" if reason.startswith("Weights only") else f" ({reason})"
        if called := _CALLED.search(str(error)):
            why = f" (it calls {called[1]:.80})"
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
    arrays = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"expected tensors only, found {name!r:.80}, a {type(tensor)}")
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise CheckpointError(f"tensor {name}: expected plain numbers, found {tensor.dtype}")
        arrays[name] = tensor.detach().float().contiguous().numpy()
    return _without_prefix(arrays)


def _without_prefix(arrays: dict[str, Array]) -> dict[str, Array]:
    if arrays and all(name.startswith(_PREFIX) for name in arrays):
        arrays = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
    return arrays
