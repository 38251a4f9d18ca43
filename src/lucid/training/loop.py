"""The loop: steps, validation, what is kept after each epoch, and how a run stops."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lucid.data.cache import DecodedImages
from lucid.data.loader import Batches
from lucid.errors import DivergenceError
from lucid.training.distillation import Answers, FeatureMatching, Teacher, distillation_loss
from lucid.training.inputs import resized
from lucid.training.memory import kept_memory
from lucid.training.optimization import MovingAverage, learning_rate, make_optimizer
from lucid.training.progress import EpochRow, Interrupted, Progress, StepState
from lucid.training.recipe import Recipe
from lucid.training.state import Position

_VALIDATION_BATCH = 128
_SECONDS_BETWEEN_SAVES = 60.0
_STOPPED = "training stopped, its state is saved"


Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Trainer(Generic[Model]):
    """A model, what trains it, and where it stands.

    Args:
        model: on its device; trained in place.
        recipe: of the run.
        batches: training images.
        validation: preprocessed images, uint8 (R, R, C) each.
        validation_labels: int64 (N,).
        inputs: from images, float32 (N, C, H, W) of 0 to 1, to what the model reads.
        resolution: side of the images that the model trains on; those of the batches are reduced
            to it.
        class_weights: float32 (classes,) of the loss, or None.
        teacher: whose logits the model learns, or None.
        matching: of the model's features to the teacher's, or None; learns with the model.
        save: writes the state; called in mid-epoch, after Ctrl-C or about once a minute.
        finish_epoch: called with the row of each epoch, and with the model if it is to be kept.
    """

    model: Model
    recipe: Recipe
    batches: Batches
    validation: DecodedImages
    validation_labels: NDArray[np.int64]
    inputs: Callable[[Tensor], Tensor]
    resolution: int
    save: Callable[[], None]
    finish_epoch: Callable[[EpochRow, Model | None], None]
    class_weights: Tensor | None = None
    teacher: Teacher | None = None
    matching: FeatureMatching | None = None
    has_pretrained_backbone: bool = False
    progress: Progress = field(default_factory=Progress)
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.moving_average = MovingAverage(self.average, self.model)
        self.optimizer = make_optimizer(self.model, self.recipe, self.matching)
        self.device = self.batches.device
        self._saved = time.monotonic()
        self.autocast = self.device.type != "cpu" and self.recipe.precision != "float32"

    @property
    def averaged(self) -> Model:
        """The model that is evaluated and kept."""
        return self.average if self.recipe.average_decay else self.model

    def run(self) -> None:
        """Train until the recipe's epochs are done, early stopping, or Ctrl-C.

        Raises:
            DivergenceError: the loss is no longer finite.
            DataError: an image can't be read any more.
            Interrupted: after Ctrl-C or a termination signal, once the state is saved.
        """
        with _stop_signal() as stop, kept_memory():
            while not self.position.finished:
                self._epoch(stop)

    def _epoch(self, stop: threading.Event) -> None:
        position = self.position
        self._set_training(position.epoch)
        first, before, started = position.step, position.seconds, time.perf_counter()
        with closing(self.batches.epoch(position.epoch, first)) as batches:
            for images, targets in batches:
                self._step(images, targets)
                seconds = time.perf_counter() - started
                position.seconds = before + seconds
                self._report(seconds, position.step - first)
                self._save_when_due(stop)
        images_seen = (position.step - first) * self.batches.batch_size
        row = self._validated(images_seen / (position.seconds - before))
        position.seconds = before + time.perf_counter() - started
        self._finish_epoch(row)
        if stop.is_set() and not position.finished:
            raise Interrupted(_STOPPED)

    def _save_when_due(self, stop: threading.Event) -> None:
        """Save in mid-epoch, after Ctrl-C or about once a minute, where no gradient is pending."""
        step = self.position.step
        if step == self.batches.steps or not self._changes_weights(step):
            return
        if stop.is_set() or time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
            self.save()
            self._saved = time.monotonic()
        if stop.is_set():
            raise Interrupted(_STOPPED)

    def _step(self, images: Tensor, targets: Tensor) -> None:
        position, recipe = self.position, self.recipe
        overall = position.epoch * self.batches.steps + position.step
        rate = learning_rate(recipe, overall, self.batches.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout's draws are those of the step, not of what ran before it.
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, overall]).generate_state(1)[0]))
        expected = None if self.teacher is None else self.teacher(images)
        images = self.inputs(resized(images, self.resolution))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            logits = self.model(images).float()  # (N, classes)
        loss = self._loss(logits, targets, expected)
        value = loss.item()
        position.step += 1
        if not math.isfinite(value):
            raise self._divergence("loss", value, rate)
        (loss / recipe.accumulate).backward()  # type: ignore[no-untyped-call]
        if self._changes_weights(position.step):
            self._change_weights(rate, overall)
        position.loss_sum += value * len(images)
        position.correct += (logits.argmax(1) == targets.argmax(1)).sum().item()
        position.seen += len(images)

    def _loss(self, logits: Tensor, targets: Tensor, expected: Answers | None) -> Tensor:
        """The loss of a step; ``expected`` are the teacher's answers."""
        recipe = self.recipe
        loss = functional.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=recipe.label_smoothing
        )
        if expected is None:
            return loss
        taught = distillation_loss(logits, expected.logits, recipe.distillation_temperature)
        loss = torch.lerp(loss, taught, recipe.distillation_weight)
        if self.matching is None:
            return loss
        away: Tensor = self.matching(expected.features)
        return loss + recipe.feature_weight * away

    def _change_weights(self, rate: float, overall: int) -> None:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm or math.inf).item()
        if not math.isfinite(norm):
            raise self._divergence("gradient norm", norm, rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.recipe.average_decay:
            done = overall // self.recipe.accumulate
            self.moving_average.update(done, self.recipe.average_decay)

    def _changes_weights(self, step: int) -> bool:
        """Whether the weights change at the end of this step, 1 for an epoch's first."""
        return step % self.recipe.accumulate == 0 or step == self.batches.steps

    def _set_training(self, epoch: int) -> None:
        """Training mode; with pretrained weights, at first for the classifier alone."""
        self.model.train()
        frozen = self.has_pretrained_backbone and epoch < self.recipe.frozen_epochs
        for name, child in self.model.named_children():
            if name != "fc":
                child.requires_grad_(not frozen)
                child.train(not frozen)

    @torch.inference_mode()
    def _validated(self, images_per_second: float) -> EpochRow:
        position = self.position
        model = self.averaged.eval()
        loss, correct, count = 0.0, 0, len(self.validation_labels)
        for start in range(0, count, _VALIDATION_BATCH):
            chosen = np.arange(start, min(start + _VALIDATION_BATCH, count))
            pixels = torch.from_numpy(self.validation.take(chosen)[0]).to(self.device)
            self.validation.check()
            labels = torch.from_numpy(self.validation_labels[chosen]).to(self.device)
            images = self.inputs(pixels.permute(0, 3, 1, 2).to(torch.float32) / 255)
            logits = model(images)
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(1) == labels).sum())
        overall = (position.epoch + 1) * self.batches.steps - 1
        return EpochRow(
            epoch=position.epoch + 1,
            train_loss=position.loss_sum / position.seen,
            train_top1=position.correct / position.seen,
            validation_loss=loss / count,
            validation_top1=correct / count,
            learning_rate=learning_rate(self.recipe, overall, self.batches.steps),
            images_per_second=images_per_second,
            seconds=position.seconds,
        )

    def _finish_epoch(self, row: EpochRow) -> None:
        position, recipe = self.position, self.recipe
        if not math.isfinite(row.validation_loss):
            raise self._divergence("validation loss", row.validation_loss, row.learning_rate)
        position.rows.append(row)
        position.epoch, position.step = row.epoch, 0
        position.loss_sum, position.correct, position.seen = 0.0, 0.0, 0
        # Without early stopping the last weights are kept: the validation images choose nothing.
        best = max(position.rows, key=lambda row: row.validation_top1)
        is_kept = not recipe.early_stopping or row is best
        if is_kept:
            position.kept_epoch = row.epoch
        waited = row.epoch - position.kept_epoch
        stops_early = bool(recipe.early_stopping) and waited >= recipe.early_stopping
        position.finished = stops_early or row.epoch >= recipe.epochs
        self.finish_epoch(row, self.averaged if is_kept else None)
        self._saved = time.monotonic()
        self.progress.epoch(row, recipe.epochs)

    def _report(self, seconds: float, steps: int) -> None:
        position = self.position
        self.progress.step(
            StepState(
                epoch=position.epoch + 1,
                epochs=self.recipe.epochs,
                step=position.step,
                steps=self.batches.steps,
                loss=position.loss_sum / position.seen,
                top1=position.correct / position.seen,
                images_per_second=steps * self.batches.batch_size / seconds,
            )
        )

    def _divergence(self, what: str, value: float, rate: float) -> DivergenceError:
        position = self.position
        highest = self.recipe.learning_rate
        if not all(torch.isfinite(p).all() for p in self.model.parameters()):
            cause = "the weights are no longer finite, most often from a learning rate too high"
        elif self.autocast:
            cause = 'too little precision; try precision = "float32"'
        else:
            cause = "a learning rate too high"
        return DivergenceError(
            f"training diverged: the {what} became {value} at epoch {position.epoch + 1}, "
            f"step {position.step} (learning rate {rate:.3g}); likely cause: {cause}; "
            f"try learning_rate = {highest / 10:.3g}"
        )


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Set an event at Ctrl-C or termination, so that a step is never cut in two.

    A second Ctrl-C stops at once. Signals reach the main thread only; elsewhere nothing changes,
    nor does a signal that was ignored, as Ctrl-C is by jobs in a shell's background.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None is a handler that only C could put back.
    kept = {n: handler for n, handler in found.items() if handler not in (None, signal.SIG_IGN)}
    for number in kept:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
