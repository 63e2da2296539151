"""Convolution, transposed convolution and their weight gradient, by im2col in panels.

    y[n, p, q, k] = b[k] + Σ_{r, s, c} x[n, p·stride + r·dilation − padding, …, c] · w[k, c, r, s]

The pixels under the kernel, laid out as one row an output pixel (im2col), make this a matrix
product of (pixels, R·S·C) with (R·S·C, K). The whole column matrix would be R·S times the
activation (1.05 GiB for VGG's conv1_2 at 500×500); so it is made a *panel* of some rows at a time,
each small enough to stay in the cache that its thread works in, multiplied at once, and overwritten
by the next.

Arrays: x (N, H, W, C), w (K, C/groups, R, S), b (K,), y (N, P, Q, K), C-contiguous, all of one
floating dtype. Results do not depend on the number of threads: each element is one sum in one
order.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import njit, prange

from minifcn import device
from minifcn.kernels import depthwise, workspace
from minifcn.kernels.taps import Pair, Taps, convolution, transposed
from minifcn.kernels.tile import ROWS, clear, columns, copy, lanes, tile_1, tile_2

PANEL_BYTES = 192 * 1024  # of one thread's second-level cache; the rest is for the weights
GRADIENT_PIXELS = 256  # pixels summed in registers before they join the weight gradient


# -- the three entry points ----------------------------------------------------------------------


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
) -> np.ndarray:
    """The convolution of x (N, H, W, C) with weight (K, C/groups, R, S): y (N, *out, K)."""
    taps = convolution(weight.shape[2:], stride, padding, dilation, out)
    by_tap = weight.transpose(2, 3, 1, 0).reshape(-1, *weight.shape[1::-1])  # (R·S, C/g, K)
    return _along_taps(x, by_tap, bias, taps, groups, out)


def conv_transpose2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
) -> np.ndarray:
    """The adjoint of `conv2d`: x (N, P, Q, C), weight (C, K/groups, R, S) → y (N, *out, K)."""
    taps = transposed(weight.shape[2:], stride, padding, dilation, out)
    c, k, r, s = weight.shape
    grouped = weight.reshape(groups, c // groups, k, r, s)
    by_tap = grouped.transpose(3, 4, 1, 0, 2).reshape(r * s, c // groups, groups * k)
    return _along_taps(x, by_tap, bias, taps, groups, out)


def conv2d_weight(
    x: np.ndarray,
    dy: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """dL/dw (K, C/groups, R, S) of `conv2d` from x (N, H, W, C) and dL/dy = dy (N, P, Q, K).

    dw[k, c, r, s] = Σ_{n, p, q} x[n, p·stride + r·dilation − padding, …, c] · dy[n, p, q, k]
    """
    taps = convolution(kernel, stride, padding, dilation, dy.shape[1:3])
    c, k = x.shape[3] // groups, dy.shape[3]
    if device.is_reference():
        by_tap = _weight_numpy(x, dy, taps, groups)
    elif depthwise.serves(groups, x.shape[3], k):
        by_tap = depthwise.weight_along_taps(x, dy, taps)
    else:
        by_tap = _weight_numba(x, dy, taps, groups)
    return np.ascontiguousarray(by_tap.reshape(*kernel, c, k).transpose(3, 2, 0, 1))


def _along_taps(
    x: np.ndarray, by_tap: np.ndarray, bias: np.ndarray | None, taps: Taps, groups: int, out: Pair
) -> np.ndarray:
    """One loop for both: the device's reading of it. by_tap is (R·S, C/groups, K)."""
    if bias is None:
        bias = np.zeros(by_tap.shape[2], x.dtype)
    if device.is_reference():
        return _taps_numpy(x, by_tap, bias, taps, groups, out)
    if depthwise.serves(groups, x.shape[3], by_tap.shape[2]):
        return depthwise.along_taps(x, by_tap[:, 0], bias, taps, out)
    return _taps_numba(x, by_tap, bias, taps, groups, out)


# -- the definition ------------------------------------------------------------------------------


