"""sum, mean, var, max, min, argmax along every set of dimensions; expand."""

import itertools
import math

import numpy as np
import pytest

import minifcn as mf
from minifcn.errors import ShapeError
from minifcn.ops import reduction
from tests.ops.checks import (
    LAYOUTS,
    assert_caught,
    assert_right,
    close,
    laid_out,
    leaf,
    random,
    scaled,
    spaced,
)

SHAPE = (2, 3, 1, 5)
DIMS = [None, 0, 1, -1, (0, 2), (0, 2, 3), (-1, 1), (0, 1, 2, 3)]


def loop(x, dim, keepdim, reduce):
    """Collect the elements of each result in a list, and reduce the list."""
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = {d % x.ndim for d in dims}
    kept = [range(1) if d in dims else range(n) for d, n in enumerate(x.shape)]
    out = np.zeros([len(r) for r in kept])
    for index in itertools.product(*kept):
        part = x[tuple(slice(None) if d in dims else slice(i, i + 1) for d, i in enumerate(index))]
        out[index] = reduce([float(v) for v in part.ravel()])
    return out if keepdim else out.reshape([n for d, n in enumerate(x.shape) if d not in dims])


def variance(correction):
    def of(values):
        mean = math.fsum(values) / len(values)
        return math.fsum((v - mean) ** 2 for v in values) / (len(values) - correction)

    return of


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", DIMS, ids=str)
def test_sum_and_mean_values(dim, keepdim, layout):
    x = random(np.random.default_rng(0), *SHAPE)
    t = mf.Tensor(laid_out(x, layout))
    close(t.sum(dim, keepdim), loop(x, dim, keepdim, math.fsum), 1e-14)
    close(t.mean(dim, keepdim), loop(x, dim, keepdim, lambda v: math.fsum(v) / len(v)), 1e-14)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", DIMS, ids=str)
def test_sum_and_mean_derivatives(dim, keepdim):
    x = leaf(random(np.random.default_rng(1), *SHAPE))
    assert_right(lambda x: x.sum(dim, keepdim) ** 2, x)
    assert_right(lambda x: x.mean(dim, keepdim) ** 2, x)


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("dim", [None, 1, (0, 2, 3)], ids=str)
def test_var(dim, correction):
    x = random(np.random.default_rng(2), *SHAPE)
    for keepdim in (False, True):
        found = mf.Tensor(x).var(dim, correction=correction, keepdim=keepdim)
        close(found, loop(x, dim, keepdim, variance(correction)), 1e-13)
    assert_right(lambda x: x.var(dim, correction=correction), leaf(x))


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1, -1], ids=str)
def test_max_and_min(dim, keepdim):
    x = spaced(np.random.default_rng(3), *SHAPE)
    close(
        mf.Tensor(x).max(dim, **({} if dim is None else {"keepdim": keepdim})),
        loop(x, dim, keepdim and dim is not None, max),
    )
    close(
        mf.Tensor(x).min(dim, **({} if dim is None else {"keepdim": keepdim})),
        loop(x, dim, keepdim and dim is not None, min),
    )
    assert_right(lambda x: x.max(dim), leaf(x))
    assert_right(lambda x: x.min(dim), leaf(x))


def test_the_first_of_equals_and_nan():
    x = leaf(np.array([[1.0, 3.0, 3.0], [np.nan, 9.0, np.nan]]))
    y = x.max(1)
    np.testing.assert_array_equal(y.numpy(), [3.0, np.nan])
    y.backward(np.ones(2))
    assert x.grad.numpy().tolist() == [[0, 1, 0], [1, 0, 0]]
    assert mf.Tensor(np.array([[1.0, 3.0, 3.0]])).argmax(1).numpy().tolist() == [1]


def test_a_tie_is_a_kink():
    report = mf.check.gradcheck(lambda x: x.max(0), [leaf(np.array([1.0, 3.0, 3.0]))])
    assert report.verdict == "kink"


def test_empty():
    x = leaf(np.zeros((0, 3)))
    assert x.sum().item() == 0
    assert x.sum(0).numpy().tolist() == [0, 0, 0]
    x.sum().backward()
    assert x.grad.shape == (0, 3)


def test_expand():
    x = random(np.random.default_rng(4), 3, 1)
    close(mf.Tensor(x).expand(2, 3, 4), np.array([[[v[0]] * 4 for v in x]] * 2))
    assert_right(lambda x: x.expand(2, 3, 4) ** 2, leaf(x))


def test_sums_of_many_float32_keep_their_digits():
    """A float32 running sum of 2²⁴ ones and more stands still."""
    x = np.full((1, 1, 1000, 1000), 0.1, np.float32)
    assert abs(mf.Tensor(x).sum().item() / (float(np.float32(0.1)) * 1e6) - 1) < 1e-5


@pytest.mark.parametrize(
    "op, fn",
    [
        (reduction.Sum, lambda x: x.sum(1)),
        (reduction.Extremum, lambda x: x.max(1)),
        (reduction.Expand, lambda x: x.expand(4, 2, 3)),
    ],
    ids=["sum", "max", "expand"],
)
def test_a_wrong_derivative_is_caught(op, fn):
    assert_caught(op, scaled(0), fn, leaf(spaced(np.random.default_rng(5), 2, 3)))


def test_errors():
    x = mf.Tensor(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match="sum: dim is 2"):
        x.sum(2)
    with pytest.raises(ShapeError, match="mean: dim is .*twice"):
        x.mean((0, -2))
    with pytest.raises(ShapeError, match="max"):
        mf.Tensor(np.zeros((0,))).max()
    with pytest.raises(ShapeError, match="argmax"):
        mf.Tensor(np.zeros((0,))).argmax()
    with pytest.raises(ShapeError, match="argmax"):
        x.argmax(2)
    with pytest.raises(ShapeError, match="expand"):
        x.expand(4, 3)
    with pytest.raises(ShapeError, match="var"):
        mf.Tensor(np.zeros((1,))).var()
