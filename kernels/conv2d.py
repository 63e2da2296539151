"""Convolution, transposed convolution and their weight gradient: definition, and who computes them.

    y[n, p, q, k] = b[k] + Σ_{r, s, c} x[n, p·stride + r·dilation − padding, …, c] · w[k, c, r, s]

The NumPy definition stands here. On the device `cpu`, `algorithm` chooses by the shapes between
`winograd`, `im2col` (with few channels `lines`), `direct` and `depthwise`, each in a file of its
own; the weight gradient of a 1×1 layer with few filters is `narrow_weight`'s. On a GPU
`conv2d_cuda` chooses between ``conv2d.cu`` and others.

Arrays: x (N, H, W, C), b (K,), y (N, P, Q, K), C-contiguous, all of one floating dtype; w
(K, C/groups, R, S) of any strides. The layers keep w as (R, S, C/groups, K) in memory, seen through
a transposed view: so the tiles' rows of output channels lie together, and gradients come in it too.

Results do not depend on the number of threads: each element is one sum in one order.
"""

from __future__ import annotations

import numpy as np

from minifcn import device
from minifcn.kernels import (
    algorithm,
    conv2d_cuda,
    depthwise,
    direct,
    im2col,
    im2col_weight,
    lines,
    lines_weight,
    narrow_weight,
    winograd,
    winograd_weight,
)
from minifcn.kernels.channel_sums import column_sums
from minifcn.kernels.taps import Pair, Taps, convolution, transposed

# -- the entry points ------------------------------------------------------------------------------


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
    floor: float = -np.inf,
) -> np.ndarray:
    """The convolution of x (N, H, W, C) with weight (K, C/groups, R, S): y (N, *out, K).

    A ``floor`` of 0 is ReLU: y = max(floor, …), NaN staying NaN.
    """
    kernel = weight.shape[2:]
    if device.is_gpu(x):
        windows = kernel, stride, padding, dilation
        return conv2d_cuda.conv2d(x, weight, bias, windows, groups, out, floor)
    by_tap = weight.transpose(2, 3, 1, 0).reshape(-1, *weight.shape[1::-1])  # (R·S, C/g, K)
    if device.is_reference():
        taps = convolution(kernel, stride, padding, dilation, out)
        return _at_least(floor, _taps_numpy(x, by_tap, _bias(bias, by_tap), taps, groups, out))
    how = algorithm.choose(
        "forward", x.shape[3], len(weight), kernel, stride, dilation, groups, out, len(x), x.dtype
    )
    if how in algorithm.WINOGRAD:
        m = algorithm.WINOGRAD[how]
        return winograd.conv(
            x, by_tap, bias, padding, dilation, groups, out, m, floor, stride=stride[0],
            kernel=kernel,
        )  # fmt: skip
    taps = convolution(kernel, stride, padding, dilation, out)
    if how == "depthwise":
        b = _bias(bias, by_tap)
        return _at_least(floor, depthwise.along_taps(x, by_tap[:, 0], b, taps, out))
    if how == "direct":
        return direct.along_taps(x, by_tap, _bias(bias, by_tap), taps, groups, out, floor)
    return _im2col(x, by_tap, bias, taps, groups, out, floor)