def im2col_panel(
    x: np.ndarray, taps: Taps, first: int, last: int, grid: Pair, rows: range, channels: slice
) -> np.ndarray:
    """im2col of some rows of a grid: (N, len(rows), grid[1], taps · channels), zeros outside x."""
    n, h, w, _ = x.shape
    (step_y, step_x), offset = taps.in_stride, taps.offset[first:last]
    y = (np.arange(rows.start, rows.stop) * step_y)[:, None, None] + offset[:, 0]
    z = (np.arange(grid[1]) * step_x)[None, :, None] + offset[:, 1]
    y, z = np.broadcast_arrays(y, z)
    inside = (y >= 0) & (y < h) & (z >= 0) & (z < w)
    if h == 0 or w == 0:
        return np.zeros((n, *y.shape[:2], (last - first) * x[..., channels].shape[3]), x.dtype)
    found = x[:, np.where(inside, y, 0), np.where(inside, z, 0), channels]
    found[:, ~inside] = 0
    return found.reshape(n, *y.shape[:2], (last - first) * found.shape[4])


def _taps_numpy(
    x: np.ndarray, by_tap: np.ndarray, bias: np.ndarray, taps: Taps, groups: int, out: Pair
) -> np.ndarray:
    n, c, k = x.shape[0], by_tap.shape[1], by_tap.shape[2] // groups
    y = np.empty((n, *out, groups * k), x.dtype)
    weight = by_tap[taps.order]
    for top, left, height, width, first, last in taps.phases.tolist():
        for g in range(groups):
            ours = slice(g * k, (g + 1) * k)
            matrix = weight[first:last, :, ours].reshape((last - first) * c, k)
            for i in range(height):
                columns_of_row = im2col_panel(
                    x,
                    taps,
                    first,
                    last,
                    (height, width),
                    range(i, i + 1),
                    slice(g * c, (g + 1) * c),
                )
                row = columns_of_row[:, 0] @ matrix + bias[ours]
                y[:, top + i * taps.out_stride[0], left :: taps.out_stride[1], ours] = row
    return y


def _weight_numpy(x: np.ndarray, dy: np.ndarray, taps: Taps, groups: int) -> np.ndarray:
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    dw = np.zeros((len(taps.order), c, groups * k), x.dtype)
    for g in range(groups):
        ours = slice(g * k, (g + 1) * k)
        for p in range(dy.shape[1]):
            columns_of_row = im2col_panel(
                x,
                taps,
                0,
                len(taps.order),
                dy.shape[1:3],
                range(p, p + 1),
                slice(g * c, (g + 1) * c),
            )
            pixels = x.shape[0] * dy.shape[2]
            flat = columns_of_row.reshape(pixels, dw.shape[0] * c)
            product = flat.T @ dy[:, p, :, ours].reshape(pixels, k)
            dw[:, :, ours] += product.reshape(dw.shape[0], c, k)
    return dw


# -- the fast reading ----------------------------------------------------------------------------


