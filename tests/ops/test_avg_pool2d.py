"""Average pooling, windowed and global."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.check import adjoint, gradcheck
from minifcn.errors import ShapeError
from minifcn.functional import adaptive_avg_pool2d, avg_pool2d
from minifcn.ops import conv2d, reduction
from tests import naive
from tests.ops.checks import (
    LAYOUTS,
    assert_right,
    close,
    laid_out,
    leaf,
    planted,
    random,
    scaled,
)


@st.composite
def cases(draw, most=8):
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = draw(st.integers(1, most)), draw(st.integers(1, most))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    for n, k, p in zip(size, kernel, padding, strict=True):
        assume(n + 2 * p >= k)
    settings = {
        "kernel_size": kernel,
        "stride": draw(st.none() | st.tuples(st.integers(1, 5), st.integers(1, 5))),
        "padding": padding,
        "ceil_mode": draw(st.booleans()),
        "count_include_pad": draw(st.booleans()),
    }
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *size)
    return shape, settings, draw(st.sampled_from(LAYOUTS))


@given(case=cases())
def test_values(case):
    shape, settings, layout = case
    x = random(np.random.default_rng(0), *shape)
    close(avg_pool2d(mf.Tensor(laid_out(x, layout)), **settings), naive.avg_pool2d(x, **settings))


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(
    "shape, kernel, stride, padding",
    [
        ((1, 1, 1, 1), 1, 1, 0),
        ((1, 2, 7, 5), 2, 2, 0),
        ((1, 2, 7, 5), 3, 2, 1),
        ((1, 2, 11, 13), 2, 5, 1),
        ((2, 3, 4, 6), (4, 1), (1, 3), (2, 0)),
        ((0, 3, 4, 4), 2, 2, 0),
    ],
)
def test_fixed_values(shape, kernel, stride, padding, ceil, include):
    x = random(np.random.default_rng(1), *shape)
    for dtype, rtol in ((np.float64, 1e-13), (np.float32, 1e-6)):
        found = avg_pool2d(mf.Tensor(x.astype(dtype)), kernel, stride, padding, ceil, include)
        assert found.dtype == dtype
        close(found, naive.avg_pool2d(x, kernel, stride, padding, ceil, include), rtol)


@given(case=cases(most=5))
def test_derivatives(case):
    shape, settings, layout = case
    x = leaf(laid_out(random(np.random.default_rng(2), *shape), layout))
    assert_right(lambda x: avg_pool2d(x, **settings), x, entries=12)


def test_adjoint_at_real_size():
    x = mf.Tensor(random(np.random.default_rng(3), 1, 64, 57, 61))
    report = adjoint(lambda x: avg_pool2d(x, 3, 2, 1, ceil_mode=True), x)
    assert report, str(report)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_global(layout):
    x = random(np.random.default_rng(4), 2, 3, 5, 7)
    wanted = np.array([[[[sum(map(float, c.ravel())) / 35]] for c in image] for image in x])
    close(adaptive_avg_pool2d(mf.Tensor(laid_out(x, layout)), 1), wanted)
    assert_right(lambda x: adaptive_avg_pool2d(x, 1) ** 2, leaf(x), entries=10)


def test_a_wrong_derivative_is_caught():
    """It is made of a depthwise convolution; global pooling of a sum."""
    x = leaf(random(np.random.default_rng(5), 1, 2, 4, 5))
    with planted(conv2d.Conv2d, scaled(0)):
        assert gradcheck(lambda x: avg_pool2d(x, 2, 1), [x]).verdict == "wrong"
    with planted(reduction.Sum, scaled(0)):
        assert gradcheck(lambda x: adaptive_avg_pool2d(x, 1), [x]).verdict == "wrong"


@pytest.mark.parametrize(
    "shape, settings, message",
    [
        ((2, 5, 5), {"kernel_size": 2}, r"avg_pool2d: input has shape \(2, 5, 5\)"),
        ((1, 1, 2, 5), {"kernel_size": 3}, r"avg_pool2d: .*3.*2"),
        ((1, 1, 5, 5), {"kernel_size": 2, "padding": 2}, r"avg_pool2d: .*half"),
        ((1, 1, 5, 5), {"kernel_size": 2, "stride": 0}, r"avg_pool2d: .*stride.*0"),
    ],
)
def test_errors(shape, settings, message):
    with pytest.raises(ShapeError, match=message):
        avg_pool2d(mf.Tensor(np.zeros(shape)), **settings)


def test_other_global_sizes_are_refused():
    with pytest.raises(ShapeError, match="adaptive_avg_pool2d: output_size is 2"):
        adaptive_avg_pool2d(mf.Tensor(np.zeros((1, 1, 4, 4))), 2)
    with pytest.raises(ShapeError, match="adaptive_avg_pool2d"):
        adaptive_avg_pool2d(mf.Tensor(np.zeros((4, 4))), 1)
