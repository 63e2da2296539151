"""Convolutions on a GPU as products of whole matrices, by cuBLAS: the host's side of ``im2col.cu``.

    y = columns(x) · w        dx = col2im(dy · wᵀ)        dw = columns(x)ᵀ · dy

A 1×1 kernel of stride 1 without padding has the picture itself as its columns: a plain product,
which is what cuBLAS is best at, so that is how it runs. For all others this is the study version
(`conv_algorithm("im2col")`): it makes the column matrix whole, R·S times the picture. One group.
"""

from __future__ import annotations

from typing import Any

from minifcn import device
from minifcn.kernels.taps import Pair
from minifcn.launch import launch

THREADS = 256
LOWEST = float("-inf")  # the floor of what has none
Windows = tuple[Pair, Pair, Pair, Pair]  # kernel, stride, padding, dilation


def conv2d(x: Any, w: Any, bias: Any, windows: Windows, out: Pair, floor: float) -> Any:
    """y (N, *out, K) of x (N, H, W, C) and w (R, S, C, K)."""
    k = w.shape[3]
    y = _columns(x, windows, out) @ w.reshape(-1, k)
    if y.size and (bias is not None or floor > LOWEST):
        _launch("add_bias", y.size, (y, bias, y.size, k, floor), y)
    return y.reshape(len(x), *out, k)


def conv_transpose2d(x: Any, w: Any, bias: Any, windows: Windows, out: Pair) -> Any:
    """y (N, *out, K) of x (N, P, Q, C) and w (R, S, K, C)."""
    n, p, q, c = x.shape
    k = w.shape[2]
    columns = x.reshape(-1, c) @ w.reshape(-1, c).T
    if _is_picture(windows, (p, q), out):
        if columns.size and bias is not None:
            _launch("add_bias", columns.size, (columns, bias, columns.size, k, LOWEST), x)
        return columns.reshape(n, p, q, k)
    y = device.array_module(x).empty((n, *out, k), x.dtype)
    if y.size:
        kernel, *others = windows
        sizes = n, *out, k, *kernel, p, q, *(size for pair in others for size in pair)
        _launch("col2im", y.size, (columns, bias, y, *sizes), x)
    return y


def conv2d_weight(x: Any, dy: Any, windows: Windows) -> Any:
    """dL/dw (R·S, C, K) from x (N, H, W, C) and dy (N, P, Q, K)."""
    k = dy.shape[3]
    dw = _columns(x, windows, dy.shape[1:3]).T @ dy.reshape(-1, k)
    return dw.reshape(-1, x.shape[3], k)


def _is_picture(windows: Windows, size: Pair, out: Pair) -> bool:
    return windows[:3] == ((1, 1), (1, 1), (0, 0)) and size == out


def _columns(x: Any, windows: Windows, out: Pair) -> Any:
    """(N·P·Q, R·S·C): x itself, if each pixel reads but its own place."""
    n, h, w, c = x.shape
    if _is_picture(windows, (h, w), out):
        return x.reshape(-1, c)
    kernel, *others = windows
    shape = n * out[0] * out[1], kernel[0] * kernel[1] * c
    columns = device.array_module(x).empty(shape, x.dtype)
    if columns.size:
        sizes = *x.shape, *kernel, *out, *(size for pair in others for size in pair)
        _launch("im2col", columns.size, (x, columns, *sizes), x)
    return columns


def _launch(kernel: str, size: int, arguments: tuple[Any, ...], x: Any) -> None:
    grid = (min(-(-size // THREADS), 1 << 20),)
    launch("im2col.cu", kernel, grid, (THREADS,), arguments, x.dtype)