def _taps_numba(
    x: np.ndarray, by_tap: np.ndarray, bias: np.ndarray, taps: Taps, groups: int, out: Pair
) -> np.ndarray:
    n, c, k = x.shape[0], by_tap.shape[1], by_tap.shape[2] // groups
    y = workspace.empty((n, *out, groups * k), x.dtype)
    if y.size == 0:
        return y
    wide = columns(x.dtype, k)
    blocks = -(-k // wide)
    # (groups, blocks, taps · C, wide): what one tile reads lies together, zeros in unused columns
    packed = np.zeros((groups, blocks, len(taps.order) * c, wide), x.dtype)
    start = np.zeros((groups, blocks, wide), x.dtype)
    weight = by_tap[taps.order].reshape(len(taps.order) * c, groups, k)
    for g in range(groups):
        for j in range(blocks):
            here = slice(j * wide, min((j + 1) * wide, k))
            packed[g, j, :, : here.stop - here.start] = weight[:, g, here]
            start[g, j, : here.stop - here.start] = bias[g * k : (g + 1) * k][here]
    depth = int(max(taps.phases[:, 5] - taps.phases[:, 4])) * c
    rows = max(1, PANEL_BYTES // (max(depth, 1) * x.itemsize) // ROWS) * ROWS
    work = _shares(taps.phases, n, groups, rows)
    scratch = workspace.empty(
        (nb.get_num_threads(), min(rows, int(work[:, 3].max())) + ROWS, max(depth, 1)), x.dtype
    )
    dense = taps.out_stride == (1, 1)
    whole = dense and taps.in_stride == (1, 1) and len(taps.order) == 1 and groups == 1
    direct = whole and not taps.offset.any() and x.shape[1:3] == out
    _taps_loop(
        x,
        packed,
        start,
        y,
        taps.offset,
        taps.run,
        taps.phases,
        taps.in_stride,
        taps.out_stride,
        work,
        scratch,
        k,
        wide > lanes(x.dtype),
        dense,
        direct,
    )
    return y


def _shares(phases: np.ndarray, n: int, groups: int, rows: int) -> np.ndarray:
    """The work in pieces of at most ``rows`` pixels: (group, phase, first pixel, pixels) each."""
    pieces = []
    for f, (height, width) in enumerate(phases[:, 2:4].tolist()):
        first = np.arange(0, n * height * width, rows)
        length = np.minimum(rows, n * height * width - first)
        pieces.append(np.stack([np.full_like(first, f), first, length], axis=1))
    piece = np.concatenate(pieces)
    group = np.repeat(np.arange(groups), len(piece))[:, None]
    return np.concatenate([group, np.tile(piece, (groups, 1))], axis=1).astype(np.int64)


@njit(cache=True, nogil=True)
def _fill_panel(x, c0, c, offset, run, first, last, grid, steps, pixel, count, panel):  # type: ignore[no-untyped-def]
    """im2col of ``count`` pixels of the grid, from number ``pixel`` on, one a row of ``panel``."""
    _, h, w, channels = x.shape
    (height, width), (step_y, step_x) = grid, steps
    joined = c == channels  # neighbouring taps read neighbouring memory
    image = pixel // (height * width)
    i = (pixel - image * height * width) // width
    j = pixel % width
    flat = x.reshape(-1)
    for m in range(count):
        row = panel[m]
        t = first
        while t < last:
            y = i * step_y + offset[t, 0]
            z = j * step_x + offset[t, 1]
            taps = min(run[t], last - t) if joined else 1
            if y < 0 or y >= h:
                clear(row, (t - first) * c, taps * c)
            else:
                before = min(max(-z, 0), taps)  # taps left of the picture, and those inside it
                inside = max(min(taps, w - z) - before, 0)
                at = (t - first) * c
                clear(row, at, before * c)
                at += before * c
                source = ((image * h + y) * w + z + before) * channels + c0
                copy(row, at, flat, source, inside * c)
                clear(row, at + inside * c, (taps - before - inside) * c)
            t += taps
        j += 1
        if j == width:
            j = 0
            i += 1
            if i == height:
                i = 0
                image += 1


@njit(cache=True, nogil=True, parallel=True)
def _taps_loop(  # type: ignore[no-untyped-def]
    x, packed, start, y, offset, run, phases, steps, out_steps, work, scratch, k, two, dense, direct
):
    out_y, out_x = out_steps
    groups, blocks, _, wide = packed.shape
    c = x.shape[3] // groups
    q = y.shape[2]
    pixels = x.reshape(-1, x.shape[3])
    y_flat = y.reshape(-1, y.shape[3])
    for item in prange(len(work)):
        g, f, pixel, count = work[item]
        top, left, height, width, first, last = phases[f]
        depth = (last - first) * c
        panel = scratch[nb.get_thread_id()]
        edge = np.empty((ROWS, wide), x.dtype)
        full = count // ROWS * ROWS if direct else 0  # rows that the tile reads from x itself
        if full < count:
            _fill_panel(
                x, g * c, c, offset, run, first, last, (height, width), steps,
                pixel + full, count - full, panel,
            )  # fmt: skip
        stride = panel.shape[1]
        for block in range(blocks):
            weights = packed[g, block, first * c :]
            bias = start[g, block]
            used = min(wide, k - block * wide)
            for m in range(0, count, ROWS):
                rows = min(ROWS, count - m)
                inner = dense and rows == ROWS and used == wide
                target = y_flat[pixel + m :, g * k + block * wide :] if inner else edge[:, :]
                target_row = y.shape[3] if inner else wide
                source = pixels[pixel + m :] if m < full else panel[m - full :]
                source_row = x.shape[3] if m < full else stride
                if two:
                    tile_2(
                        source, 0, source_row, 1, weights, 0, wide,
                        bias, 0, 0, target, 0, target_row, depth,
                    )  # fmt: skip
                else:
                    tile_1(
                        source, 0, source_row, 1, weights, 0, wide,
                        bias, 0, 0, target, 0, target_row, depth,
                    )  # fmt: skip
                if not inner:
                    for e in range(rows):
                        at = pixel + m + e
                        image = at // (height * width)
                        i = (at - image * height * width) // width
                        j = at % width
                        to = (image * y.shape[1] + top + i * out_y) * q + left + j * out_x
                        for u in range(used):
                            y_flat[to, g * k + block * wide + u] = edge[e, u]


def _weight_numba(x: np.ndarray, dy: np.ndarray, taps: Taps, groups: int) -> np.ndarray:
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    features = len(taps.order) * c
    wide = columns(x.dtype, k)
    padded = (-(-features // ROWS) * ROWS, -(-k // wide) * wide)
    dw = np.zeros((groups, *padded), x.dtype)
    if dy.size and features:
        threads = nb.get_num_threads()
        tiles = padded[0] // ROWS
        share = -(-tiles // threads)
        first = np.arange(0, tiles, share) * ROWS
        item = np.stack([first, np.minimum(first + share * ROWS, padded[0])], axis=1)
        group = np.repeat(np.arange(groups), len(item))[:, None]
        work = np.concatenate([group, np.tile(item, (groups, 1))], axis=1)
        panels = workspace.empty((threads, GRADIENT_PIXELS, (share + 1) * ROWS + 2 * c), x.dtype)
        gradients = workspace.empty((threads, GRADIENT_PIXELS, padded[1]), x.dtype)
        _weight_loop(
            x, dy, dw, taps.offset, taps.run, taps.in_stride,
            work, panels, gradients, k, wide, wide > lanes(x.dtype),
        )  # fmt: skip
    ours = dw[:, :features, :k].transpose(1, 0, 2)  # (taps · C, groups, K/groups)
    return ours.reshape(len(taps.order), c, groups * k)


@njit(cache=True, nogil=True, parallel=True)
def _weight_loop(x, dy, dw, offset, run, steps, work, panels, gradients, k, wide, two):  # type: ignore[no-untyped-def]
    n, p, q, all_k = dy.shape
    c = x.shape[3] // dw.shape[0]
    dy_rows = dy.reshape(-1, all_k)
    for item in prange(len(work)):
        g, low, high = work[item]
        panel = panels[nb.get_thread_id()]
        zeros = np.zeros(wide, x.dtype)
        part = np.empty((ROWS, wide), x.dtype)
        first, last = low // c, min((high + c - 1) // c, len(offset))  # taps of rows low … high − 1
        for pixel in range(0, n * p * q, GRADIENT_PIXELS):
            count = min(GRADIENT_PIXELS, n * p * q - pixel)
            _fill_panel(
                x, g * c, c, offset, run, first, last, (p, q), steps, pixel, count, panel
            )  # fmt: skip
            if dw.shape[0] == 1 and all_k == dw.shape[2]:  # whole tiles: read dy where it lies
                grad = dy_rows[pixel : pixel + count]
            else:
                grad = gradients[nb.get_thread_id()]
                for m in range(count):
                    clear(grad[m], k, grad.shape[1] - k)
                    copy(grad[m], 0, dy_rows[pixel + m], g * k, k)
            for column in range(0, dw.shape[2], wide):
                for feature in range(low, high, ROWS):
                    at = feature - first * c
                    if two:
                        tile_2(
                            panel, at, 1, panel.shape[1], grad, column, grad.shape[1],
                            zeros, 0, 0, part, 0, wide, count,
                        )  # fmt: skip
                    else:
                        tile_1(
                            panel, at, 1, panel.shape[1], grad, column, grad.shape[1],
                            zeros, 0, 0, part, 0, wide, count,
                        )  # fmt: skip
                    for e in range(ROWS):
                        target = dw[g, feature + e]
                        for u in range(wide):
                            target[column + u] += part[e, u]
