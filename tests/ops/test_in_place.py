"""Changes in place: refused while recording, noticed where they would spoil a gradient."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import device
from minifcn import functional as F
from minifcn.errors import GraphError
from tests.ops.checks import leaf, random


def test_refused_while_recording():
    x = leaf(np.ones(3))
    for change in (x.zero_, lambda: x.add_(1), lambda: x.mul_(2), lambda: x.copy_(x)):
        with pytest.raises(GraphError, match="no_grad"):
            change()
    with pytest.raises(GraphError, match="no_grad"):
        x[0] = 1
    with pytest.raises(GraphError, match="no_grad"):
        (x * 2.0).zero_()


def test_allowed_under_no_grad_and_without_a_graph():
    x = leaf(np.ones(3))
    with mf.no_grad():
        x[0] = 5.0
        x.add_(1.0, alpha=2.0).mul_(mf.Tensor(np.array([1.0, 2.0, 3.0])))
    assert x.numpy().tolist() == [7, 6, 9]
    assert mf.Tensor(np.ones(2)).fill_(3.0).numpy().tolist() == [3, 3]


def test_a_change_after_use_is_noticed():
    x = leaf(np.array([2.0]))
    y = x * x
    with mf.no_grad():
        x.fill_(10.0)
    with pytest.raises(GraphError, match="changed in place"):
        y.backward(np.ones(1))


def test_a_change_that_no_backward_reads_does_no_harm():
    x = leaf(np.array([2.0]))
    y = x + x
    with mf.no_grad():
        x.fill_(10.0)
    y.backward(np.ones(1))
    assert x.grad.item() == 2.0


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.detach(),
        lambda x: x.reshape(4),
        lambda x: x.transpose(0, 1),
        lambda x: x[0],
    ],
    ids=["detach", "reshape", "transpose", "index"],
)
def test_a_change_through_a_view_is_noticed(view):
    x = leaf(np.full((2, 2), 2.0))
    y = (x * x).sum()
    with mf.no_grad():
        view(x).fill_(10.0)
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_a_change_under_a_view_is_noticed():
    x = leaf(np.full((2, 2), 2.0))
    flat = x.reshape(4)
    y = (flat * flat).sum()
    with mf.no_grad():
        x.fill_(10.0)
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def new(name):
    """An operation whose result is said to be new memory, on small pictures, and its inputs."""
    rng = np.random.default_rng(0)
    x, one, many = (leaf(random(rng, *shape)) for shape in ((1, 1, 1, 1),) * 2 + ((2, 1, 3, 3),))
    b = leaf(np.zeros(1))
    return {
        "conv2d": lambda: (F.conv2d(x, one, b), x, one, b),
        "conv_transpose2d": lambda: (F.conv_transpose2d(x, one, b), x, one, b),
        "max_pool2d": lambda: (F.max_pool2d(x, 1), x),
        "max_pool2d_relu": lambda: (F.max_pool2d_relu(many, 1), many),
        "add": lambda: (x + one, x, one),
    }[name]()


@pytest.mark.parametrize(
    "name", ["conv2d", "conv_transpose2d", "max_pool2d", "max_pool2d_relu", "add"]
)
def test_what_makes_new_memory_gives_no_view(name):
    """Forward and, but for a sum, backward: a view would not hear of changes beneath it."""
    y, *inputs = new(name)
    assert y._creator.makes_new
    seed = mf.ones(*y.shape)
    results = [y, *(() if name == "add" else mf.grad(y, inputs, seed))]
    others = [*inputs, seed]
    assert not any(device.share_memory(a.data, b.data) for a in results for b in others)
