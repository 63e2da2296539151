"""One step of an optimiser on one parameter: every array read once and written once.

The arrays p (the parameter), g (its gradient) and the optimiser's own are changed in place, g
excepted. They run over flat memory in the parameter's own axis order. A parameter of one block
takes its step on the calling thread: that costs less than waking a second. One whose memory has
gaps takes the NumPy definition, which does the same operations on each element and so gives the
same bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minifcn import device
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out
from minifcn.launch import launch

BLOCK = 4096  # elements that a thread takes at a time


def sgd(
    p: np.ndarray,
    g: np.ndarray,
    b: np.ndarray | None,
    lr: float,
    momentum: float,
    dampening: float,
    decay: float,
    nesterov: bool,
) -> None:
    """g ← g + decay·p;  b ← momentum·b + (1 − dampening)·g;  p ← p − lr·(b, or g + momentum·b).

    Without ``b``, p ← p − lr·g. The second form of the last line is Nesterov's.
    """
    rates = [p.dtype.type(rate) for rate in (lr, momentum, 1 - dampening, decay)]
    flat = _flat(p, g, p if b is None else b)
    if flat is None:
        _sgd_numpy(p, g, b, *rates, nesterov)
    elif device.is_gpu(p):
        _step_cuda("sgd", [*flat[:2], None if b is None else flat[2]], *rates, nesterov)
    else:
        arguments = *flat, b is not None, *rates, nesterov
        if p.size <= BLOCK:
            _sgd_block(0, *arguments)
        else:
            _sgd_numba(-(-p.size // BLOCK), arguments)


def adam(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    root: float,
    eps: float,
    decay: float,
    shrink: float,
) -> None:
    """p ← shrink·p;  g ← g + decay·p;  m ← m + (1 − β₁)(g − m);  v ← β₂v + (1 − β₂)g²;
    p ← p − lr·m ÷ (√v/root + eps).
    """  # noqa: D205
    rates = [p.dtype.type(r) for r in (lr, 1 - beta1, beta2, 1 - beta2, root, eps, decay, shrink)]
    flat = _flat(p, g, m, v)
    if flat is None:
        _adam_numpy(p, g, m, v, *rates)
    elif device.is_gpu(p):
        _step_cuda("adam", flat, *rates)
    elif p.size <= BLOCK:
        _adam_block(0, *flat, *rates)
    else:
        _adam_numba(-(-p.size // BLOCK), (*flat, *rates))


def _flat(p: np.ndarray, g: np.ndarray, *own: np.ndarray) -> list[np.ndarray] | None:
    """All arrays as one row in p's axis order; None where the definition shall do the step."""
    defined = device.is_reference() and not device.is_gpu(p)
    if defined or p.dtype not in (np.float32, np.float64):
        return None
    rows = [p, g, *own]
    if p.ndim > 1:
        axes = _axes(p.strides)
        rows = [a.transpose(axes) for a in rows]
    if not rows[1].flags.c_contiguous or g.dtype != p.dtype:  # it is only read: a copy will do
        rows[1] = device.array_module(p).ascontiguousarray(rows[1], p.dtype)
    if not all(row.flags.c_contiguous for row in rows):
        return None
    return [row.reshape(-1) for row in rows]


@lru_cache(maxsize=1024)
def _axes(strides: tuple[int, ...]) -> list[int]:
    """The axes of an array with these strides as they lie in memory, the slowest first."""
    return sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))


# -- the definition ------------------------------------------------------------------------------


def _sgd_numpy(p, g, b, lr, momentum, take, decay, nesterov):  # type: ignore[no-untyped-def]
    if decay:
        g = p * decay + g
    if b is not None:
        b[...] = b * momentum + g * take
        g = b * momentum + g if nesterov else b
    p -= g * lr


def _adam_numpy(p, g, m, v, lr, take1, keep2, take2, root, eps, decay, shrink):  # type: ignore[no-untyped-def]
    p *= shrink
    g = p * decay + g
    m += (g - m) * take1
    v[...] = v * keep2 + g * g * take2
    p -= m / (np.sqrt(v) / root + eps) * lr


# -- CUDA ------------------------------------------------------------------------------------------

THREADS = 256


def _step_cuda(kernel, arrays, *rates):  # type: ignore[no-untyped-def]
    p = arrays[0]
    if p.size:
        grid = (min(-(-p.nbytes // (16 * THREADS)), 1 << 14),)
        arguments = *arrays, p.size, *rates
        launch("optimizer.cu", kernel, grid, (THREADS,), arguments, real=p.dtype)


# -- Numba -----------------------------------------------------------------------------------------


@serial
def _elements(block, size):  # type: ignore[no-untyped-def]
    """The numbers of a block's elements, unsigned: of a signed one the code asks if it is negative.

    A loop that asks takes twice as long.
    """
    return range(np.uint64(block * BLOCK), np.uint64(min((block + 1) * BLOCK, size)))


@kernel
def _sgd_block(block, p, g, b, buffered, lr, momentum, take, decay, nesterov):  # type: ignore[no-untyped-def]
    for i in _elements(block, p.size):
        step = p[i] * decay + g[i] if decay != 0 else g[i]
        if buffered:
            b[i] = b[i] * momentum + step * take
            step = b[i] * momentum + step if nesterov else b[i]
        p[i] -= step * lr


@kernel
def _sgd_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_sgd_block, count, arguments)


@kernel
def _adam_block(block, p, g, m, v, lr, take1, keep2, take2, root, eps, decay, shrink):  # type: ignore[no-untyped-def]
    for i in _elements(block, p.size):
        p[i] *= shrink
        d = p[i] * decay + g[i]
        m[i] += (d - m[i]) * take1
        v[i] = v[i] * keep2 + d * d * take2
        p[i] -= m[i] / (np.sqrt(v[i]) / root + eps) * lr


@kernel
def _adam_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_adam_block, count, arguments)
