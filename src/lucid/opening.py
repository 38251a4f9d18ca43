"""Files that can predict, checkpoints and networks alike, opened with what shall run them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from lucid.checkpoint import read_checkpoint
from lucid.checks import check_choice
from lucid.engine import Engine, Precision
from lucid.errors import ConfigError
from lucid.network import is_network
from lucid.prediction import Predictor

if TYPE_CHECKING:
    from lucid.classifier import Classifier

__all__ = ["load"]

Runtime = Literal["native", "torch"]

RUNTIMES: tuple[Runtime, ...] = ("native", "torch")


@overload
def load(
    path: str | Path,
    engine: Literal["native"] = ...,
    *,
    precision: Precision | None = ...,
    threads: int | None = ...,
) -> Engine: ...
@overload
def load(path: str | Path, engine: Literal["torch"]) -> Classifier: ...
@overload
def load(
    path: str | Path,
    engine: Runtime = ...,
    *,
    precision: Precision | None = ...,
    threads: int | None = ...,
) -> Predictor: ...
def load(
    path: str | Path,
    engine: Runtime = "native",
    *,
    precision: Precision | None = None,
    threads: int | None = None,
) -> Predictor:
    """Read a checkpoint or a network and make it ready to predict; no code runs from the file.

    Args:
        path: of a file that ``lucid train``, ``import`` or ``quantize`` wrote; told by its content.
        engine: ``"native"``: a ``lucid.Engine``, which needs no PyTorch; ``"torch"``: a
            ``lucid.Classifier``, for checkpoints. They share all of ``lucid.prediction.Predictor``.
        precision: in which the native engine computes, see ``lucid.Engine``; as the file is stored
            when left out.
        threads: of the native engine, for one call; one for each processor when left out.
    Raises:
        CheckpointError: the file is missing, truncated, foreign or inconsistent.
        ConfigError: an argument is out of range or unknown, or can't be had from this file.
        MissingDependencyError: PyTorch is asked for, and not installed.
    """
    check_choice("engine", engine, RUNTIMES)
    if engine == "native":
        return Engine(path, precision, threads)
    if precision is not None or threads is not None:
        raise ConfigError(
            "precision and threads are for the native engine; PyTorch computes in float32, and "
            "torch.set_num_threads or the variable OMP_NUM_THREADS sets its threads"
        )
    if is_network(path):
        raise ConfigError(
            f"{path}: a network, which only the native engine runs; PyTorch runs checkpoints"
        )
    from lucid.classifier import Classifier

    return Classifier.from_checkpoint(read_checkpoint(path))
