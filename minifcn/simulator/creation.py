"""New device arrays, under CuPy's names."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn.simulator.array import ndarray
from minifcn.simulator.memory import allocate

__all__ = """arange array asarray ascontiguousarray asnumpy empty empty_like full full_like ones
ones_like zeros zeros_like""".split()

LIKE = ("empty_like", "full_like", "ones_like", "zeros_like")


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """Fresh memory, poisoned: reading it before it is written is a fault."""
    memory, host = allocate((shape,) if np.ndim(shape) == 0 else tuple(shape), dtype)
    return ndarray(host, memory)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> ndarray:
    """An array of one value."""
    new = empty(shape, np.asarray(fill_value).dtype if dtype is None else dtype)
    new.fill(fill_value)
    return new


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    """An array of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> ndarray:
    """An array of ones."""
    return full(shape, 1, dtype)


def empty_like(prototype: ndarray, dtype: Any = None) -> ndarray:
    """Fresh memory in the shape and order of another array."""
    order = np.argsort([-abs(stride) for stride in prototype.strides], kind="stable")
    shape = tuple(prototype.shape[axis] for axis in order)
    memory, host = allocate(shape, dtype or prototype.dtype)
    return ndarray(host.transpose(np.argsort(order)), memory)


def full_like(a: ndarray, fill_value: Any, dtype: Any = None) -> ndarray:
    """One value in the shape and order of another array."""
    new = empty_like(a, dtype)
    new.fill(fill_value)
    return new


def zeros_like(a: ndarray, dtype: Any = None) -> ndarray:
    """Zeros in the shape and order of another array."""
    return full_like(a, 0, dtype)


def ones_like(a: ndarray, dtype: Any = None) -> ndarray:
    """Ones in the shape and order of another array."""
    return full_like(a, 1, dtype)


def array(obj: Any, dtype: Any = None) -> ndarray:
    """A new device array with the values of a host array, a device array, numbers or lists."""
    if isinstance(obj, ndarray):
        return obj.astype(obj.dtype if dtype is None else dtype)
    host = np.asarray(obj, dtype)
    new = empty(host.shape, host.dtype)
    new._host[...] = host
    return new


def asarray(a: Any, dtype: Any = None) -> ndarray:
    """A device array itself; all else copied to the device."""
    if isinstance(a, ndarray) and dtype in (None, a.dtype):
        return a
    return array(a, dtype)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """In C order without gaps; a copy only if it is not so already."""
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def asnumpy(a: Any) -> np.ndarray:
    """The values on the host."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    """Equally spaced numbers."""
    first, last = (0, start) if stop is None else (start, stop)
    return array(np.arange(first, last, step, dtype))  # type: ignore[call-overload]
