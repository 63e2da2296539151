"""A training step with the kernels taken out: what it would take of memory, and when.

Nothing is estimated by rules that could age. The step's own code runs, forward, backward and
optimiser, but every compiled kernel is replaced by one that does nothing. So every array is asked
for and given back as it would be, and the memory behind it, never touched, costs nothing: the
system gives a page when somebody first writes to it.

Three kinds of memory are counted. Activations and gradients lie in `kernels.workspace`, whose
regions are used from below; so the highest address that was ever handed out says how much of a
region a real step touches. Kernels have rooms of their own while they run, one after the other in
one memory. Everything else that NumPy allocates is reported by Python's `tracemalloc`.
"""

from __future__ import annotations

import pkgutil
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
from numba.core.dispatcher import Dispatcher

from minifcn import device, kernels, nn
from minifcn.function import Function
from minifcn.kernels import ahead, workspace
from minifcn.kernels.rooms import Rooms
from minifcn.optim.optimizer import zeros_beside


@dataclass
class Moment:
    """An operation: its layer, what was held more after it, the most held during its backward."""

    layer: str
    kind: str
    kept: int = 0
    backward: int = 0


class Watch:
    """Counts bytes while a step runs: ``held`` now, most ``touched`` so far, the ``moments``."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {id(m): name or type(m).__name__ for name, m in model.named_modules()}
        self.owners = {id(p): n.rpartition(".")[0] for n, p in model.named_parameters()}
        self.moments: list[Moment] = []
        self.held = self.highest = self.touched = self.seen = self.apart = 0
        self._regions: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._within: list[str] = []  # the modules whose forward runs
        self._of: dict[int, Moment] = {}  # by the operation
        self._going_back: Moment | None = None
        self._begun = tracemalloc.get_traced_memory()[0]

    def sample(self, seen: int = 0, apart: int = 0) -> None:
        """Take what is held now, and the most till now: with bytes of a kernel's `Rooms`."""
        now, most = (n - self._begun for n in tracemalloc.get_traced_memory())
        tracemalloc.reset_peak()
        alive = [(r, end) for ref, end in self._regions.values() if (r := ref()) is not None]
        size = sum(len(region) for region, _ in alive)
        free = workspace.free_bytes()
        self.held = now - free
        rooms = seen + apart
        self.seen, self.apart = max(self.seen, seen), max(self.apart, apart)
        most += rooms
        self.highest = max(self.highest, most - free)
        beyond = self.seen + self.apart - rooms + most - size  # beyond the regions
        self.touched = max(self.touched, sum(end for _, end in alive) + beyond)
        if self._going_back is not None:
            self._going_back.backward = max(self._going_back.backward, most - free)

    def lease(self, real: Callable[[int], Any], size: int) -> Any:
        """Memory of the workspace."""
        self.sample()
        array = real(size)
        (address, _), region = array.place, array.base
        number, start = divmod(address, 1 << workspace.BITS)
        before = self._regions.get(number, (None, 0))[1]
        self._regions[number] = weakref.ref(region), max(before, start + size)
        tracemalloc.reset_peak()
        self.sample()
        return array

    def rooms(self, real: Callable[..., Any], rooms: Rooms) -> Any:
        """A kernel's rooms in the thread's own memory, which no region and no allocation shows."""
        if rooms.kept:
            self.sample(rooms.seen, rooms.threads * rooms.apart)
        return real(rooms)

    def module(self, real: Callable[..., Any], module: nn.Module, *inputs: Any) -> Any:
        """A module's call."""
        self._within.append(self.names.get(id(module), type(module).__name__))
        try:
            return real(module, *inputs)
        finally:
            self._within.pop()

    def operation(self, real: Callable[..., Any], node: Function, *inputs: Any) -> Any:
        """An operation's forward; what it left is known when the next one begins."""
        if self._going_back is not None:
            return real(node, *inputs)
        self._close()
        owner = next((self.owners[id(x)] for x in inputs if id(x) in self.owners), None)
        if owner is None:
            owner = self._within[-1] if self._within else "loss"
        moment = Moment(owner, node.name, kept=-self.held)
        self.moments.append(moment)
        self._of[id(node)] = moment
        return real(node, *inputs)

    def backward(self, real: Callable[..., Any], node: Function) -> Any:
        """An operation's backward is about to run."""
        if id(node) in self._of:  # else it is a recomputed one's
            if self._going_back is None:
                self._close()
            self.sample()
            self._going_back = self._of[id(node)]
        return real(node)

    def over(self) -> None:
        """The step is over."""
        self.sample()
        self._going_back = None
        self._of.clear()

    def _close(self) -> None:
        self.sample()
        if self.moments and self.moments[-1].kept < 0:
            self.moments[-1].kept += self.held


