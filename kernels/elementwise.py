"""Loops over all elements: a sum, a joining of channels.

An activation's memory is as a rule a contiguous (N, H, W, C) block under a transposed view, so
these loops run over flat memory, in the order in which it lies; other layouts are copied first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numba import prange

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.compiled import parallel
from minifcn.launch import launch

BLOCK = 16384  # elements from which on a second thread is worth its start


def add(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a + b, of one shape and dtype; into ``out``, which may be a, or into new memory."""
    if device.is_gpu(a):
        return _add_cuda(a, b, out)
    lie_alike = a.strides == b.strides and (out is None or a.strides == out.strides)
    large = a.size >= BLOCK and a.dtype in (np.float32, np.float64)
    if device.is_reference() or not (large and lie_alike and _is_flat(a)):
        return np.add(a, b, out=out)
    y = workspace.empty((a.size,), a.dtype) if out is None else _flat(out)
    _add_numba(_flat(a), _flat(b), y)
    return _like(y, a) if out is None else out


def cat_channels(parts: Sequence[np.ndarray]) -> np.ndarray:
    """(N, H, W, C₁ + C₂ + …) from parts (N, H, W, Cᵢ) of one dtype."""
    if device.is_gpu(parts[0]):
        return _cat_cuda(parts)
    if device.is_reference():
        return np.concatenate(parts, axis=3)
    joined = workspace.empty((*parts[0].shape[:3], sum(p.shape[3] for p in parts)), parts[0].dtype)
    rows, first = joined.reshape(-1, joined.shape[3]), 0
    for part in parts:
        count = part.shape[3]
        if part.size:
            _copy_columns_numba(part.reshape(-1, count), 0, rows, first, count)
        first += count
    return joined


def split_channels(x: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Undo `cat_channels`: x (N, H, W, ΣCᵢ) in parts (N, H, W, Cᵢ), each in memory of its own."""
    ends = list(accumulate(counts))
    if device.is_gpu(x):
        return _split_cuda(x, counts, ends)
    if device.is_reference():
        return [np.ascontiguousarray(x[..., e - count : e]) for e, count in zip(ends, counts)]
    parts = [workspace.empty((*x.shape[:3], count), x.dtype) for count in counts]
    rows = x.reshape(-1, x.shape[3])
    for part, end, count in zip(parts, ends, counts):
        if part.size:
            _copy_columns_numba(rows, end - count, part.reshape(-1, count), 0, count)
    return parts


def _is_flat(x: np.ndarray) -> bool:
    """Whether `_flat` gives a view, not a copy."""
    return (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).flags.c_contiguous


def _flat(x: np.ndarray) -> np.ndarray:
    """The elements as one row: (N, C, H, W) in the order N, H, W, C; a view where it can be."""
    lying = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    return device.array_module(x).ascontiguousarray(lying).reshape(-1)


def _like(flat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Undo `_flat`: the shape of x, channels last in memory if it has four dimensions."""
    if x.ndim != 4:
        return flat.reshape(x.shape)
    n, c, h, w = x.shape
    return flat.reshape(n, h, w, c).transpose(0, 3, 1, 2)


# -- CUDA ------------------------------------------------------------------------------------------

THREADS = 256
SHARED = 48 << 10  # bytes of shared memory that every GPU has for a block
MOST = 1 << 14  # blocks; then they go round again
TILE = 16 << 10  # bytes of a tile of joined rows, if 8 rows take no more


def _grid(elements: int, dtype: np.dtype) -> tuple[int]:
    """Blocks whose threads take 16 bytes each; beyond 16,384 of them a thread goes round again."""
    return (min(-(-elements * dtype.itemsize // (16 * THREADS)), MOST),)


def _add_cuda(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if a.dtype not in (np.float32, np.float64) or not (out is None or _is_flat(out)):
        return device.array_module(a).add(a, b, out=out)
    y = device.array_module(a).empty((a.size,), a.dtype) if out is None else _flat(out)
    if a.size:
        grid = _grid(a.size, a.dtype)
        arguments = _flat(a), _flat(b), y, a.size
        launch("elementwise.cu", "add", grid, (THREADS,), arguments, real=a.dtype)
    return _like(y, a) if out is None else out


def _cat_cuda(parts: Sequence[np.ndarray]) -> np.ndarray:
    shape = *parts[0].shape[:3], sum(p.shape[3] for p in parts)
    joined, first = device.array_module(parts[0]).empty(shape, parts[0].dtype), 0
    if _pass_through_tiles(joined, [p.shape[3] for p in parts]):
        (a, b), (grid, rows, tile, shared) = parts, _tiles(joined)
        arguments = a, a.shape[3], b, b.shape[3], joined, rows, tile
        how = {"real": a.dtype, "shared": shared}
        launch("elementwise.cu", "join_columns", grid, (THREADS,), arguments, **how)
        return joined
    for part in parts:
        _copy_columns_cuda(part, 0, joined, first, part.shape[3])
        first += part.shape[3]
    return joined


def _split_cuda(x: np.ndarray, counts: Sequence[int], ends: Sequence[int]) -> list[np.ndarray]:
    empty = device.array_module(x).empty
    parts = [empty((*x.shape[:3], count), x.dtype) for count in counts]
    if _pass_through_tiles(x, counts):
        (a, b), (grid, rows, tile, shared) = parts, _tiles(x)
        arguments = x, a, counts[0], b, counts[1], rows, tile
        how = {"real": x.dtype, "shared": shared}
        launch("elementwise.cu", "split_columns", grid, (THREADS,), arguments, **how)
        return parts
    for part, end, count in zip(parts, ends, counts):
        _copy_columns_cuda(x, end - count, part, 0, count)
    return parts


def _pass_through_tiles(joined: np.ndarray, counts: Sequence[int]) -> bool:
    """Whether two parts would not fill whole sectors, and a tile can hold both.

    Three and more parts are copied one by one.
    """
    in_sectors = all(count * joined.itemsize % 32 == 0 for count in counts)
    fits = 8 * joined.shape[3] * joined.itemsize <= SHARED
    return len(counts) == 2 and not in_sectors and joined.size > 0 and fits


def _tiles(joined: np.ndarray) -> tuple[tuple[int], int, int, int]:
    """(grid, rows, rows of a tile, its bytes)."""
    row = joined.shape[3] * joined.itemsize
    rows, tile = joined.size // joined.shape[3], 8 * max(1, TILE // (8 * row))
    return (min(-(-rows // tile), MOST),), rows, tile, tile * row


def _copy_columns_cuda(
    source: np.ndarray, first: int, target: np.ndarray, to: int, count: int
) -> None:
    rows = source.shape[0] * source.shape[1] * source.shape[2]
    if rows * count:
        arguments = source, source.shape[3], first, target, target.shape[3], to, rows, count
        grid = _grid(rows * count, source.dtype)
        launch("elementwise.cu", "copy_columns", grid, (THREADS,), arguments, real=source.dtype)


# -- Numba -----------------------------------------------------------------------------------------


@parallel
def _add_numba(a, b, y):  # type: ignore[no-untyped-def]
    for i in prange(y.size):
        y[i] = a[i] + b[i]


@parallel
def _copy_columns_numba(source, first, target, to, count):  # type: ignore[no-untyped-def]
    for i in prange(len(source)):
        for e in range(count):
            target[i, to + e] = source[i, first + e]
