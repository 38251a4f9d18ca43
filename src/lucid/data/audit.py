"""Finding what is wrong with a data set before it spoils a training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from lucid.checks import check_integer
from lucid.data.duplicates import DisjointSets, near_duplicates
from lucid.data.inspection import Inspection, Progress, inspect_all
from lucid.data.samples import Dataset, list_some, plural, quote_names
from lucid.images import MAX_RESOLUTION

Severity = Literal["error", "warning", "note"]


class Kind(NamedTuple):
    """A kind of finding, and what is done about each."""

    severity: Severity
    title: str
    consequence: str


# In the order in which they are reported.
KINDS = {
    "unreadable": Kind("error", "Unreadable files", "left out"),
    "two-classes": Kind("error", "Identical files under two classes", "all copies left out"),
    "across-splits": Kind("error", "Duplicates across splits", "the copies in train are left out"),
    "classes": Kind("warning", "Folders and classes", "labels stay as they are; mend the folders"),
    "near-duplicates-two-classes": Kind(
        "warning",
        "Near duplicates under two classes",
        "kept together; look at them",
    ),
    "alike": Kind("warning", "Look-alikes", "kept, on both sides of the split"),
    "duplicates": Kind("warning", "Identical files", "kept on one side of the split"),
    "near-duplicates": Kind("warning", "Near duplicates", "kept on one side of the split"),
    "imbalance": Kind("warning", "Imbalance", "kept; balance the sampling or add pictures"),
    "few-pictures": Kind("warning", "Classes with few pictures", "kept; add pictures"),
    "small": Kind("warning", "Smaller than the resolution", "enlarged when read"),
    "stray": Kind("warning", "Stray files", "ignored"),
    "rotated": Kind("note", "Turned by EXIF", "turned upright when read"),
    "greyscale": Kind("note", "Greyscale", "read as colour with equal channels"),
    "palette": Kind("note", "Palette", "read as colour"),
    "cmyk": Kind("note", "CMYK", "read as colour, without its colour profile"),
    "16-bit": Kind("note", "16 bits a channel", "read with 8"),
    "animated": Kind("note", "Animated or several pages", "only the first frame is read"),
}
# Each finding of these kinds is about a group of pictures that show the same.
GROUPS = frozenset(
    {
        "two-classes",
        "across-splits",
        "near-duplicates-two-classes",
        "alike",
        "duplicates",
        "near-duplicates",
    }
)
_NOTES = [kind for kind, (severity, _, _) in KINDS.items() if severity == "note"]

# The largest class may have this many times the pictures of the smallest.
MAX_IMBALANCE = 5.0
MIN_PICTURES = 20
# A group of near duplicates with most of a class is no accident but how that class looks, such as
# parts before one camera; keeping it on one side would leave nothing to validate with.
_ALIKE_SHARE = 0.5
_ALIKE_SIZE = 10
_TOO_MUCH_ALIKE = (
    "the pictures are so much alike that copies can't be told from look-alikes; "
    "only identical files were looked for"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        kind: a key of ``KINDS``.
        message: a sentence.
        paths: the files concerned; a group of duplicates is one finding.
    """

    kind: str
    message: str
    paths: tuple[Path, ...] = ()

    @property
    def severity(self) -> Severity:
        """``"error"``, ``"warning"`` or ``"note"``."""
        return KINDS[self.kind].severity


