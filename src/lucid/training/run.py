"""One run: from DATA to a folder with a checkpoint, its log, its curves and its state."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from lucid import __version__
from lucid.checkpoint import JSON, Checkpoint, write_checkpoint
from lucid.errors import ConfigError, DivergenceError, TrainingError
from lucid.files import check_writable_folder, write_text
from lucid.models import MobileNet
from lucid.training.distillation import FeatureMatching, Teacher
from lucid.training.inputs import Normalisation
from lucid.training.logs import RunLog
from lucid.training.loop import Trainer
from lucid.training.optimization import initialise
from lucid.training.plan import Plan, RecipeSource, Request, read_teacher
from lucid.training.preparation import TrainingData, prepare
from lucid.training.progress import EpochRow, Interrupted, Progress
from lucid.training.state import Position, read_settings, restore_state, save_state

CHECKPOINT = "model.safetensors"
STATE = "state.safetensors"

# A run's room on disk: the state (weights, average, two moments of the optimizer) and the
# checkpoint, each old and new at once; and log, events, curves and lists of files.
_COPIES_OF_WEIGHTS = 10
_BYTES_BESIDE_WEIGHTS = 32_000_000


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        folder: of the run.
        checkpoint: path of model.safetensors.
        rows: one for each epoch.
        top1: of the kept weights on the validation images, 0 to 1.
    """

    folder: Path
    checkpoint: Path
    rows: tuple[EpochRow, ...]
    top1: float


