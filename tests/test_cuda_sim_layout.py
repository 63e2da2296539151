"""Pictures stay channels-last on a GPU: no operation on them hides a copy into another order.

CuPy writes its results in C order, (N, C, H, W), whatever the order of what it reads; the kernel
that comes next would have to copy them back. The simulated GPU does as CuPy does.
"""

from contextlib import contextmanager

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import device, simulator
from minifcn.ops import pointwise
from tests.simulated import needs_compiler

pytestmark = needs_compiler
SHAPE = (2, 5, 7, 6)


def picture(seed=0, **settings):
    values = np.random.default_rng(seed).standard_normal((2, 7, 6, 5)).astype(np.float32)
    return mf.Tensor(device.move(values.transpose(0, 3, 1, 2), "cuda-sim"), **settings)


def in_order(array):
    """Whether each axis has a longer step than the next; a slice has gaps besides."""
    steps = [step for n, step in zip(array.shape, array.strides) if n > 1]
    return steps == sorted(steps, reverse=True)


def lies_as_a_picture(x):
    return in_order(x.data.transpose(0, 2, 3, 1))


@contextmanager
def copies(monkeypatch):
    """The shapes that had to be put into another order, so that a kernel could read them."""
    copied = []
    plain = simulator.ascontiguousarray

    def counting(a, dtype=None):
        if not in_order(a) and any(a.strides):  # one number for all may be written in any order
            copied.append(a.shape)
        return plain(a, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(simulator, "ascontiguousarray", counting)
        yield copied


def dropout(x):
    return F.dropout(x, 0.4, True, np.random.default_rng(1))


channel = np.linspace(0.5, 1, 5, dtype=np.float32).reshape(5, 1, 1)

#: point by point, or joining, cutting and summing pictures: of one picture, and another beside it
OPERATIONS = {
    "exp": lambda x, _: x.exp(),
    "log": lambda x, _: (x.abs() + 1).log(),
    "sqrt": lambda x, _: (x * x + 1).sqrt(),
    "abs": lambda x, _: x.abs(),
    "tanh": lambda x, _: x.tanh(),
    "sigmoid": lambda x, _: x.sigmoid(),
    "clamp": lambda x, _: x.clamp(-0.5, 0.7),
    "clamp, one bound": lambda x, _: x.clamp(min=0.1),
    "relu": lambda x, _: F.relu(x),
    "dropout": lambda x, _: dropout(x),
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: x - y,
    "product": lambda x, y: x * y,
    "quotient": lambda x, y: x / (y * y + 1),
    "negative": lambda x, _: -x,
    "power": lambda x, _: x**3,
    "a number": lambda x, _: 1.0 - x * 2.0 / 3.0,
    "a number a channel": lambda x, _: x * mf.Tensor(device.move(channel, "cuda-sim")) + x,
    "softmax": lambda x, _: F.softmax(x, 1),
    "log_softmax": lambda x, _: F.log_softmax(x, 1),
    "largest": lambda x, _: x * x.max(1, keepdim=True),
    "cat of channels": lambda x, y: mf.cat([x, y], 1),
    "cat of pictures": lambda x, y: mf.cat([x, y], 0),
    "cat of rows": lambda x, y: mf.cat([x, y], 2),
    "cat of columns": lambda x, y: mf.cat([x, y], 3),
    "pad": lambda x, _: F.pad(x, (1, 2, 3, 1)),
    "crop": lambda x, _: F.crop(x, 1, 2, 4, 3),
    "some channels": lambda x, _: x[:, 1:4] * 2.0,
    "one way and another": lambda x, y: x * y + x.exp() - F.relu(x),
    "normalised": lambda x, _: F.batch_norm_relu(x, None, None, None, None, True),
    "pooled": lambda x, _: F.max_pool2d(x, 2),
    "averaged": lambda x, _: F.avg_pool2d(x, 2),
    "resized": lambda x, _: F.interpolate(x, scale_factor=2),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_hidden_copy(name, monkeypatch):
    x, y = picture(0, requires_grad=True), picture(1)
    with copies(monkeypatch) as copied:
        result = F.relu(OPERATIONS[name](x, y))  # a kernel behind it, and one before its backward
        (result * result).sum().backward()
    assert lies_as_a_picture(result) and lies_as_a_picture(x.grad)
    assert copied == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_hidden_copy_in_a_derivative_that_is_recorded(name, monkeypatch):
    x, y = picture(0, requires_grad=True), picture(1)
    with copies(monkeypatch) as copied:
        result = OPERATIONS[name](x, y)
        (slope,) = mf.grad((result * result).sum(), x, create_graph=True)
        F.relu(slope)
    assert lies_as_a_picture(slope) and copied == []


def test_comparisons():
    x, y = picture(0), picture(1)
    for found in (x < y, x <= 0.5, x > y, x >= y, x == y, x != 1.0):
        assert found.dtype == bool and lies_as_a_picture(found)


def test_a_copy_is_seen(monkeypatch):
    """Without `elementwise` NumPy's function is CuPy's, and the ReLU has to copy its result."""
    monkeypatch.setattr(pointwise, "elementwise", lambda function, *arrays: function(*arrays))
    with copies(monkeypatch) as copied:
        y = picture().exp()
        F.relu(y)
    assert not lies_as_a_picture(y) and copied == [(2, 7, 6, 5)]
