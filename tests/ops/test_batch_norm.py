"""Batch normalisation: values, running statistics, both derivatives, faults, messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.check import gradcheck, parity
from minifcn.errors import ShapeError
from minifcn.functional import batch_norm
from minifcn.ops import batch_norm as ops
from tests import naive
from tests.ops.checks import (
    LAYOUTS,
    assert_caught,
    assert_right,
    close,
    dropped,
    laid_out,
    leaf,
    random,
    scaled,
)


@st.composite
def cases(draw):
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from([1, 2, 5])),
        draw(st.sampled_from([2, 3, 7])),
    )
    settings = {
        "training": draw(st.booleans()),
        "momentum": draw(st.sampled_from([0.1, 0.5, 1.0])),
        "eps": draw(st.sampled_from([1e-5, 1e-2])),
    }
    affine = draw(st.sampled_from([(), ("weight",), ("bias",), ("weight", "bias")]))
    return shape, settings, affine, draw(st.sampled_from(LAYOUTS))


def drawn(shape, affine, layout, dtype=np.float64):
    rng = np.random.default_rng(0)
    c = shape[1]
    x = laid_out((2 * random(rng, *shape) + 3).astype(dtype), layout)
    mean, var = random(rng, c, dtype=dtype), rng.uniform(0.5, 2, c).astype(dtype)
    weight, bias = random(rng, c, dtype=dtype), random(rng, c, dtype=dtype)
    return x, mean, var, weight if "weight" in affine else None, bias if "bias" in affine else None


def tensor(array):
    return None if array is None else mf.Tensor(array)


@given(case=cases())
def test_values_and_running_statistics(case):
    shape, settings, affine, layout = case
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 3e-6)):
        x, mean, var, weight, bias = drawn(shape, affine, layout, dtype)
        wanted = naive.batch_norm(x, mean, var, weight, bias, **settings)
        y = batch_norm(mf.Tensor(x), mean, var, tensor(weight), tensor(bias), **settings)
        assert y.dtype == dtype and mean.dtype == dtype
        close(y, wanted[0], rtol)
        close(mean, wanted[1], rtol)
        close(var, wanted[2], rtol)


@given(case=cases())
def test_derivatives(case):
    shape, settings, affine, layout = case
    x, mean, var, weight, bias = drawn(shape, affine, layout)
    inputs = [leaf(a) for a in (x, weight, bias) if a is not None]

    def fn(x, *rest):
        rest = iter(rest)
        w, b = (next(rest) if a is not None else None for a in (weight, bias))
        return batch_norm(x, mean.copy(), var.copy(), w, b, **settings)

    assert_right(fn, *inputs, entries=12, eps=1e-5)


def test_without_running_statistics_the_batch_is_used():
    x, *_ = drawn((2, 3, 4, 4), (), "channels-last")
    y = batch_norm(mf.Tensor(x), None, None, training=True).numpy()
    assert np.allclose(y.mean((0, 2, 3)), 0) and np.allclose(y.var((0, 2, 3)), 1, atol=1e-4)


def test_evaluation_leaves_the_running_statistics_alone():
    x, mean, var, *_ = drawn((2, 3, 4, 4), (), "channels-last")
    before = mean.tobytes(), var.tobytes()
    batch_norm(mf.Tensor(x), mean, var)
    assert (mean.tobytes(), var.tobytes()) == before


def test_a_large_mean_keeps_the_variance_exact():
    """E[x²] − E[x]² would lose every digit here."""
    rng = np.random.default_rng(1)
    x = (random(rng, 2, 3, 64, 64) + 1000).astype(np.float32)
    y = batch_norm(mf.Tensor(x), None, None, training=True)
    close(y, naive.batch_norm(x, None, None, training=True)[0], 2e-4)


@pytest.mark.parametrize("value", [0.0, 1e3])
def test_a_constant_channel_has_finite_derivatives(value):
    x = leaf(np.full((2, 1, 3, 3), value))
    y = batch_norm(x, None, None, training=True)
    y.backward(random(np.random.default_rng(2), *y.shape))
    assert not y.numpy().any() and np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("training", [True, False])
def test_recorded_and_fast_gradients_agree(training):
    """backward has one path for speed and one that can be differentiated: the same numbers."""
    x, mean, var, weight, bias = drawn((2, 5, 6, 7), ("weight", "bias"), "channels-last")
    found = []
    for create_graph in (False, True):
        inputs = [leaf(a) for a in (x, weight, bias)]
        y = batch_norm(inputs[0], mean.copy(), var.copy(), *inputs[1:], training=training)
        u = mf.Tensor(random(np.random.default_rng(3), *y.shape))
        found.append(mf.grad([y], inputs, [u], create_graph=create_graph))
    for a, b in zip(*found, strict=True):
        close(a, b.numpy(), 1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("training", [True, False])
def test_devices_agree(training, dtype):
    x, mean, var, weight, bias = drawn((2, 19, 23, 29), ("weight", "bias"), "channels-last", dtype)
    report = parity(
        lambda x, w, b: batch_norm(x, mean.copy(), var.copy(), w, b, training=training),
        [leaf(x), leaf(weight), leaf(bias)],
    )
    assert report, str(report)


@pytest.mark.parametrize("spoil", [scaled, dropped])
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("op, training", [(ops.BatchNorm, True), (ops.ScaleShift, False)])
def test_a_wrong_derivative_is_caught(op, training, position, spoil):
    x, mean, var, weight, bias = drawn((2, 2, 3, 3), ("weight", "bias"), "channels-last")

    def fn(x, w, b):
        return batch_norm(x, mean.copy(), var.copy(), w, b, training=training)

    assert_caught(op, spoil(position), fn, leaf(x), leaf(weight), leaf(bias))


def test_forgetting_that_the_statistics_move_is_caught():
    """The commonest mistake: dx = γ/σ·g, with μ and σ taken as constants."""
    x, *_ = drawn((2, 2, 3, 3), (), "channels-last")
    rate = mf.Tensor(1 / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5))

    def fn(x):
        y = batch_norm(x, None, None, training=True)
        return y.detach() + (x - x.detach()) * rate

    assert gradcheck(fn, [leaf(x)]).verdict == "wrong"


@pytest.mark.parametrize(
    "shape, changes, message",
    [
        ((2, 3, 4), {}, r"batch_norm: input has shape \(2, 3, 4\)"),
        ((2, 3, 4, 4), {"running_mean": np.zeros(2)}, r"running_mean.*\(2,\), wanted \(3,\)"),
        ((2, 3, 4, 4), {"running_var": np.zeros(2)}, r"running_var.*\(2,\), wanted \(3,\)"),
        ((2, 3, 4, 4), {"weight": mf.Tensor(np.zeros(4))}, r"weight.*\(4,\), wanted \(3,\)"),
        ((2, 3, 4, 4), {"bias": mf.Tensor(np.zeros(4))}, r"bias.*\(4,\), wanted \(3,\)"),
        ((2, 3, 4, 4), {"running_mean": None}, "running_mean and running_var"),
        ((1, 3, 1, 1), {"training": True}, "1 value"),
        ((0, 3, 4, 4), {"training": True}, "0 value"),
    ],
)
def test_errors(shape, changes, message):
    settings = {"running_mean": np.zeros(3), "running_var": np.ones(3), **changes}
    with pytest.raises(ShapeError, match=f"batch_norm: .*{message}|{message}"):
        batch_norm(mf.Tensor(np.zeros(shape)), **settings)


def test_a_refused_batch_leaves_the_statistics_alone():
    mean, var = np.zeros(3), np.ones(3)
    with pytest.raises(ShapeError):
        batch_norm(mf.Tensor(np.ones((1, 3, 1, 1))), mean, var, training=True)
    assert not mean.any() and (var == 1).all()
