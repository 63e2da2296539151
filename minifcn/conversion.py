"""The same numbers in another dtype, or on another device."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn import device
from minifcn.function import Function
from minifcn.tensor import Tensor


class Cast(Function):
    """The same numbers in another dtype; the gradient goes back in the first one."""

    reads = {}

    def __init__(self, dtype: Any) -> None:
        self.to_dtype = np.dtype(dtype)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x in the wanted dtype, its memory in the same order."""
        self.input_dtype = x.dtype
        return x.astype(self.to_dtype)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient in the input's dtype."""
        return (Cast(self.input_dtype)(grad),)


class Move(Function):
    """The same numbers on another device; the gradient goes back to the first one."""

    reads = {}

    def __init__(self, name: str) -> None:
        self.to_name = name

    def forward(self, x: Any) -> Any:
        """x on the wanted device, its memory in the same order."""
        self.input_name = device.name_of(x)
        return device.move(x, self.to_name)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient on the input's device."""
        return (Move(self.input_name)(grad),)
