"""Max-pooling: values and winners against loops, NaN, ties, ceil mode, both derivatives, faults."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.check import adjoint, gradcheck, parity
from minifcn.errors import ShapeError
from minifcn.functional import max_pool2d
from minifcn.ops import pool as ops
from tests import naive
from tests.ops.checks import (
    LAYOUTS,
    assert_caught,
    assert_right,
    close,
    dropped,
    laid_out,
    leaf,
    mirrored,
    one_thread,
    planted,
    random,
    scaled,
    spaced,
)


@st.composite
def cases(draw, most=8):
    """(shape, settings, layout): stride beyond the kernel, overhanging windows, dilation, N = 0."""
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = draw(st.integers(1, most)), draw(st.integers(1, most))
    settings = {
        "kernel_size": kernel,
        "stride": draw(st.none() | st.tuples(st.integers(1, 5), st.integers(1, 5))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "ceil_mode": draw(st.booleans()),
    }
    for n, k, p, d in zip(size, kernel, settings["padding"], settings["dilation"], strict=True):
        assume(n + 2 * p >= d * (k - 1) + 1)
        assume(p < n)  # some tap of every window then lies inside
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *size)
    return shape, settings, draw(st.sampled_from(LAYOUTS))


FIXED = [
    ((1, 1, 1, 1), {"kernel_size": 1}),
    ((1, 3, 7, 5), {"kernel_size": 2}),
    ((1, 3, 7, 5), {"kernel_size": 2, "ceil_mode": True}),
    ((1, 2, 1, 1), {"kernel_size": 2, "padding": 1, "ceil_mode": True}),
    ((1, 2, 5, 5), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((1, 2, 11, 13), {"kernel_size": 2, "stride": 5, "ceil_mode": True}),
    ((1, 2, 9, 9), {"kernel_size": 3, "dilation": 3, "padding": 1}),
    ((2, 17, 6, 6), {"kernel_size": (1, 3), "stride": (2, 1)}),
    ((0, 2, 4, 4), {"kernel_size": 2}),
    ((1, 1, 4, 8), {"kernel_size": 2, "dilation": (2, 1), "ceil_mode": True}),
    ((1, 2, 2, 4), {"kernel_size": 2, "dilation": (1, 2), "ceil_mode": True}),
    ((2, 37, 6, 10), {"kernel_size": 2}),
    ((1, 2, 40, 20), {"kernel_size": (20, 17), "stride": 3, "padding": 4}),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", FIXED, ids=str)
def test_fixed_values(case, layout):
    shape, settings = case
    x = random(np.random.default_rng(0), *shape)
    found = max_pool2d(mf.Tensor(laid_out(x, layout)), **settings)
    close(found, naive.max_pool2d(x, **settings)[0], 0)


def test_winners_of_2x2_tiles_and_of_large_windows():
    """Both have ways of their own to remember who won."""
    rng = np.random.default_rng(11)
    for shape, settings in FIXED[-2:]:
        x = rng.choice([0.0, 1.0, -1.0, np.nan, -np.inf], shape, p=[0.3, 0.3, 0.2, 0.1, 0.1])
        wanted, rows, columns = naive.max_pool2d(x, **settings)
        t = leaf(x)
        y = max_pool2d(t, **settings)
        np.testing.assert_array_equal(y.numpy(), wanted)
        upstream = random(rng, *y.shape)
        y.backward(upstream)
        close(t.grad, naive.max_pool2d_backward(shape, rows, columns, upstream))


@given(case=cases())
def test_values_and_winners(case):
    """Few distinct numbers, so that ties abound; NaN and infinities among them."""
    shape, settings, layout = case
    rng = np.random.default_rng(1)
    x = rng.choice([0.0, 1.0, -1.0, np.nan, np.inf, -np.inf], shape, p=[0.3, 0.3, 0.2, 0.1, 0, 0.1])
    wanted, rows, columns = naive.max_pool2d(x, **settings)
    t = leaf(laid_out(x, layout))
    y = max_pool2d(t, **settings)
    np.testing.assert_array_equal(y.numpy(), wanted)
    upstream = random(rng, *y.shape)
    y.backward(upstream)
    close(t.grad, naive.max_pool2d_backward(shape, rows, columns, upstream))


@given(case=cases(most=5))
def test_derivatives(case):
    shape, settings, layout = case
    x = leaf(laid_out(spaced(np.random.default_rng(2), *shape), layout))
    assert_right(lambda x: max_pool2d(x, **settings), x, entries=12)


def test_derivatives_of_2x2_tiles():
    x = leaf(laid_out(spaced(np.random.default_rng(2), 2, 3, 4, 6), "channels-last"))
    assert_right(lambda x: max_pool2d(x, 2), x)


def test_float32():
    x = random(np.random.default_rng(3), 2, 5, 9, 7, dtype=np.float32)
    y = max_pool2d(mf.Tensor(x), 3, 2, 1, ceil_mode=True)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.numpy(), naive.max_pool2d(x, 3, 2, 1, ceil_mode=True)[0])


def test_a_window_whose_every_tap_lies_outside():
    """With dilation a padded window can step over the whole picture: −∞, and no gradient."""
    x = leaf(np.ones((1, 1, 2, 2)))
    y = max_pool2d(x, 2, 1, 1, dilation=3)
    assert np.all(np.isneginf(y.numpy()))
    y.backward(np.ones(y.shape))
    assert not x.grad.numpy().any()


def test_a_tie_is_a_kink():
    x = spaced(np.random.default_rng(4), 1, 1, 4, 4)
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = x.max() + 1
    report = gradcheck(lambda x: max_pool2d(x, 2), [leaf(x)])
    assert report.verdict == "kink" and report.inputs[0].place == (0, 0, 0, 1)


def test_adjoint_of_the_gradient_at_real_size():
    """For a fixed picture the gradient is linear in the upstream one: its adjoint gathers."""
    x = leaf(laid_out(random(np.random.default_rng(5), 1, 16, 57, 61), "channels-last"))
    y = max_pool2d(x, 3, 2, 1, ceil_mode=True)

    def gradient(u):
        return mf.grad([y], [x], [u], create_graph=True)[0]

    report = adjoint(gradient, mf.Tensor(random(np.random.default_rng(6), *y.shape)))
    assert report, str(report)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [(23, 29), (22, 30)])
def test_devices_agree_to_the_bit(size, dtype):
    x = leaf(random(np.random.default_rng(7), 2, 19, *size, dtype=dtype))
    assert parity(lambda x: max_pool2d(x, 2, ceil_mode=True), [x], rtol=0.0)


@pytest.mark.parametrize("spoil", [scaled, mirrored, dropped])
def test_a_wrong_derivative_is_caught(spoil):
    x = leaf(spaced(np.random.default_rng(8), 1, 2, 4, 5))
    assert_caught(ops.MaxPool2d, spoil(0), lambda x: max_pool2d(x, 2, 1), x)


@one_thread()
def test_a_wrong_second_derivative_is_caught():
    x = leaf(spaced(np.random.default_rng(9), 1, 2, 4, 5))
    with planted(ops.MaxUnpool2d, scaled(0)):
        assert gradcheck(lambda x: max_pool2d(x, 2, 1), [x])
        assert mf.check.gradgradcheck(lambda x: max_pool2d(x, 2, 1), [x]).verdict == "wrong"


@pytest.mark.parametrize(
    "shape, settings, message",
    [
        ((2, 5, 5), {"kernel_size": 2}, r"max_pool2d: input has shape \(2, 5, 5\)"),
        ((1, 1, 2, 5), {"kernel_size": 3}, r"max_pool2d: .*3.*2"),
        ((1, 1, 5, 5), {"kernel_size": 2, "padding": 2}, r"max_pool2d: .*padding of 2.*half"),
        ((1, 1, 5, 5), {"kernel_size": 0}, r"max_pool2d: .*0"),
        ((1, 1, 5, 5), {"kernel_size": 2, "stride": 0}, r"max_pool2d: .*stride.*0"),
        ((1, 1, 5, 5), {"kernel_size": (2, 2, 2)}, r"max_pool2d: kernel_size is \(2, 2, 2\)"),
    ],
)
def test_errors(shape, settings, message):
    with pytest.raises(ShapeError, match=message):
        max_pool2d(mf.Tensor(np.zeros(shape)), **settings)