@dataclass(frozen=True)
class AuditReport:
    """What an audit found, and what follows for training; indices are of ``dataset.samples``.

    Args:
        dataset: what was audited.
        resolution: input side in pixels that pictures were measured against.
        findings: gravest first.
        unreadable: samples whose files can't be decoded.
        contradictory: samples whose very bytes stand under another class too. All copies are
            listed, since nothing says which label is right.
        duplicate_groups: usable samples that show the same and must stay on one side of a split;
            ascending, no index in two groups.
    """

    dataset: Dataset
    resolution: int
    findings: tuple[Finding, ...]
    unreadable: tuple[int, ...]
    contradictory: tuple[int, ...]
    duplicate_groups: tuple[tuple[int, ...], ...]

    @property
    def usable(self) -> tuple[int, ...]:
        """Indices of the samples that can be used, ascending."""
        left_out = {*self.unreadable, *self.contradictory}
        return tuple(i for i in range(len(self.dataset.samples)) if i not in left_out)

    def summary(self) -> str:
        """One line: how many pictures there are, what was left out, what stays together."""
        pictures = plural(len(self.dataset.samples), "picture")
        parts = [f"{pictures} in {plural(len(self.dataset.class_names), 'class', 'classes')}"]
        left_out = [
            f"{len(indices):,} {reason}"
            for indices, reason in (
                (self.unreadable, "unreadable"),
                (self.contradictory, "under two classes"),
            )
            if indices
        ]
        if left_out:
            parts.append(f"{', '.join(left_out)}: left out")
        if self.duplicate_groups:
            groups = plural(len(self.duplicate_groups), "group")
            across = sum(finding.kind == "across-splits" for finding in self.findings)
            parts.append(
                f"{groups} of duplicates, {across:,} across splits"
                if self.dataset.splits
                else f"{groups} of duplicates kept on one side of the split"
            )
        return "; ".join(parts)

    def to_json(self) -> str:
        """The report as JSON text; files by their names relative to the data set's root."""
        return json.dumps(
            {
                "source": str(self.dataset.source),
                "resolution": self.resolution,
                "pictures": len(self.dataset.samples),
                "usable": len(self.usable),
                "classes": class_counts(self.dataset, range(len(self.dataset.samples))),
                "unreadable": self._names(self.unreadable),
                "contradictory": self._names(self.contradictory),
                "duplicate_groups": [self._names(group) for group in self.duplicate_groups],
                "findings": [
                    {
                        "kind": finding.kind,
                        "severity": finding.severity,
                        "message": finding.message,
                        "paths": [self.dataset.name(path) for path in finding.paths],
                    }
                    for finding in self.findings
                ],
            },
            indent=2,
        )

    def _names(self, indices: Iterable[int]) -> list[str]:
        return [self.dataset.name(self.dataset.samples[index].path) for index in indices]


def audit(
    dataset: Dataset, resolution: int = 128, *, progress: Progress | None = None
) -> AuditReport:
    """Read every picture of a data set once and report what would harm a training.

    Args:
        dataset: what ``open_data`` returned.
        resolution: input side in pixels; smaller pictures are reported.
        progress: called with (pictures done, pictures in all) after each picture.
    Raises:
        ConfigError: the resolution is out of range.
        MissingDependencyError: imagehash is not installed.
    """
    check_integer("resolution", resolution, 1, MAX_RESOLUTION)
    return _Audit(dataset, resolution, inspect_all(dataset, progress)).report()


def class_counts(dataset: Dataset, indices: Iterable[int]) -> dict[str, int]:
    """How many of the samples ``indices`` each class has, by class name."""
    counts = Counter(dataset.samples[index].label for index in indices)
    return {name: counts[label] for label, name in enumerate(dataset.class_names)}


