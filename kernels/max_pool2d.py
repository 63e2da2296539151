"""Max-pooling, its adjoint, and the gather that is the adjoint's adjoint.

    y[n, p, q, c] = max over the window's (r, s) of x[n, p·stride + r·dilation − padding, …, c]

The forward pass remembers which tap of the window won: ``index[n, p, q, c]`` = r·S + s, the first
in reading order at a tie; NaN wins over every number. (A dilated window may straddle the picture
and see nothing of it: then y is −∞, index 255, and no pixel gets its gradient.) The backward pass
is a gather as well: each input pixel looks at the windows that cover it and adds the gradients of
those that it won. So no two threads ever write to the same place, and the sum has one order.

2×2 windows side by side that fill the picture, which is what an FCN pools with, have loops of their
own: four pixels and no questions. There, too, each input pixel belongs to one window alone, and the
backward pass writes it once.

With a ReLU behind it y is max(0, …), and a window whose result is not positive has index 255, too:
no pixel gets its gradient, so the way back is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out
from minifcn.kernels.taps import Pair
from minifcn.launch import launch

NOWHERE = 255  # the index of a window without a winner


def max_pool2d(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    out: Pair,
    relu: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(y, index), both (N, *out, C), from x (N, H, W, C).

    With ``relu``, for what `joins_relu`: NaN stays NaN, and has no winner either.
    """
    assert not relu or joins_relu(x, kernel)
    if device.is_gpu(x):
        return _max_pool2d_cuda(x, (kernel, stride, padding, dilation), out)
    if device.is_reference():
        y, index = _max_pool2d_numpy(x, kernel, stride, padding, dilation, out)
        return _positive_numpy(y, index) if relu else (y, index)
    y = workspace.empty((x.shape[0], *out, x.shape[3]), x.dtype)
    index = workspace.empty(y.shape, _index_type(kernel))
    if not y.size:
        pass
    elif _tiles(x.shape[1:3], kernel, stride, padding, dilation, out):
        _max_pool_tiles_numba(len(y) * out[0], (x, y, index, relu))
    else:
        arguments = x, y, index, kernel, stride, padding, dilation, relu
        _max_pool2d_numba(len(y) * out[0], arguments)
    return y, index


def joins_relu(x: np.ndarray, kernel: Pair) -> bool:
    """Whether `max_pool2d` can do a ReLU behind it: on a GPU it has a kernel of its own.

    Nor where a window's number of pixels leaves no index for none of them.
    """
    return not device.is_gpu(x) and _index_type(kernel) is np.uint8


