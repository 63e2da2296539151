"""Operations: what computes a Tensor from others, and knows the way back.

A `Function` is one operation applied once: it computes an array in ``forward`` and, in
``backward``, turns the gradient of its result into the gradients of its inputs. Because
``backward`` is written in Tensor operations, it can be recorded in turn, and the gradient of a
gradient comes free.

It keeps an input's *values* only where its ``backward`` reads them (`Function.reads`), so that
memory is not held for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from minifcn import device
from minifcn.errors import GraphError
from minifcn.recomputation import Segment, segment
from minifcn.recording import is_grad_enabled
from minifcn.tensor import Tensor


class Function:
    """One operation, applied once: a node of the graph.

    A subclass takes its settings in ``__init__`` and defines::

        forward(self, *arrays) -> array              # arrays of one device; may save on self
        backward(self, grad) -> tuple of gradients   # Tensors in, Tensors or None out

    and is applied by calling the instance on Tensors. ``self.inputs[i]`` is input i as a Tensor
    (only those that are read); ``self.needs[i]`` says whether a gradient for it is wanted.
    """

    #: gradient i needs the values of the inputs ``reads[i]``; None: of all. What no wanted gradient
    #: needs is not kept.
    reads: Mapping[int, tuple[int, ...]] | None = None
    #: whether ``backward`` needs the result: it is then ``self.output``, an array
    reads_output = False

    #: whether the result is always memory of its own, so that nobody need look if it is a view
    makes_new = False

    #: whether the result's gradient counts only where the result is positive, and nobody but
    #: ``backward`` looks at it: then who computes that gradient may put 0 elsewhere
    gates = False

    #: within a `checkpoint`: who computes again what was saved here, and then who saved it
    segment: Segment | None = None
    twin: Function | None = None

    used = False
    needs: tuple[bool, ...]

    def __call__(self, *inputs: Any) -> Tensor:
        """Run ``forward`` and, if a gradient may be asked for, join the graph."""
        if self.used:
            raise GraphError(
                f"{self.name}: this instance was applied before, and holds what that application "
                "saved; make a new one for each application"
            )
        self.used = True
        tensors: list[Tensor | None] = []
        arrays: list[Any] = []
        for x in inputs:
            tensor = x if x is None or isinstance(x, Tensor) else Tensor(x)
            tensors.append(tensor)
            arrays.append(None if tensor is None else tensor.data)
        device.together(self.name, *arrays)
        output = Tensor(self.forward(*arrays))
        if not self.makes_new:
            for x in tensors:
                if x is not None and device.share_memory(output.data, x.data):  # a view
                    output._clock = x._clock
        if not is_grad_enabled() or output.data.dtype.kind != "f":
            return output
        needs = tuple([x is not None and x.requires_grad for x in tensors])
        if True in needs:
            self.needs = needs
            kept = _read(type(self), needs)  # type: ignore[arg-type]  # classes are hashable
            self.nodes = [x.node if need else None for x, need in zip(tensors, needs)]  # type: ignore[union-attr]
            self._kept = [x if wanted else None for x, wanted in zip(tensors, kept)]
            self._versions = [-1 if x is None else x._clock[0] for x in self._kept]
            self.shape, self.dtype = output.data.shape, output.data.dtype
            self.result: Tensor | None = None
            if self.reads_output:
                self._output = output.data, output._clock, output._clock[0]
            output.requires_grad = True
            output._creator = self
            within = segment()
            if within is not None:
                within.add(self, tensors)
        return output

    def forward(self, *arrays: Any) -> Any:
        """The result, from arrays."""
        raise NotImplementedError

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each input, from the gradient of the result."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The operation's name, for messages."""
        return type(self).__name__

    @property
    def freed(self) -> bool:
        """Whether an earlier backward gave the saved values back."""
        return self.used and "nodes" not in self.__dict__

    @property
    def inputs(self) -> list[Any]:
        """The inputs that were kept. Reading one that was changed since is an error."""
        for i, (x, version) in enumerate(zip(self._kept, self._versions, strict=True)):
            if x is not None and x._version != version:
                raise GraphError(
                    f"{self.name}.backward: its input {i}, of shape {x.shape}, was changed in "
                    f"place after the operation used it (version {x._version}, wanted {version}); "
                    "run backward before the change, or change a .clone()"
                )
        return self._kept

    @property
    def output(self) -> np.ndarray:
        """The result, where ``reads_output``. Reading it after a change in place is an error."""
        array, clock, version = self._output
        if clock[0] != version:
            raise GraphError(
                f"{self.name}.backward: its result, of shape {array.shape}, was changed in place "
                "after it was computed; run backward before the change, or change a .clone()"
            )
        return array

    def forget(self, segment: Segment) -> None:
        """Keep the place in the graph alone; ``segment`` computes again what was saved."""
        place = {name: self.__dict__[name] for name in ("nodes", "shape", "dtype", "result")}
        gates = self.gates
        self.__dict__.clear()
        self.__dict__.update(place, gates=gates, used=True, segment=segment)

    def remembered(self) -> Function:
        """Who has what was saved: this operation or, where that was forgotten, its twin."""
        if self.segment is not None:
            self.segment.recompute()
        return self if self.twin is None else self.twin.remembered()

    def free(self) -> None:
        """Give back all that was saved: the graph behind this node cannot be walked again."""
        self.__dict__.clear()
        self.used = True


@lru_cache(maxsize=1024)  # a step asks for the same few of each operation
def _read(operation: type[Function], needs: tuple[bool, ...]) -> tuple[bool, ...]:
    """Whether the wanted gradients need the values of each input."""
    if operation.reads is None:
        return (True,) * len(needs)
    wanted = (operation.reads.get(i, ()) for i, need in enumerate(needs) if need)
    read = {position for positions in wanted for position in positions}
    return tuple(i in read for i in range(len(needs)))
