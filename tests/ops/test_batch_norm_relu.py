"""Batch normalisation and ReLU in one operation: the same as the two one after the other."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.check import parity
from minifcn.functional import batch_norm, batch_norm_relu, relu
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


def drawn(shape, dtype=np.float64, layout="channels-last"):
    """x, running mean and variance, weight, bias; no result near the corner of ReLU in float64."""
    rng = np.random.default_rng(0)
    c = shape[1]
    x = laid_out((2 * random(rng, *shape) + 3).astype(dtype), layout)
    mean, var = random(rng, c, dtype=dtype) + 3, rng.uniform(0.5, 2, c).astype(dtype)
    return x, mean, var, random(rng, c, dtype=dtype), random(rng, c, dtype=dtype)


@pytest.mark.parametrize("device", mf.device.HOST)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(layout, training, device):
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 3e-6)):
        x, mean, var, weight, bias = drawn((2, 5, 9, 7), dtype, layout)
        wanted = naive.batch_norm(x, mean, var, weight, bias, training)
        with mf.device.use(device):
            y = batch_norm_relu(
                mf.Tensor(x), mean, var, mf.Tensor(weight), mf.Tensor(bias), training
            )
        assert y.dtype == dtype
        close(y, np.maximum(wanted[0], 0), rtol)
        close(mean, wanted[1], rtol)
        close(var, wanted[2], rtol)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (3, 17, 41, 43)])
def test_the_same_bits_as_one_after_the_other(shape, training, dtype):
    x, mean, var, weight, bias = drawn(shape, dtype)
    upstream = random(np.random.default_rng(1), *shape, dtype=dtype)
    found = []
    for fn in (batch_norm_relu, lambda *given: relu(batch_norm(*given))):
        inputs = [leaf(a) for a in (x, weight, bias)]
        y = fn(inputs[0], mean.copy(), var.copy(), *inputs[1:], training)
        y.backward(upstream)
        found.append([y.numpy().tobytes(), *(t.grad.numpy().tobytes() for t in inputs)])
    assert found[0] == found[1]


@pytest.mark.parametrize("training", [True, False])
def test_derivatives(training):
    x, mean, var, weight, bias = drawn((2, 3, 3, 4))
    assert_right(
        lambda x, w, b: batch_norm_relu(x, mean.copy(), var.copy(), w, b, training),
        *map(leaf, (x, weight, bias)),
        entries=12,
        eps=1e-5,
    )


@pytest.mark.parametrize("training", [True, False])
def test_recorded_and_fast_gradients_agree(training):
    x, mean, var, weight, bias = drawn((2, 5, 6, 7))
    found = []
    for create_graph in (False, True):
        inputs = [leaf(a) for a in (x, weight, bias)]
        y = batch_norm_relu(inputs[0], mean.copy(), var.copy(), *inputs[1:], training)
        u = mf.Tensor(random(np.random.default_rng(3), *y.shape))
        found.append(mf.grad([y], inputs, [u], create_graph=create_graph))
    for a, b in zip(*found, strict=True):
        close(a, b.numpy(), 1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_devices_agree(training):
    x, mean, var, weight, bias = drawn((2, 19, 23, 29))
    report = parity(
        lambda x, w, b: batch_norm_relu(x, mean.copy(), var.copy(), w, b, training),
        [leaf(x), leaf(weight), leaf(bias)],
    )
    assert report, str(report)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_reaches_the_result(value, training):
    x, mean, var, *_ = drawn((2, 5, 9, 7), np.float32)
    x[1, 2, 3, 4] = value
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        y = batch_norm_relu(mf.Tensor(x), mean, var, training=training).numpy()
    broken = ~np.isfinite(y)
    assert broken[1, 2, 3, 4] and broken[:, 2].all() == training
    assert np.isfinite(np.delete(y, 2, axis=1)).all()


@pytest.mark.parametrize("spoil", [scaled, dropped])
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("op, training", [(ops.BatchNorm, True), (ops.ScaleShift, False)])
def test_a_wrong_derivative_is_caught(op, training, position, spoil):
    x, mean, var, weight, bias = drawn((2, 2, 3, 3))

    def fn(x, w, b):
        return batch_norm_relu(x, mean.copy(), var.copy(), w, b, training)

    assert_caught(op, spoil(position), fn, leaf(x), leaf(weight), leaf(bias))


def test_forgetting_the_gate_is_caught(monkeypatch):
    """The gradient of the normalisation alone, passed where the ReLU cut off."""
    x, *_ = drawn((2, 2, 3, 3))
    forward = ops.BatchNorm.forward

    def forgetful(self, *arrays):
        y = forward(self, *arrays)
        self.relu = False
        return y

    def fn(x):
        return batch_norm_relu(x, None, None, training=True)

    assert mf.check.gradcheck(fn, [leaf(x)])
    monkeypatch.setattr(ops.BatchNorm, "forward", forgetful)
    assert mf.check.gradcheck(fn, [leaf(x)]).verdict == "wrong"


def test_errors_name_this_operation():
    with pytest.raises(mf.errors.ShapeError, match="batch_norm_relu: weight has shape"):
        batch_norm_relu(mf.Tensor(np.zeros((2, 3, 4, 4))), None, None, mf.Tensor(np.zeros(2)))
