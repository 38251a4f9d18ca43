"""Running a module once and recording what it did, without changing it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from lucid.errors import ConfigError, LucidError, ShapeError

Shape = tuple[int, ...]


@dataclass(eq=False)
class Place:
    """One place in the module tree; a module that stands in several has a place for each.

    ``inputs`` and ``outputs`` are the shapes of the first call, without repetition. ``parameters``
    are the module's own that no earlier place has; ``multiply_adds`` are those of all calls,
    children included. ``calls`` that failed don't count; ``order`` is the rank of the first among
    all that ended.
    """

    module: nn.Module
    name: str
    parent: Place | None
    children: list[Place] = field(default_factory=list)
    parameters: int = 0
    multiply_adds: int = 0
    calls: int = 0
    order: int | None = None
    inputs: tuple[Shape, ...] = ()
    outputs: tuple[Shape, ...] = ()

    @property
    def path(self) -> str:
        """The attribute path from the root, such as ``conv3.0.depthwise``; empty for the root."""
        parent = self.parent.path if self.parent else ""
        return f"{parent}.{self.name}" if parent else self.name

    def walk(self) -> Iterator[Place]:
        """This place and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def ran(self) -> bool:
        """Whether it or anything below it was called."""
        return any(place.calls for place in self.walk())

    def lies_in(self, other: Place) -> bool:
        """Whether ``other`` is this place or above it."""
        place: Place | None = self
        while place is not None and place is not other:
            place = place.parent
        return place is not None


@dataclass(frozen=True)
class Completion:
    """A call that ended, and the numbers of the root's inputs that it was given as they are."""

    place: Place
    received: frozenset[int]


@dataclass(frozen=True)
class Trace:
    """What one run of a module did; ``completed`` is in the order in which the calls ended."""

    root: Place
    completed: tuple[Completion, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]


def trace(
    module: nn.Module,
    input_shapes: Sequence[Shape],
    *,
    dtype: torch.dtype | None = None,
    costs: bool = False,
) -> Trace:
    """Run ``module`` once, in evaluation mode and without gradients, and leave it as it was.

    The inputs are made on the module's device: uniform in [0, 1) for floating-point types, zeros
    for all others, so that they are valid indices.

    Args:
        module: any module that takes tensors by position.
        input_shapes: one shape for each input.
        dtype: of all inputs; None: that of the module's first floating-point parameter.
        costs: count multiply-adds too; without it they are 0.
    Raises:
        ConfigError: the module has lazy parameters, which a run would initialise.
        ShapeError: the module can't run on such inputs.
    """
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise ConfigError(
            f"{type(module).__name__} has lazy parameters without a shape; "
            "run it once on real input before drawing it"
        )
    with _unchanged(module), _multiply_adds(costs) as total, _Recorder(module, total) as recorder:
        try:
            inputs = [_input(module, shape, dtype) for shape in input_shapes]
            outputs = recorder.run(inputs)
        except LucidError:
            raise
        except Exception as error:
            raise _refusal(recorder, input_shapes, error) from error
    return Trace(
        recorder.root, tuple(recorder.completed), tuple(input_shapes), tuple(_shapes(outputs))
    )


