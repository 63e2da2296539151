"""The loops of batch normalisation, alone or with the ReLU behind it.

    y = scale·x + shift             z = max(y, 0) with relu, else y

Each of the three is one pass over memory, which is what they cost: the statistics of x; z from x;
and in the backward pass the two sums over the gradient, then dx. Where a ReLU follows, the gradient
passes where y > 0. That is found again from x, which is read anyway, so z need not be.

Rows are pixels (M, C). A strip of 64 rows is summed in the arrays' own precision; the strips' sums
are added in float64, in blocks with one thread each, and the blocks' sums in order. So the result
does not depend on the number of threads, and no digit is lost over millions of pixels.

Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.columns import THREADS, columns, lanes
from minifcn.kernels.compiled import kernel, parallel, serial
from minifcn.kernels.jobs import share_out
from minifcn.kernels.parts import add_parts
from minifcn.launch import launch

STRIP = 64  # rows summed in the arrays' own precision before float64 takes over
BLOCK = 16 * STRIP  # rows that one thread takes at a time


def statistics(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    eps: float,
    running: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    momentum: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(mean, rate, scale, shift), each (C,), of the columns of x (M, C).

    rate = 1/√(variance + eps), in float64, scale = weight·rate, shift = bias − mean·scale. The
    ``running`` mean and variance, where there are any, are moved in place towards the batch's by
    ``momentum``: the variance towards the unbiased one, ÷ M − 1.
    """
    if device.is_gpu(x):
        return _statistics_cuda(x, weight, bias, eps, running, momentum)
    mean, variance = moments(x)
    unbiased = variance * (len(x) / max(len(x) - 1, 1))
    for kept, value in zip(running, (mean, unbiased)):
        if kept is not None:
            kept += momentum * (value - kept)
    rate = 1.0 / np.sqrt(variance + eps)
    scale = weight * rate
    return mean, rate, scale, bias - mean * scale


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance (C,) float64 of each column of x (M, C).

    x is read once: each strip, while it lies in the cache, gives its mean and the squares about
    that mean, and strips are merged by Chan's formula. (E[x²] − E[x]² would lose every digit where
    the mean is large.)
    """
    if device.is_reference():
        return x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64)
    m, c = x.shape
    means, squares = np.zeros((2, -(-m // BLOCK), c))
    if x.size:
        parts = np.empty((len(means), 3, c), x.dtype)
        _moments_numba(len(means), (x, parts, means, squares))
    count = np.full((len(means), 1), float(BLOCK))
    count[-1] = m - BLOCK * (len(means) - 1)
    mean = (count * means).sum(axis=0) / m
    return mean, (squares + count * (means - mean) ** 2).sum(axis=0) / m


def scale_shift(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool = False
) -> np.ndarray:
    """scale·x + shift, its negative values 0 with ``relu``; x (M, C), the others (C,).

    NaN stays NaN.
    """
    scale, shift = (k.astype(x.dtype, copy=False) for k in (scale, shift))
    if device.is_gpu(x):
        return _each_cuda("scale_shift", (x, scale, shift), relu)
    if device.is_reference():
        y = scale * x + shift
        return np.where(y < 0, x.dtype.type(0), y) if relu else y
    y = workspace.empty(x.shape, x.dtype)
    if y.size:
        _scale_shift_numba(x, scale, shift, _floor(x, relu), y)
    return y


def slopes(
    grad: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    rate: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    weight: np.ndarray,
    relu: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(d_weight, d_bias, slope, constant), with which dx = scale·g + slope·x + constant.

    d_weight = Σ g·(x − mean)·rate and d_bias = Σ g, in the weight's dtype; with scale = weight·rate
    slope = −scale·d_weight·rate/M and constant = −scale·d_bias/M − slope·mean.
    """
    if device.is_gpu(x):
        return _slopes_cuda(grad, x, mean, rate, scale, shift, weight, relu)
    sums, products = backward_sums(grad, x, mean, scale, shift, relu)
    d_weight, exact, m = products * rate, weight * rate, len(x)
    slope = -exact * d_weight * rate / m
    constant = -exact * sums / m - slope * mean
    return d_weight.astype(weight.dtype), sums.astype(weight.dtype), slope, constant


