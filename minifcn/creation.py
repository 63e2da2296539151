"""New Tensors from nothing: zeros, ones, random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn.tensor import Tensor


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with a copy of ``data``; Python floats become float32, as in PyTorch."""
    if dtype is None and not isinstance(data, np.ndarray | np.generic | Tensor):
        plain = np.asarray(data)
        dtype = np.float32 if plain.dtype == np.float64 else plain.dtype
    source = data.data if isinstance(data, Tensor) else data
    return Tensor(np.array(source, dtype), requires_grad)


def zeros(*shape: int, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """A Tensor of zeros."""
    return Tensor(np.zeros(shape, dtype), requires_grad)


def ones(*shape: int, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """A Tensor of ones."""
    return Tensor(np.ones(shape, dtype), requires_grad)


def randn(
    *shape: int,
    generator: np.random.Generator,
    dtype: Any = np.float32,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor of draws from the standard normal distribution."""
    return Tensor(generator.standard_normal(shape).astype(dtype), requires_grad)
