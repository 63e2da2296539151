"""The gradient of a bias: sums over all pixels a channel, alone or with a ReLU's gate before."""

import math

import numpy as np
import pytest

import minifcn as mf
from minifcn import kernels
from minifcn.kernels import channel_sums, stream

#: any channels, and whole vectors: one, two, two and a third, at any width
SHAPES = [
    (0, 3),
    (1, 1),
    (63, 2),
    (65, 21),
    (2048, 5),
    (5001, 17),
    (0, 32),
    (1, 16),
    (257, 48),
    (70, 64),
]


@pytest.mark.parametrize("device", mf.device.HOST)
@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("large", [0, 1 << 60])  # past the caches and not
def test_values(shape, dtype, rtol, device, large, monkeypatch):
    monkeypatch.setattr(stream, "LARGE", large)
    monkeypatch.setattr(channel_sums, "SMALL", 0)
    rng = np.random.default_rng(0)
    grad, y = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    with mf.device.use(device):
        plain = kernels.column_sums(grad)
        gated, sums = kernels.relu_backward_sum(grad, y)
    assert plain.dtype == gated.dtype == sums.dtype == dtype
    for column in range(shape[1]):
        values = [float(v) for v in grad[:, column]]
        passed = [v if gate > 0 else 0.0 for v, gate in zip(values, y[:, column], strict=True)]
        assert gated[:, column].tolist() == passed
        for found, wanted in ((plain, values), (sums, passed)):
            size = math.fsum(map(abs, wanted)) or 1.0
            assert abs(float(found[column]) - math.fsum(wanted)) <= rtol * size


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize(
    "pixels, c, k, groups",
    [
        ((4, 14, 14), 512, 21, 1),  # a score layer
        ((1, 1, 1), 5, 3, 1),
        ((2, 7, 5), 40, 33, 1),
        ((2, 9, 9), 64, 64, 1),  # rows of dy are read where they lie
        ((3, 41, 37), 7, 65, 1),  # in parts
        ((3, 41, 37), 12, 6, 3),
        ((2, 9, 9), 64, 48, 2),
    ],
)
def test_beside_the_weights_of_one_pixel(pixels, c, k, groups, dtype, rtol):
    """A 1×1 layer's weight gradient and its bias's come from one pass over dy."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((*pixels, channels)).astype(dtype) for channels in (c, k))
    one = (1, 1)
    _, db = kernels.conv2d_weight(x, dy, one, one, (0, 0), one, groups, bias=True)
    assert db.dtype == dtype and db.shape == (k,)
    for column in range(k):
        values = [float(v) for v in dy[..., column].flat]
        size = math.fsum(map(abs, values))
        assert abs(float(db[column]) - math.fsum(values)) <= rtol * size


def test_a_weights_gradient_keeps_its_own_memory_alone():
    """Not that of the sixteen parts in which it was summed."""
    x, dy = (np.ones((4, 64, 64, channels), np.float32) for channels in (64, 32))
    one = (1, 1)
    dw, _ = kernels.conv2d_weight(x, dy, one, one, (0, 0), one, 1)
    memory = dw
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    assert memory.nbytes == dw.nbytes


def test_a_million_equal_pixels_lose_no_digit():
    a = np.full((1 << 20, 2), 0.1, np.float32)
    wanted = float(np.float32(0.1)) * (1 << 20)
    for sums in (kernels.column_sums(a), kernels.relu_backward_sum(a, a)[1]):
        np.testing.assert_allclose(sums, wanted, rtol=1e-6)


@pytest.mark.parametrize("again", [1, 4, 12])  # a few channels, one vector, a pair and one more
@pytest.mark.parametrize("device", mf.device.HOST)
def test_what_is_not_a_number(device, again):
    """NaN in the gradient passes an open gate and no closed one; a NaN gate is closed."""
    grad = np.array([[np.nan, 1, np.nan, np.inf] * again], np.float32)
    y = np.array([[1, np.nan, 0, 1] * again], np.float32)
    with mf.device.use(device):
        g, sums = kernels.relu_backward_sum(grad, y)
        np.testing.assert_array_equal(g, [[np.nan, 0, 0, np.inf] * again])
        np.testing.assert_array_equal(sums, [np.nan, 0, 0, np.inf] * again)
        np.testing.assert_array_equal(kernels.column_sums(grad), grad[0])
