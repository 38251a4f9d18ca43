"""Training speed, end to end: lucid against the usual PyTorch loop, in turn, in one run.

Both train the same model on the same photos with the same batch size and the same kinds of
augmentation: random resized crop, flip, colour jitter, random erasing. The usual loop decodes each
photo with Pillow and augments it alone with torchvision in a DataLoader with one worker a core,
float32, contiguous layout.

    python benchmarks/training.py DATA [--width 0.25] [--resolution 128] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import describe, write_results
from PIL import Image
from torch import nn

from lucid.data.sources import open_data
from lucid.models import MobileNet
from lucid.parallel import cores
from lucid.training import Progress, Recipe
from lucid.training import loop as lucid_loop
from lucid.training.inputs import Normalisation
from lucid.training.memory import kept_memory
from lucid.training.plan import Plan, Request
from lucid.training.preparation import prepare

STEPS = 24  # of a round
WARMUP = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--release-memory", action="store_true", help="without lucid's hint to malloc; no results"
    )
    options = parser.parse_args()

    recipe = replace(Recipe(), train_resolution=1.0)
    plan, _ = Request(options.width, options.resolution, recipe=recipe).plan()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        memory = nullcontext if options.release_memory else kept_memory
        lucid = Lucid(options.data, plan, Path(folder), memory)
        prepared = time.perf_counter() - started
        usual = Usual(options.data, plan)
        rates: dict[str, list[float]] = {"lucid": [], "usual loop": []}
        for _ in range(options.rounds):
            for name, loop in (("lucid", lucid), ("usual loop", usual)):
                rates[name].append(loop.images_per_second())
        shares = lucid.shares()
        lucid.close()
        usual.close()

    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    results = {
        "images_per_second": rates,
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "preparation_seconds": prepared,
        "images": len(lucid.trainer.batches.labels),
        "share_of_a_step": shares,
    }
    machine = describe("torch", "pillow", "torchvision")
    if options.release_memory:
        print(_page(options, results, recipe))
        return
    write_results("training", machine, results, _page(options, results, recipe))


class Lucid:
    """The loop of ``lucid train``, without what it writes."""

    def __init__(self, data: str, plan: Plan, cache: Path, memory: Callable[[], Any]) -> None:
        self.memory = memory
        import os

        os.environ["LUCID_CACHE"] = str(cache)  # empty, so that preparing decodes every image
        prepared = prepare(data, plan, Progress())
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        self.trainer = lucid_loop.Trainer(
            model=MobileNet.from_arguments(plan.arguments(len(prepared.class_names))).to(device),
            recipe=plan.recipe,
            batches=prepared.batches(plan.recipe, device),
            validation=prepared.validation_images,
            validation_labels=prepared.validation_labels,
            inputs=Normalisation(plan.preprocessing, device),
            resolution=plan.train_resolution,
            save=lambda: None,
            finish_epoch=lambda _row, _model: None,
        )
        self.batches = _endless(self.trainer.batches.epoch)
        self.trainer._set_training(0)
        self._steps(WARMUP)

    def images_per_second(self) -> float:
        with self.memory():
            self._steps(2)
            started = time.perf_counter()
            self._steps(STEPS)
        return STEPS * self.trainer.recipe.batch_size / (time.perf_counter() - started)

    def shares(self) -> dict[str, float]:
        """Share of a step's time that each part takes."""
        seconds: defaultdict[str, float] = defaultdict(float)
        trainer, batches = self.trainer, self.trainer.batches
        waited = batches.waited_seconds
        started = time.perf_counter()
        with (
            self.memory(),
            _timed(seconds, "augment", type(batches), "_augmented"),
            _timed(seconds, "forward", type(trainer.model), "forward"),
            _timed(seconds, "backward", torch.Tensor, "backward"),
            _timed(seconds, "change weights and average", type(trainer), "_change_weights"),
        ):
            self._steps(2 * STEPS)
        total = time.perf_counter() - started
        seconds["wait for data"] = batches.waited_seconds - waited
        seconds["rest"] = total - sum(seconds.values())
        return {name: value / total for name, value in seconds.items()}

    def close(self) -> None:
        self.batches.close()

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self.trainer._step(*next(self.batches))
            self.trainer.position.step %= self.trainer.batches.steps


