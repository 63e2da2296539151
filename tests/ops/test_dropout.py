"""Dropout: what is drawn, what it is scaled by, and that the same seed draws the same."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.check import gradcheck
from minifcn.errors import InputError, ShapeError
from minifcn.functional import dropout
from minifcn.ops import arithmetic
from tests.ops.checks import LAYOUTS, assert_right, laid_out, leaf, planted, random, scaled


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p):
    x = np.full((4, 8, 50, 50), 3.0, np.float32)
    y = dropout(mf.Tensor(x), p, True, rng()).numpy()
    kept = y != 0
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / x.size)
    np.testing.assert_allclose(y[kept], 3.0 / (1 - p), rtol=1e-6)
    assert y.dtype == np.float32


def test_elements_are_drawn_one_by_one():
    """Neighbours in any direction are no more alike than chance has it."""
    kept = dropout(mf.Tensor(np.ones((16, 16, 16, 16))), 0.5, True, rng()).numpy() != 0
    for axis in range(4):
        same = (np.diff(kept.astype(int), axis=axis) == 0).mean()
        assert abs(same - 0.5) < 0.02


def test_identity():
    x = leaf(random(rng(), 2, 3))
    for y in (dropout(x, 0.5, training=False), dropout(x, 0.0, True, rng())):
        np.testing.assert_array_equal(y.numpy(), x.numpy())


def test_all_dropped():
    x = leaf(random(rng(), 2, 3))
    y = dropout(x, 1.0, True, rng())
    y.sum().backward()
    assert not y.numpy().any() and not x.grad.numpy().any() and np.isfinite(x.grad.numpy()).all()


def test_the_seed_decides():
    x = mf.Tensor(np.ones((2, 3, 5, 7)))
    a, b, c = (dropout(x, 0.5, True, rng(seed)).numpy() for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    generator = rng(1)
    first, second = (dropout(x, 0.5, True, generator).numpy() for _ in range(2))
    assert np.array_equal(first, a) and not np.array_equal(second, a)


def test_the_gradient_has_the_same_mask():
    x = leaf(np.ones((2, 3, 5, 7)))
    y = dropout(x, 0.3, True, rng())
    y.backward(np.ones(y.shape))
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_derivatives(layout):
    x = leaf(laid_out(random(rng(), 1, 2, 3, 4), layout))
    assert_right(lambda x: dropout(x, 0.4, True, rng(3)), x)


def test_a_wrong_derivative_is_caught():
    x = leaf(random(rng(), 2, 3))
    with planted(arithmetic.Mul, scaled(0)):
        assert gradcheck(lambda x: dropout(x, 0.4, True, rng(3)), [x]).verdict == "wrong"


def test_empty():
    assert dropout(mf.Tensor(np.zeros((0, 2, 3, 3))), 0.5, True, rng()).shape == (0, 2, 3, 3)


def test_errors():
    x = mf.Tensor(np.ones(3))
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="dropout: p is"):
            dropout(x, p, True, rng())
    with pytest.raises(InputError, match="dropout: no generator"):
        dropout(x, 0.5)
    with pytest.raises(ShapeError, match="dropout: input has dtype int64"):
        dropout(mf.Tensor(np.ones(3, int)), 0.5, True, rng())
