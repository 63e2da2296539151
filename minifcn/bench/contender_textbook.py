"""A convolution as textbooks have it: the column matrix (im2col), then BLAS. Setting: none.

For each picture, with x (C, H, W) and y (K, P, Q)::

    columns[(c, r, s), (p, q)] = x[c, p·stride + r·dilation, q·stride + s·dilation]   of padded x
    y = w · columns,    dw = dy · columnsᵀ,    dx = col2im(wᵀ · dy)

where col2im adds each column back to where im2col took it. It is what most from-scratch nets do.
The column matrix is R·S times as large as the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minifcn.bench.cases import Case, Convolution

Run = Callable[[], Any]


def make(case: Case, setting: str) -> Run:
    """A function that computes output and gradients of the convolution once."""
    assert isinstance(case, Convolution)
    arrays = case.arrays()
    x, w, dy = arrays["x"], arrays["weight"], arrays["gradient"]
    matrix = w.reshape(case.filters, -1)
    pad = case.padding

    def run() -> list[Any]:
        y = np.empty_like(dy)
        dw = np.zeros_like(matrix)
        dx = np.empty_like(x) if case.input_gradient else None
        for n, picture in enumerate(x):
            padded = np.pad(picture, ((0, 0), (pad, pad), (pad, pad)))
            columns = im2col(padded, case)
            g = dy[n].reshape(case.filters, -1)
            y[n] = (matrix @ columns).reshape(y[n].shape) + arrays["bias"][:, None, None]
            dw += g @ columns.T
            if dx is not None:
                back = col2im(matrix.T @ g, padded.shape, case)
                dx[n] = back[:, pad : pad + case.size, pad : pad + case.size]
        gradients = [dw.reshape(w.shape), dy.sum((0, 2, 3))]
        return [y, *([] if dx is None else [dx]), *gradients]

    return run


def threads() -> int:
    """Those of BLAS, which NumPy does not tell: the cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def im2col(padded: np.ndarray, case: Convolution) -> np.ndarray:
    """(C, H, W) → (C·R·S, P·Q)."""
    reach = case.dilation * (case.kernel - 1) + 1
    views = sliding_window_view(padded, (reach, reach), (1, 2))
    taps = views[:, :: case.stride, :: case.stride, :: case.dilation, :: case.dilation]
    return taps.transpose(0, 3, 4, 1, 2).reshape(-1, case.out**2)


def col2im(columns: np.ndarray, shape: tuple[int, ...], case: Convolution) -> np.ndarray:
    """(C·R·S, P·Q) → (C, H, W), each column added where it came from."""
    k, d, step, out = case.kernel, case.dilation, case.stride, case.out
    taps = columns.reshape(shape[0], k, k, out, out)
    result = np.zeros(shape, columns.dtype)
    span = step * (out - 1) + 1
    for r in range(k):
        for s in range(k):
            rows, cols = slice(r * d, r * d + span, step), slice(s * d, s * d + span, step)
            result[:, rows, cols] += taps[:, r, s]
    return result