class Usual:
    """Pillow, torchvision and a DataLoader, as most training scripts have it."""

    def __init__(self, data: str, plan: Plan) -> None:
        transforms = _torchvision_transforms()
        recipe, side = plan.recipe, plan.preprocessing.resolution
        jitter = recipe.color_jitter
        augment = transforms.Compose(
            [
                transforms.RandomResizedCrop(side, (recipe.crop_area, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(jitter, jitter, jitter),
                transforms.ToTensor(),
                transforms.Normalize(plan.preprocessing.mean, plan.preprocessing.std),
                transforms.RandomErasing(recipe.erasing),
            ]
        )
        samples = open_data(data)
        self.batch = recipe.batch_size
        self.loader = torch.utils.data.DataLoader(
            _Photos(samples.samples, augment),
            self.batch,
            shuffle=True,
            drop_last=True,
            num_workers=cores(),
            persistent_workers=True,
        )
        self.model = MobileNet.from_arguments(plan.arguments(len(samples.class_names))).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, 0.9, nesterov=True)
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.batches = _endless(lambda _: iter(self.loader))
        self._steps(WARMUP)

    def images_per_second(self) -> float:
        # The workers read ahead; what they have ready from before the round does not count.
        self._steps(2 * cores())
        started = time.perf_counter()
        self._steps(STEPS)
        return STEPS * self.batch / (time.perf_counter() - started)

    def close(self) -> None:
        del self.batches, self.loader

    def _steps(self, count: int) -> None:
        for _ in range(count):
            images, labels = next(self.batches)
            self.optimizer.zero_grad()
            self.loss(self.model(images), labels).backward()
            self.optimizer.step()


class _Photos(torch.utils.data.Dataset[Any]):
    def __init__(self, samples: Any, augment: Callable[[Image.Image], torch.Tensor]) -> None:
        self.samples, self.augment = samples, augment

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = self.samples[index]
        with Image.open(sample.path) as image:
            return self.augment(image.convert("RGB")), sample.label


def _torchvision_transforms() -> Any:
    # Beside a CPU build of torch, torchvision's own operators can't be registered; its transforms
    # of pictures work without them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("absent"))
    from torchvision import transforms

    return transforms


def _endless(epoch: Callable[[int], Iterator[Any]]) -> Any:
    number = 0
    while True:
        batches = epoch(number)
        if hasattr(batches, "close"):
            with closing(batches):  # type: ignore[type-var]
                yield from batches
        else:
            yield from batches
        number += 1


@contextmanager
def _timed(seconds: defaultdict[str, float], name: str, owner: Any, method: str) -> Iterator[None]:
    """Add up the time that calls of a method take."""
    original = getattr(owner, method)

    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*arguments, **options)
        finally:
            seconds[name] += time.perf_counter() - started

    setattr(owner, method, timed)
    try:
        yield
    finally:
        setattr(owner, method, original)


def _page(options: argparse.Namespace, results: dict[str, Any], recipe: Recipe) -> str:
    rates, ratio = results["images_per_second"], results["ratio"]
    rows = [
        f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} |"
        for name, values in rates.items()
    ]
    shares = sorted(results["share_of_a_step"].items(), key=lambda item: -item[1])
    per_image = results["preparation_seconds"] / results["images"] * 1000
    return "\n".join(
        [
            "# Training speed",
            "",
            f"Width {options.width:g}, resolution {options.resolution}, batches of "
            f"{recipe.batch_size}, images a second end to end, {options.rounds} rounds in turn.",
            "",
            "| loop | median | spread |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"lucid trains {ratio['median']:.2f} times as fast (rounds: {ratio['min']:.2f} to "
            f"{ratio['max']:.2f}). Before that, it audits and decodes every image once: "
            f"{results['preparation_seconds']:.1f} s, {per_image:.2f} ms an image to train on.",
            "",
            "Where a step's time goes in lucid:",
            "",
            "| part | share |",
            "| --- | --- |",
            *(f"| {name} | {share:.0%} |" for name, share in shares),
        ]
    )


if __name__ == "__main__":
    main()
