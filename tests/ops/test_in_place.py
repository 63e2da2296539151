"""Changes in place: refused while recording, noticed where they would spoil a gradient."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.errors import GraphError
from tests.ops.checks import leaf


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
