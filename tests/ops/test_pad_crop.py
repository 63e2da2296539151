"""Padding by a value, cropping by negative widths, windows."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.check import adjoint
from minifcn.errors import ShapeError
from minifcn.functional import crop, pad
from minifcn.ops import shape as ops
from tests.ops.checks import (
    LAYOUTS,
    assert_caught,
    assert_right,
    close,
    dropped,
    laid_out,
    leaf,
    mirrored,
    random,
    scaled,
)


def naive_pad(x, widths, value):
    """Every output pixel looks up where it came from."""
    left, right, top, bottom = widths
    h, w = x.shape[-2:]
    y = np.full((*x.shape[:-2], h + top + bottom, w + left + right), value)
    for p in range(y.shape[-2]):
        for q in range(y.shape[-1]):
            if 0 <= p - top < h and 0 <= q - left < w:
                y[..., p, q] = x[..., p - top, q - left]
    return y


WIDTHS = st.tuples(*[st.integers(-6, 4)] * 4)


@given(
    shape=st.sampled_from([(1, 1, 1, 1), (2, 3, 4, 5), (0, 2, 3, 3), (4, 5), (2, 5, 3)]),
    widths=WIDTHS,
    value=st.sampled_from([0.0, -1.5, np.inf]),
    layout=st.sampled_from(LAYOUTS),
)
def test_pad(shape, widths, value, layout):
    left, right, top, bottom = widths
    assume(shape[-1] + left + right >= 0 and shape[-2] + top + bottom >= 0)
    # a negative width takes pixels of the picture away, there must be as many (as in PyTorch)
    narrow = min(widths[:2]) < -shape[-1] or min(widths[2:]) < -shape[-2]
    x = random(np.random.default_rng(0), *shape)
    if narrow:
        with pytest.raises(ShapeError, match="pad: padding"):
            pad(mf.Tensor(x), widths, value)
        return
    found = pad(mf.Tensor(laid_out(x, layout)), widths, value)
    np.testing.assert_array_equal(found.numpy(), naive_pad(x, widths, value))
    if np.isfinite(value):
        assert_right(lambda x: pad(x, widths, value) ** 2, leaf(x), entries=8)


def test_two_widths_pad_the_last_dimension():
    x = random(np.random.default_rng(1), 2, 3)
    close(pad(mf.Tensor(x), (1, 2)), naive_pad(x, (1, 2, 0, 0), 0.0))


@given(data=st.data())
def test_crop(data):
    h, w = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    top, left = data.draw(st.integers(0, h)), data.draw(st.integers(0, w))
    height, width = data.draw(st.integers(0, h - top)), data.draw(st.integers(0, w - left))
    x = random(np.random.default_rng(2), 2, 3, h, w)
    found = crop(mf.Tensor(laid_out(x, "channels-last")), top, left, height, width)
    assert found.shape == (2, 3, height, width)
    for p in range(height):
        for q in range(width):
            np.testing.assert_array_equal(found.numpy()[..., p, q], x[..., top + p, left + q])
    assert_right(lambda x: crop(x, top, left, height, width) ** 2, leaf(x), entries=8)


def test_adjoint_at_real_size():
    x = mf.Tensor(laid_out(random(np.random.default_rng(3), 1, 21, 568, 568), "channels-last"))
    for fn in (lambda x: crop(x, 31, 31, 500, 375), lambda x: pad(x, (100, 100, 99, 98))):
        report = adjoint(fn, x)
        assert report, str(report)


@pytest.mark.parametrize("spoil", [scaled, mirrored, dropped])
@pytest.mark.parametrize("fn", [lambda x: pad(x, (1, 2, 0, 1)), lambda x: crop(x, 0, 1, 2, 2)])
def test_a_wrong_derivative_is_caught(fn, spoil):
    assert_caught(ops.Pad, spoil(0), fn, leaf(random(np.random.default_rng(4), 1, 2, 3, 4)))


def test_errors():
    x = mf.Tensor(np.zeros((1, 1, 4, 5)))
    for padding in [(1, 2, 3), (1,), ()]:
        with pytest.raises(ShapeError, match="pad: padding is"):
            pad(x, padding)
    with pytest.raises(ShapeError, match="pad: padding"):
        pad(x, (-3, -3, 0, 0))
    with pytest.raises(ShapeError, match="pad: input has shape"):
        pad(mf.Tensor(np.zeros(4)), (1, 1, 1, 1))
    for window in [(0, 0, 5, 5), (-1, 0, 2, 2), (0, 4, 2, 2), (0, 0, -1, 2)]:
        with pytest.raises(ShapeError, match="crop: .*4×5"):
            crop(x, *window)