class _Audit:
    """The steps from inspections, one a sample, to a report."""

    def __init__(
        self, dataset: Dataset, resolution: int, inspections: Sequence[Inspection]
    ) -> None:
        self.dataset = dataset
        self.resolution = resolution
        self.inspections = inspections
        self.readable = [i for i, inspection in enumerate(inspections) if not inspection.error]
        self.copies: dict[bytes, list[int]] = {}
        for index in self.readable:
            self.copies.setdefault(inspections[index].digest, []).append(index)
        self.contradictions = [c for c in self.copies.values() if len(self._labels(c)) > 1]
        self.contradictory = sorted(index for copies in self.contradictions for index in copies)
        left_out = set(self.contradictory)
        self.usable = [index for index in self.readable if index not in left_out]
        self.of_class = Counter(dataset.samples[index].label for index in self.readable)

    def report(self) -> AuditReport:
        found, alike, distinct = self._groups()
        usable = set(self.usable)
        shrunk = (tuple(index for index in group if index in usable) for group in found)
        groups = [group for group in shrunk if len(group) > 1]
        findings = [
            *self._unreadable(),
            *map(self._about_contradiction, self.contradictions),
            *(finding for group in groups for finding in self._about_group(group)),
            *map(self._about_alike, alike),
            *([] if distinct else [Finding("alike", _TOO_MUCH_ALIKE)]),
            *(Finding("classes", warning) for warning in self.dataset.warnings),
            *self._about_counts(),
            *self._about_files(),
        ]
        order = list(KINDS)
        return AuditReport(
            dataset=self.dataset,
            resolution=self.resolution,
            findings=tuple(sorted(findings, key=lambda finding: order.index(finding.kind))),
            unreadable=tuple(i for i, found in enumerate(self.inspections) if found.error),
            contradictory=tuple(self.contradictory),
            duplicate_groups=tuple(groups),
        )

    def _groups(self) -> tuple[list[list[int]], list[list[int]], bool]:
        """The groups of duplicates, those that are too much of a class to be duplicates, and
        whether near duplicates can be told at all."""
        prints = {
            copies[0]: print_
            for copies in self.copies.values()
            if (print_ := self.inspections[copies[0]].fingerprint)
        }
        first_of = list(prints)
        sets = DisjointSets(len(self.inspections))
        alike = []
        groups, distinct = near_duplicates(list(prints.values()))
        for places in groups:
            near = [first_of[place] for place in places]
            group = sorted(i for first in near for i in self.copies[self._digest(first)])
            if self._is_most_of_a_class(group):
                alike.append(group)
            else:
                for index in near[1:]:
                    sets.join(near[0], index)
        for first, *others in self.copies.values():
            for index in others:
                sets.join(first, index)
        return sets.groups(), alike, distinct

    def _is_most_of_a_class(self, group: Sequence[int]) -> bool:
        if len(group) < _ALIKE_SIZE:
            return False
        in_group = Counter(self.dataset.samples[index].label for index in group)
        return any(count > _ALIKE_SHARE * self.of_class[label] for label, count in in_group.items())

    def _unreadable(self) -> Iterator[Finding]:
        for sample, found in zip(self.dataset.samples, self.inspections, strict=True):
            if found.error:
                name = self.dataset.name(sample.path)
                yield Finding("unreadable", f"{name}: {found.error}", (sample.path,))

    def _about_contradiction(self, copies: Sequence[int]) -> Finding:
        message = f"{len(copies):,} identical files, under {self._class_names(copies)}"
        return Finding("two-classes", message, self._paths(copies))

    def _about_group(self, group: Sequence[int]) -> Iterator[Finding]:
        """What a group of duplicates is, and whether it has two classes or splits."""
        paths = self._paths(group)
        identical = len({self._digest(index) for index in group}) == 1
        what = f"{len(group):,} {'identical files' if identical else 'pictures that show the same'}"
        labels = self._labels(group)
        splits = {str(self.dataset.samples[index].split) for index in group}
        if len(labels) > 1:
            message = f"{what}, under {self._class_names(group)}"
            yield Finding("near-duplicates-two-classes", message, paths)
        if len(splits) > 1:
            yield Finding("across-splits", f"{what}, in {quote_names(sorted(splits))}", paths)
        if len(labels) == len(splits) == 1:
            yield Finding("duplicates" if identical else "near-duplicates", what, paths)

    def _about_alike(self, group: Sequence[int]) -> Finding:
        message = (
            f"{len(group):,} pictures of {self._class_names(group)}, most of a class, "
            "hardly differ; if they are frames of one film, divide them by hand"
        )
        return Finding("alike", message, self._paths(group))

    def _about_counts(self) -> Iterator[Finding]:
        """Imbalance and few pictures, of what is left to train on."""
        samples = self.dataset.samples
        to_train = {i for i, sample in enumerate(samples) if sample.split in (None, "train")}
        exist = class_counts(self.dataset, to_train)
        counts = class_counts(self.dataset, to_train.intersection(self.usable))
        few = {name: counts[name] for name in exist if exist[name] and counts[name] < MIN_PICTURES}
        if few:
            classes = list_some(f"'{name}' ({count})" for name, count in few.items())
            message = f"fewer than {MIN_PICTURES} pictures to train on: {classes}"
            yield Finding("few-pictures", message)
        present = {name: count for name, count in counts.items() if count}
        if not present:
            return
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        if present[most] >= MAX_IMBALANCE * present[least]:
            message = (
                f"'{most}' has {present[most]:,} pictures to train on, "
                f"'{least}' has {present[least]:,}"
            )
            yield Finding("imbalance", message)

    def _about_files(self) -> Iterator[Finding]:
        """What concerns single files: all of a kind are one finding."""
        small = [i for i in self.readable if min(self.inspections[i].size) < self.resolution]
        if small:
            smallest = min(small, key=lambda index: min(self.inspections[index].size))
            width, height = self.inspections[smallest].size
            name = self.dataset.name(self.dataset.samples[smallest].path)
            yield Finding(
                "small",
                f"{plural(len(small), 'picture')} with a side below {self.resolution} pixels, "
                f"the smallest is {name}, {width} x {height}",
                self._paths(small),
            )
        if self.dataset.stray:
            yield Finding(
                "stray",
                f"{plural(len(self.dataset.stray), 'file')} in no class folder, or no pictures",
                self.dataset.stray,
            )
        for kind in _NOTES:
            having = [i for i in self.readable if kind in self.inspections[i].traits]
            if having:
                yield Finding(kind, plural(len(having), "picture"), self._paths(having))

    def _digest(self, index: int) -> bytes:
        return self.inspections[index].digest

    def _labels(self, indices: Iterable[int]) -> set[int]:
        return {self.dataset.samples[index].label for index in indices}

    def _class_names(self, indices: Iterable[int]) -> str:
        labels = sorted(self._labels(indices))
        return quote_names(self.dataset.class_names[label] for label in labels)

    def _paths(self, indices: Iterable[int]) -> tuple[Path, ...]:
        return tuple(self.dataset.samples[index].path for index in indices)
