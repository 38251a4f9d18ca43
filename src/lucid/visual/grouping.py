"""What of a module tree is drawn: cut at a depth, and equal neighbours shown once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from torch import nn

from lucid.visual.tracing import Place


@dataclass(eq=False)
class Node:
    """A box (with children) or a leaf of the chart; it stands for a run of equal siblings.

    ``place`` is the one of the run whose inside is drawn. ``number`` counts depth first.
    """

    place: Place
    run: tuple[Place, ...]
    level: int
    children: list[Node] = field(default_factory=list)
    number: int = 0

    @property
    def id(self) -> str:
        """The name of the node in the Mermaid text."""
        return f"m{self.number}"

    @property
    def title(self) -> str:
        """A box of a Sequential with a name of its own shows the name, all others their class."""
        module, name = self.place.module, self.place.name
        named = self.children and type(module) is nn.Sequential and name and not name.isdigit()
        title = name if named else type(module).__name__
        return f"{title} x {len(self.run)}" if len(self.run) > 1 else title

    @property
    def parameters(self) -> int:
        """Parameters of all that it stands for; one that several modules share counts once."""
        return sum(place.parameters for member in self.run for place in member.walk())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all that it stands for, in all calls."""
        return sum(member.multiply_adds for member in self.run)

    def walk(self) -> Iterator[Node]:
        """This node and all inside it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> list[Node]:
        """The leaves inside it, or itself; depth first."""
        return [node for node in self.walk() if not node.children]


def displayed_tree(root: Place, *, depth: int | None, collapse: bool) -> Node:
    """The nodes to draw, numbered.

    Args:
        root: the traced module tree.
        depth: levels below the root; what lies deeper is part of its nearest displayed ancestor.
        collapse: show consecutive siblings of equal structure once; without it each stands for
            itself, and siblings come in the order in which they ran.
    """
    tree = _node((root,), 0, depth, collapse)
    for number, node in enumerate(tree.walk()):
        node.number = number
    return tree


def _node(run: Sequence[Place], level: int, depth: int | None, collapse: bool) -> Node:
    place = next((member for member in run if member.ran()), run[0])
    node = Node(place, tuple(run), level)
    # Children that never ran only hold parameters for it, as in nn.MultiheadAttention.
    if level != depth and any(child.ran() for child in place.children):
        siblings = _runs(place.children) if collapse else _in_running_order(place.children)
        node.children = [_node(members, level + 1, depth, collapse) for members in siblings]
    return node


def _runs(siblings: Sequence[Place]) -> list[list[Place]]:
    """Consecutive siblings of equal structure, together."""
    return [list(members) for _, members in groupby(siblings, key=_structure)]


def _structure(place: Place) -> tuple[Any, ...]:
    """Class and, recursively, the children's structures; how often one repeats does not matter."""
    return (type(place.module), *(key for key, _ in groupby(map(_structure, place.children))))


def _in_running_order(siblings: Sequence[Place]) -> list[list[Place]]:
    def first_run(place: Place) -> float:
        return min((p.order for p in place.walk() if p.order is not None), default=math.inf)

    return [[place] for place in sorted(siblings, key=first_run)]
