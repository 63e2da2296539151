"""The weight gradient of a narrow 1×1 layer, whose filters are the rows of the tile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import kernels
from minifcn.kernels import narrow_weight, workspace
from minifcn.kernels.taps import convolution
from minifcn.kernels.vector import lanes
from tests.convolutions import on_one_thread, random

ONE, NONE = (1, 1), (0, 0)
BLOCK = 2 * lanes(np.float32)


def gradients(x, dy, bias=True):
    return kernels.conv2d_weight(x, dy, ONE, ONE, NONE, ONE, 1, bias=bias)


def wanted(x, dy):
    """In float64, and independent of the kernels: (K, C) and (K,)."""
    rows, upstream = (a.reshape(-1, a.shape[3]).astype(np.float64) for a in (x, dy))
    return upstream.T @ rows, upstream.sum(axis=0)


def served(c, k, dtype=np.float32, kernel=ONE, stride=ONE, padding=NONE, groups=1):
    taps = convolution(kernel, stride, padding, ONE, (4, 4))
    return narrow_weight.serves(taps, c, k, groups, np.dtype(dtype))


def test_who_is_served():
    assert not served(0, 21)
    assert served(8 * BLOCK, 21 if BLOCK == 32 else BLOCK // 2 + 1)
    assert not served(8 * BLOCK + 1, 21)  # channels that are no whole tiles
    assert not served(8 * BLOCK, 2 * BLOCK)  # filters that are
    assert not served(8 * BLOCK, 21, kernel=(3, 3), padding=ONE)
    assert not served(8 * BLOCK, 21, stride=(2, 2))
    assert not served(8 * BLOCK, 21, padding=ONE)
    assert not served(8 * BLOCK, 22, groups=2)


@given(
    n=st.integers(1, 3),
    size=st.sampled_from([(1, 1), (1, 2), (3, 5), (7, 11), (16, 16), (1, 256), (1, 257), (53, 61)]),
    blocks=st.integers(1, 9),
    k=st.integers(1, 2 * BLOCK),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_it_is_the_sum_over_pixels(n, size, blocks, k, dtype):
    x, dy = random(0, (n, *size, blocks * BLOCK), (n, *size, k), dtype=dtype)
    weight, bias = gradients(x, dy)
    of_weight, of_bias = wanted(x, dy)
    assert weight.shape == (k, blocks * BLOCK, 1, 1) and weight.dtype == bias.dtype == dtype
    # each product is of size 1, so a sum of so many is of size √
    scale = (n * size[0] * size[1]) ** 0.5 * (5e-6 if dtype == np.float32 else 1e-13)
    assert np.abs(weight[:, :, 0, 0] - of_weight).max() <= scale
    assert np.abs(bias - of_bias).max() <= scale
    assert gradients(x, dy, bias=False)[1] is None


def test_new_memory_is_not_read(monkeypatch):
    x, dy = random(1, (2, 19, 17, 3 * BLOCK), (2, 19, 17, 5))
    before = gradients(x, dy)
    monkeypatch.setattr(workspace, "poisoned", True)
    for found, right in zip(gradients(x, dy), before, strict=True):
        np.testing.assert_array_equal(found, right)


def test_the_same_bits_from_one_thread():
    x, dy = random(2, (2, 40, 41, 9 * BLOCK), (2, 40, 41, 5))
    many = gradients(x, dy)
    one = on_one_thread(lambda: gradients(x, dy))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(many, one, strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pixel", [(0, 0, 0), (1, 3, 4)])  # the last is multiplied by itself
def test_what_is_not_finite_reaches_its_own_filter_and_channel(value, pixel):
    x, dy = random(3, (2, 4, 5, 2 * BLOCK), (2, 4, 5, 5))
    dy[(*pixel, 3)], x[(*pixel, 7)] = value, value
    weight, bias = gradients(x, dy)
    strange = ~np.isfinite(weight[:, :, 0, 0])
    assert strange[3].all() and strange[:, 7].all() and strange.sum() == 2 * BLOCK + 5 - 1
    assert (~np.isfinite(bias)).tolist() == [e == 3 for e in range(5)]


def test_a_fault_would_be_seen(monkeypatch):
    """The entry comes here, and a pixel left out is more than rounding."""
    x, dy = random(4, (1, 4, 4, BLOCK), (1, 4, 4, 5))
    right, found = wanted(x, dy)[0], narrow_weight.weight
    monkeypatch.setattr(narrow_weight, "weight", lambda x, dy, bias: found(x[:, 1:], dy[:, 1:]))
    assert np.abs(gradients(x, dy, bias=False)[0][:, :, 0, 0] - right).max() > 0.1
