"""Softmax and its logarithm along every dimension."""

import math

import numpy as np
import pytest

import minifcn as mf
from minifcn.errors import ShapeError
from minifcn.functional import log_softmax, softmax
from minifcn.ops import softmax as ops
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

SHAPES = [((3,), 0), ((1,), 0), ((2, 5), 1), ((2, 5), 0), ((2, 3, 4, 5), 1), ((2, 3, 4, 5), -1)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape, dim", SHAPES, ids=str)
def test_values(shape, dim, layout):
    x = 5 * random(np.random.default_rng(0), *shape)
    t = mf.Tensor(laid_out(x, layout))
    close(log_softmax(t, dim), naive.log_softmax(x, dim), 1e-14)
    close(softmax(t, dim), np.exp(naive.log_softmax(x, dim)), 1e-14)


@pytest.mark.parametrize("shape, dim", SHAPES, ids=str)
def test_derivatives(shape, dim):
    x = leaf(random(np.random.default_rng(1), *shape))
    assert_right(lambda x: log_softmax(x, dim), x, entries=15)
    assert_right(lambda x: softmax(x, dim), x, entries=15)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_numbers(dtype):
    x = leaf(np.array([[1e4, 0.0, -1e4], [-1e30, -1e30, -1e30]], dtype))
    with np.errstate(over="raise", invalid="raise"):
        y, p = log_softmax(x, 1), softmax(x, 1)
        (y * p).sum().backward()
    close(y, [[0, -1e4, -2e4], [-math.log(3)] * 3], 1e-7)
    close(p, [[1, 0, 0], [1 / 3] * 3], 1e-7)
    assert y.dtype == dtype and p.dtype == dtype and np.isfinite(x.grad.numpy()).all()


def test_minus_infinity_has_no_probability():
    p = softmax(mf.Tensor(np.array([0.0, -np.inf, 0.0])), 0)
    assert p.numpy().tolist() == [0.5, 0, 0.5]


def test_the_input_is_left_alone():
    x = np.array([[1.0, 2.0]])
    log_softmax(mf.Tensor(x), 1), softmax(mf.Tensor(x), 1)
    assert x.tolist() == [[1, 2]]


def test_empty_batch():
    assert softmax(mf.Tensor(np.zeros((0, 3))), 1).shape == (0, 3)
    assert log_softmax(mf.Tensor(np.zeros((0, 3))), 1).shape == (0, 3)


@pytest.mark.parametrize("spoil", [scaled, dropped])
@pytest.mark.parametrize("op, fn", [(ops.Softmax, softmax), (ops.LogSoftmax, log_softmax)])
def test_a_wrong_derivative_is_caught(op, fn, spoil):
    x = leaf(random(np.random.default_rng(2), 2, 3))
    assert_caught(op, spoil(0), lambda x: fn(x, 1), x)


def test_errors():
    for fn, name in ((softmax, "softmax"), (log_softmax, "log_softmax")):
        with pytest.raises(ShapeError, match=f"{name}: dim is 2"):
            fn(mf.Tensor(np.zeros((2, 3))), 2)
