"""Matrix product and linear layer."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.errors import ShapeError
from minifcn.functional import linear
from minifcn.ops import matmul as ops
from tests.ops.checks import assert_caught, assert_right, close, dropped, leaf, random, scaled

SHAPES = [
    ((3, 4), (4, 2)),
    ((1, 1), (1, 1)),
    ((0, 4), (4, 2)),
    ((3, 0), (0, 2)),
    ((2, 3, 4), (2, 4, 5)),
    ((5, 1, 3, 4), (2, 4, 2)),
    ((2, 3, 4), (4, 5)),
]


def loop(a, b):
    """Σ over the inner index, for every matrix of the broadcast leading dimensions."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, (*lead, *a.shape[-2:]))
    b = np.broadcast_to(b, (*lead, *b.shape[-2:]))
    y = np.zeros((*lead, a.shape[-2], b.shape[-1]))
    for index in np.ndindex(*y.shape):
        *first, i, j = index
        y[index] = sum(float(a[(*first, i, k)] * b[(*first, k, j)]) for k in range(a.shape[-1]))
    return y


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul(shapes):
    rng = np.random.default_rng(0)
    a, b = (random(rng, *s) for s in shapes)
    close(mf.Tensor(a) @ mf.Tensor(b), loop(a, b))
    assert_right(lambda a, b: a @ b, leaf(a), leaf(b))


def test_transposed_views():
    rng = np.random.default_rng(1)
    a, b = random(rng, 4, 3).T, random(rng, 2, 4).T
    close(mf.Tensor(a) @ mf.Tensor(b), loop(a, b))
    assert_right(lambda a, b: a.T @ b.T, leaf(a.T), leaf(b.T))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_linear(lead, bias):
    rng = np.random.default_rng(2)
    x, weight, b = random(rng, *lead, 4), random(rng, 5, 4), random(rng, 5)
    wanted = np.zeros((*lead, 5))
    for index in np.ndindex(*lead):
        for k in range(5):
            wanted[(*index, k)] = sum(float(x[(*index, c)] * weight[k, c]) for c in range(4))
            wanted[(*index, k)] += b[k] * bias
    close(linear(*map(mf.Tensor, (x, weight, b)[: 2 + bias])), wanted)
    assert_right(linear, *map(leaf, (x, weight, b)[: 2 + bias]))


@pytest.mark.parametrize("spoil", [scaled, dropped])
@pytest.mark.parametrize("position", [0, 1])
def test_a_wrong_derivative_is_caught(position, spoil):
    rng = np.random.default_rng(3)
    assert_caught(
        ops.MatMul,
        spoil(position),
        lambda a, b: a @ b,
        leaf(random(rng, 2, 3)),
        leaf(random(rng, 3, 3)),
    )


def test_a_transposed_derivative_is_caught():
    rng = np.random.default_rng(4)

    def transposed(gradients):
        return tuple(g.transpose(0, 1) for g in gradients)

    a, b = leaf(random(rng, 3, 3)), leaf(random(rng, 3, 3))
    assert_caught(ops.MatMul, transposed, lambda a, b: a @ b, a, b)


def test_errors():
    x = mf.Tensor(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"matmul.*\(2, 3\)"):
        x @ x
    with pytest.raises(ShapeError, match=r"matmul"):
        x @ mf.Tensor(np.zeros(3))
    with pytest.raises(ShapeError, match="matmul"):
        mf.Tensor(np.zeros((2, 3, 4))) @ mf.Tensor(np.zeros((3, 4, 5)))
    with pytest.raises(ShapeError, match=r"linear: input.*\(2, 3\).*weight.*\(5, 4\)"):
        linear(x, mf.Tensor(np.zeros((5, 4))))
    with pytest.raises(ShapeError, match=r"linear: bias.*\(4,\).*\(5,\)"):
        linear(x, mf.Tensor(np.zeros((5, 3))), mf.Tensor(np.zeros(4)))
