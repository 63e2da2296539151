"""The CUDA kernels of max-pooling, on the simulated GPU, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import device, kernels, simulator
from tests.simulated import ORDERS, agree, both, needs_compiler, on_gpu, planted, running, traffic

pytestmark = needs_compiler
DTYPES = st.sampled_from([np.float32, np.float64])


@st.composite
def poolings(draw):
    """(shape of x, windows, out): windows that may overlap, lie apart, or miss the picture."""
    kernel, stride, padding, dilation, size, out = [], [], [], [], [], []
    for _ in range(2):
        k, s, d = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
        p = draw(st.integers(0, k // 2))
        h = draw(st.integers(1, 19))
        last = h + p - 1  # no window starts beyond the picture
        kernel, stride, padding = [*kernel, k], [*stride, s], [*padding, p]
        dilation, size = [*dilation, d], [*size, h]
        out.append(draw(st.integers(1, last // s + 1)))
    n, c = draw(st.integers(0, 2)), draw(st.sampled_from([1, 2, 3, 4, 8, 21, 32, 35]))
    windows = tuple(tuple(pair) for pair in (kernel, stride, padding, dilation))
    return (n, *size, c), windows, tuple(out)


def numbers(shape, dtype, seed=0):
    """Few different values, so that there are ties; and a NaN and infinities."""
    a = np.random.default_rng(seed).standard_normal(shape).round(1).astype(dtype)
    special = np.array([np.nan, np.inf, -np.inf], dtype)[: a.size]
    a.reshape(-1)[: special.size] = special
    return a


def pool_and_back(pooling, dtype):
    """Each kernel once, and on 2×2 windows side by side what they make of it."""
    shape, windows, out = pooling
    x = numbers(shape, dtype)
    yield both(kernels.max_pool2d, x, *windows, out), 0
    with device.use("reference"):
        y, index = kernels.max_pool2d(x, *windows, out)
    slope = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    yield both(kernels.max_unpool2d, slope, index, shape[1:3], *windows), 8
    yield both(kernels.take_pixels, x, index, *windows), 0


@pytest.mark.parametrize("order", ORDERS)
@given(poolings(), DTYPES)
def test_values(order, pooling, dtype):
    with running(order):
        for (found, wanted), rounding in pool_and_back(pooling, dtype):
            agree(found, wanted, rounding)


@given(poolings())
def test_no_fault(pooling):
    with running(check=True):
        for _ in pool_and_back(pooling, np.float32):
            pass


def windows(k, s, p, d=1):
    return (k, k), (s, s), (p, p), (d, d)


AWKWARD = [
    ((1, 40, 40, 2), ((17, 16), (3, 2), (5, 0), (1, 1)), (12, 13)),  # taps that no byte can name
    ((1, 3, 3, 5), windows(2, 2, 1, 7), (1, 1)),  # a window that sees nothing
    ((1, 300, 3, 33), ((5, 1), (1, 1), (2, 0), (60, 1)), (64, 3)),  # a wide reach
    ((1, 70, 9, 4), ((65, 2), (1, 1), (0, 0), (500, 1)), (3, 8)),  # too wide for shared memory
    ((2, 9, 11, 8), windows(2, 2, 0), (4, 5)),  # a last row and column in no window
    ((2, 9, 11, 8), windows(2, 2, 0), (5, 6)),  # a last row and column of half windows
]


@pytest.mark.parametrize("pooling", AWKWARD)
def test_awkward_windows(pooling):
    for check in (False, True):
        with running(check=check):
            for (found, wanted), rounding in pool_and_back(pooling, np.float32):
                agree(found, wanted, rounding)


@pytest.mark.parametrize("c", [21, 24, 64])
def test_traffic_of_windows_apart(c):
    """2 × 32 × 64 pixels, 2×2 windows: every byte once."""
    x = on_gpu(np.random.default_rng(0).standard_normal((2, 32, 64, c)).astype(np.float32))
    with traffic() as moved:
        y, index = kernels.max_pool2d(x, *windows(2, 2, 0), (16, 32))
    least = x.nbytes + y.nbytes + index.nbytes
    assert moved.moved == least and moved.per_sector == 32
    with traffic() as moved:
        kernels.max_unpool2d(y, index, (32, 64), *windows(2, 2, 0))
    assert moved.moved == least and moved.per_sector == 32


def test_traffic_of_windows_that_overlap():
    """3×3 windows, two pixels on: a tile's edges are read twice."""
    x = on_gpu(np.random.default_rng(0).standard_normal((1, 32, 32, 64)).astype(np.float32))
    with traffic() as moved:
        y, index = kernels.max_pool2d(x, *windows(3, 2, 1), (16, 16))
    least = x.nbytes + y.nbytes + index.nbytes
    assert moved.moved <= 1.1 * least and moved.per_sector >= 28
    with traffic() as moved:
        kernels.max_unpool2d(y, index, (32, 32), *windows(3, 2, 1))
    assert moved.moved <= 1.1 * least and moved.per_sector >= 28


def overlapping():
    x = on_gpu(np.ones((1, 8, 8, 4), np.float32))
    return kernels.max_pool2d(x, *windows(3, 2, 1), (4, 4))


def test_a_missing_barrier_is_caught(monkeypatch):
    right = "tile.channel, tile.channels);\n        __syncthreads();"
    wrong = "tile.channel, tile.channels);"
    with planted(monkeypatch, "max_pool2d.cu", right, wrong), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"max_pool2d.cu:\d+: (race|uninitialised)"):
            overlapping()


def test_a_window_beyond_the_edge_is_caught(monkeypatch):
    right, wrong = "b >= windows.x.size) continue", "b > windows.x.size) continue"
    x = on_gpu(np.ones((1, 7, 7, 4), np.float32))
    with planted(monkeypatch, "max_pool2d.cu", right, wrong), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"max_pool2d.cu:\d+: (out of bounds)"):
            kernels.max_pool2d(x, *windows(2, 2, 0), (4, 4))


def test_the_last_of_equals_instead_of_the_first_is_caught(monkeypatch):
    x = np.ones((1, 4, 4, 4), np.float32)
    with planted(monkeypatch, "max_pool2d.cu", "!(v <= so_far)", "!(v < so_far)"):
        found, wanted = both(kernels.max_pool2d, x, *windows(2, 2, 0), (2, 2))
        with pytest.raises(AssertionError):
            agree(found, wanted, 0)


def test_a_gradient_that_begins_amid_16_bytes():
    """A contiguous view of larger memory: read number by number, for vectors must be aligned."""
    x = np.random.default_rng(0).standard_normal((1, 4, 6, 8)).astype(np.float32)
    windows = (2, 2), (2, 2), (0, 0), (1, 1)
    y, index = kernels.max_pool2d(on_gpu(x), *windows, (2, 3))
    memory = simulator.asarray(np.arange(y.size + 1, dtype=np.float32))
    dy = memory[1:].reshape(y.shape)
    with running(check=True):
        found = kernels.max_unpool2d(dy, index, (4, 6), *windows).get()
    with device.use("reference"):
        wanted = kernels.max_unpool2d(dy.get(), index.get(), (4, 6), *windows)
    assert np.array_equal(found, wanted)
