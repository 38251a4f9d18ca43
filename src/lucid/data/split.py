"""Dividing pictures into those to train on and those to validate on, the same way everywhere.

Which side a picture falls on follows from the SHA-256 of the seed and of its name, not from a
random generator: so it doesn't depend on the order of files, the operating system or the version
of NumPy, and a few pictures more move few others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lucid.checks import check_integer, check_number
from lucid.data.samples import Dataset, plural, quote_names
from lucid.errors import DataError

_FEWEST_CLASSES = 2


@dataclass(frozen=True)
class Split:
    """Indices into a data set's samples, ascending; no index stands on both sides.

    ``warnings`` says in one sentence each what could not be done as asked.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self, dataset: Dataset) -> dict[str, list[str]]:
        """The names of both sides, relative to the data set's root, as JSON values."""
        return {
            side: [dataset.name(dataset.samples[index].path) for index in indices]
            for side, indices in (("train", self.train), ("validation", self.validation))
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], dataset: Dataset) -> Split:
        """Find the pictures of ``to_dict`` in a data set, wherever it lies now.

        Raises:
            DataError: ``values`` is no split, or names a picture that the data set lacks.
        """
        known = {dataset.name(sample.path): index for index, sample in enumerate(dataset.samples)}
        sides = [_indices(values, side, known, dataset) for side in ("train", "validation")]
        if len(set(sides[0] + sides[1])) < len(sides[0]) + len(sides[1]):
            raise DataError("the split names a picture twice")
        return cls(tuple(sorted(sides[0])), tuple(sorted(sides[1])))


def split(
    dataset: Dataset,
    groups: Iterable[Sequence[int]] = (),
    *,
    usable: Iterable[int] | None = None,
    seed: int = 0,
    validation_fraction: float = 0.2,
) -> Split:
    """Divide a data set, keeping the classes' shares and each group on one side.

    A class with two pictures or more is on both sides, one with a single picture only in train.
    Where the source has a train and a validation split, they are kept, but for the training
    pictures that have a duplicate in validation or test, which are left out. Test pictures are on
    neither side.

    Args:
        dataset: what ``open_data`` returned.
        groups: indices of samples that show the same, each in one group at most, such as
            ``AuditReport.duplicate_groups``.
        usable: indices of the samples to divide; all by default.
        seed: 0 or more; other seeds divide otherwise.
        validation_fraction: share of each class's pictures, above 0 and below 1.
    Raises:
        ConfigError: an argument is out of range.
        DataError: fewer than two classes have pictures to train on, or none is left to validate.
    """
    check_integer("seed", seed, 0, 2**63 - 1)
    check_number(
        "validation_fraction", validation_fraction, "above 0 and below 1", lambda x: 0 < x < 1
    )
    indices = range(len(dataset.samples)) if usable is None else sorted(set(usable))
    clusters = _clusters(groups, indices)
    by_split: dict[str | None, list[int]] = {}
    for index in indices:
        by_split.setdefault(dataset.samples[index].split, []).append(index)
    own = by_split.pop("train", []) + by_split.pop(None, [])
    held_out = {index for kept in by_split.values() for index in kept}
    train, warnings = _without_copies(own, clusters, held_out)
    if "validation" in dataset.splits:
        validation = by_split.get("validation", [])
    else:
        divided = _Division(dataset, train, clusters, seed, validation_fraction)
        train, validation = divided.train, divided.validation
        warnings += divided.warnings
    _check(dataset, train, validation)
    warnings += _emptied(dataset, train, validation)
    return Split(tuple(sorted(train)), tuple(sorted(validation)), tuple(warnings))


