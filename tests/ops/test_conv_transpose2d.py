"""Transposed convolution: values by stamping kernels, both derivatives, faults, adjointness."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.check import adjoint, parity
from minifcn.errors import ShapeError
from minifcn.functional import conv2d, conv_transpose2d
from minifcn.ops import conv2d as ops
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


@st.composite
def cases(draw, most=5):
    """Settings and shapes: stride beyond the kernel, output padding, dilation, groups, N = 0."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, k = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = draw(st.integers(1, most)), draw(st.integers(1, most))
    stride = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    extra = tuple(
        draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
    )
    for n, t, s, p, d, e in zip(size, kernel, stride, padding, dilation, extra, strict=True):
        assume((n - 1) * s - 2 * p + d * (t - 1) + e + 1 >= 1)
    settings = {
        "stride": stride,
        "padding": padding,
        "output_padding": extra,
        "groups": groups,
        "dilation": dilation,
    }
    shapes = (draw(st.integers(0, 2)), c, *size), (c, k // groups, *kernel), (k,)
    return shapes, settings, draw(st.booleans()), draw(st.sampled_from(LAYOUTS))


FIXED = [
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((1, 2, 3, 4), (2, 3, 4, 4), {"stride": 2}),
    ((1, 2, 3, 2), (2, 2, 16, 16), {"stride": 8}),
    ((1, 2, 1, 1), (2, 2, 64, 64), {"stride": 32}),
    ((2, 3, 5, 3), (3, 1, 4, 4), {"stride": 2, "groups": 3}),
    ((1, 2, 5, 3), (2, 2, 2, 2), {"stride": 5, "output_padding": 3}),
    ((1, 2, 5, 3), (2, 2, 3, 3), {"padding": 2}),
    ((1, 2, 4, 4), (2, 2, 3, 3), {"dilation": 3, "stride": 2, "padding": 1, "output_padding": 2}),
    ((1, 17, 3, 3), (17, 35, 3, 3), {}),
    ((0, 3, 5, 5), (3, 2, 3, 3), {"stride": 2}),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", FIXED, ids=str)
def test_fixed_values(case, layout):
    x_shape, w_shape, settings = case
    rng = np.random.default_rng(0)
    x, w = random(rng, *x_shape), random(rng, *w_shape)
    b = random(rng, w_shape[1] * settings.get("groups", 1))
    found = conv_transpose2d(
        mf.Tensor(laid_out(x, layout)), mf.Tensor(laid_out(w, layout)), mf.Tensor(b), **settings
    )
    close(found, naive.conv_transpose2d(x, w, b, **settings))


@given(case=cases())
def test_values(case):
    (xs, ws, bs), settings, bias, layout = case
    rng = np.random.default_rng(1)
    x, w, b = random(rng, *xs), random(rng, *ws), random(rng, *bs)
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 3e-6)):
        x, w, b = (a.astype(dtype) for a in (x, w, b))
        found = conv_transpose2d(
            mf.Tensor(laid_out(x, layout)), mf.Tensor(w), mf.Tensor(b) if bias else None, **settings
        )
        assert found.dtype == dtype
        close(found, naive.conv_transpose2d(x, w, b if bias else None, **settings), rtol)


@given(case=cases(most=3))
def test_derivatives(case):
    (xs, ws, bs), settings, bias, layout = case
    rng = np.random.default_rng(2)
    inputs = [leaf(laid_out(random(rng, *xs), layout)), leaf(random(rng, *ws))]
    inputs += [leaf(random(rng, *bs))] if bias else []
    assert_right(lambda *a: conv_transpose2d(*a, **settings), *inputs, entries=8)


