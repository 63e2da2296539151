"""Softmax cross-entropy of every pixel, and its gradient, in one pass over the logits.

    loss[m] = a[m] · (ln Σₖ exp(z[m, k]) − z[m, t[m]])
    grad[m, k] = a[m] · (softmax(z[m])ₖ − [k = t[m]])

``a[m]`` is what the pixel counts for: its class weight over the normaliser, and 0 where it is void.
The largest logit is subtracted first, so that no exponential overflows. Rows are pixels; since
memory is channels-last, a pixel's logits are neighbours.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minifcn import device
from minifcn.kernels import workspace


def cross_entropy(
    logits: np.ndarray, target: np.ndarray, amount: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(loss (M,), gradient (M, K)) from logits (M, K), target (M,) int64, amount (M,).

    Rows with amount 0 give exactly 0, whatever their logits and target are.
    """
    if device.is_reference():
        return _cross_entropy_numpy(logits, target, amount)
    loss = workspace.empty(target.shape, logits.dtype)
    grad = workspace.empty(logits.shape, logits.dtype)
    if logits.size:
        _cross_entropy_numba(logits, target, amount, loss, grad)
    return loss, grad


def _cross_entropy_numpy(
    logits: np.ndarray, target: np.ndarray, amount: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    loss, grad = np.zeros(target.shape, logits.dtype), np.zeros_like(logits)
    counts = np.flatnonzero(amount)
    z, t, a = logits[counts], target[counts], amount[counts]
    z = z - z.max(axis=1, keepdims=True, initial=-np.inf)
    e = np.exp(z)
    total = e.sum(axis=1)
    row = np.arange(len(t))
    loss[counts] = a * (np.log(total) - z[row, t])
    p = e / total[:, None]
    p[row, t] -= 1
    grad[counts] = a[:, None] * p
    return loss, grad


@njit(cache=True, nogil=True, parallel=True)
def _cross_entropy_numba(logits, target, amount, loss, grad):  # type: ignore[no-untyped-def]
    classes = logits.shape[1]
    for m in prange(len(target)):
        a, z, g = amount[m], logits[m], grad[m]
        if a == 0:
            loss[m] = 0
            for k in range(classes):
                g[k] = 0
            continue
        top = z[0]
        for k in range(1, classes):
            # NaN must reach the loss: it is what tells a broken training run
            top = z[k] if z[k] > top or z[k] != z[k] else top
        total = z.dtype.type(0)
        for k in range(classes):
            g[k] = np.exp(z[k] - top)
            total += g[k]
        t = target[m]
        loss[m] = a * (np.log(total) - (z[t] - top))
        share = a / total
        for k in range(classes):
            g[k] *= share
        g[t] -= a
