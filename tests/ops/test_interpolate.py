"""Bilinear resizing against four neighbours looked up one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.check import adjoint, parity
from minifcn.errors import InputError, ShapeError
from minifcn.functional import interpolate
from minifcn.ops import interpolate as ops
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
    random,
    scaled,
)

SIDES = st.sampled_from([1, 2, 3, 5, 7, 8])


@given(
    source=st.tuples(SIDES, SIDES),
    size=st.tuples(SIDES, SIDES),
    corners=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    n=st.integers(0, 2),
)
def test_to_a_size(source, size, corners, layout, n):
    x = random(np.random.default_rng(0), n, 3, *source)
    for dtype, rtol in ((np.float64, 1e-13), (np.float32, 1e-6)):
        t = mf.Tensor(laid_out(x.astype(dtype), layout))
        found = interpolate(t, size=size, align_corners=corners)
        assert found.dtype == dtype
        close(found, naive.interpolate_bilinear(x, size, corners), rtol)


@given(
    source=st.tuples(SIDES, SIDES),
    scale=st.tuples(*[st.sampled_from([1, 2, 0.5, 1.3, 2.7, 8])] * 2),
    corners=st.booleans(),
)
def test_by_a_factor(source, scale, corners):
    """As in PyTorch, the given factor (not the ratio of the rounded sizes) places the samples."""
    x = random(np.random.default_rng(1), 1, 2, *source)
    size = tuple(int(n * f) for n, f in zip(source, scale, strict=True))
    if min(size) == 0:
        with pytest.raises(ShapeError, match="interpolate"):
            interpolate(mf.Tensor(x), scale_factor=scale, align_corners=corners)
        return
    found = interpolate(mf.Tensor(x), scale_factor=scale, align_corners=corners)
    close(found, naive.interpolate_bilinear(x, size, corners, scale), 1e-13)


@given(source=st.tuples(SIDES, SIDES), size=st.tuples(SIDES, SIDES), corners=st.booleans())
def test_derivatives(source, size, corners):
    x = leaf(random(np.random.default_rng(2), 1, 2, *source))
    assert_right(lambda x: interpolate(x, size=size, align_corners=corners), x, entries=12)


def test_the_same_size_changes_nothing():
    x = random(np.random.default_rng(3), 1, 2, 5, 7)
    for corners in (False, True):
        close(interpolate(mf.Tensor(x), size=(5, 7), align_corners=corners), x, 1e-15)


def test_a_constant_stays_constant():
    y = interpolate(mf.Tensor(np.full((1, 1, 5, 3), 7.0)), size=(13, 1)).numpy()
    assert np.allclose(y, 7.0, rtol=1e-15)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(500, 375), (7, 9)])
def test_adjoint_at_real_size(size, corners):
    x = mf.Tensor(laid_out(random(np.random.default_rng(4), 1, 21, 47, 63), "channels-last"))
    report = adjoint(lambda x: interpolate(x, size=size, align_corners=corners), x)
    assert report, str(report)


def test_devices_agree():
    x = leaf(random(np.random.default_rng(5), 2, 5, 11, 13, dtype=np.float32))
    report = parity(lambda x: interpolate(x, size=(37, 29)), [x])
    assert report, str(report)


@pytest.mark.parametrize("spoil", [scaled, mirrored, dropped])
def test_a_wrong_derivative_is_caught(spoil):
    x = leaf(random(np.random.default_rng(6), 1, 2, 3, 4))
    assert_caught(ops.Resample, spoil(0), lambda x: interpolate(x, size=(5, 7)), x)


def test_errors():
    x = mf.Tensor(np.zeros((1, 1, 4, 4)))
    with pytest.raises(InputError, match="interpolate: .*size or scale_factor"):
        interpolate(x)
    with pytest.raises(InputError, match="interpolate: .*size or scale_factor"):
        interpolate(x, size=3, scale_factor=2)
    with pytest.raises(InputError, match="interpolate: mode is 'cubic'.*bilinear"):
        interpolate(x, size=3, mode="cubic")
    with pytest.raises(ShapeError, match=r"interpolate: .*\(0, 0\)"):
        interpolate(x, size=0)
    with pytest.raises(ShapeError, match=r"interpolate: input has shape \(4, 4\)"):
        interpolate(mf.Tensor(np.zeros((4, 4))), size=3)
    with pytest.raises((ShapeError, InputError), match="interpolate: .*scale_factor"):
        interpolate(x, scale_factor=(2, 2, 2))
    with pytest.raises((ShapeError, InputError), match="interpolate: .*scale_factor"):
        interpolate(x, scale_factor=0)