def backward_sums(
    grad: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    relu: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """(Σ g, Σ g·(x − mean)) down the columns, float64 (C,), where g is ``grad`` past the ReLU."""
    mean, scale, shift = (k.astype(x.dtype, copy=False) for k in (mean, scale, shift))
    if device.is_reference():
        g = np.where(scale * x + shift > 0, grad, grad.dtype.type(0)) if relu else grad
        return g.sum(axis=0, dtype=np.float64), (g * (x - mean)).sum(axis=0, dtype=np.float64)
    sums = np.zeros((max(1, -(-x.shape[0] // BLOCK)), 2, x.shape[1]))
    if x.size:
        parts = np.empty(sums.shape, x.dtype)
        arguments = grad, x, mean, scale, shift, _floor(x, relu), parts, sums
        _backward_sums_numba(len(sums), arguments, sums.reshape(-1))
    one, two = sums[0]
    return one, two


def backward_input(
    grad: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    slope: np.ndarray,
    constant: np.ndarray,
    relu: bool,
) -> np.ndarray:
    """scale·g + slope·x + constant, with g as in `backward_sums`; grad, x (M, C), others (C,)."""
    scale, shift, slope, constant = (
        k.astype(x.dtype, copy=False) for k in (scale, shift, slope, constant)
    )
    if device.is_gpu(x):
        return _each_cuda("backward_input", (grad, x, scale, shift, slope, constant), relu)
    if device.is_reference():
        g = np.where(scale * x + shift > 0, grad, grad.dtype.type(0)) if relu else grad
        return scale * g + slope * x + constant
    dx = workspace.empty(x.shape, x.dtype)
    if dx.size:
        _backward_input_numba(grad, x, scale, shift, slope, constant, _floor(x, relu), dx)
    return dx


def _floor(x: np.ndarray, relu: bool) -> np.floating:
    return x.dtype.type(0 if relu else -np.inf)


# -- CUDA ------------------------------------------------------------------------------------------


def _each_cuda(kernel: str, arrays: tuple[np.ndarray, ...], relu: bool) -> np.ndarray:
    x = arrays[0]
    y = device.array_module(x).empty(x.shape, x.dtype)
    if y.size:
        way = columns(x.shape, x.dtype)
        arguments = *arrays, y, *x.shape, way.rows, relu
        launch("batch_norm.cu", kernel, way.grid, (THREADS,), arguments, real=x.dtype)
    return y


def _statistics_cuda(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    eps: float,
    running: tuple[np.ndarray | None, np.ndarray | None],
    momentum: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    xp, (m, c), real = device.array_module(x), x.shape, x.dtype
    rate = xp.empty(c, np.float64)
    mean, scale, shift = (xp.empty(c, real) for _ in range(3))
    if x.size:
        made = weight, bias, eps, momentum, mean, rate, scale, shift, *running
        way = columns(x.shape, real)
        n, sizes, grid = way.parts, (m, c, way.rows), (way.parts, way.across)
        if n == 1:
            arguments = x, *made, *sizes
            launch("batch_norm.cu", "statistics", grid, (THREADS,), arguments, real=real)
        else:
            parts = _parts(x, n)
            launch("batch_norm.cu", "moments", grid, (THREADS,), (x, *parts, n, *sizes), real=real)
            arguments = *parts, *made, n, *sizes
            launch("batch_norm.cu", "merge_statistics", lanes(c), (32, 8), arguments, real=real)
    return mean, rate, scale, shift


def _slopes_cuda(
    grad: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    rate: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    weight: np.ndarray,
    relu: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    xp, (m, c), real = device.array_module(x), x.shape, x.dtype
    d_weight, d_bias, slope, constant = made = [xp.empty(c, real) for _ in range(4)]
    if x.size:
        way = columns(x.shape, real)
        n, sizes, grid = way.parts, (m, c, way.rows), (way.parts, way.across)
        if n == 1:
            arguments = grad, x, mean, rate, scale, shift, weight, *made, *sizes, relu
            launch("batch_norm.cu", "slopes", grid, (THREADS,), arguments, real=real)
        else:
            parts = _parts(x, n)
            arguments = grad, x, mean, scale, shift, *parts, n, *sizes, relu
            launch("batch_norm.cu", "backward_sums", grid, (THREADS,), arguments, real=real)
            arguments = *parts, mean, rate, weight, *made, n, m, c
            launch("batch_norm.cu", "merge_slopes", lanes(c), (32, 8), arguments, real=real)
    return d_weight, d_bias, slope, constant


def _parts(x: np.ndarray, count: int) -> list[np.ndarray]:
    """Room for two numbers a part and column."""
    return [device.array_module(x).empty((count, x.shape[1]), np.float64) for _ in range(2)]


# -- Numba -----------------------------------------------------------------------------------------

# A strip's sums stand in parts (blocks, …, C), in the arrays' own precision. Elements are named
# by all their indices: a row taken out first, x[i], costs the compiler and the loop half as much.
# The results of a ReLU are those above floor = 0; without one, floor = −∞.


@serial
def _moments_block(block, x, parts, means, squares):  # type: ignore[no-untyped-def]
    m, c = x.shape
    last = min(m, (block + 1) * BLOCK)
    for low in range(block * BLOCK, last, STRIP):
        high = min(last, low + STRIP)
        n, before = high - low, low - block * BLOCK
        for e in range(c):
            parts[block, 0, e] = 0
            parts[block, 1, e] = 0
            parts[block, 2, e] = 0
        for i in range(low, high):
            for e in range(c):
                parts[block, 0, e] += x[i, e]
        for e in range(c):
            parts[block, 0, e] /= n  # the strip's mean, rounded: what is left counts back
        for i in range(low, high):
            for e in range(c):
                d = x[i, e] - parts[block, 0, e]
                parts[block, 1, e] += d
                parts[block, 2, e] += d * d
        share, weight = n / (before + n), before * n / (before + n)
        for e in range(c):
            left = np.float64(parts[block, 1, e]) / n
            d = parts[block, 0, e] + left - means[block, e]
            means[block, e] += d * share
            squares[block, e] += parts[block, 2, e] - left * left * n + d * d * weight


@kernel
def _moments_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_moments_block, count, arguments)


@parallel
def _scale_shift_numba(x, scale, shift, floor, y):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for i in prange(m):
        for e in range(c):
            value = scale[e] * x[i, e] + shift[e]
            y[i, e] = floor if value < floor else value


@serial
def _backward_sums_block(block, grad, x, mean, scale, shift, floor, parts, sums):  # type: ignore[no-untyped-def]
    m, c = x.shape
    zero = x.dtype.type(0)
    last = min(m, (block + 1) * BLOCK)
    for low in range(block * BLOCK, last, STRIP):
        for e in range(c):
            parts[block, 0, e] = 0
            parts[block, 1, e] = 0
        for i in range(low, min(last, low + STRIP)):
            for e in range(c):
                g = grad[i, e] if scale[e] * x[i, e] + shift[e] > floor else zero
                parts[block, 0, e] += g
                parts[block, 1, e] += g * (x[i, e] - mean[e])
        for e in range(c):
            sums[block, 0, e] += parts[block, 0, e]
            sums[block, 1, e] += parts[block, 1, e]


@kernel
def _backward_sums_numba(count, arguments, sums):  # type: ignore[no-untyped-def]
    share_out(_backward_sums_block, count, arguments)
    add_parts(sums, count, sums)


@parallel
def _backward_input_numba(grad, x, scale, shift, slope, constant, floor, dx):  # type: ignore[no-untyped-def]
    m, c = x.shape
    zero = x.dtype.type(0)
    for i in prange(m):
        for e in range(c):
            g = grad[i, e] if scale[e] * x[i, e] + shift[e] > floor else zero
            dx[i, e] = scale[e] * g + slope[e] * x[i, e] + constant[e]
