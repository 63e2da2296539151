"""Weights as the kernels read them: (taps, C, K), output channels side by side.

The layers keep their weights that way (as (R, S, C, K) in memory); the gradient for the input needs
them with C and K exchanged. A matrix is turned over in squares, so that what is read and what is
written both stay in the nearest cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minifcn.kernels import workspace

SQUARE = 32


def contiguous(by_tap: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """by_tap (taps, C, K), any view, as a C-contiguous array: itself, if it is one.

    With ``order``, its tap number i is tap ``order[i]`` of by_tap.
    """
    everything = np.arange(len(by_tap))
    order = everything if order is None else order
    if np.array_equal(order, everything) and by_tap.flags.c_contiguous:
        return by_tap
    turned = by_tap.transpose(0, 2, 1)
    if not turned.flags.c_contiguous:  # weights that no layer made, as (K, C, R, S) in memory
        return np.ascontiguousarray(by_tap[order])
    target = workspace.empty((len(order), *by_tap.shape[1:]), by_tap.dtype)
    _turn_loop(turned, order, target)
    return target


@njit(cache=True, nogil=True, parallel=True)
def _turn_loop(source, order, target):  # type: ignore[no-untyped-def]
    _, a, b = source.shape
    across = (a + SQUARE - 1) // SQUARE
    for item in prange(len(order) * across):
        t, left = item // across, item % across * SQUARE
        for top in range(0, b, SQUARE):
            for i in range(left, min(left + SQUARE, a)):
                for j in range(top, min(top + SQUARE, b)):
                    target[t, j, i] = source[order[t], i, j]
