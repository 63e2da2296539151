"""Convolution: values against seven nested loops, both derivatives, faults, adjoints, messages."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.check import adjoint, parity
from minifcn.errors import ShapeError
from minifcn.functional import conv2d
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
    one_thread,
    planted,
    random,
    scaled,
)


@st.composite
def cases(draw, most=7):
    """Settings and shapes, awkward ones included: stride > kernel, padding > size, 1 × 1, N = 0."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, k = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    r, s = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    h, w = draw(st.integers(1, most)), draw(st.integers(1, most))
    settings = {
        "stride": (draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        "padding": (draw(st.integers(0, 4)), draw(st.integers(0, 4))),
        "dilation": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "groups": groups,
    }
    for n, t, p, d in zip((h, w), (r, s), settings["padding"], settings["dilation"], strict=True):
        assume(n + 2 * p >= d * (t - 1) + 1)
    shapes = (draw(st.integers(0, 2)), c, h, w), (k, c // groups, r, s), (k,)
    return shapes, settings, draw(st.booleans()), draw(st.sampled_from(LAYOUTS))


FIXED = [  # (x, weight, settings): what must not be left to chance
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((2, 3, 7, 5), (4, 3, 1, 1), {}),
    ((2, 3, 7, 5), (4, 3, 1, 1), {"stride": 3}),
    ((1, 2, 13, 11), (3, 2, 3, 3), {"padding": 1}),
    ((1, 2, 11, 13), (3, 2, 3, 3), {"stride": 5, "padding": 2}),
    ((1, 1, 1, 1), (2, 1, 3, 3), {"padding": 100}),
    ((1, 2, 2, 3), (1, 2, 7, 7), {"padding": 6}),
    ((1, 2, 9, 9), (2, 2, 3, 3), {"dilation": 4, "padding": 4}),
    ((2, 4, 6, 6), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((1, 4, 6, 6), (8, 1, 2, 3), {"groups": 4}),
    ((1, 17, 5, 5), (33, 17, 3, 3), {}),
    ((0, 3, 5, 5), (2, 3, 3, 3), {}),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", FIXED, ids=str)
def test_fixed_values(case, layout):
    x_shape, w_shape, settings = case
    rng = np.random.default_rng(0)
    x, w, b = random(rng, *x_shape), random(rng, *w_shape), random(rng, w_shape[0])
    found = conv2d(
        mf.Tensor(laid_out(x, layout)), mf.Tensor(laid_out(w, layout)), mf.Tensor(b), **settings
    )
    close(found, naive.conv2d(x, w, b, **settings))


@given(case=cases())
def test_values(case):
    (xs, ws, bs), settings, bias, layout = case
    rng = np.random.default_rng(1)
    x, w, b = random(rng, *xs), random(rng, *ws), random(rng, *bs)
    found = conv2d(
        mf.Tensor(laid_out(x, layout)), mf.Tensor(w), mf.Tensor(b) if bias else None, **settings
    )
    close(found, naive.conv2d(x, w, b if bias else None, **settings))


@given(case=cases())
def test_values_float32(case):
    (xs, ws, bs), settings, _, layout = case
    rng = np.random.default_rng(2)
    x, w, b = (random(rng, *s, dtype=np.float32) for s in (xs, ws, bs))
    found = conv2d(mf.Tensor(laid_out(x, layout)), mf.Tensor(w), mf.Tensor(b), **settings)
    assert found.dtype == np.float32
    close(found, naive.conv2d(x, w, b, **settings), 3e-6)


@given(case=cases(most=4))
def test_derivatives(case):
    (xs, ws, bs), settings, bias, layout = case
    rng = np.random.default_rng(3)
    inputs = [leaf(laid_out(random(rng, *xs), layout)), leaf(random(rng, *ws))]
    inputs += [leaf(random(rng, *bs))] if bias else []
    assert_right(lambda *a: conv2d(*a, **settings), *inputs, entries=8)


@pytest.mark.parametrize("case", [c for c in FIXED if c[2].get("padding") != 100], ids=str)
def test_fixed_derivatives(case):
    x_shape, w_shape, settings = case
    rng = np.random.default_rng(4)
    inputs = [leaf(random(rng, *s)) for s in (x_shape, w_shape, (w_shape[0],))]
    assert_right(lambda *a: conv2d(*a, **settings), *inputs, entries=8)


def test_only_some_inputs_want_a_gradient():
    rng = np.random.default_rng(5)
    shapes = (1, 2, 4, 4), (3, 2, 3, 3), (3,)
    for wanted in range(3):
        inputs = [
            mf.Tensor(random(rng, *s), requires_grad=i == wanted) for i, s in enumerate(shapes)
        ]
        conv2d(*inputs).sum().backward()
        assert [t.grad is not None for t in inputs] == [i == wanted for i in range(3)]
        assert inputs[wanted].grad.shape == shapes[wanted]


def test_nan_stays_in_its_neighbourhood():
    """Zeros of the padding are not multiplied with the picture, nor the picture with no weight."""
    x = np.zeros((1, 1, 7, 7))
    x[0, 0, 3, 3] = np.nan
    y = conv2d(mf.Tensor(x), mf.Tensor(np.ones((1, 1, 3, 3))), padding=1).numpy()
    hit = np.zeros((7, 7), bool)
    hit[2:5, 2:5] = True
    np.testing.assert_array_equal(np.isnan(y[0, 0]), hit)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "settings",
    [{"padding": 1}, {"stride": 2, "padding": 3}, {"dilation": 2}, {"groups": 2}, {"groups": 64}],
    ids=str,
)
def test_adjoint_at_real_size(settings, dtype, on_device):
    """64 channels, 56 × 56: in the picture and in the weight."""
    rng = np.random.default_rng(6)
    side = 56 if on_device == "cpu" else 28
    x = mf.Tensor(laid_out(random(rng, 1, 64, side, side, dtype=dtype), "channels-last"))
    w = mf.Tensor(random(rng, 64, 64 // settings.get("groups", 1), 3, 3, dtype=dtype))
    for report in (
        adjoint(lambda x: conv2d(x, w, **settings), x),
        adjoint(lambda w: conv2d(x, w, **settings), w),
    ):
        assert report, str(report)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_devices_agree(dtype):
    rng = np.random.default_rng(7)
    x, w, b = (random(rng, *s, dtype=dtype) for s in ((2, 19, 23, 29), (35, 19, 3, 3), (35,)))
    report = parity(lambda *a: conv2d(*a, padding=1), [leaf(x), leaf(w), leaf(b)])
    assert report, str(report)


def test_the_same_bits_every_time():
    rng = np.random.default_rng(8)
    x, w = (random(rng, *s, dtype=np.float32) for s in ((2, 16, 31, 33), (24, 16, 3, 3)))
    found = []
    for _ in range(3):
        a, b = leaf(x), leaf(w)
        y = conv2d(a, b, padding=1)
        (y * y).sum().backward()
        found.append((y.numpy().tobytes(), a.grad.numpy().tobytes(), b.grad.numpy().tobytes()))
    assert found[0] == found[1] == found[2]


SMALL = ((1, 2, 4, 5), (3, 2, 3, 3), (3,))


@pytest.mark.parametrize("spoil", [scaled, mirrored, dropped])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_wrong_derivative_is_caught(position, spoil):
    rng = np.random.default_rng(9)
    assert_caught(
        ops.Conv2d,
        spoil(position),
        lambda *a: conv2d(*a, padding=1),
        *(leaf(random(rng, *s)) for s in SMALL),
    )


@one_thread()
def test_a_wrong_second_derivative_is_caught():
    """The weight's gradient is right, its own derivative is not."""
    rng = np.random.default_rng(10)
    inputs = [leaf(random(rng, *s)) for s in SMALL[:2]]
    for position in (0, 1):
        with planted(ops.Conv2dWeight, scaled(position)):
            assert mf.check.gradcheck(conv2d, inputs)
            assert mf.check.gradgradcheck(conv2d, inputs).verdict == "wrong"


@pytest.mark.parametrize(
    "x, w, b, settings, message",
    [
        ((1, 3, 5, 5), (2, 4, 3, 3), None, {}, r"conv2d: input has 3 channels.*wants 4"),
        ((1, 4, 5, 5), (3, 2, 3, 3), None, {"groups": 2}, r"conv2d.*groups=2"),
        ((3, 5, 5), (2, 3, 3, 3), None, {}, r"conv2d: input has shape \(3, 5, 5\).*\(N, C, H, W\)"),
        ((1, 3, 5, 5), (2, 3, 3), None, {}, r"conv2d: weight has shape \(2, 3, 3\)"),
        ((1, 3, 5, 5), (2, 3, 3, 3), (3,), {}, r"conv2d: bias has shape \(3,\).*wanted \(2,\)"),
        ((1, 3, 2, 5), (2, 3, 3, 3), None, {}, r"conv2d: .*3.*size 2.*padding 0"),
        ((1, 3, 5, 5), (2, 3, 3, 3), None, {"stride": 0}, r"conv2d: stride is \(0, 0\)"),
        ((1, 3, 5, 5), (2, 3, 3, 3), None, {"padding": -1}, r"conv2d: padding is \(-1, -1\)"),
        ((1, 3, 5, 5), (2, 3, 3, 3), None, {"dilation": 0}, r"conv2d: dilation is \(0, 0\)"),
        ((1, 3, 5, 5), (2, 3, 3, 3), None, {"groups": 0}, r"conv2d: groups is 0"),
        ((1, 3, 5, 5), (2, 3, 3, 3), None, {"stride": (1, 2, 3)}, r"conv2d: stride is \(1, 2, 3\)"),
    ],
)
def test_errors(x, w, b, settings, message):
    tensors = [None if s is None else mf.Tensor(np.zeros(s)) for s in (x, w, b)]
    with pytest.raises(ShapeError, match=message):
        conv2d(*tensors, **settings)


def test_dtypes_that_do_not_match_are_named():
    x, w = mf.Tensor(np.zeros((1, 1, 3, 3))), np.zeros((1, 1, 3, 3), np.float32)
    with pytest.raises(ShapeError, match="float64.*float32"):
        conv2d(x, mf.Tensor(w))
    with pytest.raises(ShapeError, match="bias.*float32"):
        conv2d(x, mf.Tensor(w.astype(float)), mf.Tensor(np.zeros(1, np.float32)))
    with pytest.raises(ShapeError, match="int64"):
        conv2d(mf.Tensor(np.zeros((1, 1, 3, 3), np.int64)), mf.Tensor(w))


@pytest.mark.parametrize("device", mf.device.HOST)
@pytest.mark.parametrize("groups", [1, 2])
def test_windows_that_lie_in_the_padding_alone(groups, device):
    """No tap meets a pixel: zeros, and zeros for both gradients."""
    x, w = np.ones((1, 2, 1, 1), np.float32), np.ones((2, 2 // groups, 1, 1), np.float32)
    x, w = (mf.Tensor(a, requires_grad=True) for a in (x, w))
    with mf.device.use(device):
        y = conv2d(x, w, stride=2, padding=1, groups=groups)
        gradients = mf.grad(y.sum(), [x, w])
    assert y.shape == (1, 2, 2, 2)
    for found in (y, *gradients):
        assert not found.numpy().any()
