"""The device array: what `cupy.ndarray` is, as far as minifcn uses it.

Its values come to the host only when asked for, by `get` or `item`; a NumPy array beside it is a
TypeError. NumPy's own functions take it and give device arrays back, as CuPy's arrays do.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from minifcn.simulator import cuda
from minifcn.simulator.memory import Memory, allocate


class Flags:
    """How an array lies; NumPy knows more of it than CuPy, such as whether it may be written to."""

    def __init__(self, flags: Any) -> None:
        self._flags = flags

    c_contiguous = property(lambda self: self._flags.c_contiguous)
    f_contiguous = property(lambda self: self._flags.f_contiguous)
    owndata = property(lambda self: self._flags.owndata)


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801 - CuPy's name
    """An array in the memory of the simulated device; made by `empty`, `asarray` and others."""

    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100

    def __init__(self, host: np.ndarray, memory: Memory, base: ndarray | None = None) -> None:
        self._host = host  # the same bytes as the host sees them
        self._memory = memory
        #: the array that this one is a view of
        self.base = base

    # -- what it is --------------------------------------------------------------------------------

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: Flags(self._host.flags))
    device = property(lambda self: cuda.Device())
    T = property(lambda self: self.transpose())
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return repr(self._host)

    def __str__(self) -> str:
        return str(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    # -- to the host and from it -------------------------------------------------------------------

    def get(self) -> np.ndarray:
        """A copy of the values on the host."""
        return self._host.copy()

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Copy a host array of this shape and dtype into this one when the stream comes to it."""
        if not isinstance(arr, np.ndarray):
            raise TypeError(f"Only numpy.ndarray can be set to cupy.ndarray, not {type(arr)}")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"{arr.dtype} {arr.shape} cannot be set to {self.dtype} {self.shape}")
        (stream or cuda.get_current_stream()).put(lambda: np.copyto(self._host, arr))

    def item(self) -> Any:
        """The only value, as a Python number."""
        return self._host.item()

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self._host.tolist()

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __index__(self) -> int:
        return self._host.__index__()

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    # -- views and copies --------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> ndarray:
        return _array(self._host[to_host(index)], [self])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[to_host(index)] = to_host(value)

    def _view(self, host: np.ndarray) -> ndarray:
        return ndarray(host, self._memory, self if self.base is None else self.base)

    def reshape(self, *shape: Any) -> ndarray:
        """A view where strides allow, else a copy."""
        return _array(self._host.reshape(*shape), [self])

    def transpose(self, *axes: Any) -> ndarray:
        """A view with the axes in another order."""
        return self._view(self._host.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        """A view with two axes exchanged."""
        return self._view(self._host.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> ndarray:
        """A view without axes of length 1."""
        return self._view(self._host.squeeze(axis))

    def ravel(self) -> ndarray:
        """One axis: a view where strides allow."""
        return _array(self._host.ravel(), [self])

    def flatten(self) -> ndarray:
        """One axis: a copy."""
        return _array(self._host.flatten(), [])

    def view(self, dtype: Any = None) -> ndarray:
        """The same bytes read as another dtype."""
        return self._view(self._host.view(self.dtype if dtype is None else dtype))

    def copy(self, order: Any = "C") -> ndarray:
        """The values in memory of their own."""
        return _array(self._host.copy(order), [], keep=order == "K")

    def astype(self, dtype: Any, *, copy: bool = True) -> ndarray:
        """The values in another dtype."""
        if not copy and self.dtype == dtype:
            return self
        return _array(self._host.astype(dtype), [], keep=True)

    def fill(self, value: Any) -> None:
        """Set every element."""
        self._host.fill(to_host(value))

    # -- NumPy's functions -------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        from minifcn.simulator.functions import UFUNCS

        if ufunc.__name__ not in UFUNCS:
            return NotImplemented
        out = settings.pop("out", None)
        apply = getattr(ufunc, method)
        if out is not None:
            if not all(isinstance(array, ndarray) for array in out):
                raise TypeError("out must be an array on the device")
            apply(*to_host(inputs), out=to_host(out), **to_host(settings))
            return out[0] if len(out) == 1 else out
        return from_host(apply(*to_host(inputs), **to_host(settings)), inputs)

    def __array_function__(self, function: Any, types: Any, inputs: Any, settings: Any) -> Any:
        from minifcn.simulator import creation, functions

        name = function.__name__
        if function.__module__ != "numpy" or name not in functions.FUNCTIONS + creation.LIKE:
            return NotImplemented
        return getattr(creation if name in creation.LIKE else functions, name)(*inputs, **settings)

    def __matmul__(self, other: Any) -> Any:
        return np.matmul(self, other)

    def _reduce(self, name: str, *inputs: Any, **settings: Any) -> ndarray:
        result = on_device(getattr(np, name), (self, *inputs), settings)
        return result

    def sum(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.sum`."""
        return self._reduce("sum", *a, **k)

    def prod(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.prod`."""
        return self._reduce("prod", *a, **k)

    def mean(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.mean`."""
        return self._reduce("mean", *a, **k)

    def var(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.var`."""
        return self._reduce("var", *a, **k)

    def max(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.max`."""
        return self._reduce("max", *a, **k)

    def min(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.min`."""
        return self._reduce("min", *a, **k)

    def argmax(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.argmax`."""
        return self._reduce("argmax", *a, **k)

    def argmin(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.argmin`."""
        return self._reduce("argmin", *a, **k)

    def any(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.any`."""
        return self._reduce("any", *a, **k)

    def all(self, *a: Any, **k: Any) -> ndarray:
        """As `numpy.all`."""
        return self._reduce("all", *a, **k)


def to_host(value: Any) -> Any:
    """What NumPy shall work on: the bytes behind device arrays, wherever they stand in it."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(
            f"Unsupported type {np.ndarray}: an array of the host beside one of the device; move "
            "it with asarray"
        )
    if isinstance(value, tuple | list):
        return type(value)(to_host(part) for part in value)
    if isinstance(value, dict):
        return {name: to_host(part) for name, part in value.items()}
    return value


def from_host(value: Any, inputs: Any) -> Any:
    """NumPy's results as device arrays: views of the inputs as views, all else in new memory."""
    if isinstance(value, tuple | list):
        return type(value)(from_host(part, inputs) for part in value)
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value), list(_arrays(inputs)))
    return value


def on_device(function: Any, inputs: Any, settings: dict[str, Any]) -> Any:
    """Call a function of NumPy's on the memory of device arrays."""
    out = settings.pop("out", None)
    if out is not None:
        if not isinstance(out, ndarray):
            raise TypeError("out must be an array on the device")
        function(*to_host(inputs), out=out._host, **to_host(settings))
        return out
    return from_host(function(*to_host(inputs), **to_host(settings)), (*inputs, settings))


def _arrays(value: Any) -> Iterator[ndarray]:
    if isinstance(value, ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))


def _array(host: Any, sources: list[ndarray], keep: bool = False) -> ndarray:
    """A view of one of the sources if it is one; else the values in new memory.

    CuPy writes every result in C order, whatever its inputs' order is, where NumPy goes by theirs;
    only copies (`astype`, `copy("K")`) ``keep`` the axes in the order in which they lie.
    """
    host = np.asarray(host)
    for source in sources:
        if np.may_share_memory(host, source._memory.bytes):
            return source._view(host)
    axes = list(range(host.ndim))
    if keep:
        axes.sort(key=lambda axis: -abs(host.strides[axis]))
    rows = host.transpose(axes)
    memory, copy = allocate(rows.shape, rows.dtype)
    copy[...] = rows
    return ndarray(copy.transpose([axes.index(axis) for axis in range(host.ndim)]), memory)