class _Division:
    """A stratified division of the samples ``indices``, whose clusters stay together."""

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int],
        clusters: Mapping[int, Sequence[int]],
        seed: int,
        fraction: float,
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._counts = self._count(indices)
        self._targets = {
            label: min(max(round(fraction * count), 1), count - 1)
            for label, count in self._counts.items()
        }
        self._taken: Counter[int] = Counter()
        self.validation: list[int] = []
        self.warnings = self._lonely()

        together = self._shuffled(_distinct(clusters, indices))
        for cluster in together:
            if self._fits(cluster, self._targets):
                self._take(cluster)
        self._reach_every_class(together)
        taken = set(self.validation)
        self.train = [index for index in indices if index not in taken]

    def _reach_every_class(self, clusters: Sequence[Sequence[int]]) -> None:
        """Give a class whose clusters are all above its target its smallest one."""
        almost_all = {label: count - 1 for label, count in self._counts.items()}
        for label in sorted(self._counts):
            if self._taken[label] or not self._targets[label]:
                continue
            own = [c for c in clusters if label in self._count(c) and self._fits(c, almost_all)]
            if own:
                self._take(min(own, key=len))
                continue
            name = self._dataset.class_names[label]
            self.warnings.append(
                f"the pictures of class '{name}' are all duplicates of one another; "
                "they were divided even so, so its accuracy says little"
            )
            singles = [[i] for c in clusters for i in c if self._label(i) == label]
            for single in self._shuffled(singles)[: self._targets[label]]:
                self._take(single)

    def _shuffled(self, clusters: Iterable[Sequence[int]]) -> list[Sequence[int]]:
        """Ordered by a hash of the seed and of the cluster's first name."""

        def key(cluster: Sequence[int]) -> bytes:
            name = min(self._name(index) for index in cluster)
            return hashlib.sha256(self._seed.to_bytes(8, "little") + name).digest()

        return sorted(clusters, key=key)

    def _name(self, index: int) -> bytes:
        name = self._dataset.name(self._dataset.samples[index].path)
        return name.encode("utf-8", "surrogatepass")

    def _label(self, index: int) -> int:
        return self._dataset.samples[index].label

    def _count(self, indices: Iterable[int]) -> Counter[int]:
        return Counter(map(self._label, indices))

    def _fits(self, cluster: Sequence[int], most: Mapping[int, int]) -> bool:
        counts = self._count(cluster).items()
        return all(self._taken[label] + count <= most[label] for label, count in counts)

    def _take(self, cluster: Sequence[int]) -> None:
        self.validation += cluster
        self._taken += self._count(cluster)

    def _lonely(self) -> list[str]:
        names = [
            self._dataset.class_names[label]
            for label, count in sorted(self._counts.items())
            if count == 1
        ]
        if not names:
            return []
        return [f"with a single picture, trained on but not validated: {quote_names(names)}"]


def _clusters(groups: Iterable[Sequence[int]], indices: Iterable[int]) -> dict[int, Sequence[int]]:
    """Each index's cluster, ascending; an index in no group is a cluster of its own."""
    clusters: dict[int, Sequence[int]] = {index: (index,) for index in indices}
    for group in groups:
        members = sorted(index for index in group if index in clusters)
        clusters.update(dict.fromkeys(members, members))
    return clusters


def _distinct(
    clusters: Mapping[int, Sequence[int]], indices: Sequence[int]
) -> Iterator[Sequence[int]]:
    """Each cluster of the samples ``indices`` once, without its members that are none of them."""
    pending = dict.fromkeys(indices)
    for index in indices:
        if index in pending:
            cluster = [member for member in clusters[index] if member in pending]
            for member in cluster:
                del pending[member]
            yield cluster


def _without_copies(
    indices: Sequence[int], clusters: Mapping[int, Sequence[int]], held_out: set[int]
) -> tuple[list[int], list[str]]:
    """Drop what has a duplicate among the held-out pictures, which would flatter the accuracy."""
    copies: set[int] = set()
    for index in held_out:
        if index not in copies:
            copies.update(clusters[index])
    kept = [index for index in indices if index not in copies]
    dropped = len(indices) - len(kept)
    if not dropped:
        return kept, []
    return kept, [
        f"left out {plural(dropped, 'training picture')} with a duplicate in validation or test"
    ]


def _check(dataset: Dataset, train: Sequence[int], validation: Sequence[int]) -> None:
    labels = {dataset.samples[index].label for index in train}
    if len(labels) < _FEWEST_CLASSES:
        have = quote_names(dataset.class_names[label] for label in sorted(labels)) or "none"
        raise DataError(
            f"{dataset.source}: training needs pictures of at least {_FEWEST_CLASSES} classes, "
            f"found {have}"
        )
    if not validation:
        raise DataError(
            f"{dataset.source}: no picture is left to validate on; add pictures to each class"
        )


def _emptied(dataset: Dataset, train: Sequence[int], validation: Sequence[int]) -> Iterator[str]:
    """Name the classes of which nothing usable is left, on a side that had pictures of them."""
    for purpose, indices, splits in (
        ("train on", train, (None, "train")),
        ("validate on", validation, ("validation",)),
    ):
        had = {sample.label for sample in dataset.samples if sample.split in splits}
        empty = sorted(had - {dataset.samples[index].label for index in indices})
        if empty:
            names = quote_names(dataset.class_names[label] for label in empty)
            classes = "class" if len(empty) == 1 else "classes"
            yield f"no usable picture to {purpose} is left of the {classes} {names}"


def _indices(
    values: Mapping[str, Any], side: str, known: Mapping[str, int], dataset: Dataset
) -> list[int]:
    names = values.get(side) if isinstance(values, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"a split has a list of names called '{side}'")
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"{dataset.source}: {plural(len(missing), 'picture')} of the split not found, "
            f"such as '{missing[0]}'"
        )
    return [known[name] for name in names]
