"""Tensors: arrays that remember how they were made.

The graph points from results to inputs: a Tensor knows the `minifcn.function.Function` that made it
(its creator), and that knows the nodes its inputs came from. `minifcn.graph` walks it backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minifcn import device
from minifcn.errors import DeviceError, GraphError, ShapeError
from minifcn.recording import is_grad_enabled


class Tensor:
    """An array, and what is needed to differentiate through it.

    Args:
        data: an array of any device, which stays where it is; or anything else that
            `numpy.asarray` takes, which goes to the device in use (`minifcn.device.use`). An
            activation has the shape (N, C, H, W); its memory is channels-last: ``data`` is a
            transposed view of a contiguous (N, H, W, C) array.
        requires_grad: whether `backward` shall leave a gradient here. Floating dtypes only.

    Attributes:
        data: the array itself, of any dtype and shape, of the device where it lives.
        grad: the gradient, a Tensor of the same shape on the same device, or None before
            `backward`.
    """

    __slots__ = (
        "data",
        "requires_grad",
        "grad",
        "_creator",  # the Function that made it, or None
        "_clock",  # [number of changes in place], one list for all views of one memory
        "_owned",  # whether backward allocated the memory for this gradient alone
        "_gated",  # whether this gradient is 0 where a ReLU's result is: see Function.gates
        "__weakref__",
    )
    __array_ufunc__ = None  # so that `array + tensor` asks the Tensor, not NumPy
    __hash__ = object.__hash__

    data: Any  # np.ndarray, or the array of another device
    requires_grad: bool
    grad: Tensor | None
    _creator: Any  # a Function, which stands a floor higher, or None
    _clock: list[int]
    _owned: bool
    _gated: bool

    # The operators and methods below are bound by minifcn.ops.methods, a floor higher, so that this
    # file needs to know no operation; backward is minifcn.graph.backward.
    backward: Callable[..., None]
    __add__: Callable[..., Tensor]
    __radd__: Callable[..., Tensor]
    __sub__: Callable[..., Tensor]
    __rsub__: Callable[..., Tensor]
    __mul__: Callable[..., Tensor]
    __rmul__: Callable[..., Tensor]
    __truediv__: Callable[..., Tensor]
    __rtruediv__: Callable[..., Tensor]
    __pow__: Callable[..., Tensor]
    __neg__: Callable[..., Tensor]
    __matmul__: Callable[..., Tensor]
    __rmatmul__: Callable[..., Tensor]
    __getitem__: Callable[..., Tensor]
    __lt__: Callable[..., Tensor]
    __le__: Callable[..., Tensor]
    __gt__: Callable[..., Tensor]
    __ge__: Callable[..., Tensor]
    abs: Callable[..., Tensor]
    exp: Callable[..., Tensor]
    log: Callable[..., Tensor]
    sqrt: Callable[..., Tensor]
    tanh: Callable[..., Tensor]
    sigmoid: Callable[..., Tensor]
    clamp: Callable[..., Tensor]
    sum: Callable[..., Tensor]
    mean: Callable[..., Tensor]
    max: Callable[..., Tensor]
    min: Callable[..., Tensor]
    var: Callable[..., Tensor]
    argmax: Callable[..., Tensor]
    reshape: Callable[..., Tensor]
    flatten: Callable[..., Tensor]
    transpose: Callable[..., Tensor]
    permute: Callable[..., Tensor]
    squeeze: Callable[..., Tensor]
    unsqueeze: Callable[..., Tensor]
    expand: Callable[..., Tensor]
    to: Callable[..., Tensor]
    cpu: Callable[..., Tensor]
    cuda: Callable[..., Tensor]
    clone: Callable[..., Tensor]

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            data = data.data
        known = type(data) is np.ndarray or device.is_gpu(data)
        self.data = data if known else _on_host_or_current(data)
        if requires_grad and not np.issubdtype(self.data.dtype, np.floating):
            raise ShapeError(
                f"Tensor: requires_grad needs a floating dtype, found {self.data.dtype}; "
                "convert it first, for example with .astype(numpy.float32)"
            )
        self.requires_grad = requires_grad
        self.grad = None
        self._creator = None
        self._clock = [0]
        self._owned = False
        self._gated = False

    # -- what it is --------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the dimensions."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype of the elements."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.data.ndim

    @property
    def node(self) -> Any:
        """Its place in the graph: the Function that made it; a leaf stands for itself."""
        return self if self._creator is None else self._creator

    @property
    def is_leaf(self) -> bool:
        """True if no recorded operation made it: parameters, inputs, constants."""
        return self._creator is None

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix: the dimensions in reverse order."""
        return self.permute(*range(self.ndim)[::-1])

    @property
    def device(self) -> str:
        """Where it lives: "cpu", "cuda" or "cuda-sim"."""
        return device.name_of(self.data)

    def numel(self) -> int:
        """The number of elements."""
        return self.data.size

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of dimension ``dim``."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if device.is_gpu(self.data):
            raise DeviceError(
                f"numpy.asarray: the Tensor, of shape {self.shape}, is on {self.device!r}; copy it "
                "to the host with .numpy()"
            )
        return np.array(self.data, dtype, copy=copy)

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if form else repr(self)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __repr__(self) -> str:
        body = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", precision=4)
        if device.is_gpu(self.data):
            body += f", device={self.device!r}"
        if self._creator is not None:
            return f"Tensor({body}, made by {self._creator.name})"
        return f"Tensor({body}{', requires_grad=True' if self.requires_grad else ''})"

    def numpy(self) -> np.ndarray:
        """The array on the host: this Tensor's memory, or a copy where that is on a GPU."""
        return device.move(self.data, "cpu")

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.data.size != 1:
            raise ShapeError(
                f"item: a Tensor of shape {self.shape} has {self.data.size} elements, wanted 1; "
                "reduce it first (.sum(), .mean()) or index one element"
            )
        return self.data.item()

    def detach(self) -> Tensor:
        """The same values in the same memory, cut off from the graph."""
        same = Tensor(self.data)
        same._clock = self._clock
        return same

    # -- derivatives -------------------------------------------------------------------------------

    def retain_grad(self) -> None:
        """Ask `backward` to leave a gradient here, although an operation made this Tensor."""
        if self._creator is not None:
            self._creator.result = self

    # -- changes in place --------------------------------------------------------------------------

    @property
    def _version(self) -> int:
        """How often the memory was changed in place, through this Tensor or a view of it."""
        return self._clock[0]

    @_version.setter
    def _version(self, number: int) -> None:
        self._clock[0] = number

    def _change(self, what: str, value: Any = None) -> np.ndarray:
        if is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad:
            raise GraphError(
                f"{what}: the value takes part in a graph, which writing in place would lose; "
                "build the result with minifcn.cat or arithmetic, or write under "
                "`with minifcn.no_grad():`"
            )
        if is_grad_enabled() and (self.requires_grad or self._creator is not None):
            raise GraphError(
                f"{what}: a Tensor that takes part in a graph cannot be changed in place while "
                "operations are recorded; do it under `with minifcn.no_grad():`, or build a new one"
            )
        self._version += 1
        return self.data

    def __setitem__(self, index: Any, value: Any) -> None:
        data = self._change("x[...] = value", value)
        data[_array(index)] = _beside("x[...] = value", data, value)

    def copy_(self, source: Any) -> Tensor:
        """Overwrite the values, under `no_grad`; the source may be on another device."""
        data = self._change("copy_", source)
        source = _array(source)
        data[...] = device.move(source, self.device) if hasattr(source, "shape") else source
        return self

    def add_(self, other: Any, alpha: float = 1.0) -> Tensor:
        """Add ``alpha · other`` in place, under `no_grad`."""
        data = self._change("add_", other)
        other = _beside("add_", data, other)
        data += other if alpha == 1.0 else other * data.dtype.type(alpha)
        return self

    def mul_(self, other: Any) -> Tensor:
        """Multiply in place, under `no_grad`."""
        data = self._change("mul_", other)
        data *= _beside("mul_", data, other)
        return self

    def fill_(self, value: float) -> Tensor:
        """Set every element to ``value``, under `no_grad`."""
        self._change("fill_")[...] = value
        return self

    def zero_(self) -> Tensor:
        """Set every element to zero, under `no_grad`."""
        return self.fill_(0)


def _array(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_array(part) for part in value)
    return value.data if isinstance(value, Tensor) else value


def _beside(op: str, data: Any, value: Any) -> Any:
    """A value's array or number; DeviceError if it lives elsewhere than ``data``."""
    value = _array(value)
    if isinstance(value, np.ndarray) or device.is_gpu(value):
        device.together(op, data, value)
    return value


def _on_host_or_current(data: Any) -> Any:
    array = np.asarray(data)
    made_here = not isinstance(data, np.ndarray | np.generic)
    return device.move(array, device.current()) if made_here else array
