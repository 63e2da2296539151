"""Softmax and its logarithm along one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn.function import Function
from minifcn.ops.layout import elementwise
from minifcn.ops.reduction import dims_of
from minifcn.tensor import Tensor


class Softmax(Function):
    """yₖ = exp(xₖ) / Σⱼ exp(xⱼ). dx = y · (g − Σⱼ gⱼ yⱼ)."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: np.ndarray) -> np.ndarray:
        e = elementwise(np.exp, _shrunk(x, self.dim))
        e /= e.sum(axis=self.dim, keepdims=True)
        return e

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        y = Softmax(self.dim)(self.inputs[0])
        return (y * (grad - (grad * y).sum(self.dim, keepdim=True)),)


class LogSoftmax(Function):
    """yₖ = xₖ − ln Σⱼ exp(xⱼ). dx = g − softmax(x) · Σⱼ gⱼ."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: np.ndarray) -> np.ndarray:
        y = _shrunk(x, self.dim)
        y -= np.log(elementwise(np.exp, y).sum(axis=self.dim, keepdims=True))
        return y

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        y = Softmax(self.dim)(self.inputs[0])
        return (grad - y * grad.sum(self.dim, keepdim=True),)


def _shrunk(x: Any, dim: int) -> Any:
    """x less its largest value: softmax does not change when all x shrink alike, nor overflow."""
    return elementwise(np.subtract, x, x.max(axis=dim, keepdims=True)) if x.size else x.copy()


def softmax(x: Tensor, dim: int) -> Tensor:
    """Probabilities along ``dim``: positive, adding up to 1."""
    return Softmax(dims_of("softmax", dim, x.ndim)[0])(x)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """The logarithm of `softmax`, without the loss of digits of taking it afterwards."""
    return LogSoftmax(dims_of("log_softmax", dim, x.ndim)[0])(x)
