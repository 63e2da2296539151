"""The matrix product, and the fully connected layer made of it."""

from __future__ import annotations

import numpy as np

from minifcn.errors import ShapeError
from minifcn.function import Function
from minifcn.ops.reduction import sum_to
from minifcn.tensor import Tensor


class MatMul(Function):
    """A·B over the last two dimensions. dA = G·Bᵀ, dB = Aᵀ·G."""

    reads = {0: (1,), 1: (0,)}

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.shapes = a.shape, b.shape
        return a @ b

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (
            sum_to(matmul(grad, b.transpose(-1, -2)), self.shapes[0]) if self.needs[0] else None,
            sum_to(matmul(a.transpose(-1, -2), grad), self.shapes[1]) if self.needs[1] else None,
        )


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of (…, M, K) and (…, K, N): (…, M, N). Leading dimensions broadcast."""
    a = a if isinstance(a, Tensor) else Tensor(a)
    b = b if isinstance(b, Tensor) else Tensor(b)
    fits = a.ndim >= 2 and b.ndim >= 2 and a.shape[-1] == b.shape[-2]
    leading = zip(a.shape[-3::-1], b.shape[-3::-1])  # pairs from the right
    if not fits or any(m != n and 1 not in (m, n) for m, n in leading):
        raise ShapeError(
            f"matmul: shapes {a.shape} and {b.shape}; wanted (…, M, K) and (…, K, N) with one K "
            "and leading dimensions that broadcast"
        )
    return MatMul()(a, b)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x·Wᵀ + b.

    Args:
        x: (…, C).
        weight: (K, C).
        bias: (K,) or None.

    Returns:
        (…, K).
    """
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input has shape {x.shape} and weight {weight.shape}; "
            "wanted (…, C) and (K, C) with one C"
        )
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    y = matmul(rows, weight.T)
    if bias is not None:
        if bias.shape != (weight.shape[0],):
            raise ShapeError(f"linear: bias has shape {bias.shape}, wanted ({weight.shape[0]},)")
        y = y + bias
    return y.reshape(*x.shape[:-1], weight.shape[0])
