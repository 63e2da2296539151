"""A convolution and the ReLU behind it in one operation: it is the two, in value and gradients."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import nn
from minifcn.errors import ShapeError
from minifcn.functional import conv2d, conv2d_relu, relu
from tests import naive
from tests.convolutions import ALGORITHMS, by_minifcn, layer, like_a_layers
from tests.ops.checks import LAYOUTS, close, laid_out, leaf, one_thread, random

SETTINGS = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"groups": 2},
    {"groups": 4, "padding": 1},
]


def inputs(settings, dtype=np.float64, seed=0, size=(9, 7), filters=4):
    rng = np.random.default_rng(seed)
    shapes = (2, 4, *size), (filters, 4 // settings.get("groups", 1), 3, 3), (filters,)
    return [random(rng, *shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_values(settings, layout):
    x, w, b = inputs(settings)
    found = conv2d_relu(mf.Tensor(laid_out(x, layout)), mf.Tensor(w), mf.Tensor(b), **settings)
    close(found, np.maximum(naive.conv2d(x, w, b, **settings), 0))


def apart(*args, **settings):
    return relu(conv2d(*args, **settings))


@pytest.mark.parametrize("name", [*ALGORITHMS, None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_as_one_after_the_other(name, dtype, on_device):
    """Result and gradients of x and w; the sum for the bias is taken in one pass or in two."""
    for padding in (0, 1, 2):
        x, w, b, dy = layer((2, 19, 15, 14), 37, padding, dtype=dtype)
        x[0, 3, 5, 5] = np.nan
        one = by_minifcn(name, x, like_a_layers(w), b, dy, conv2d_relu, padding=padding)
        two = by_minifcn(name, x, like_a_layers(w), b, dy, apart, padding=padding)
        for a, c in zip(one[:3], two[:3], strict=True):
            assert a.tobytes() == c.tobytes()
        np.testing.assert_allclose(one[3], two[3], rtol=1e-5)
        assert np.isnan(one[0]).any()


@one_thread()
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_derivatives(settings):
    args = [leaf(a) for a in inputs(settings, seed=2, size=(5, 6))]
    report = mf.check.gradcheck(lambda *a: conv2d_relu(*a, **settings), args, entries=12)
    assert report, f"\n{report}"
    report = mf.check.gradgradcheck(lambda *a: conv2d_relu(*a, **settings), args, entries=8)
    assert report, f"\n{report}"


def test_a_gradient_that_goes_through_the_closed_gate_is_caught(monkeypatch):
    from minifcn.ops import conv2d as ops

    args = [leaf(a) for a in inputs({}, seed=3, size=(5, 6))]
    monkeypatch.setattr(ops, "_gated_sum", lambda grad, y: (grad, grad.sum((0, 2, 3))))
    assert mf.check.gradcheck(conv2d_relu, args).verdict == "wrong"


def test_errors_name_the_operation():
    x, w = mf.Tensor(np.zeros((1, 3, 5, 5))), mf.Tensor(np.zeros((2, 4, 3, 3)))
    with pytest.raises(ShapeError, match=r"conv2d_relu: input has 3 channels.*wants 4"):
        conv2d_relu(x, w)
    with pytest.raises(ShapeError, match=r"conv2d_relu: .*3.*size 2"):
        conv2d_relu(mf.Tensor(np.zeros((1, 4, 2, 5))), w)


class Spy(nn.Conv2d):
    """Says which of the two was called."""

    def forward(self, x):
        self.called = "forward"
        return super().forward(x)

    def forward_relu(self, x):
        self.called = "forward_relu"
        return super().forward_relu(x)


def test_sequential_joins_the_two():
    spy = Spy(4, 6, 3, padding=1, generator=np.random.default_rng(0), dtype=np.float64)
    x = mf.Tensor(inputs({})[0])
    y = nn.Sequential(spy, nn.ReLU())(x)
    assert spy.called == "forward_relu"
    assert y.numpy().tobytes() == relu(nn.Sequential(spy)(x)).numpy().tobytes()
    assert spy.called == "forward"
