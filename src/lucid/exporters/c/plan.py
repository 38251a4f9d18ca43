"""Where the rows of every map lie in the memory of a device, and how much memory that takes.

A *stage* is the stem, or a depthwise layer with the pointwise one behind it. The first stages run
by rows: as soon as three rows of what a stage reads are there, it gives one, and the oldest is
overwritten. Of what the last of them gives, the whole map is kept; each later stage reads such a
map and writes its own over it, some rows at a time, moved so far that no row is lost before its
last use. Where the one ends and the other begins is chosen so that the memory is smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from lucid.errors import ConfigError
from lucid.network import Layer, SizedLayer, sized_layers

__all__ = ["Plan", "Stage", "make_plan"]

MAX_ROWS = 12  # LUCID_MAX_ROWS of kernels.h

_WINDOW = 3
_ALIGNMENT = 4  # bytes, of every place in the memory
_LARGEST = 2**16 - 1  # of what the C structures hold in 16 bits
_MOST_MEMORY = 2**31 - 1
_STEM_PIXELS = 36  # that the stem's kernels lay out at once, at most


@dataclass(frozen=True)
class Stage:
    """What a stage reads and works with; the last of a plan is the pool. Offsets are in the memory.

    Args:
        offset: of row 0 of what it reads, in bytes.
        kept: rows that stand there at once; row r is at place r % kept.
        row_bytes: of one of them.
        count: rows that it gives at once.
        between: offset of what stands between its layers; of the pool's means.
        between_bytes: of that.
        work_bytes: of what its kernels work with, behind that.
    """

    offset: int
    kept: int
    row_bytes: int
    count: int
    between: int
    between_bytes: int
    work_bytes: int

    @property
    def bytes(self) -> int:
        """Of what it reads."""
        return self.kept * self.row_bytes

    @property
    def work(self) -> int:
        return self.between + _aligned(self.between_bytes)

    @property
    def scratch_bytes(self) -> int:
        return _aligned(self.between_bytes) + _aligned(self.work_bytes)


@dataclass(frozen=True)
class Plan:
    """How a network runs on images of one size.

    Args:
        layers: stem, pairs of depthwise and pointwise, pool, dense.
        stages: in order, and the pool.
        streamed: stages that run as the rows of the image come, 1 or more.
        memory: bytes of all together, a multiple of 4.
    """

    layers: tuple[SizedLayer, ...]
    stages: tuple[Stage, ...]
    streamed: int
    memory: int

    @property
    def image_bytes(self) -> int:
        return prod(self.layers[0].input_shape)

    @property
    def logits_bytes(self) -> int:
        return 4 * self.layers[-1].out_channels

    @property
    def counters(self) -> int:
        """Rows that each streamed stage has got, and the map behind them: 16 bits each."""
        return self.streamed + 1

    @property
    def state_bytes(self) -> int:
        """Of the state that a program gives: the memory and the counters."""
        return self.memory + _aligned(2 * self.counters)

    @cached_property
    def layer_bytes(self) -> tuple[int, ...]:
        """Of each layer, the bytes in use while it runs: what it reads, gives and works with.

        All rows of streamed stages are in use until the last of them is done. Of the image only
        three rows count.
        """
        streamed = sum(stage.bytes for stage in self.stages[: self.streamed + 1])
        found = []
        for index, layer in enumerate(self.layers[:-1]):
            number = (index + 1) // 2
            stage = self.stages[number]
            if layer.kind == "pool":
                maps = stage.bytes
            else:
                maps = streamed if number < self.streamed else self._both(number)
            found.append(maps + stage.scratch_bytes)
        dense = self.layers[-1]
        return (*found, dense.in_channels + self.logits_bytes)

    @property
    def peak(self) -> int:
        """The index of the layer with the most bytes in use; of equal ones the first."""
        return self.layer_bytes.index(max(self.layer_bytes))

    def _both(self, number: int) -> int:
        """Bytes that the map which a stage reads and the one that it gives take together."""
        read, given = self.stages[number], self.stages[number + 1]
        end = max(read.offset + read.bytes, given.offset + given.bytes)
        return end - min(read.offset, given.offset)


def make_plan(network: Sequence[Layer], height: int, width: int) -> Plan:
    """The plan with the least memory for images of (height, width) pixels.

    Raises:
        ConfigError: a side or a number of channels is over 65,535, which the C structures do not
            hold, or the memory is 2 GiB or more.
    """
    layers = sized_layers(network, height, width)
    largest = max(max(layer.input_shape + layer.output_shape) for layer in layers)
    if largest > _LARGEST:
        raise ConfigError(
            f"the C export takes at most {_LARGEST} channels and pixels a side, got {largest}"
        )
    stages = len(layers) // 2  # without the pool
    plans = [_plan(layers, streamed) for streamed in range(1, stages + 1)]
    best = min(plans, key=lambda plan: plan.memory)
    if best.memory > _MOST_MEMORY:
        raise ConfigError(f"{best.memory:,} bytes of RAM are more than the C export can address")
    return best


def _plan(layers: tuple[SizedLayer, ...], streamed: int) -> Plan:
    """The plan in which so many stages run as the rows of the image come.

    In the memory stand the rows that these read, the map that the last of them gives, and what they
    work with. The maps of later stages may reach down into the rows, which are free by then, and
    what those stages work with stands at either end.
    """
    heads = (layers[0], *layers[1:-1:2])  # the first layer of each stage, and the pool
    bounds = [_stage(head, 1) for head in heads[:streamed]]
    # In bytes from the start of the map.
    low = -sum(_aligned(stage.bytes) for stage in bounds)
    end = _aligned(heads[streamed].height * _row_bytes(heads[streamed]))
    high = end + max(stage.scratch_bytes for stage in bounds)
    found = []
    offset = low
    for stage in bounds:
        found.append(replace(stage, offset=offset, between=end))
        offset += _aligned(stage.bytes)
    for number in range(streamed, len(heads)):
        stage, moved = _place(heads, number, offset, (low, end, high))
        found.append(stage)
        high = max(high, stage.between + stage.scratch_bytes)
        offset = moved
    start = -min(low, *(stage.offset for stage in found))
    stages = tuple(
        replace(stage, offset=start + stage.offset, between=start + stage.between)
        for stage in found
    )
    return Plan(layers, stages, streamed, start + high)


def _place(
    heads: Sequence[SizedLayer],
    number: int,
    offset: int,
    bounds: tuple[int, int, int],
) -> tuple[Stage, int]:
    """A stage that reads a whole map at an offset, and the offset of the map that it gives.

    It gives as many rows at once as there is room for what it works with, within the bounds: from
    the low one to the maps, or between the other two. For one row, room is made.
    """
    low, end, high = bounds
    head = heads[number]
    most = min(head.output_side(head.height), MAX_ROWS)
    for count in range(most, 0, -1):
        stage = replace(_stage(head, count), offset=offset, kept=head.height)
        moved = offset
        if number + 1 < len(heads):
            moved -= _aligned(_shift(head, heads[number + 1], count))
        if end + stage.scratch_bytes <= high:
            return replace(stage, between=end), moved
        if low + stage.scratch_bytes <= min(offset, moved):
            return replace(stage, between=low), moved
    return replace(stage, between=end), moved


def _stage(head: SizedLayer, count: int) -> Stage:
    """A stage without its places, with the bytes that the hungriest kernels work with.

    kernels.h defines them as LUCID_*_BYTES for each set of kernels; model.c asserts that they are
    not more than these.
    """
    between = work = 0
    if head.kind == "stem":
        values = 9 * head.in_channels
        pixels = min(_up(head.output_shape[2], 3), _STEM_PIXELS)
        work = max(
            (2 * pixels + 4) * _up(values, 4),
            min(head.output_shape[2], _STEM_PIXELS) * _up(values, 16) + 16,
        )
    elif head.kind == "depthwise":
        pixels = count * head.output_shape[2]
        channels = head.in_channels
        between = max(2 * _up(pixels, 3) * _up(channels, 4), pixels * channels + 16)
        columns = max(32 * (head.width + 8), min(64 * (head.width + 10), 1024))
        work = max(columns, 4 * _up(channels, 4))
    else:
        between = head.out_channels
    return Stage(0, min(_WINDOW, head.height), _row_bytes(head), count, 0, between, work)


def _shift(head: SizedLayer, after: SizedLayer, count: int) -> int:
    """By how many bytes the map ``after`` starts before the one of ``head``, which it is made from.

    When rows have been written, those that the next ones need must be whole. It ends where the
    other does, or before.
    """
    read, written = _row_bytes(head), _row_bytes(after)
    top, _ = head.border(head.height)
    shifts = [after.height * written - head.height * read]
    for done in range(count, after.height, count):
        shifts.append(done * written - (done * head.stride - top) * read)
    return max(shifts)


def _row_bytes(head: SizedLayer) -> int:
    return head.in_channels * head.width


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _aligned(size: int) -> int:
    return _up(size, _ALIGNMENT)
