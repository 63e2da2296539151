"""Parameters end to end in one memory of a GPU, so that one launch moves them all.

To start a kernel takes the host some microseconds, in which a GPU could move a megabyte; a network
has dozens of small biases. So an optimiser's parameters, and each of its own arrays, are joined:

    memory   | weight 1 … | bias 1 | weight 2 … | bias 2 | …
    Tensors    ^ p.data     ^ p.data …              views of it, each in its own axis order

The gradients, which come one by one, are joined by a launch of their own; where they have 2 MiB and
more each, CuPy copies them one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from minifcn import device
from minifcn.tensor import Tensor

State = dict[str, Any]


class Arena:
    """Some parameters and their states; afterwards they are views of this memory.

    Attributes:
        values: the parameters' elements, one dimension.
        state: the optimiser's arrays for `values`, and its numbers, which all of them share.
    """

    def __init__(self, parameters: Sequence[Tensor], states: Sequence[State]) -> None:
        self.parameters, self.states = list(parameters), list(states)
        arrays = [p.data for p in parameters]
        self.axes = [_axes(a) for a in arrays]
        self.shapes = [tuple(a.shape[axis] for axis in _axes(a)) for a in arrays]
        self.ends = list(accumulate(a.size for a in arrays))
        self.values = self.joined(arrays)
        self.state: State = {}
        for name, first in states[0].items():
            joins = device.is_gpu(first)
            self.state[name] = self.joined([s[name] for s in states]) if joins else first
        self.views = self._views(self.values)
        for p, view in zip(self.parameters, self.views, strict=True):
            p.data = view
        self._hand_out(self.state)

    @staticmethod
    def can_hold(parameters: Sequence[Tensor], states: Sequence[State]) -> bool:
        """Whether all live on one GPU with one dtype, and have taken the same number of steps."""
        if not device.is_gpu(parameters[0].data):
            return False
        kinds = {(p.device, p.dtype) for p in parameters}
        if len(kinds) != 1:
            return False
        numbers = [{n: None if device.is_gpu(v) else v for n, v in s.items()} for s in states]
        return all(each == numbers[0] for each in numbers)

    def holds(self, parameters: Sequence[Tensor], states: Sequence[State]) -> bool:
        """Whether these are its parameters, still, and nobody has given one another array."""
        return len(parameters) == len(self.parameters) and all(
            p is own and p.data is view and s is state
            for p, own, view, s, state in zip(
                parameters, self.parameters, self.views, states, self.states
            )
        )

    def joined(self, arrays: Sequence[Any]) -> Any:
        """Arrays of the parameters' shapes, end to end in the order of their memory."""
        rows = [a.transpose(axes).reshape(-1) for a, axes in zip(arrays, self.axes, strict=True)]
        return device.array_module(rows[0]).concatenate(rows)

    def handed_out(self) -> None:
        """After a step: the parameters' own states show what it did to the common one."""
        fresh = {n: v for n, v in self.state.items() if n not in self.states[0]}
        self._hand_out(fresh | {n: v for n, v in self.state.items() if not device.is_gpu(v)})

    def _hand_out(self, state: State) -> None:
        for name, value in state.items():
            parts = self._views(value) if device.is_gpu(value) else [value] * len(self.states)
            for own, part in zip(self.states, parts, strict=True):
                own[name] = part

    def _views(self, row: Any) -> list[Any]:
        starts = [0, *self.ends]
        return [
            row[start:end].reshape(shape).transpose([axes.index(i) for i in range(len(axes))])
            if axes
            else row[start:end].reshape(())
            for start, end, shape, axes in zip(starts, self.ends, self.shapes, self.axes)
        ]


def _axes(array: Any) -> list[int]:
    """The axes as they lie in memory, the slowest first."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
