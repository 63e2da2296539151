"""Between the shape a user sees, (N, C, H, W), and the memory a kernel reads, (N, H, W, C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minifcn import device, geometry
from minifcn.errors import ShapeError

Pair = tuple[int, int]


def channels_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) → contiguous (N, H, W, C); no copy if the memory lies so already."""
    rows = x.transpose(0, 2, 3, 1)
    return rows if rows.flags.c_contiguous else device.contiguous(rows)


def channels_first(y: np.ndarray) -> np.ndarray:
    """(N, H, W, C) → the view (N, C, H, W)."""
    return y.transpose(0, 3, 1, 2)


def elementwise(function: Callable[..., Any], *arrays: Any) -> Any:
    """function(*arrays), broadcasting, the result in the order in which pictures lie.

    NumPy sees to the order itself; CuPy writes every result in C order, which would be (N, C, H, W)
    and cost a copy at the next kernel.
    """
    if not device.is_gpu(arrays[0]) or max(x.ndim for x in arrays) != 4:
        return function(*arrays)
    four = [x.reshape((1,) * (4 - x.ndim) + x.shape) if x.ndim else x for x in arrays]
    return channels_first(function(*(x.transpose(0, 2, 3, 1) if x.ndim else x for x in four)))


def filled(like: Any, shape: tuple[int, ...], value: float | None) -> Any:
    """One value (None: not written yet) in a shape, of ``like``'s dtype; pictures channels-last."""
    xp, is_a_picture = device.array_module(like), len(shape) == 4
    if is_a_picture:
        shape = shape[0], *shape[2:], shape[1]
    new = xp.empty(shape, like.dtype) if value is None else xp.full(shape, value, like.dtype)
    return channels_first(new) if is_a_picture else new


def pair(op: str, name: str, value: int | Sequence[int]) -> Pair:
    """A setting given as one number for both axes, or as (vertical, horizontal)."""
    if type(value) is int:
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
        return value  # as layers keep them: a net asks a hundred times a step
    both = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(both) != 2 or not all(isinstance(n, int | np.integer) for n in both):
        raise ShapeError(f"{op}: {name} is {value}, wanted one integer or (vertical, horizontal)")
    return int(both[0]), int(both[1])


def is_picture(op: str, x: Any, name: str = "input") -> None:
    """Refuse a shape and dtype, a Tensor's for instance, that are no floating (N, C, H, W)."""
    if x.ndim != 4:
        raise ShapeError(
            f"{op}: {name} has shape {x.shape}, wanted (N, C, H, W); "
            "add the missing dimension with unsqueeze(0)"
        )
    if x.dtype not in (np.float32, np.float64):
        raise ShapeError(
            f"{op}: {name} has dtype {x.dtype}, wanted float32 or float64; use .to(...)"
        )


def pooled(
    op: str, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool
) -> Pair:
    """The output size of a pooling, with the operation's name on any complaint."""
    settings = zip(size, kernel, stride, padding, dilation)
    try:
        p, q = (geometry.pool_output_size(*axis, ceil_mode=ceil) for axis in settings)
    except ShapeError as error:
        raise ShapeError(f"{op}: {error}") from None
    return p, q
