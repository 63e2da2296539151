"""Sum, difference, product, quotient, power; comparisons. All broadcast as NumPy does.

Broadcasting repeats an input along a dimension; so its gradient is the *sum* along that dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn import device, kernels
from minifcn.errors import ShapeError
from minifcn.function import Function
from minifcn.ops.layout import elementwise
from minifcn.ops.reduction import sum_to
from minifcn.tensor import Tensor


class Add(Function):
    """a + b."""

    reads = {}
    makes_new = True

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.shapes = a.shape, b.shape
        alike = a.shape == b.shape and a.dtype == b.dtype
        return kernels.add(a, b) if alike else elementwise(np.add, a, b)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.shapes
        return (
            sum_to(grad, a) if self.needs[0] else None,
            sum_to(grad, b) if self.needs[1] else None,
        )


class Sub(Function):
    """a − b."""

    reads = {}

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.shapes = a.shape, b.shape
        return elementwise(np.subtract, a, b)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.shapes
        return (
            sum_to(grad, a) if self.needs[0] else None,
            sum_to(neg(grad), b) if self.needs[1] else None,
        )


class Mul(Function):
    """a · b."""

    reads = {0: (1,), 1: (0,)}  # each one's gradient reads the other

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.shapes = a.shape, b.shape
        return elementwise(np.multiply, a, b)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (
            sum_to(mul(grad, b), self.shapes[0]) if self.needs[0] else None,
            sum_to(mul(grad, a), self.shapes[1]) if self.needs[1] else None,
        )


class Div(Function):
    """a / b. d/da = 1/b, d/db = −a/b²."""

    reads = {0: (1,), 1: (0, 1)}

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.shapes = a.shape, b.shape
        return elementwise(np.divide, a, b)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        share = div(grad, b)
        return (
            sum_to(share, self.shapes[0]) if self.needs[0] else None,
            sum_to(neg(mul(share, div(a, b))), self.shapes[1]) if self.needs[1] else None,
        )


class Neg(Function):
    """−a."""

    reads = {}

    def forward(self, a: np.ndarray) -> np.ndarray:
        return elementwise(np.negative, a)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (neg(grad),)


class Pow(Function):
    """a**p for a fixed number p. d/da = p·a**(p−1)."""

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def forward(self, a: np.ndarray) -> np.ndarray:
        return elementwise(lambda x: x**self.exponent, a)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        (a,) = self.inputs
        if self.exponent == 0:  # a constant; p·a**(p−1) would be 0·∞ at a = 0
            return (mul(grad, 0.0),)
        return (mul(grad, mul(power(a, self.exponent - 1), self.exponent)),)


def _pair(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as Tensors that broadcast; a plain number takes the other's dtype."""
    if not isinstance(a, Tensor):
        a = Tensor(_like(a, b))
    if not isinstance(b, Tensor):
        b = Tensor(_like(b, a))
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ShapeError(
            f"{name}: shapes {a.shape} and {b.shape} do not broadcast; from the right, lengths "
            "must be equal or 1"
        ) from None
    device.together(name, a.data, b.data)
    return a, b


def _like(value: Any, other: Any) -> Any:
    if device.is_gpu(value):
        return value
    number = isinstance(value, int | float) and np.issubdtype(other.dtype, np.floating)
    array = np.asarray(value, other.dtype if number else None)
    if array.ndim or not device.is_gpu(other.data):
        return array
    # a number is written there by the device itself: nothing is copied
    return device.array_module(other.data).full((), array.item(), array.dtype)


def add(a: Any, b: Any) -> Tensor:
    """a + b, broadcasting; gives a Tensor of the broadcast shape."""
    return Add()(*_pair("add", a, b))


def sub(a: Any, b: Any) -> Tensor:
    """a − b, broadcasting."""
    return Sub()(*_pair("sub", a, b))


def mul(a: Any, b: Any) -> Tensor:
    """a · b, element by element, broadcasting."""
    return Mul()(*_pair("mul", a, b))


def div(a: Any, b: Any) -> Tensor:
    """a / b, element by element, broadcasting."""
    return Div()(*_pair("div", a, b))


def neg(a: Tensor) -> Tensor:
    """−a."""
    return Neg()(a)


def power(a: Tensor, exponent: float) -> Tensor:
    """a**exponent, element by element, for a number ``exponent``."""
    if isinstance(exponent, Tensor):
        raise ShapeError(
            "pow: the exponent is a Tensor, wanted a number; for a Tensor b use (a.log() * b).exp()"
        )
    return Pow(exponent)(a)


def less(a: Any, b: Any) -> Tensor:
    """a < b, as a Tensor of bool outside the graph. NaN compares false."""
    a, b = _pair("lt", a, b)
    return Tensor(elementwise(np.less, a.data, b.data))


def less_equal(a: Any, b: Any) -> Tensor:
    """a ≤ b, as a Tensor of bool outside the graph."""
    a, b = _pair("le", a, b)
    return Tensor(elementwise(np.less_equal, a.data, b.data))


def equal(a: Any, b: Any) -> Tensor:
    """Where a = b, element by element, as a Tensor of bool outside the graph."""
    a, b = _pair("eq", a, b)
    return Tensor(elementwise(np.equal, a.data, b.data))


def not_equal(a: Any, b: Any) -> Tensor:
    """Where a ≠ b, element by element, as a Tensor of bool outside the graph."""
    a, b = _pair("ne", a, b)
    return Tensor(elementwise(np.not_equal, a.data, b.data))
