"""Convolutions of real size, in float64 and independent of minifcn: one product a kernel element.

`tests/naive.py` is plainer and a thousand times slower; test_kernels_algorithms holds the two
against each other.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest

from minifcn import Tensor, conv_algorithm, functional

ALGORITHMS = ("im2col", "direct", "winograd2", "winograd4")


def by_elements(x, weight, bias, dy=None, padding=(0, 0), dilation=(1, 1), stride=(1, 1)):
    """[y, dx, dw, db] of a convolution, or [y] without the output's gradient dy."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    (n, c, h, w), (k, _, kr, ks) = x.shape, weight.shape
    (ph, pw), (dh, dw), (sh, sw) = padding, dilation, stride
    framed = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    p, q = (h + 2 * ph - (kr - 1) * dh - 1) // sh + 1, (w + 2 * pw - (ks - 1) * dw - 1) // sw + 1
    y = np.zeros((n, k, p, q)) + (0 if bias is None else bias.astype(np.float64)[:, None, None])
    d_framed, d_weight = np.zeros(framed.shape), np.zeros(weight.shape)
    g = None if dy is None else dy.astype(np.float64).transpose(1, 0, 2, 3).reshape(k, n * p * q)
    for r in range(kr):
        for s in range(ks):
            rows = slice(r * dh, r * dh + (p - 1) * sh + 1, sh)
            place = (..., rows, slice(s * dw, s * dw + (q - 1) * sw + 1, sw))
            seen = framed[place].transpose(1, 0, 2, 3).reshape(c, n * p * q)
            y += (weight[:, :, r, s] @ seen).reshape(k, n, p, q).transpose(1, 0, 2, 3)
            if g is not None:
                back = weight[:, :, r, s].T @ g
                d_framed[place] += back.reshape(c, n, p, q).transpose(1, 0, 2, 3)
                d_weight[:, :, r, s] = g @ seen.T
    if dy is None:
        return [y]
    return [y, d_framed[:, :, ph : ph + h, pw : pw + w], d_weight, g.sum(1)]


def by_minifcn(algorithm, x, weight, bias, dy, op=functional.conv2d, **settings):
    """[y, dx, dw, db] of minifcn, forced to one algorithm."""
    inputs = [Tensor(a, requires_grad=True) for a in (x, weight, bias) if a is not None]
    with conv_algorithm(algorithm):
        y = op(*inputs, **settings)
        y.backward(dy)
    return [y.numpy(), *(t.grad.numpy() for t in inputs)]


def like_a_layers(weight):
    """The same numbers as the layers keep them: (R, S, C, K) in memory."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)


def random(seed, *shapes, dtype=np.float32):
    """Standard normal numbers of these shapes."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def layer(x_shape, filters, padding=1, kernel=3, dtype=np.float32, seed=0, stride=1):
    """Random x, weight, bias and output gradient of a layer."""
    n, c, h, w = x_shape
    out = [(size + 2 * padding - kernel) // stride + 1 for size in (h, w)]
    weight = (filters, c, kernel, kernel)
    return random(seed, x_shape, weight, (filters,), (n, filters, *out), dtype=dtype)


def errors(found, wanted):
    """The largest difference in each array, relative to the largest number wanted there."""
    sizes = [max(np.abs(b).max(initial=0), 1e-300) for b in wanted]
    return [float(np.abs(a - b).max(initial=0) / size) for a, b, size in zip(found, wanted, sizes)]


def on_one_thread(run):
    """What ``run`` gives on one thread; without a second there is nothing to compare."""
    threads = numba.get_num_threads()
    if threads < 2:
        pytest.skip("one processor: nothing to compare")
    numba.set_num_threads(1)
    try:
        return run()
    finally:
        numba.set_num_threads(threads)
