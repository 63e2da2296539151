"""Convolutions on a GPU: which kernel, and the host's side of ``conv2d.cu``, ``conv2d_weight.cu``.

Arguments and results are those of the functions in `conv2d`, in the GPU's memory; the weight
gradient comes by taps. `algorithm.choose_cuda` says who computes what.
"""

from __future__ import annotations

from typing import Any

from minifcn import device
from minifcn.kernels import algorithm, depthwise, im2col_cuda
from minifcn.kernels.im2col_cuda import Windows
from minifcn.kernels.taps import Pair
from minifcn.launch import launch

THREADS, WIDE = 128, 64  # of a block, and its columns of results: as in register_tile.cuh
LIMIT = (1 << 31) - 1  # blocks of a grid
BLOCKS = 1024  # that share a weight gradient, about: several for every processor of a large GPU
LOWEST = float("-inf")  # the floor of what has none
PIXELS = 256  # that a part of a weight gradient sums at least


def conv2d(
    x: Any, weight: Any, bias: Any, windows: Windows, groups: int, out: Pair, floor: float
) -> Any:
    """y (N, *out, K) of x (N, H, W, C) and weight (K, C/groups, R, S)."""
    (n, h, w, c), k = x.shape, len(weight)
    weight = _by_taps(weight)
    how = algorithm.choose_cuda(c, k, windows, groups)
    if how == "im2col":
        return im2col_cuda.conv2d(x, weight, bias, windows, out, floor)
    if how == "depthwise":
        rows = weight.reshape(-1, c)
        y = depthwise.depthwise_cuda(x, rows, bias, windows, out, False)
        return y if floor == LOWEST else device.array_module(x).maximum(y, floor, out=y)
    y = device.array_module(x).empty((n, *out, k), x.dtype)
    tiles = groups * -(-n * out[0] * out[1] // _tall(x.dtype)) * -(-k // groups // WIDE)
    if y.size:
        kernel, *others = windows
        sizes = n, h, w, c // groups, k // groups, *kernel, *out, *_flat(others), groups
        _launch("conv2d.cu", "conv2d", tiles, (x, weight, bias, y, *sizes, floor))
    return y


def conv_transpose2d(
    x: Any, weight: Any, bias: Any, windows: Windows, groups: int, out: Pair
) -> Any:
    """y (N, *out, K) of x (N, P, Q, C) and weight (C, K/groups, R, S)."""
    (n, p, q, c), k = x.shape, weight.shape[1]
    weight = _by_taps(weight)
    how = algorithm.choose_cuda(c, groups * k, windows, groups)
    if how == "im2col":
        return im2col_cuda.conv_transpose2d(x, weight, bias, windows, out)
    if how == "depthwise":
        rows = weight.reshape(-1, c)
        return depthwise.depthwise_cuda(x, rows, bias, windows, out, True)
    y = device.array_module(x).empty((n, *out, groups * k), x.dtype)
    if y.size:
        kernel, stride, *others = windows
        phases = min(stride[0], out[0]) * min(stride[1], out[1])
        most = n * -(-out[0] // stride[0]) * -(-out[1] // stride[1])  # results of a phase
        tiles = groups * phases * -(-most // _tall(x.dtype)) * -(-k // WIDE)
        sizes = n, p, q, c // groups, k, *kernel, *out, *stride, *_flat(others), groups
        _launch("conv2d.cu", "conv_transpose2d", tiles, (x, weight, bias, y, *sizes, LOWEST))
    return y


def conv2d_weight(x: Any, dy: Any, windows: Windows, groups: int) -> Any:
    """dL/dw (R·S, C/groups, K) from x (N, H, W, C) and dy (N, P, Q, K)."""
    (n, h, w, c), (_, p, q, k) = x.shape, dy.shape
    how = algorithm.choose_cuda(c, k, windows, groups)
    if how == "im2col":
        return im2col_cuda.conv2d_weight(x, dy, windows)
    if how == "depthwise":
        return depthwise.depthwise_weight_cuda(x, dy, windows)
    kernel, *others = windows
    taps, module = kernel[0] * kernel[1], device.array_module(x)
    dw = module.empty((taps, c // groups, k), x.dtype)
    if not dw.size or not dy.size:
        dw.fill(0)
        return dw
    tiles = groups * -(-taps * c // groups // _tall(x.dtype)) * -(-k // groups // WIDE)
    parts = max(1, min(BLOCKS // tiles, n * p * q // PIXELS))
    sums = dw if parts == 1 else module.empty((parts, *dw.shape), x.dtype)
    sizes = n, h, w, c // groups, k // groups, *kernel, p, q, *_flat(others), groups, parts
    _launch("conv2d_weight.cu", "conv2d_weight", tiles * parts, (x, dy, sums, *sizes))
    if parts > 1:
        blocks = -(-dw.size // THREADS)
        _launch("conv2d_weight.cu", "add_parts", blocks, (sums, dw, dw.size, parts))
    return dw


def _by_taps(weight: Any) -> Any:
    """(A, B, R, S) as a contiguous array (R, S, B, A): a view, if the layers made the weight."""
    return device.array_module(weight).ascontiguousarray(weight.transpose(2, 3, 1, 0))


def _tall(dtype: Any) -> int:
    """Rows of results of a block, as in register_tile.cuh."""
    return 128 if dtype.itemsize == 4 else 64


def _flat(pairs: list[Pair]) -> list[int]:
    return [size for pair in pairs for size in pair]


def _launch(file: str, kernel: str, blocks: int, arguments: tuple[Any, ...]) -> None:
    launch(file, kernel, (min(blocks, LIMIT),), (THREADS,), arguments, arguments[0].dtype)
