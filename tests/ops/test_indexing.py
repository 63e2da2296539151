"""Indexing, reshape, flatten, permute, transpose, squeeze, cat, stack: elements move unchanged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.errors import ShapeError
from minifcn.ops import shape as shape_ops
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

SHAPE = (2, 3, 4, 5)

INDICES = {
    "number": 1,
    "negative": -1,
    "slice": slice(1, 3),
    "step": (slice(None), slice(None), slice(None, None, 2)),
    "reversed": (Ellipsis, slice(None, None, -1)),
    "mixed": (0, slice(None), -1, slice(2, None)),
    "new axis": (None, 1, Ellipsis, None),
    "empty": slice(0, 0),
    "array": np.array([1, 0, 0]),
    "repeats": (np.array([0, 0, 1]), slice(None), np.array([3, 3, 3])),
    "pairs": (np.array([[0], [1]]), np.array([[0, 2, 2]])),
    "mask": np.arange(2 * 3).reshape(2, 3) % 2 == 0,
    "list": [1, 1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", INDICES)
def test_indexing(name, layout):
    x = random(np.random.default_rng(0), *SHAPE)
    np.testing.assert_array_equal(
        mf.Tensor(laid_out(x, layout))[INDICES[name]].numpy(), x[INDICES[name]]
    )


@pytest.mark.parametrize("name", INDICES)
def test_indexing_gradient(name):
    """The gradient is counted by a loop over the positions that were read."""
    x = leaf(random(np.random.default_rng(1), *SHAPE))
    y = x[INDICES[name]]
    upstream = random(np.random.default_rng(2), *y.shape)
    y.backward(upstream)
    wanted = np.zeros(x.numel())
    positions = np.arange(x.numel()).reshape(SHAPE)[INDICES[name]]
    for position, u in zip(positions.ravel(), upstream.ravel(), strict=True):
        wanted[position] += u
    close(x.grad, wanted.reshape(SHAPE))
    assert_right(lambda x: x[INDICES[name]] ** 2, x, entries=20)


def test_index_by_a_tensor():
    x = mf.Tensor(np.arange(5.0))
    assert x[mf.Tensor(np.array([3, 0]))].numpy().tolist() == [3, 0]
    assert x[mf.Tensor(np.array([True, False, True, False, False]))].numpy().tolist() == [0, 2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reshape_and_flatten_are_in_c_order_whatever_the_memory(layout):
    x = random(np.random.default_rng(3), *SHAPE)
    t = mf.Tensor(laid_out(x, layout))
    wanted = [x[i] for i in np.ndindex(*SHAPE)]
    close(t.reshape(-1), wanted)
    close(t.flatten(), wanted)
    close(t.reshape(6, -1), np.array(wanted).reshape(6, 20))
    close(t.reshape((5, 4, 3, 2)), np.array(wanted).reshape(5, 4, 3, 2))
    close(t.flatten(1), np.array(wanted).reshape(2, 60))
    close(t.flatten(1, 2), np.array(wanted).reshape(2, 12, 5))


@given(order=st.permutations(range(4)), layout=st.sampled_from(LAYOUTS))
def test_permute(order, layout):
    x = random(np.random.default_rng(4), *SHAPE)
    wanted = np.zeros([SHAPE[d] for d in order])
    for index in np.ndindex(*SHAPE):
        wanted[tuple(index[d] for d in order)] = x[index]
    close(mf.Tensor(laid_out(x, layout)).permute(*order), wanted)
    assert_right(lambda x: x.permute(*order) ** 2, leaf(x), entries=5)


def test_transpose_squeeze_unsqueeze():
    x = random(np.random.default_rng(5), 2, 1, 3)
    assert mf.Tensor(x).transpose(0, -1).shape == (3, 1, 2)
    assert mf.Tensor(x).squeeze(1).shape == (2, 3)
    assert mf.Tensor(x).unsqueeze(-1).shape == (2, 1, 3, 1)
    assert mf.Tensor(x).unsqueeze(0).shape == (1, 2, 1, 3)
    assert_right(lambda x: x.transpose(0, 2) ** 2, leaf(x))
    assert_right(lambda x: (x.squeeze(1).unsqueeze(2)) ** 2, leaf(x))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cat(dim, layout):
    rng = np.random.default_rng(6)
    shapes = [list(SHAPE), list(SHAPE), list(SHAPE)]
    shapes[1][dim], shapes[2][dim] = 1, 0
    parts = [random(rng, *s) for s in shapes]
    found = mf.cat([mf.Tensor(laid_out(p, layout)) for p in parts], dim)
    start = 0
    for p in parts:
        window = [slice(None)] * 4
        window[dim] = slice(start, start + p.shape[dim])
        np.testing.assert_array_equal(found.numpy()[tuple(window)], p)
        start += p.shape[dim]
    assert found.shape[dim] == start
    assert_right(lambda *p: mf.cat(p, dim) ** 2, *(leaf(p) for p in parts), entries=10)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_stack(dim):
    rng = np.random.default_rng(7)
    a, b = random(rng, 2, 3), random(rng, 2, 3)
    found = mf.stack([mf.Tensor(a), mf.Tensor(b)], dim).numpy()
    np.testing.assert_array_equal(np.moveaxis(found, dim, 0)[0], a)
    np.testing.assert_array_equal(np.moveaxis(found, dim, 0)[1], b)
    assert_right(lambda a, b: mf.stack([a, b], dim) ** 2, leaf(a), leaf(b))


def test_only_one_part_wants_a_gradient():
    a, b = mf.Tensor(np.ones(2)), leaf(np.ones(3))
    mf.cat([a, b], 0).sum().backward()
    assert a.grad is None and b.grad.shape == (3,)


FAULTS = {
    "index": (shape_ops.Index, lambda x: x[:, 1]),
    "reshape": (shape_ops.Reshape, lambda x: x.reshape(-1)),
    "permute": (shape_ops.Permute, lambda x: x.permute(1, 0)),
    "cat": (shape_ops.Cat, lambda x: mf.cat([x, x * 2], 0)),
}


@pytest.mark.parametrize("spoil", [scaled, dropped])
@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_derivative_is_caught(name, spoil):
    op, fn = FAULTS[name]
    assert_caught(op, spoil(0), fn, leaf(random(np.random.default_rng(8), 2, 3)))


def test_errors():
    x = mf.Tensor(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"reshape: 6 elements of shape \(2, 3\).*\(4, 2\)"):
        x.reshape(4, 2)
    with pytest.raises(ShapeError, match="reshape"):
        x.reshape(-1, -1)
    with pytest.raises(ShapeError, match="permute"):
        x.permute(0, 0)
    with pytest.raises(ShapeError, match="permute"):
        x.permute(0, 2)
    with pytest.raises(ShapeError, match="transpose"):
        x.transpose(0, 2)
    with pytest.raises(ShapeError, match="squeeze"):
        x.squeeze(0)
    with pytest.raises(ShapeError, match=r"index.*\(2, 3\)"):
        x[5]
    with pytest.raises(ShapeError, match=r"cat: tensors\[1\].*\(2, 4\)"):
        mf.cat([x, mf.Tensor(np.zeros((2, 4)))], 0)
    with pytest.raises(ShapeError, match="cat"):
        mf.cat([], 0)
