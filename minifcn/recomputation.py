"""Gradient checkpointing: memory for time, by computing a part of the network twice.

`backward` reads what every operation saved, so training holds all activations at once. `checkpoint`
runs a part and keeps its inputs alone::

    forward     x → [ a → b → c ] → y      a, b and c leave their places in the graph, empty
    backward    x → [ a'→ b'→ c'] → y'     the first to be reached has all of them computed again,
                    the places take what a', b' and c' saved, and the walk goes on

A net of n layers in √n such segments holds O(√n) activations, for one more forward pass.

The graph is the same as without, and so are the bits: of dropout, whose draws are repeated by a
copy of the generator as it stood, and of batch normalisation, whose running statistics move the
first time alone.

Source: Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minifcn import device
from minifcn.errors import GraphError
from minifcn.recording import is_grad_enabled, set_grad_enabled

_current: Segment | None = None  # in which operations are recorded now


def checkpoint(function: Callable[..., Any], *inputs: Any, **keywords: Any) -> Any:
    """``function(*inputs, **keywords)``, of which nothing but the inputs is kept for `backward`.

    Args:
        function: a Module or any function of Tensors; called again during `backward`, forward hooks
            and all, and must then do the same. Only dropout's draws are repeated: what it draws by
            itself must come from a generator that it makes itself. What it reads besides Tensors
            (running statistics in eval(), say) must not change before `backward`.
        inputs: what it takes, Tensors or not.
        keywords: likewise.

    Returns:
        What the function returns: a Tensor, a tuple of them, anything. Gradients reach the inputs
        and the parameters used inside as they would without; so do gradients of gradients.

    Raises:
        GraphError: in `backward`, if the function does something else the second time, fails, or
            finds that a Tensor which it reads was changed in place.
    """
    if not is_grad_enabled() or (_current is not None and not _current.again):
        return function(*inputs, **keywords)  # an outer one forgets it all, and comes here again
    return Segment(function, inputs, keywords).run()


def segment() -> Segment | None:
    """The segment in which operations are being recorded, if there is one."""
    return _current


def recomputing() -> bool:
    """Whether what runs now has run before: nothing outside the graph may move a second time."""
    return _current is not None and _current.again


def drawing(generator: np.random.Generator) -> np.random.Generator:
    """The generator to draw from: in a recomputation a copy, as it stood the first time."""
    return generator if _current is None else _current.drawing(generator)


class Segment:
    """One call of `checkpoint`: what to run again, and the operations that wait for it.

    Every operation refers to its segment, and the segment to the operations weakly, so that it and
    its inputs live as long as somebody may still walk back through it.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Sequence[Any], keywords: dict[str, Any]
    ) -> None:
        self.function, self.inputs, self.keywords = function, inputs, keywords
        self.device = device.current()
        self.nodes: list[weakref.ref[Any]] = []
        self.versions = [_versions(inputs)]  # and of each operation's
        self.generators: list[np.random.Generator] = []  # as they stood at each draw
        self.outer: Segment | None = None
        self.replaying = False
        self._made = self._drawn = 0  # operations and draws, the second time
        self._last: Any = None

    @property
    def name(self) -> str:
        """The function's, for messages."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def again(self) -> bool:
        """Whether this is a recomputation, or lies within one."""
        return self.replaying or (self.outer is not None and self.outer.again)

    def run(self) -> Any:
        """The first time: every operation leaves its place in the graph and nothing else."""
        with _within(self, outer=_current):
            try:
                return self.function(*self.inputs, **self.keywords)
            finally:
                self._forget_last()

    def recompute(self) -> None:
        """The second time: every operation that is still wanted gets its twin."""
        self._unchanged("checkpoint", 0, self.inputs)
        self.replaying = True
        try:
            with device.use(self.device), set_grad_enabled(True), _within(self, outer=None):
                self.function(*self.inputs, **self.keywords)
        except (GraphError, MemoryError):
            raise
        except Exception as error:
            raise GraphError(
                f"checkpoint: {self.name} failed when backward ran it again, with "
                f"{type(error).__name__}: {error}; it must do the same both times"
            ) from error
        if self._made != len(self.nodes):
            raise self._other(f"{self._made} operations", f"{len(self.nodes)}")

    def add(self, node: Any, inputs: Sequence[Any]) -> None:
        """Take note of an operation that was just recorded."""
        if self.outer is not None:
            self.outer.add(node, inputs)
        if self.replaying:
            self._pair(node, inputs)
        else:
            self.nodes.append(weakref.ref(node))
            self.versions.append(_versions(inputs))
            self._forget_last()
            self._last = node  # who applied it may still read from it (the mean of a batch)

    def drawing(self, generator: np.random.Generator) -> np.random.Generator:
        """The generator to draw from; see the function of the same name."""
        if self.outer is not None:
            generator = self.outer.drawing(generator)
        if not self.replaying:
            self.generators.append(copy.deepcopy(generator))
            return generator
        if self._drawn == len(self.generators):
            raise self._other("more draws", f"{self._drawn}")
        self._drawn += 1
        return self.generators[self._drawn - 1]

    def _pair(self, twin: Any, inputs: Sequence[Any]) -> None:
        if self._made == len(self.nodes):
            raise self._other(f"more operations ({twin.name})", f"{self._made}")
        node = self.nodes[self._made]()
        self._made += 1
        self._unchanged(f"{twin.name}.backward", self._made, inputs)
        if node is None or node.freed:
            return
        if (type(node), node.shape) != (type(twin), twin.shape):
            raise self._other(
                f"{twin.name} of shape {twin.shape}", f"{node.name} of shape {node.shape}"
            )
        node.segment, node.twin = None, twin
        twin.gates = node.gates and node.result is None  # who looks at a gradient asks the node

    def _forget_last(self) -> None:
        if self._last is not None:
            self._last.forget(self)
            self._last = None

    def _unchanged(self, who: str, number: int, inputs: Sequence[Any]) -> None:
        for i, (now, then) in enumerate(zip(_versions(inputs), self.versions[number])):
            if now != then:
                raise GraphError(
                    f"{who}: input {i}, which a checkpoint was to compute with again, was changed "
                    f"in place (version {now}, wanted {then}); run backward before the change, or "
                    "change a .clone()"
                )

    def _other(self, found: str, wanted: str) -> GraphError:
        return GraphError(
            f"checkpoint: {self.name} gave {found} when backward ran it again, {wanted} the first "
            "time; it must do the same both times (eval(), a generator or a counter may differ)"
        )


def _versions(inputs: Sequence[Any]) -> list[int]:
    """How often each was changed in place; -1 for what is no Tensor."""
    return [getattr(x, "_version", -1) for x in inputs]


@contextmanager
def _within(inner: Segment, outer: Segment | None) -> Iterator[None]:
    """Inside the block operations are recorded in ``inner``, and in ``outer`` around it."""
    global _current
    before, _current, inner.outer = _current, inner, outer
    try:
        yield
    finally:
        _current, inner.outer = before, None
