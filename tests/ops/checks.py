"""What the tests of the operations have in common: inputs, comparisons, planted faults."""

from __future__ import annotations

from contextlib import contextmanager

import numba
import numpy as np
import pytest

from minifcn import Tensor
from minifcn.check import gradcheck, gradgradcheck

LAYOUTS = ("channels-last", "contiguous", "strided")


def random(rng, *shape, dtype=np.float64):
    """Standard normal numbers."""
    return rng.standard_normal(shape).astype(dtype)


def spaced(rng, *shape):
    """Numbers in random order, no two nearer than 0.05 and none nearer to 0 than 0.025.

    Finite differences then stay clear of ties and of the corner of ReLU.
    """
    size = int(np.prod(shape))
    values = (np.arange(size) - size // 2 + 0.5) * 0.05
    return rng.permutation(values).reshape(shape)


def laid_out(array, layout):
    """The same values in other memory: channels-last, C order, or every second element of more."""
    if array.ndim != 4:
        layout = "contiguous" if layout == "channels-last" else layout
    if layout == "channels-last":
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "strided":
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return np.ascontiguousarray(array)


def leaf(array):
    """A Tensor that wants a gradient."""
    return Tensor(array, requires_grad=True)


def close(found, wanted, rtol=1e-12):
    """Assert equal shapes, and equal values relative to the largest wanted."""
    found = found.numpy() if isinstance(found, Tensor) else np.asarray(found)
    wanted = np.asarray(wanted)
    assert found.shape == wanted.shape
    if wanted.size == 0:
        return
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~finite], wanted[~finite])
    size = max(float(np.abs(wanted[finite]).max(initial=0.0)), 1e-300)
    error = float(np.abs(found[finite] - wanted[finite]).max(initial=0.0)) / size
    assert error <= rtol, f"relative error {error:.2e}"


@contextmanager
def one_thread():
    """Finite differences call tiny kernels by the thousand: waking a second thread costs more."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@one_thread()
def assert_right(fn, *inputs, second=True, **options):
    """First and, unless told otherwise, second derivatives are right in every entry."""
    report = gradcheck(fn, inputs, **options)
    assert report, f"\n{report}"
    if second:
        report = gradgradcheck(fn, inputs, **options)
        assert report, f"\n{report}"


@contextmanager
def planted(op, spoil):
    """Inside the block, `spoil(gradients)` stands between op.backward and whoever reads it."""
    original = op.__dict__["backward"]

    def backward(self, grad):
        return spoil(original(self, grad))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(op, "backward", backward)
        yield


def scaled(position, factor=1.01):
    """A fault: one input's gradient is one per cent too large."""

    def spoil(gradients):
        return tuple(
            g * factor if i == position and g is not None else g for i, g in enumerate(gradients)
        )

    return spoil


def mirrored(position):
    """A fault: one input's gradient is turned about along its last dimension."""

    def spoil(gradients):
        return tuple(
            g[..., ::-1] if i == position and g is not None else g for i, g in enumerate(gradients)
        )

    return spoil


def dropped(position):
    """A fault: one input gets no gradient."""

    def spoil(gradients):
        return tuple(None if i == position else g for i, g in enumerate(gradients))

    return spoil


@one_thread()
def assert_caught(op, spoil, fn, *inputs):
    """A fault planted in op.backward is called wrong, and without it the check is right."""
    report = gradcheck(fn, inputs)
    assert report, f"\n{report}"
    with planted(op, spoil):
        report = gradcheck(fn, inputs)
    assert report.verdict == "wrong", f"the planted fault went unseen\n{report}"