def train(
    data: str | Path,
    *,
    width: float | None = None,
    resolution: int | None = None,
    epochs: int | None = None,
    weights: str | Path | None = None,
    teacher: str | Path | None = None,
    out: str | Path | None = None,
    recipe: RecipeSource | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a MobileNet on labelled photos.

    Args:
        data: a folder of class folders, a manifest or an archive; see ``lucid.data.open_data``.
        width: width multiplier; that of ``weights``, else 0.25.
        resolution: input side in pixels; that of ``weights``, else 128.
        epochs: in place of the recipe's.
        weights: what to start from, a checkpoint or whatever ``lucid.importers.import_weights``
            takes; its classifier is kept where the class names agree.
        teacher: checkpoint with the same classes, in any order, whose answers the model learns.
        out: folder of the run, made when missing; ``runs/DATA-WIDTH-RESOLUTION`` by default.
        recipe: a Recipe, its keys, or a TOML file that sets some of them.
        resume: go on with the run in ``out``, with the settings that it has.
        device: ``"auto"`` (a GPU that PyTorch can use, else the CPU) or PyTorch's name of one.
        progress: is told what happens.
    Raises:
        ConfigError: an argument is out of range, or differs from the run resumed; or the teacher
            knows other classes than the data.
        DataError: the data can't be used.
        CheckpointError: ``weights`` or ``teacher`` can't be read.
        OutputError: ``out`` can't be written or is too small.
        TrainingError: ``out`` holds a run already, or none to resume.
        DivergenceError: the loss is no longer finite; the last good checkpoint is kept.
        Interrupted: after Ctrl-C, once the state is saved; a KeyboardInterrupt.
    """
    progress = progress or Progress()
    where = _device(device)
    request = Request(width, resolution, epochs, weights, recipe, teacher)
    start = None
    if resume:
        if out is None:
            raise ConfigError(
                "resume needs out, the folder of the run to go on with: --resume --out FOLDER"
            )
        folder = Path(out)
        settings, position = read_settings(folder / STATE)
        plan = Plan.from_dict(settings["plan"])
        request.check_agrees(plan)
    else:
        plan, start = request.plan()
        if start is not None:
            progress.message(f"starting from {weights}: {_description(start)}")
        folder = Path(out) if out is not None else _default_folder(data, plan)
        settings, position = {}, Position()
        if (folder / STATE).exists() or (folder / CHECKPOINT).exists():
            raise TrainingError(
                f"{folder}: there is a run in this folder already; "
                "continue it with --resume or choose another --out"
            )
    _check_precision(plan, where)
    check_writable_folder(folder, needed_bytes=_needed_bytes(plan))
    try:
        prepared = prepare(data, plan, progress)
        taught_by = _teacher(plan, teacher, prepared, where)
    except BaseException:
        # Data or a teacher that can't be used, or Ctrl-C, leaves no empty folder behind.
        with suppress(OSError):
            folder.rmdir()
        raise
    if resume and settings["data"] != prepared.fingerprint:
        raise TrainingError(
            f"{data}: the pictures are not those that the run in {folder} began with; "
            "bring them back, or start another run with another --out"
        )
    run = _Run(folder, plan, prepared, where, progress, taught_by)
    return run.execute(position, start, resume=resume)


@dataclass
class _Run:
    """A folder and what is trained in it."""

    folder: Path
    plan: Plan
    data: TrainingData
    device: torch.device
    progress: Progress
    teacher: Teacher | None

    def execute(
        self, position: Position, start: Checkpoint | None, *, resume: bool
    ) -> TrainingResult:
        self._write_inputs()
        # Each run's first weights depend on its seed alone.
        torch.manual_seed(self.plan.recipe.seed)
        model = self._model(start).to(self.device)
        with RunLog(self.folder, position.rows) as log:
            trainer = self._trainer(model, position, log)
            if resume:
                restore_state(self.folder / STATE, _modules(trainer), trainer.optimizer)
            else:
                trainer.save()  # so that whatever stops the run from here on, it can be resumed
            try:
                trainer.run()
            except DivergenceError as error:
                raise DivergenceError(f"{error}; {self._left_by_divergence()}") from error
            except Interrupted as stopped:
                folder = f'"{self.folder}"' if " " in str(self.folder) else self.folder
                raise Interrupted(f"{stopped}; go on with --resume --out {folder}") from stopped
        return TrainingResult(
            folder=self.folder,
            checkpoint=self.folder / CHECKPOINT,
            rows=tuple(position.rows),
            top1=position.rows[position.kept_epoch - 1].validation_top1,
        )

    def _model(self, start: Checkpoint | None) -> MobileNet:
        names = self.data.class_names
        if start is None:
            model = MobileNet.from_arguments(self.plan.arguments(len(names)))
            initialise(model)
            return model
        model = MobileNet.from_arguments(self.plan.arguments(start.arguments.num_classes))
        tensors = {name: torch.tensor(array) for name, array in start.tensors.items()}
        model.load_state_dict(tensors)
        return model if start.class_names == names else model.replace_classifier(len(names))

    def _trainer(self, model: MobileNet, position: Position, log: RunLog) -> Trainer[MobileNet]:
        recipe, data = self.plan.recipe, self.data
        class_weights = None
        if recipe.balance == "loss":
            class_weights = torch.tensor(
                data.class_weights, dtype=torch.float32, device=self.device
            )

        def save() -> None:
            settings = {"plan": self.plan.to_dict(), "data": data.fingerprint}
            modules = _modules(trainer)
            save_state(self.folder / STATE, settings, position, modules, trainer.optimizer)

        def finish_epoch(row: EpochRow, kept: MobileNet | None) -> None:
            if kept is not None:
                self._keep(kept, row)
            log.write(position.rows)
            save()

        matching = None
        if self.teacher is not None and recipe.feature_weight:
            matching = FeatureMatching(model, self.teacher.channels).to(self.device)

        trainer = Trainer(
            model=model,
            recipe=recipe,
            batches=data.batches(recipe, self.device),
            validation=data.validation_images,
            validation_labels=data.validation_labels,
            inputs=Normalisation(self.plan.preprocessing, self.device),
            resolution=self.plan.train_resolution,
            save=save,
            finish_epoch=finish_epoch,
            class_weights=class_weights,
            teacher=self.teacher,
            matching=matching,
            has_pretrained_backbone=self.plan.weights is not None,
            progress=self.progress,
            position=position,
        )
        return trainer

    def _keep(self, model: MobileNet, row: EpochRow) -> None:
        tensors = {
            name: tensor.detach().cpu().contiguous().numpy()
            for name, tensor in model.state_dict().items()
        }
        provenance: dict[str, JSON] = {
            "lucid": __version__,
            "epoch": row.epoch,
            "recipe": self.plan.recipe.to_dict(),
            "validation": list[JSON](self.data.validation_names),
            "weights": self.plan.weights,
            "teacher": self.plan.teacher.digest if self.plan.teacher else None,
        }
        metrics = {
            "validation_top1": row.validation_top1,
            "validation_loss": row.validation_loss,
            "validation_images": float(len(self.data.validation_labels)),
        }
        checkpoint = Checkpoint(
            arguments=model.arguments,
            class_names=self.data.class_names,
            preprocessing=self.plan.preprocessing,
            tensors=tensors,
            metrics=metrics,
            provenance=provenance,
        )
        write_checkpoint(self.folder / CHECKPOINT, checkpoint)

    def _write_inputs(self) -> None:
        write_text(self.folder / "recipe.toml", self.plan.recipe.to_toml())
        write_text(self.folder / "split.json", json.dumps(self.data.split, indent=1))
        write_text(self.folder / "audit.json", self.data.audit_json)

    def _left_by_divergence(self) -> str:
        """Say what is left to go on from; a state of nothing is removed."""
        path = self.folder / CHECKPOINT
        if path.exists():
            return f"the last good checkpoint is {path}"
        # Resumed, it would diverge again; without a state the folder is free for another try.
        (self.folder / STATE).unlink(missing_ok=True)
        return "no epoch was finished"


def _modules(trainer: Trainer[MobileNet]) -> dict[str, torch.nn.Module]:
    modules = {"model": trainer.model, "average": trainer.average, "matching": trainer.matching}
    return {name: module for name, module in modules.items() if module is not None}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} can't be used here ({reason}); try 'cpu'") from error
    return device


def _teacher(
    plan: Plan, moved_to: str | Path | None, data: TrainingData, device: torch.device
) -> Teacher | None:
    if plan.teacher is None:
        return None
    return Teacher(
        read_teacher(plan.teacher, moved_to),
        data.class_names,
        resolution=plan.teacher_resolution,
        device=device,
        precision=plan.recipe.precision,
    )


def _check_precision(plan: Plan, device: torch.device) -> None:
    # PyTorch 2.13's bfloat16 gradient of a depthwise convolution on a CPU reads memory that was
    # never written where the output is 1x1: 28 of 40 passes of a small MobileNet were not finite.
    if plan.recipe.precision == "bfloat16" and device.type == "cpu":
        raise ConfigError(
            'precision "bfloat16" needs a GPU: on a CPU, PyTorch\'s bfloat16 gradients are wrong '
            'for some layers; use "auto" or "float32"'
        )


def _default_folder(data: str | Path, plan: Plan) -> Path:
    stem = Path(data).resolve().name.split(".")[0] or "data"
    width, side = plan.model["width_multiplier"], plan.preprocessing.resolution
    return Path("runs") / f"{stem}-{width:g}-{side}"


def _description(start: Checkpoint) -> str:
    """What a run starts from, in words, and what had to be assumed of it."""
    arguments, preprocessing, origin = start.arguments, start.preprocessing, start.provenance
    text = (
        f"{origin.get('format', 'lucid')}, width {arguments.width_multiplier:g}, "
        f"resolution {preprocessing.resolution}, {arguments.num_classes} classes"
    )
    if origin.get("assumed"):
        text += (
            f"; it doesn't say how pixels are normalised: taken mean {preprocessing.mean}, std "
            f"{preprocessing.std}; 'lucid import' can set others"
        )
    return text


def _needed_bytes(plan: Plan) -> int:
    with torch.device("meta"):
        model = MobileNet.from_arguments(plan.arguments(1))
    weights = sum(int(tensor.nbytes) for tensor in model.state_dict().values())
    return weights * _COPIES_OF_WEIGHTS + _BYTES_BESIDE_WEIGHTS
