"""Operations that move elements and change none: reshape, permute, index, cat, pad, crop."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import numpy as np

from minifcn import device
from minifcn.errors import DeviceError, ShapeError
from minifcn.function import Function
from minifcn.kernels.elementwise import cat_channels, split_channels
from minifcn.ops.layout import channels_first, channels_last, filled
from minifcn.ops.reduction import dims_of
from minifcn.recording import is_grad_enabled
from minifcn.tensor import Tensor


class Reshape(Function):
    """The same elements, in C order, under another shape."""

    reads = {}

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.to_shape = shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.input_shape = x.shape
        return x.reshape(self.to_shape)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (reshape(grad, self.input_shape),)


class Permute(Function):
    """Dimensions in another order; a view, no element moves in memory."""

    reads = {}

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x.transpose(self.dims)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (permute(grad, tuple(int(d) for d in np.argsort(self.dims))),)


class Index(Function):
    """x[index]. Its adjoint adds the gradient into zeros at ``index``."""

    reads = {}

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.input_shape = x.shape
        return x[self.index]

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (Scatter(self.index, self.input_shape)(grad),)


class Scatter(Function):
    """Zeros with the values added at ``index``, repeats included: the adjoint of `Index`.

    On a GPU an array of numbers is refused: where it names an element twice, many threads would
    add to one place, in an order that changes from run to run.
    """

    reads = {}

    def __init__(self, index: Any, shape: tuple[int, ...]) -> None:
        self.index, self.to_shape = index, shape

    def forward(self, values: np.ndarray) -> np.ndarray:
        out = filled(values, self.to_shape, 0)
        parts = self.index if isinstance(self.index, tuple) else (self.index,)
        if all(_names_once(part) for part in parts):
            out[self.index] = values
        elif device.is_gpu(values):
            raise DeviceError(
                "the gradient of x[array of numbers] is not offered on a GPU; index with slices or "
                "a mask, or on the host: x.cpu()[...]"
            )
        else:
            np.add.at(out, self.index, values)
        return out

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (Index(self.index)(grad),)


class Cat(Function):
    """Joined along one dimension. Each input's gradient is its own slice."""

    reads = {}

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, *parts: np.ndarray) -> np.ndarray:
        self.lengths = [part.shape[self.dim] for part in parts]
        alike = len({part.dtype for part in parts}) == 1
        if parts[0].ndim == 4 and self.dim == 1 and alike and parts[0].dtype.kind == "f":
            return channels_first(cat_channels([channels_last(part) for part in parts]))
        if parts[0].ndim != 4:
            return np.concatenate(parts, axis=self.dim)
        axis = (0, 3, 1, 2)[self.dim]  # of (N, H, W, C)
        return channels_first(np.concatenate([p.transpose(0, 2, 3, 1) for p in parts], axis))

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        ends = np.cumsum(self.lengths)
        if grad.ndim == 4 and self.dim == 1 and not is_grad_enabled():
            parts = split_channels(channels_last(grad.data), self.lengths)
            return tuple(Tensor(channels_first(part)) for part in parts)
        before = (slice(None),) * self.dim
        return tuple(
            grad[(*before, slice(int(end) - n, int(end)))] if need else None
            for end, n, need in zip(ends, self.lengths, self.needs)
        )


class Pad(Function):
    """A frame of one value about the last two dimensions; a negative width cuts off instead.

    The gradient of x is the gradient without the frame: padding by the negative widths.
    """

    reads = {}

    def __init__(self, widths: tuple[int, int, int, int], value: float) -> None:
        self.widths, self.value = widths, value

    def forward(self, x: np.ndarray) -> np.ndarray:
        left, right, top, bottom = self.widths
        *outer, h, w = x.shape
        out_h, out_w = h + top + bottom, w + left + right
        framed = max(self.widths) > 0
        y = filled(x, (*outer, out_h, out_w), self.value if framed else None)
        y[..., max(top, 0) : out_h - max(bottom, 0), max(left, 0) : out_w - max(right, 0)] = x[
            ..., max(-top, 0) : h - max(-bottom, 0), max(-left, 0) : w - max(-right, 0)
        ]
        return y

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        left, right, top, bottom = self.widths
        return (Pad((-left, -right, -top, -bottom), 0.0)(grad),)


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements under ``shape``; one length may be −1 and follows from the rest."""
    wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else tuple(shape)
    if x.shape == wanted:
        return x
    known = int(np.prod([n for n in wanted if n != -1]))
    free = wanted.count(-1)
    if free > 1 or (x.numel() != known if free == 0 else known == 0 or x.numel() % known):
        raise ShapeError(
            f"reshape: {x.numel()} elements of shape {x.shape} do not fit the shape {wanted}"
        )
    return Reshape(tuple(x.numel() // known if n == -1 else n for n in wanted))(x)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions ``start_dim`` to ``end_dim`` run together into one."""
    first, last = dims_of("flatten", start_dim, x.ndim)[0], dims_of("flatten", end_dim, x.ndim)[0]
    length = int(np.prod(x.shape[first : last + 1]))
    return reshape(x, (*x.shape[:first], length, *x.shape[last + 1 :]))


