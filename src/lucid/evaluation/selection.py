"""Which labelled pictures a model is measured on: those that training did not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lucid.data.samples import Dataset, Sample, SplitName, quote_names
from lucid.description import JSON
from lucid.errors import DataError, suggest

__all__ = ["Selection", "SplitChoice", "select_samples", "with_remembered_split"]

SplitChoice = SplitName | Literal["all"]

# What training did not see, the more honest first: the validation part chose the best epoch.
_UNSEEN: tuple[SplitName, ...] = ("test", "validation")


@dataclass(frozen=True)
class Selection:
    """Samples to measure, labelled with the classifier's class indices.

    ``description`` says in words which part of the data they are, ``unseen_classes`` which of the
    classifier's classes the data lacks.
    """

    samples: tuple[Sample, ...]
    description: str
    unseen_classes: tuple[str, ...]


def select_samples(
    dataset: Dataset,
    class_names: Sequence[str],
    provenance: Mapping[str, JSON],
    split: SplitChoice | None = None,
) -> Selection:
    """Choose what to measure, and give it the model's labels, matched by class name.

    Args:
        class_names: of the model.
        provenance: of its checkpoint, which remembers the run's validation part.
        split: a part of the data. By default what training did not see: the data's own test or
            else validation part, or the validation part that the checkpoint remembers of these
            files; all of the data where there is none of them.
    Raises:
        DataError: the data lacks the part, or the part has a class that the model lacks.
    """
    dataset, remembered = with_remembered_split(dataset, provenance)
    parts = dataset.splits
    chosen = split or next((part for part in _UNSEEN if part in parts), "all")
    samples = [one for one in dataset.samples if chosen in ("all", one.split)]
    if not samples:
        there = f"its parts are {', '.join(sorted(parts))}" if parts else "it is not split"
        raise DataError(f"{dataset.source}: the data has no {chosen} part; {there}; use all")
    description = "all of the data" if chosen == "all" else f"the {chosen} part of the data"
    if remembered and chosen != "all":
        description += ", as the checkpoint remembers it"
    labelled, unseen = _relabelled(samples, dataset, class_names)
    return Selection(labelled, description, unseen)


def with_remembered_split(dataset: Dataset, provenance: Mapping[str, JSON]) -> tuple[Dataset, bool]:
    """The data with the validation part of the training run, if it was cut from these files.

    And whether it was.
    """
    stored = provenance.get("validation")
    remembered = {str(name) for name in stored} if isinstance(stored, list) else set()
    names = remembered & {dataset.name(sample.path) for sample in dataset.samples}
    # Some files may have come and gone since; with most of them gone, it is other data.
    if 2 * len(names) <= len(remembered) or "validation" in dataset.splits:
        return dataset, False

    def part(sample: Sample) -> SplitName:
        return "validation" if dataset.name(sample.path) in names else sample.split or "train"

    samples = tuple(replace(sample, split=part(sample)) for sample in dataset.samples)
    return replace(dataset, samples=samples), True


def _relabelled(
    samples: Iterable[Sample], dataset: Dataset, class_names: Sequence[str]
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """The samples with labels into ``class_names``, and the names that no sample has."""
    labels = {name: label for label, name in enumerate(class_names)}
    present = {dataset.class_names[sample.label] for sample in samples}
    if foreign := [name for name in dataset.class_names if name in present - labels.keys()]:
        raise DataError(
            f"{dataset.source}: the checkpoint does not know the data's classes "
            f"{quote_names(foreign)}{suggest(foreign[0], class_names)}; "
            f"it knows {quote_names(class_names)}"
        )
    relabelled = (
        replace(sample, label=labels[dataset.class_names[sample.label]]) for sample in samples
    )
    return tuple(relabelled), tuple(name for name in class_names if name not in present)