def max_unpool2d(
    dy: np.ndarray,
    index: np.ndarray,
    size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> np.ndarray:
    """dx (N, *size, C): dy (N, P, Q, C) added at the pixels that ``index`` names."""
    if device.is_gpu(dy):
        return _max_unpool2d_cuda(dy, index, size, (kernel, stride, padding, dilation))
    if device.is_reference():
        return _max_unpool2d_numpy(dy, index, size, kernel, stride, padding, dilation)
    dx = workspace.empty((dy.shape[0], *size, dy.shape[3]), dy.dtype)
    if not dx.size:
        pass
    elif _tiles(size, kernel, stride, padding, dilation, dy.shape[1:3]):
        _max_unpool_tiles_numba(len(dy) * dy.shape[1], (dy, index, dx))
    else:
        arguments = dy, index, dx, kernel, stride, padding, dilation
        _max_unpool2d_numba(len(dx) * dx.shape[1], arguments)
    return dx


def take_pixels(
    x: np.ndarray, index: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """The winners' pixels of x: the adjoint of `max_unpool2d` (N, H, W, C) → (N, P, Q, C)."""
    if device.is_gpu(x):
        return _take_pixels_cuda(x, index, (kernel, stride, padding, dilation))
    at = _pixels(index, x.shape[1:3], kernel, stride, padding, dilation)
    n, h, w, c = x.shape
    flat = at.reshape(n, at.shape[1] * at.shape[2], c)
    taken = np.take_along_axis(x.reshape(n, h * w, c), np.maximum(flat, 0), axis=1)
    return np.where(flat < 0, x.dtype.type(0), taken).reshape(index.shape)


def _tiles(
    size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> bool:
    """Whether the windows are 2×2, of neighbours, side by side, and fill the picture."""
    side_by_side = kernel == stride == (2, 2) and dilation == (1, 1) and padding == (0, 0)
    return side_by_side and size == (2 * out[0], 2 * out[1])


def _index_type(kernel: Pair) -> type:
    return np.uint8 if kernel[0] * kernel[1] <= NOWHERE else np.int32


# -- the definition ------------------------------------------------------------------------------


def _max_pool2d_numpy(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> tuple[np.ndarray, np.ndarray]:
    n, h, w, c = x.shape
    y = np.full((n, *out, c), -np.inf, x.dtype)
    index = np.full(y.shape, NOWHERE, _index_type(kernel))
    seen = np.zeros((1, *out, 1), bool)
    p, q = np.arange(out[0]), np.arange(out[1])
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            rows = p * stride[0] + r * dilation[0] - padding[0]
            cols = q * stride[1] + s * dilation[1] - padding[1]
            inside = (((rows >= 0) & (rows < h))[:, None] & ((cols >= 0) & (cols < w)))[..., None]
            at = np.where(inside[..., 0], rows[:, None] * w + cols, 0)
            value = x.reshape(n, h * w, c)[:, at]
            # strictly larger, so that the first wins; ~(value <= y) would let NaN in, and keep it
            wins = inside & ((value > y) | (np.isnan(value) & ~np.isnan(y)) | ~seen)
            y = np.where(wins, value, y)
            index = np.where(wins, index.dtype.type(r * kernel[1] + s), index)
            seen |= inside
    return y, index


def _positive_numpy(y: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nowhere = index.dtype.type(NOWHERE)
    return np.where(y < 0, y.dtype.type(0), y), np.where(y > 0, index, nowhere)


def _max_unpool2d_numpy(
    dy: np.ndarray,
    index: np.ndarray,
    size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> np.ndarray:
    n, _, _, c = dy.shape
    at = _pixels(index, size, kernel, stride, padding, dilation)
    dx = np.zeros((n, size[0] * size[1] + 1, c), dy.dtype)  # pixel −1 is the extra one
    image, channel = np.arange(n)[:, None, None, None], np.arange(c)
    np.add.at(dx, (image, at, channel), dy)
    return dx[:, :-1].reshape(n, *size, c)


def _pixels(
    index: np.ndarray, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """The number h·W + w of the pixel that each window's winner is, −1 for none."""
    r, s = np.divmod(index.astype(np.int64), kernel[1])
    p, q = np.arange(index.shape[1])[:, None, None], np.arange(index.shape[2])[:, None]
    rows = p * stride[0] + r * dilation[0] - padding[0]
    cols = q * stride[1] + s * dilation[1] - padding[1]
    nowhere = (index == NOWHERE) & (NOWHERE >= kernel[0] * kernel[1])
    return np.where(nowhere, -1, rows * size[1] + cols)


# -- CUDA ------------------------------------------------------------------------------------------

THREADS = 256
SHARED = 48 << 10  # bytes of shared memory that every GPU has for a block
DEEP = 32  # channels of a tile at most: whole sectors even of the index, a byte a channel
#: rows and columns of a tile of results, from large to small: the first that fits is taken
TILES = ((16, 64), (16, 32), (8, 32), (4, 32), (8, 16), (8, 12), (8, 10), (4, 8), (2, 4), (1, 1))


def _max_pool2d_cuda(
    x: np.ndarray, windows: tuple[Pair, ...], out: Pair
) -> tuple[np.ndarray, np.ndarray]:
    xp, (n, h, w, c), (kernel, stride, _, dilation) = device.array_module(x), x.shape, windows
    y = xp.empty((n, *out, c), x.dtype)
    index = xp.empty(y.shape, _index_type(kernel))
    shape = n, h, w, c, *out, *(size for pair in windows for size in pair)
    arguments = x, y, index, *shape, -np.inf
    if not y.size:
        return y, index
    # pixels that a tile of results sees along an axis
    seen = [
        lambda i, axis=axis: (i - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        for axis in (0, 1)
    ]
    tile = _tile(windows, c, x.dtype.itemsize, seen)
    if index.dtype == np.uint8 and tile is not None:
        count = _count(n, out, c, tile)
        sizes = {"real": x.dtype, "shared": tile[3]}
        arguments = *arguments, *tile[:3]
        launch("max_pool2d.cu", "max_pool2d_staged", (count,), (THREADS,), arguments, **sizes)
    else:
        name = "max_pool2d" if index.dtype == np.uint8 else "max_pool2d_int32"
        launch("max_pool2d.cu", name, _grid(y), (THREADS,), arguments, real=x.dtype)
    return y, index


def _max_unpool2d_cuda(
    dy: np.ndarray, index: np.ndarray, size: Pair, windows: tuple[Pair, ...]
) -> np.ndarray:
    (n, p, q, c), (kernel, stride, _, dilation) = dy.shape, windows
    dx = device.array_module(dy).empty((n, *size, c), dy.dtype)
    shape = n, *size, c, p, q, *(length for pair in windows for length in pair)
    arguments = dy, index, dx, *shape
    if not dx.size or not dy.size:
        dx.fill(0)
        return dx
    # windows that see a tile of pixels along an axis, at most
    seen = [
        lambda i, axis=axis: (i - 1 + (kernel[axis] - 1) * dilation[axis]) // stride[axis] + 1
        for axis in (0, 1)
    ]
    tile = _tile(windows, c, dy.dtype.itemsize + 1, seen)
    if index.dtype == np.int32:
        launch("max_pool2d.cu", "max_unpool2d_int32", _grid(dx), (THREADS,), arguments, dy.dtype)
    elif tile is not None:
        count = _count(n, size, c, tile)
        sizes = {"real": dy.dtype, "shared": tile[3]}
        arguments = *arguments, *tile[:3]
        launch("max_pool2d.cu", "max_unpool2d_staged", (count,), (THREADS,), arguments, **sizes)
    elif _apart(windows) and c * dy.dtype.itemsize % 16 == 0:
        launch("max_pool2d.cu", "max_unpool2d_apart", _grid(dy), (THREADS,), arguments, dy.dtype)
    else:
        launch("max_pool2d.cu", "max_unpool2d", _grid(dx), (THREADS,), arguments, dy.dtype)
    return dx


def _take_pixels_cuda(x: np.ndarray, index: np.ndarray, windows: tuple[Pair, ...]) -> np.ndarray:
    y = device.array_module(x).empty(index.shape, x.dtype)
    if y.size:
        shape = *x.shape, *index.shape[1:3], *(size for pair in windows for size in pair)
        name = "take_pixels" if index.dtype == np.uint8 else "take_pixels_int32"
        launch("max_pool2d.cu", name, _grid(y), (THREADS,), (x, index, y, *shape), real=x.dtype)
    return y


def _apart(windows: tuple[Pair, ...]) -> bool:
    """Whether no two windows share a pixel."""
    kernel, stride, _, dilation = windows
    return all((k - 1) * d < s for k, s, d in zip(kernel, stride, dilation, strict=True))


def _tile(
    windows: tuple[Pair, ...], c: int, element: int, seen: list[Callable[[int], int]]
) -> tuple[int, int, int, int] | None:
    """(rows, columns, channels, bytes of shared memory) of a tile; None to read without it."""
    if _apart(windows) and c % 4 == 0:
        return None
    deep = min(c, DEEP)
    for rows, columns in TILES:
        size = seen[0](rows) * seen[1](columns) * deep * element
        if size <= SHARED:
            return rows, columns, deep, size
    return None


def _count(n: int, size: Pair, c: int, tile: tuple[int, int, int, int]) -> int:
    """Tiles of all images."""
    rows, columns, deep, _ = tile
    return min(n * -(-size[0] // rows) * -(-size[1] // columns) * -(-c // deep), 1 << 20)


def _grid(y: np.ndarray) -> tuple[int]:
    return (min(-(-y.size // THREADS), 1 << 20),)


# -- Numba -----------------------------------------------------------------------------------------


@serial
def _max_pool2d_line(line, x, y, index, kernel, stride, padding, dilation, relu):  # type: ignore[no-untyped-def]
    _, h, w, c = x.shape
    n, p, q, _ = y.shape
    image = line // p
    row = line - image * p
    for j in range(q):
        best, where = y[image, row, j], index[image, row, j]
        first = True
        for r in range(kernel[0]):
            a = row * stride[0] + r * dilation[0] - padding[0]
            if a < 0 or a >= h:
                continue
            for s in range(kernel[1]):
                b = j * stride[1] + s * dilation[1] - padding[1]
                if b < 0 or b >= w:
                    continue
                value = x[image, a, b]
                at = index.dtype.type(r * kernel[1] + s)
                if first:
                    for e in range(c):
                        best[e] = value[e]
                        where[e] = at
                    first = False
                else:
                    for e in range(c):
                        # not (value ≤ best): larger or NaN; and a NaN already there stays
                        wins = not (value[e] <= best[e]) and best[e] == best[e]
                        best[e] = value[e] if wins else best[e]
                        where[e] = at if wins else where[e]
        if first:
            best[:] = -np.inf
            where[:] = NOWHERE
        if relu:
            for e in range(c):
                where[e] = where[e] if best[e] > 0 else index.dtype.type(NOWHERE)
                best[e] = y.dtype.type(0) if best[e] < 0 else best[e]


@kernel
def _max_pool2d_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_max_pool2d_line, count, arguments)


@serial
def _max_unpool2d_line(line, dy, index, dx, kernel, stride, padding, dilation):  # type: ignore[no-untyped-def]
    n, h, w, c = dx.shape
    _, p, q, _ = dy.shape
    zero = dy.dtype.type(0)
    image = line // h
    a = line - image * h
    for b in range(w):
        total = dx[image, a, b]
        total[:] = 0
        for r in range(kernel[0]):
            up = a + padding[0] - r * dilation[0]
            i = up // stride[0]
            if up < 0 or i >= p or i * stride[0] != up:
                continue
            for s in range(kernel[1]):
                left = b + padding[1] - s * dilation[1]
                j = left // stride[1]
                if left < 0 or j >= q or j * stride[1] != left:
                    continue
                grad, where = dy[image, i, j], index[image, i, j]
                tap = r * kernel[1] + s
                for e in range(c):
                    total[e] += grad[e] if where[e] == tap else zero


@kernel
def _max_unpool2d_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_max_unpool2d_line, count, arguments)


@serial
def _max_pool_tiles_line(line, x, y, index, relu):  # type: ignore[no-untyped-def]
    n, p, q, c = y.shape
    zero = y.dtype.type(0)
    image = line // p
    i = line - image * p
    for j in range(q):
        for e in range(c):
            value, tap = x[image, 2 * i, 2 * j, e], np.uint8(0)
            # not (next ≤ value): larger or NaN; and a NaN already there stays
            x01 = x[image, 2 * i, 2 * j + 1, e]
            if value == value and not x01 <= value:
                value, tap = x01, np.uint8(1)
            x10 = x[image, 2 * i + 1, 2 * j, e]
            if value == value and not x10 <= value:
                value, tap = x10, np.uint8(2)
            x11 = x[image, 2 * i + 1, 2 * j + 1, e]
            if value == value and not x11 <= value:
                value, tap = x11, np.uint8(3)
            if relu:
                tap = tap if value > zero else np.uint8(NOWHERE)
                value = zero if value < zero else value
            y[image, i, j, e] = value
            index[image, i, j, e] = tap


@kernel
def _max_pool_tiles_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_max_pool_tiles_line, count, arguments)


@serial
def _max_unpool_tiles_line(line, dy, index, dx):  # type: ignore[no-untyped-def]
    n, p, q, c = dy.shape
    zero = dy.dtype.type(0)
    image = line // p
    i = line - image * p
    for j in range(q):
        for tap in range(4):
            row, column = 2 * i + tap // 2, 2 * j + tap % 2
            for e in range(c):
                won = index[image, i, j, e] == tap
                dx[image, row, column, e] = dy[image, i, j, e] if won else zero


@kernel
def _max_unpool_tiles_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_max_unpool_tiles_line, count, arguments)
