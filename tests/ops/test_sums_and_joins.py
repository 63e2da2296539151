"""Sums and channel joins of pictures, which have threaded loops: any layout, any size, NaN."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import kernels
from minifcn.check import gradgradcheck
from minifcn.kernels import workspace
from tests.ops.checks import LAYOUTS, laid_out, leaf, random

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (2, 17, 31, 33), (0, 3, 4, 4)]


def pictures(shape, layouts, dtype):
    rng = np.random.default_rng(0)
    arrays = [random(rng, *shape, dtype=dtype) for _ in layouts]
    for i, array in enumerate(arrays):
        array.reshape(-1)[i : i + 1] = np.nan
    return [laid_out(array, layout) for array, layout in zip(arrays, layouts, strict=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_add(shape, first, second, dtype):
    a, b = pictures(shape, (first, second), dtype)
    wanted = [x + y for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)]
    wanted = np.array(wanted, dtype).reshape(shape)
    np.testing.assert_array_equal((mf.Tensor(a) + mf.Tensor(b)).numpy(), wanted)
    total = workspace.copy(a)
    assert kernels.add(total, b, out=total) is total
    np.testing.assert_array_equal(total, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(), (5,), *SHAPES])
def test_a_copy_has_its_own_memory_in_the_same_order(shape, layout):
    array = laid_out(random(np.random.default_rng(0), *shape), layout) if shape else np.array(2.0)
    new = workspace.copy(array)
    np.testing.assert_array_equal(new, array)
    assert not np.may_share_memory(new, array)
    if layout != "strided" and array.size > 1:
        assert new.strides == array.strides


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [(1, 1), (3, 21, 5), (16, 64)])
def test_cat(channels, layout):
    rng = np.random.default_rng(1)
    parts = [laid_out(random(rng, 2, c, 5, 7, dtype=np.float32), layout) for c in channels]
    leaves = [leaf(part) for part in parts]
    y = mf.cat(leaves, 1)
    upstream = random(rng, *y.shape, dtype=np.float32)
    y.backward(upstream)
    first = 0
    for part, t in zip(parts, leaves, strict=True):
        last = first + part.shape[1]
        np.testing.assert_array_equal(y.numpy()[:, first:last], part)
        np.testing.assert_array_equal(t.grad.numpy(), upstream[:, first:last])
        first = last


def test_second_derivatives_of_cat():
    rng = np.random.default_rng(2)
    a, b = (leaf(random(rng, 1, c, 2, 2)) for c in (2, 3))
    assert gradgradcheck(lambda a, b: mf.cat([a, b], 1) ** 2, [a, b])