@given(case=cases())
def test_it_is_the_adjoint_of_conv2d(case):
    """⟨conv2d(x), y⟩ = ⟨x, conv_transpose2d(y)⟩, by the definition and not by any backward."""
    (ys, ws, _), settings, _, _ = case
    rng = np.random.default_rng(3)
    y, w = random(rng, *ys), random(rng, *ws)
    back = conv_transpose2d(mf.Tensor(y), mf.Tensor(w), **settings)
    x = random(rng, *back.shape)
    forward = {key: settings[key] for key in ("stride", "padding", "dilation", "groups")}
    there = conv2d(mf.Tensor(x), mf.Tensor(w), **forward)
    assume(there.shape == y.shape)  # not so where output_padding reaches the stride
    left, right = (there.numpy() * y).sum(), (x * back.numpy()).sum()
    assert abs(left - right) <= 1e-11 * max(1.0, np.abs(there.numpy() * y).sum())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "w_shape, settings",
    [
        ((21, 21, 16, 16), {"stride": 8}),
        ((21, 1, 64, 64), {"stride": 32, "groups": 21}),
        ((21, 21, 4, 4), {"stride": 2, "padding": 1}),
    ],
    ids=str,
)
def test_adjoint_at_real_size(w_shape, settings, dtype, on_device):
    rng = np.random.default_rng(4)
    side = 16
    if on_device == "reference":  # slow: fewer classes and pixels, the same kernels
        side, w_shape = 3, tuple(3 if n == 21 else n for n in w_shape)
        settings = {**settings, "groups": 3} if "groups" in settings else settings
    x = mf.Tensor(laid_out(random(rng, 1, w_shape[0], side, side, dtype=dtype), "channels-last"))
    w = mf.Tensor(random(rng, *w_shape, dtype=dtype))
    for report in (
        adjoint(lambda x: conv_transpose2d(x, w, **settings), x),
        adjoint(lambda w: conv_transpose2d(x, w, **settings), w),
    ):
        assert report, str(report)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_devices_agree(dtype):
    rng = np.random.default_rng(5)
    inputs = [leaf(random(rng, *s, dtype=dtype)) for s in ((2, 9, 7, 11), (9, 35, 4, 4), (35,))]
    report = parity(lambda *a: conv_transpose2d(*a, stride=2), inputs)
    assert report, str(report)


def test_bilinear_upsampling_of_a_ramp_is_a_ramp():
    """A published property: interpolation by the bilinear filter reproduces linear functions."""
    k, f, centre = 4, 2, 1.5
    line = 1 - np.abs(np.arange(k) - centre) / f
    w = np.outer(line, line)[None, None]
    x = np.arange(6.0) + 10 * np.arange(5.0)[:, None]
    y = conv_transpose2d(mf.Tensor(x[None, None]), mf.Tensor(w), stride=2, padding=1).numpy()[0, 0]
    inner = y[1:-1, 1:-1]
    assert np.allclose(np.diff(inner, axis=1), 0.5) and np.allclose(np.diff(inner, axis=0), 5.0)


@pytest.mark.parametrize("spoil", [scaled, mirrored, dropped])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_wrong_derivative_is_caught(position, spoil):
    rng = np.random.default_rng(6)
    assert_caught(
        ops.ConvTranspose2d,
        spoil(position),
        lambda *a: conv_transpose2d(*a, stride=2),
        *(leaf(random(rng, *s)) for s in ((1, 2, 3, 3), (2, 2, 3, 3), (2,))),
    )


@pytest.mark.parametrize(
    "x, w, b, settings, message",
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), None, {}, r"conv_transpose2d: input has 3 channels.*wants 4"),
        ((1, 3, 5, 5), (3, 2, 3, 3), None, {"groups": 2}, r"conv_transpose2d.*groups=2"),
        ((1, 3, 5), (3, 2, 3, 3), None, {}, r"conv_transpose2d: input has shape \(1, 3, 5\)"),
        ((1, 3, 5, 5), (3, 2, 3), None, {}, r"conv_transpose2d: weight has shape \(3, 2, 3\)"),
        ((1, 2, 5, 5), (2, 3, 3, 3), (2,), {}, r"conv_transpose2d: bias.*\(2,\).*wanted \(3,\)"),
        ((1, 2, 1, 1), (2, 3, 3, 3), None, {"padding": 2}, r"conv_transpose2d: .*padding 2"),
        (
            (1, 2, 3, 3),
            (2, 3, 3, 3),
            None,
            {"stride": 2, "output_padding": 2},
            r"conv_transpose2d: output_padding is 2",
        ),
        ((1, 2, 3, 3), (2, 3, 3, 3), None, {"stride": 0}, r"conv_transpose2d: stride"),
    ],
)
def test_errors(x, w, b, settings, message):
    tensors = [None if s is None else mf.Tensor(np.zeros(s)) for s in (x, w, b)]
    with pytest.raises(ShapeError, match=message):
        conv_transpose2d(*tensors, **settings)
