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
from numba import njit, prange

from minifcn import device
from minifcn.kernels import workspace

STRIP = 64  # rows summed in the arrays' own precision before float64 takes over
BLOCK = 16 * STRIP  # rows that one thread takes at a time


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
        _moments_numba(x, means, squares)
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
    scale, shift = scale.astype(x.dtype), shift.astype(x.dtype)
    if device.is_reference():
        y = scale * x + shift
        return np.where(y < 0, x.dtype.type(0), y) if relu else y
    y = workspace.empty(x.shape, x.dtype)
    if y.size:
        _scale_shift_numba(x, scale, shift, relu, y)
    return y


def backward_sums(
    grad: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    relu: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """(Σ g, Σ g·(x − mean)) down the columns, float64 (C,), where g is ``grad`` past the ReLU."""
    mean, scale, shift = (k.astype(x.dtype) for k in (mean, scale, shift))
    if device.is_reference():
        g = np.where(scale * x + shift > 0, grad, grad.dtype.type(0)) if relu else grad
        return g.sum(axis=0, dtype=np.float64), (g * (x - mean)).sum(axis=0, dtype=np.float64)
    sums = np.zeros((2, -(-x.shape[0] // BLOCK), x.shape[1]))
    if x.size:
        _backward_sums_numba(grad, x, mean, scale, shift, relu, sums)
    return sums[0].sum(axis=0), sums[1].sum(axis=0)


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
    scale, shift, slope, constant = (k.astype(x.dtype) for k in (scale, shift, slope, constant))
    if device.is_reference():
        g = np.where(scale * x + shift > 0, grad, grad.dtype.type(0)) if relu else grad
        return scale * g + slope * x + constant
    dx = workspace.empty(x.shape, x.dtype)
    if dx.size:
        _backward_input_numba(grad, x, scale, shift, slope, constant, relu, dx)
    return dx


@njit(cache=True, nogil=True, parallel=True)
def _moments_numba(x, means, squares):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for block in prange(len(means)):
        mean, square = means[block], squares[block]
        middle, rest, two = np.empty(c, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
        last = min(m, (block + 1) * BLOCK)
        for low in range(block * BLOCK, last, STRIP):
            high = min(last, low + STRIP)
            n, before = high - low, low - block * BLOCK
            for e in range(c):
                middle[e] = 0
                rest[e] = 0
                two[e] = 0
            for i in range(low, high):
                row = x[i]
                for e in range(c):
                    middle[e] += row[e]
            for e in range(c):
                middle[e] /= n
            for i in range(low, high):
                row = x[i]
                for e in range(c):
                    d = row[e] - middle[e]
                    rest[e] += d  # the middle was rounded: what is left counts back
                    two[e] += d * d
            share, weight = n / (before + n), before * n / (before + n)
            for e in range(c):
                left = np.float64(rest[e]) / n
                d = middle[e] + left - mean[e]
                mean[e] += d * share
                square[e] += two[e] - left * left * n + d * d * weight


@njit(cache=True, nogil=True, parallel=True)
def _scale_shift_numba(x, scale, shift, relu, y):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for i in prange(m):
        source, target = x[i], y[i]
        for e in range(c):
            value = scale[e] * source[e] + shift[e]
            target[e] = 0 if relu and value < 0 else value


@njit(cache=True, nogil=True, parallel=True)
def _backward_sums_numba(grad, x, mean, scale, shift, relu, sums):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for block in prange(sums.shape[1]):
        one, two = np.empty(c, x.dtype), np.empty(c, x.dtype)
        last = min(m, (block + 1) * BLOCK)
        for low in range(block * BLOCK, last, STRIP):
            for e in range(c):
                one[e] = 0
                two[e] = 0
            for i in range(low, min(last, low + STRIP)):
                row, source = grad[i], x[i]
                for e in range(c):
                    g = row[e]
                    if relu and not scale[e] * source[e] + shift[e] > 0:
                        g = x.dtype.type(0)
                    one[e] += g
                    two[e] += g * (source[e] - mean[e])
            for e in range(c):
                sums[0, block, e] += one[e]
                sums[1, block, e] += two[e]


@njit(cache=True, nogil=True, parallel=True)
def _backward_input_numba(grad, x, scale, shift, slope, constant, relu, dx):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for i in prange(m):
        row, source, target = grad[i], x[i], dx[i]
        for e in range(c):
            g = row[e]
            if relu and not scale[e] * source[e] + shift[e] > 0:
                g = x.dtype.type(0)
            target[e] = scale[e] * g + slope[e] * source[e] + constant[e]
