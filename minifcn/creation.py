"""New Tensors from nothing, on the device in use: zeros, ones, random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn import device
from minifcn.tensor import Tensor


def zeros(*shape: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """A Tensor of zeros."""
    return Tensor(device.module(device.current()).zeros(_lengths(shape), dtype), requires_grad)


def ones(*shape: Any, dtype: Any = np.float32, requires_grad: bool = False) -> Tensor:
    """A Tensor of ones."""
    return Tensor(device.module(device.current()).ones(_lengths(shape), dtype), requires_grad)


def randn(
    *shape: Any,
    generator: np.random.Generator,
    dtype: Any = np.float32,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor of draws from the standard normal distribution, the same for every device."""
    draws = generator.standard_normal(_lengths(shape)).astype(dtype)
    return Tensor(device.move(draws, device.current()), requires_grad)


def _lengths(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape, given as zeros(2, 3) or as zeros((2, 3))."""
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
