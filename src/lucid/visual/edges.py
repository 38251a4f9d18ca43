"""The edges of a chart: the order in which the forward pass completes what is drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from lucid.visual.grouping import Node
from lucid.visual.tracing import Completion, Place, Trace


@dataclass(frozen=True)
class Edges:
    """Text of the edges, sorted, and the boxes whose ``Input`` and ``Output`` pills they use."""

    lines: list[str]
    boxes_with_pills: frozenset[Node]


@dataclass(frozen=True)
class _Stop:
    """A completed call as the chart sees it: a node, and the module it counts as."""

    node: Node
    counted_as: Place


def edges(trace: Trace, tree: Node, input_ids: list[str]) -> Edges:
    """The edges between the nodes of ``tree``, from ``input_ids`` and to ``output``."""
    stops = _stops(tree)
    path = [(stops[done.place], done) for done in trace.completed if done.place in stops]
    steps = [
        (before.node, after.node)
        for (before, _), (after, _) in pairwise(path)
        if before.counted_as is not after.counted_as
        # A leaf is one node, so an edge from it to itself says nothing.
        and not (before.node is after.node and not after.node.children)
    ]
    boxes = frozenset(node for stop, _ in path if (node := stop.node).children)
    pairs = {(_leave(before), _enter(after)) for before, after in steps}
    pairs |= {
        (input_id, _enter(node))
        for input_id, node in zip(input_ids, _receivers(path, len(input_ids)), strict=True)
    }
    pairs.add((_leave(path[-1][0].node), "output"))
    for box in boxes:
        leaves = box.leaves()
        pairs |= {(_enter(box), leaves[0].id), (leaves[-1].id, _leave(box))}
    incoming = Counter(target for _, target in pairs)
    lines = sorted(
        f"{source} {'-.->' if incoming[target] > 1 else '-->'} {target};"
        for source, target in pairs
    )
    return Edges(lines, boxes)


def _stops(tree: Node) -> dict[Place, _Stop]:
    """What each place counts as; a drawn box is missing, since its leaves speak for it."""
    stops: dict[Place, _Stop] = {}
    for node in tree.walk():
        for member in node.run:
            # The inside of the member that is drawn as a box has nodes of its own.
            if member is not node.place or not node.children:
                stops |= {place: _Stop(node, member) for place in member.walk()}
    return stops


def _receivers(path: list[tuple[_Stop, Completion]], inputs: int) -> list[Node]:
    """Where each input goes in: the start of the path, for one input.

    Of several, each goes to the first module that is given it as it is, if there is one.
    """
    start = path[0][0].node
    if inputs == 1:
        return [start]
    return [
        next((stop.node for stop, done in path if number in done.received), start)
        for number in range(inputs)
    ]


def _enter(node: Node) -> str:
    return f"{node.id}_in" if node.children else node.id


def _leave(node: Node) -> str:
    return f"{node.id}_out" if node.children else node.id