def conv_transpose2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
    gate: np.ndarray | None = None,
) -> np.ndarray:
    """The adjoint of `conv2d`: x (N, P, Q, C), weight (C, K/groups, R, S) → y (N, *out, K).

    With a ``gate`` like y, y is 0 where that is not positive; only where `joins_gate` says so.
    """
    c, k, r, s = weight.shape
    if device.is_gpu(x):
        assert gate is None
        windows = (r, s), stride, padding, dilation
        return conv2d_cuda.conv_transpose2d(x, weight, bias, windows, groups, out)
    by_tap = weight.transpose(2, 3, 0, 1).reshape(r * s, c, k)
    if groups > 1:  # (R·S, C, K/groups) → (R·S, C/groups, K)
        grouped = by_tap.reshape(r * s, groups, c // groups, k)
        by_tap = grouped.transpose(0, 2, 1, 3).reshape(r * s, c // groups, groups * k)
    if device.is_reference():
        assert gate is None
        taps = transposed((r, s), stride, padding, dilation, out)
        return _taps_numpy(x, by_tap, _bias(bias, by_tap), taps, groups, out)
    how = _choose_transposed(x, weight, stride, dilation, groups, out)
    assert gate is None or how in algorithm.WINOGRAD
    if how in algorithm.WINOGRAD:  # the same convolution backwards: taps in the opposite order
        pad = (r - 1) * dilation[0] - padding[0], (s - 1) * dilation[1] - padding[1]
        m, pad = algorithm.WINOGRAD[how], pad if stride == (1, 1) else padding
        return winograd.conv(
            x, by_tap, bias, pad, dilation, groups, out, m, flipped=True, stride=stride[0],
            kernel=(r, s), gate=gate,
        )  # fmt: skip
    if how == "depthwise":
        taps = transposed((r, s), stride, padding, dilation, out)
        return depthwise.along_taps(x, by_tap[:, 0], _bias(bias, by_tap), taps, out)
    if how == "direct":
        taps = transposed((r, s), stride, padding, dilation, out)
        return direct.along_taps(x, by_tap, _bias(bias, by_tap), taps, groups, out)
    taps = transposed((r, s), stride, padding, dilation, out, merged=True)
    return _im2col(x, by_tap, bias, taps, groups, out)


def joins_gate(
    x: np.ndarray, weight: np.ndarray, stride: Pair, dilation: Pair, groups: int, out: Pair
) -> bool:
    """Whether `conv_transpose2d` of these arguments can take a gate: where Winograd's serves."""
    if device.is_gpu(x) or device.is_reference():
        return False
    return _choose_transposed(x, weight, stride, dilation, groups, out) in algorithm.WINOGRAD


def _choose_transposed(
    x: np.ndarray, weight: np.ndarray, stride: Pair, dilation: Pair, groups: int, out: Pair
) -> str:
    c, k, *kernel = weight.shape
    return algorithm.choose(
        "input", c, groups * k, (kernel[0], kernel[1]), stride, dilation, groups, out, len(x),
        x.dtype,
    )  # fmt: skip


def conv2d_weight(
    x: np.ndarray,
    dy: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    bias: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dw (K, C/groups, R, S) of `conv2d` from x (N, H, W, C) and dL/dy = dy (N, P, Q, K).

    dw[k, c, r, s] = Σ_{n, p, q} x[n, p·stride + r·dilation − padding, …, c] · dy[n, p, q, k]

    With ``bias`` also dL/db[k] = Σ_{n, p, q} dy[n, p, q, k], in the same pass where a kernel does
    both; else None.
    """
    db: np.ndarray | None = None
    out = dy.shape[1:3]
    c, k = x.shape[3] // groups, dy.shape[3]
    if device.is_gpu(x):
        by_tap = conv2d_cuda.conv2d_weight(x, dy, (kernel, stride, padding, dilation), groups)
    elif device.is_reference():
        taps = convolution(kernel, stride, padding, dilation, out)
        by_tap = _weight_numpy(x, dy, taps, groups)
    else:
        how = algorithm.choose(
            "weight", x.shape[3], k, kernel, stride, dilation, groups, out, len(x), x.dtype
        )
        if how in algorithm.WINOGRAD and dy.size:
            m = algorithm.WINOGRAD[how]
            by_tap, db = winograd_weight.weight(
                x, dy, padding, dilation, groups, m, stride=stride[0], bias=bias
            )
        else:
            taps = convolution(kernel, stride, padding, dilation, out)
            if how == "depthwise":
                by_tap = depthwise.weight_along_taps(x, dy, taps)
            elif dy.size and narrow_weight.serves(taps, c, k, groups, x.dtype):
                by_tap, db = narrow_weight.weight(x, dy, bias)
            elif lines.serve(taps, c, groups) and dy.size:
                by_tap, db = lines_weight.weight_along_taps(x, dy, taps, bias)
            else:
                by_tap, db = im2col_weight.weight_along_taps(x, dy, taps, groups, bias)
    if bias and db is None:
        db = column_sums(dy.reshape(-1, k))
    return by_tap.reshape(*kernel, c, k).transpose(3, 2, 0, 1), db


def _im2col(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray | None,
    taps: Taps,
    groups: int,
    out: Pair,
    floor: float = -np.inf,
) -> np.ndarray:
    """In panels or, with few channels, line by line."""
    if lines.serve(taps, by_tap.shape[1], groups) and lines.covered_well(taps):
        return lines.along_taps(x, by_tap, bias, taps, out, floor)
    return im2col.along_taps(x, by_tap, bias, taps, groups, out, floor)


def _bias(bias: np.ndarray | None, by_tap: np.ndarray) -> np.ndarray:
    """The bias without gaps, or zeros."""
    if bias is None:
        return np.zeros(by_tap.shape[2], by_tap.dtype)
    return np.ascontiguousarray(bias)


def _at_least(floor: float, y: np.ndarray) -> np.ndarray:
    """max(floor, y), NaN staying NaN."""
    return y if floor == -np.inf else np.maximum(y, y.dtype.type(floor), out=y)


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
    weight = by_tap[taps.order[:, 0]]
    for top, left, height, width, first, last, *_ in taps.phases.tolist():
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
