"""The loops of batch normalisation: sums over all pixels a channel, and one affine map a channel.

Rows are pixels (M, C). A strip of 64 rows is summed in the arrays' own precision; the strips' sums
are added in float64, in blocks with one thread each, and the blocks' sums in order. So the result
does not depend on the number of threads, and no digit is lost over millions of pixels.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minifcn import device
from minifcn.kernels import workspace

STRIP = 64  # rows summed in the arrays' own precision before float64 takes over
BLOCK = 32 * STRIP  # rows that one thread takes at a time


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance (C,) float64 of each column of x (M, C), in two passes."""
    m = x.shape[0]
    zero = np.zeros(x.shape[1])
    mean = product_sums(x, x, zero, zero)[0] / m
    # the mean that was subtracted was rounded to x's dtype: what is left of it counts back
    rest, squares = product_sums(x, x, mean, mean)
    return mean, squares / m - (rest / m) ** 2


def product_sums(
    a: np.ndarray, b: np.ndarray, shift_a: np.ndarray, shift_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(Σ (a − shift_a), Σ (a − shift_a)·(b − shift_b)) down the columns of a, b (M, C); float64."""
    if device.is_reference():
        da, db = a - shift_a.astype(a.dtype), b - shift_b.astype(b.dtype)
        return da.sum(axis=0, dtype=np.float64), (da * db).sum(axis=0, dtype=np.float64)
    sums = np.zeros((2, -(-a.shape[0] // BLOCK), a.shape[1]))
    if a.size:
        _product_sums_numba(a, b, shift_a.astype(a.dtype), shift_b.astype(b.dtype), sums, BLOCK)
    return sums[0].sum(axis=0), sums[1].sum(axis=0)


def column_sums(a: np.ndarray) -> np.ndarray:
    """Σ down the columns of a (M, C), in a's dtype: the gradient of a bias."""
    zero = np.zeros(a.shape[1])
    return product_sums(a, a, zero, zero)[0].astype(a.dtype)


def affine(
    a: np.ndarray, b: np.ndarray, ka: np.ndarray, kb: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """ka·a + kb·b + shift, with one coefficient a column; a, b (M, C), the others (C,)."""
    ka, kb, shift = (k.astype(a.dtype) for k in (ka, kb, shift))
    if device.is_reference():
        return ka * a + kb * b + shift
    y = workspace.empty(a.shape, a.dtype)
    if y.size:
        _affine_numba(a, b, ka, kb, shift, y)
    return y


def scale_shift(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """scale·x + shift, with one coefficient a column; x (M, C), the others (C,)."""
    scale, shift = scale.astype(x.dtype), shift.astype(x.dtype)
    if device.is_reference():
        return scale * x + shift
    y = workspace.empty(x.shape, x.dtype)
    if y.size:
        _scale_shift_numba(x, scale, shift, y)
    return y


@njit(cache=True, nogil=True, parallel=True)
def _product_sums_numba(a, b, shift_a, shift_b, sums, block):  # type: ignore[no-untyped-def]
    m, c = a.shape
    for k in prange(sums.shape[1]):
        one, two = np.empty(c, a.dtype), np.empty(c, a.dtype)
        for low in range(k * block, min(m, (k + 1) * block), STRIP):
            one[:] = 0
            two[:] = 0
            for i in range(low, min(m, low + STRIP)):
                row, other = a[i], b[i]
                for e in range(c):
                    d = row[e] - shift_a[e]
                    one[e] += d
                    two[e] += d * (other[e] - shift_b[e])
            for e in range(c):
                sums[0, k, e] += one[e]
                sums[1, k, e] += two[e]


@njit(cache=True, nogil=True, parallel=True)
def _affine_numba(a, b, ka, kb, shift, y):  # type: ignore[no-untyped-def]
    m, c = a.shape
    for i in prange(m):
        p, q, target = a[i], b[i], y[i]
        for e in range(c):
            target[e] = ka[e] * p[e] + kb[e] * q[e] + shift[e]


@njit(cache=True, nogil=True, parallel=True)
def _scale_shift_numba(x, scale, shift, y):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for i in prange(m):
        source, target = x[i], y[i]
        for e in range(c):
            target[e] = scale[e] * source[e] + shift[e]