class _Recorder:
    """Hooks on every module while the context lasts; they note calls, shapes and costs."""

    def __init__(self, module: nn.Module, multiply_adds: Callable[[], int]) -> None:
        self.root = _tree(module, "", None)
        self.completed: list[Completion] = []
        self.running: list[tuple[Place, int]] = []  # place, multiply-adds when it started
        self._places: dict[nn.Module, list[Place]] = defaultdict(list)
        for place in self.root.walk():
            self._places[place.module].append(place)
        _share_out_parameters(self.root)
        self._inputs: dict[int, int] = {}
        self._multiply_adds = multiply_adds  # so far, in all
        self._hooks = ExitStack()

    def __enter__(self) -> _Recorder:
        for module in self._places:
            before = module.register_forward_pre_hook(self._before)
            after = module.register_forward_hook(self._after, with_kwargs=True)
            self._hooks.callback(before.remove)
            self._hooks.callback(after.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def run(self, inputs: Sequence[torch.Tensor]) -> Any:
        self._inputs = {id(tensor): number for number, tensor in enumerate(inputs)}
        with torch.no_grad():
            return self.root.module(*inputs)

    def _before(self, module: nn.Module, _: Any) -> None:
        place = self._place_of(module)
        self.running.append((place, self._multiply_adds()))

    def _after(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        # A call whose exception the model caught never ends; it lies above ours.
        while self.running[-1][0].module is not module:
            self.running.pop()
        place, before = self.running.pop()
        place.multiply_adds += self._multiply_adds() - before
        given = list(_tensors((args, kwargs)))
        if place.order is None:
            place.order = len(self.completed)
            place.inputs = tuple(dict.fromkeys(tuple(tensor.shape) for tensor in given))
            place.outputs = tuple(dict.fromkeys(_shapes(output)))
        place.calls += 1
        received = frozenset(self._inputs[id(t)] for t in given if id(t) in self._inputs)
        self.completed.append(Completion(place, received))

    def _place_of(self, module: nn.Module) -> Place:
        """The place that this call means: one inside the caller, and of these the least called."""
        places = self._places[module]
        if len(places) == 1 or not self.running:
            return places[0]
        caller = self.running[-1][0]
        return min(places, key=lambda place: (not place.lies_in(caller), place.calls))


def _tree(module: nn.Module, name: str, parent: Place | None) -> Place:
    place = Place(module, name, parent)
    # Not named_children(): it leaves out a module that the parent holds twice.
    for child_name, child in module._modules.items():
        if child is not None:
            place.children.append(_tree(child, child_name, place))
    return place


def _share_out_parameters(root: Place) -> None:
    """Count each parameter once, at the first place that has it."""
    counted: set[nn.Parameter] = set()
    for place in root.walk():
        own = set(place.module.parameters(recurse=False)) - counted
        place.parameters = sum(parameter.numel() for parameter in own)
        counted |= own


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _shapes(value: Any) -> list[Shape]:
    return [tuple(tensor.shape) for tensor in _tensors(value)]


def _input(module: nn.Module, shape: Shape, dtype: torch.dtype | None) -> torch.Tensor:
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    if dtype is None:
        floating = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
        dtype = next(floating, torch.get_default_dtype())
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype, device=device)
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    # Zeros would be divided by in modules that normalise.
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode; afterwards restore modes, buffers and the random state."""
    parts = list(module.modules())
    modes = [part.training for part in parts]
    buffers = [dict(part._buffers) for part in parts]
    contents = {buffer: buffer.clone() for buffer in module.buffers()}
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        module.eval()
        try:
            yield
        finally:
            for part, mode, own in zip(parts, modes, buffers, strict=True):
                part.training = mode
                part._buffers.update(own)
            for buffer, content in contents.items():
                # Unchanged ones are left alone: gradients may need them, and views can't be copied.
                if not buffer.is_meta and not torch.equal(buffer, content):
                    buffer.copy_(content)


@contextmanager
def _multiply_adds(counted: bool) -> Iterator[Callable[[], int]]:
    """Yield what tells the multiply-adds so far of convolutions and matrix products."""
    if not counted:
        yield lambda: 0
        return
    # Fused kernels would hide their matrix products from FlopCounterMode.
    fused: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    enabled = [backend.enabled for backend in fused]
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    try:
        for backend in fused:
            backend.enabled = False
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield lambda: counter.get_total_flops() // 2  # it counts a multiply-add as two
    finally:
        for backend, value in zip(fused, enabled, strict=True):
            backend.enabled = value
        torch.backends.mha.set_fastpath_enabled(fast_attention)


def _refusal(recorder: _Recorder, shapes: Sequence[Shape], error: Exception) -> ShapeError:
    name = type(recorder.root.module).__name__
    given = ", ".join(str(shape) for shape in shapes)
    innermost = recorder.running[-1][0] if recorder.running else recorder.root
    where = f"; it failed in {innermost.path}" if innermost.path else ""
    what = " ".join(str(error).split()) or "no message"
    return ShapeError(
        f"{name} can't run on input of shape {given}{where}: {type(error).__name__}: {what}; "
        "give input_shape (and dtype) as its forward expects them"
    )