def permute(x: Tensor, *dims: Any) -> Tensor:
    """Dimensions in the order ``dims``."""
    order = tuple(dims[0]) if len(dims) == 1 and not isinstance(dims[0], int) else tuple(dims)
    if sorted(d % max(x.ndim, 1) for d in order) != list(range(x.ndim)):
        raise ShapeError(f"permute: dims are {order}, wanted each of the {x.ndim} dimensions once")
    return Permute(tuple(d % x.ndim for d in order))(x)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    a, b = dims_of("transpose", dim0, x.ndim)[0], dims_of("transpose", dim1, x.ndim)[0]
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return Permute(tuple(order))(x)


def squeeze(x: Tensor, dim: int) -> Tensor:
    """Without dimension ``dim``, which must have length 1."""
    (d,) = dims_of("squeeze", dim, x.ndim)
    if x.shape[d] != 1:
        raise ShapeError(
            f"squeeze: dimension {dim} of shape {x.shape} has length {x.shape[d]}, not 1"
        )
    return reshape(x, (*x.shape[:d], *x.shape[d + 1 :]))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new dimension of length 1 at ``dim``."""
    d = dim + x.ndim + 1 if dim < 0 else dim
    if not 0 <= d <= x.ndim:
        raise ShapeError(f"unsqueeze: dim is {dim}, wanted {-x.ndim - 1} to {x.ndim}")
    return reshape(x, (*x.shape[:d], 1, *x.shape[d:]))


def index(x: Tensor, where: Any) -> Tensor:
    """x[where], for everything that NumPy can index with; index Tensors count as arrays.

    Index arrays are moved to where x is. A GPU would take numbers beyond x's lengths modulo them,
    so they are tried on the host before; those of an index Tensor are not.
    """
    parts = where if isinstance(where, tuple) else (where,)
    plain = tuple(_index_part(x, part) for part in parts)
    try:
        if device.is_gpu(x.data) and not any(isinstance(part, Tensor) for part in parts):
            np.broadcast_to(np.int8(0), x.shape)[where]
        return Index(plain if isinstance(where, tuple) else plain[0])(x)
    except IndexError as error:
        raise ShapeError(f"index: {error} (the Tensor has shape {x.shape})") from None


def _index_part(x: Tensor, part: Any) -> Any:
    """An index array is copied: the gradient must go where the values came from, if it changes."""
    if not isinstance(part, Tensor | np.ndarray | list):
        return part
    array = part.data if isinstance(part, Tensor) else np.asarray(part)
    return device.move(array.copy(), device.name_of(x.data))


def _names_once(part: Any) -> bool:
    """Whether an index names no element twice: all but arrays of numbers."""
    mask = getattr(part, "dtype", None) == np.dtype(bool)
    return mask or isinstance(part, int | np.integer | slice | EllipsisType | None)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The Tensors joined along ``dim``; all other dimensions must be equal."""
    if not tensors:
        raise ShapeError("cat: no Tensors given, wanted at least one")
    (d,) = dims_of("cat", dim, tensors[0].ndim)
    rest = [(*t.shape[:d], *t.shape[d + 1 :]) for t in tensors]
    for i, (shape, t) in enumerate(zip(rest, tensors)):
        if shape != rest[0] or t.ndim != tensors[0].ndim:
            raise ShapeError(
                f"cat: tensors[{i}] has shape {t.shape}, which differs from tensors[0]'s "
                f"{tensors[0].shape} outside dimension {dim}"
            )
    return Cat(d)(*tensors)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The Tensors, all of one shape, side by side along a new dimension ``dim``."""
    return cat([unsqueeze(t, dim) for t in tensors], dim)


def pad(x: Tensor, padding: Sequence[int], value: float = 0.0) -> Tensor:
    """Frame the last two dimensions with ``value``; ``padding`` is (left, right, top, bottom).

    As in PyTorch, a pair (left, right) pads the last dimension only, and negative widths crop.
    """
    widths = tuple(int(n) for n in padding)
    widths = (*widths, 0, 0) if len(widths) == 2 else widths
    if len(widths) != 4:
        raise ShapeError(f"pad: padding is {padding}, wanted (left, right, top, bottom)")
    if x.ndim < 2:
        raise ShapeError(
            f"pad: input has shape {x.shape}, wanted at least two dimensions (…, H, W)"
        )
    left, right, top, bottom = widths
    height, width = x.shape[-2] + top + bottom, x.shape[-1] + left + right
    cut = (
        max(-left, 0) + max(-right, 0) > x.shape[-1] or max(-top, 0) + max(-bottom, 0) > x.shape[-2]
    )
    if cut or height < 0 or width < 0:
        raise ShapeError(f"pad: padding {padding} cuts off more than shape {x.shape} has")
    return x if widths == (0, 0, 0, 0) else Pad(widths, value)(x)  # type: ignore[arg-type]


def crop(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """The window of height × width whose first pixel is (top, left), of the last two dimensions."""
    h, w = x.shape[-2:]
    if top < 0 or left < 0 or height < 0 or width < 0 or top + height > h or left + width > w:
        raise ShapeError(
            f"crop: rows {top}..{top + height} and columns {left}..{left + width} "
            f"reach outside the input's {h}×{w}"
        )
    return pad(x, (-left, left + width - w, -top, top + height - h))
