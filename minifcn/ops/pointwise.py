"""Functions of one element at a time: exp, log, sqrt, abs, tanh, sigmoid, clamp, relu, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn import device, kernels
from minifcn.errors import InputError, ShapeError
from minifcn.function import Function
from minifcn.ops.arithmetic import mul
from minifcn.ops.layout import elementwise
from minifcn.recomputation import drawing
from minifcn.tensor import Tensor


class Exp(Function):
    """eˣ, its own derivative."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return elementwise(np.exp, x)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (grad * exp(self.inputs[0]),)


class Log(Function):
    """ln x. d/dx = 1/x."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return elementwise(np.log, x)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (grad / self.inputs[0],)


class Sqrt(Function):
    """√x. d/dx = 1/(2√x)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return elementwise(np.sqrt, x)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (grad / (sqrt(self.inputs[0]) * 2.0),)


class Abs(Function):
    """|x|. d/dx = sign(x), 0 at 0 as in PyTorch."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return elementwise(np.abs, x)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (grad * Tensor(elementwise(np.sign, self.inputs[0].data)),)


class Tanh(Function):
    """tanh x. d/dx = 1 − tanh²x."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return elementwise(np.tanh, x)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        y = tanh(self.inputs[0])
        return (grad * (1.0 - y * y),)


class Sigmoid(Function):
    """σ(x) = 1/(1 + e⁻ˣ). d/dx = σ(1 − σ)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return elementwise(_sigmoid, x)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        y = sigmoid(self.inputs[0])
        return (grad * (y * (1.0 - y)),)


class Clamp(Function):
    """x held between two bounds. The gradient passes where x lies within them, bounds included."""

    def __init__(self, low: float | None, high: float | None) -> None:
        self.low, self.high = low, high

    def forward(self, x: np.ndarray) -> np.ndarray:
        return elementwise(lambda values: np.clip(values, self.low, self.high), x)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        inside = elementwise(lambda x: (x >= low) & (x <= high), self.inputs[0].data)
        return (grad * Tensor(inside.astype(grad.dtype)),)


class ReLU(Function):
    """max(x, 0). The gradient passes where the result is positive; 0 at 0.

    Backward needs neither x nor the result, but one bit an element.
    """

    reads = {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        y, self.gate = kernels.relu(x)
        return y

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (Gate(self.gate)(grad),)


class Gate(Function):
    """The gradient where ``gate`` has a 1, else 0: linear in the gradient, and its own adjoint.

    ``gate`` has a bit an element, as `kernels.positive` makes them.
    """

    reads = {}

    def __init__(self, gate: np.ndarray) -> None:
        self.gate = gate

    def forward(self, grad: np.ndarray) -> np.ndarray:
        return kernels.relu_backward(grad, self.gate)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (Gate(self.gate)(grad),)


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))  # at most 1: it cannot overflow, and no digit is lost in either tail
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def exp(x: Tensor) -> Tensor:
    """eˣ, element by element."""
    return Exp()(x)


def log(x: Tensor) -> Tensor:
    """The natural logarithm, element by element."""
    return Log()(x)


def sqrt(x: Tensor) -> Tensor:
    """The square root, element by element."""
    return Sqrt()(x)


def absolute(x: Tensor) -> Tensor:
    """|x|, element by element."""
    return Abs()(x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, element by element."""
    return Tanh()(x)


def sigmoid(x: Tensor) -> Tensor:
    """1/(1 + e⁻ˣ), element by element."""
    return Sigmoid()(x)


def clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """x held between ``min`` and ``max``; leave one out for no bound on that side."""
    if min is None and max is None:
        raise InputError("clamp: neither min nor max is given; give at least one")
    return Clamp(min, max)(x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), element by element. NaN stays NaN."""
    return ReLU()(x)


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, generator: np.random.Generator | None = None
) -> Tensor:
    """Each element 0 with probability ``p``, else divided by 1 − p; the identity when not training.

    Args:
        x: any floating Tensor.
        p: the probability to drop, 0 ≤ p ≤ 1.
        training: drop, or pass x through.
        generator: where the draws come from; wanted when training with p > 0. It draws on the host,
            the same bits for every device; one byte an element is moved.

    Source: Srivastava et al. 2014, in the scaled ("inverted") form that PyTorch uses.
    """
    if not 0.0 <= p <= 1.0:
        raise InputError(f"dropout: p is {p}, wanted a probability from 0 to 1")
    if not training or p == 0.0:
        return x
    if generator is None:
        raise InputError("dropout: no generator; pass generator=numpy.random.default_rng(seed)")
    if not np.issubdtype(x.dtype, np.floating):
        raise ShapeError(f"dropout: input has dtype {x.dtype}, wanted a floating dtype")
    return mul(x, Tensor(_mask(x.data, p, drawing(generator))))


def _mask(x: Any, p: float, generator: np.random.Generator) -> Any:
    """0 or 1/(1 − p); for pictures drawn in the order N, H, W, C, whatever the layout of ``x``."""
    scale = x.dtype.type(0.0 if p == 1.0 else 1.0 / (1.0 - p))
    n, *rest = x.shape if x.ndim == 4 else (0,)
    shape = (n, rest[1], rest[2], rest[0]) if x.ndim == 4 else x.shape
    kept = device.like(generator.random(shape, np.float32) >= p, x) * scale
    return kept.transpose(0, 3, 1, 2) if x.ndim == 4 else kept