def dry_run(model: nn.Module, step: Callable[[], None]) -> Watch:
    """What ``step`` asks for in its second run, when the optimiser's state is there.

    It is called three times: once to load what it needs, and twice while its bytes are counted.
    Nothing of the model is changed.

    Raises:
        MemoryError: if the system does not even promise so much memory.
    """
    with _put_back(model), _without_kernels(), workspace.apart():
        step()
    with _put_back(model), _without_kernels(), workspace.apart(), _traced():
        watch = Watch(model)
        with _watched(watch):
            for _ in range(2):
                watch.moments.clear()
                step()
                watch.over()
    return watch


@contextmanager
def _watched(watch: Watch) -> Iterator[None]:
    lease, call, operate = workspace.lease, nn.Module.__call__, Function.__call__
    remember, joined = Function.remembered, nn.MaxPool2d.forward_relu
    lend = Rooms.arrays
    with (
        patch.object(workspace, "lease", lambda size: watch.lease(lease, size)),
        patch.object(Rooms, "arrays", lambda rooms: watch.rooms(lend, rooms)),
        patch.object(nn.Module, "__call__", lambda m, *x: watch.module(call, m, *x)),
        # the one layer that joins a ReLU and has no parameters to be known by
        patch.object(nn.MaxPool2d, "forward_relu", lambda m, *x: watch.module(joined, m, *x)),
        patch.object(Function, "__call__", lambda node, *x: watch.operation(operate, node, *x)),
        patch.object(Function, "remembered", lambda node: watch.backward(remember, node)),
    ):
        yield


@contextmanager
def _traced() -> Iterator[None]:
    before = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        yield
    finally:
        if not before:
            tracemalloc.stop()


@contextmanager
def _without_kernels() -> Iterator[None]:
    """Inside the block compiled loops, where Python calls them, do nothing."""
    modules = [
        import_module(f"{kernels.__name__}.{m.name}")
        for m in pkgutil.iter_modules(kernels.__path__)
    ]
    compiled = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher)
    ]
    begun, ahead._begun = ahead._begun, True  # nothing here needs compiling
    for module, name, value in compiled:
        setattr(module, name, _Absent(value))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # the numbers mean nothing
            yield
    finally:
        ahead._begun = begun
        for module, name, value in compiled:
            setattr(module, name, value)


@dataclass(frozen=True)
class _Absent:
    """In a kernel's place: does nothing, and is the kernel in every other respect."""

    kernel: Any

    def __call__(self, *arguments: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Inside the block others stand for the parameters; after it all is as before."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.copy()) for buffer in model.buffers()]
    parameters = [(p, p.data, p.grad, p._version) for p in model.parameters()]
    draws = [m.generator.bit_generator for m in model.modules() if isinstance(m, nn.Dropout)]
    states = [bits.state for bits in draws]
    for parameter, values, _, _ in parameters:
        parameter.data = zeros_beside(values)
    try:
        with device.use("cpu"):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for buffer, values in buffers:
            buffer[...] = values
        for parameter, values, gradient, version in parameters:
            parameter.data, parameter.grad, parameter._version = values, gradient, version
        for bits, state in zip(draws, states, strict=True):
            bits.state = state
