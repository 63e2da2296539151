"""Sums, means, extreme values along dimensions; and expansion, the adjoint of a sum."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn import device
from minifcn.errors import ShapeError
from minifcn.function import Function
from minifcn.ops.layout import elementwise
from minifcn.tensor import Tensor

Dims = int | tuple[int, ...] | None


def dims_of(name: str, dim: Dims, ndim: int) -> tuple[int, ...]:
    """``dim`` as a tuple of distinct dimensions in 0..ndim−1; None means all of them."""
    wanted = tuple(range(ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if any(not -ndim <= d < ndim for d in wanted):
        raise ShapeError(
            f"{name}: dim is {dim}, wanted dimensions from {-ndim} to {ndim - 1} "
            f"of a Tensor with {ndim} dimensions"
        )
    dims = tuple(d % ndim for d in wanted)
    if len(set(dims)) != len(dims):
        raise ShapeError(f"{name}: dim is {dim}, which names a dimension twice")
    return dims


class Sum(Function):
    """Σ along dimensions. Its adjoint repeats the gradient along them."""

    reads = {}

    def __init__(self, dims: tuple[int, ...], keepdim: bool) -> None:
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.input_shape = x.shape
        if not np.issubdtype(x.dtype, np.floating):
            return x.sum(axis=self.dims, keepdims=self.keepdim)
        # in float64: down a channel of channels-last memory NumPy adds one by one, and in float32
        # the mean of a million pixels would be 1 % off
        return x.sum(axis=self.dims, keepdims=self.keepdim, dtype=np.float64).astype(x.dtype)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (_spread(grad, self.input_shape, self.dims),)


class Expand(Function):
    """Repeat along dimensions of length 1, and new ones in front. Its adjoint is a sum."""

    reads = {}

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.to_shape = shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.input_shape = x.shape
        return np.broadcast_to(x, self.to_shape)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (sum_to(grad, self.input_shape),)


class Extremum(Function):
    """The largest (or smallest) element along one dimension; ties go to the first, NaN wins.

    The gradient flows to the element that was chosen and to no other.
    """

    reads = {}

    def __init__(self, dim: int, keepdim: bool, largest: bool) -> None:
        self.dim, self.keepdim, self.largest = dim, keepdim, largest

    def forward(self, x: np.ndarray) -> np.ndarray:
        choose = np.argmax if self.largest else np.argmin
        index = np.expand_dims(choose(x, axis=self.dim), self.dim)
        along = [1] * x.ndim
        along[self.dim] = x.shape[self.dim]
        places = device.array_module(x).arange(x.shape[self.dim]).reshape(along)
        self.chosen, self.input_shape = elementwise(np.equal, places, index), x.shape
        y = np.take_along_axis(x, index, axis=self.dim)
        return y if self.keepdim else np.squeeze(y, self.dim)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        spread = _spread(grad, self.input_shape, (self.dim,))
        return (spread * Tensor(self.chosen.astype(grad.dtype)),)


def _spread(grad: Tensor, shape: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    """A reduction's gradient, repeated over the dimensions that were reduced."""
    kept = tuple(1 if d in dims else n for d, n in enumerate(shape))
    return expand(grad.reshape(kept), shape)


def sum_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum ``x`` down to ``shape``: the adjoint of broadcasting ``shape`` up to ``x.shape``."""
    if x.shape == shape:
        return x
    extra = x.ndim - len(shape)
    dims = tuple(range(extra)) + tuple(
        extra + d for d, n in enumerate(shape) if n == 1 and x.shape[extra + d] != 1
    )
    return Sum(dims, keepdim=True)(x).reshape(shape)


def expand(x: Tensor, *shape: Any) -> Tensor:
    """Repeat ``x`` to ``shape`` without copying; dimensions to repeat must have length 1."""
    wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else tuple(shape)
    if len(wanted) >= x.ndim:  # −1: as it is
        own = (*(1,) * (len(wanted) - x.ndim), *x.shape)
        wanted = tuple(m if n == -1 else n for m, n in zip(own, wanted))
    try:
        fits = np.broadcast_shapes(x.shape, wanted) == wanted
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"expand: cannot repeat shape {x.shape} to {wanted}; only lengths of 1 grow"
        )
    return x if x.shape == wanted else Expand(wanted)(x)


def total(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum along ``dim`` (one, several, or all dimensions)."""
    return Sum(dims_of("sum", dim, x.ndim), keepdim)(x)


def mean(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The arithmetic mean along ``dim``."""
    dims = dims_of("mean", dim, x.ndim)
    count = int(np.prod([x.shape[d] for d in dims]))
    if count == 0:
        raise ShapeError(f"mean: no elements along dim {dim} of shape {x.shape}")
    return total(x, dim, keepdim) * (1.0 / count)


def var(x: Tensor, dim: Dims = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """The variance along ``dim``: Σ(x − mean)² / (n − correction)."""
    dims = dims_of("var", dim, x.ndim)
    count = int(np.prod([x.shape[d] for d in dims])) - correction
    if count <= 0:
        raise ShapeError(
            f"var: {count + correction} elements along dim {dim} of shape {x.shape}, wanted more "
            f"than correction={correction}"
        )
    deviation = x - mean(x, dim, keepdim=True)
    return total(deviation * deviation, dim, keepdim) * (1.0 / count)


def _extremum(name: str, x: Tensor, dim: int | None, keepdim: bool, largest: bool) -> Tensor:
    if x.numel() == 0:
        raise ShapeError(f"{name}: shape {x.shape} has no elements, wanted at least one")
    if dim is None:
        return Extremum(0, keepdim=False, largest=largest)(x.reshape(-1))
    (d,) = dims_of(name, dim, x.ndim)
    return Extremum(d, keepdim, largest)(x)


def maximum_along(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The largest element, of all or along ``dim``. (PyTorch's also gives indices: see argmax.)"""
    return _extremum("max", x, dim, keepdim, largest=True)


def minimum_along(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The smallest element, of all or along ``dim``."""
    return _extremum("min", x, dim, keepdim, largest=False)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element (the first one at a tie), outside the graph."""
    if x.numel() == 0:
        raise ShapeError(f"argmax: shape {x.shape} has no elements, wanted at least one")
    axis = None if dim is None else dims_of("argmax", dim, x.ndim)[0]
    return Tensor(np.argmax(x.data, axis=axis, keepdims=keepdim))
