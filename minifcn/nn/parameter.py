"""A Parameter: the Tensor that a Module learns."""

from __future__ import annotations

from typing import Any

from minifcn.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that wants a gradient and that a Module finds among its attributes.

    Set ``requires_grad`` to False to freeze it: it then gets no gradient, and optimisers skip it.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """A Parameter with its own memory and the same flag; the gradient stays behind."""
        copy = type(self)(self.data.copy(order="K"), self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", frozen"
        return f"Parameter(shape {self.shape}, {self.dtype}{frozen})"
