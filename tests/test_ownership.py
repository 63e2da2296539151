"""Who may write to a gradient: leaves keep what is theirs alone and copy what is shared."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.function import Function
from minifcn.kernels import workspace
from minifcn.ownership import is_alone
from minifcn.tensor import Tensor


def leaf(*shape, seed=0):
    return mf.randn(*shape, generator=np.random.default_rng(seed), requires_grad=True)


@pytest.mark.parametrize("shape", [(2, 3), (4, 64, 64, 32)])
def test_alone(shape):
    tensor = Tensor(workspace.empty(shape, np.float32))
    assert is_alone(tensor)
    tensor = Tensor(workspace.empty(shape, np.float32).transpose(1, 0, *range(2, len(shape))))
    assert is_alone(tensor)
    tensor = Tensor(np.ones(shape))
    assert is_alone(tensor)


@pytest.mark.parametrize("shape", [(2, 3), (4, 64, 64, 32)])
def test_not_alone(shape):
    tensor = Tensor(workspace.empty(shape, np.float32))
    other = tensor
    assert not is_alone(tensor)
    del other
    assert is_alone(tensor)
    array = tensor.data
    assert not is_alone(tensor)
    del array
    view = tensor.data[1:]
    assert not is_alone(tensor)
    del view
    assert is_alone(tensor)
    assert not is_alone(Tensor(np.broadcast_to(np.ones(1), shape)))
    foreign = Tensor(np.frombuffer(bytearray(16)))
    assert not is_alone(foreign)


class Given(Function):
    """x·a, whose backward gives out the array ``a`` that somebody else holds."""

    reads = {}

    def __init__(self, a):
        self.a = a

    def forward(self, x):
        return np.asarray((x * self.a).sum())

    def backward(self, grad):
        return (Tensor(self.a),)


def test_a_leaf_copies_what_an_operation_still_holds():
    x, a = leaf(3, 4), np.ones((3, 4), np.float32)
    Given(a)(x).backward()
    assert not np.may_share_memory(x.grad.data, a)
    x.grad.data[...] = 7
    assert (a == 1).all()


def test_two_leaves_do_not_share_a_gradient():
    a, b = leaf(3, 4), leaf(3, 4)
    (a + b).sum().backward()
    assert not np.may_share_memory(a.grad.data, b.grad.data)
    (a + b).backward(np.ones((3, 4), np.float32))
    assert (a.grad.data == 2).all() and (b.grad.data == 2).all()


def test_the_gradient_that_the_user_passes_stays_theirs():
    x, upstream = leaf(3, 4), np.ones((3, 4), np.float32)
    x.backward(upstream)
    (x + 0.0).backward(upstream)
    x.backward(mf.Tensor(upstream))
    assert (upstream == 1).all() and (x.grad.data == 3).all()


def test_slices_of_one_gradient_become_separate():
    a, b = leaf(2, 3), leaf(4, 3)
    upstream = np.ones((6, 3), np.float32)
    mf.cat([a, b]).backward(upstream)
    a.grad.data[...] = 5
    assert (b.grad.data == 1).all() and (upstream == 1).all()


def test_a_graph_walked_twice_gives_the_same_twice():
    x = leaf(2, 3, 8, 8)
    target = np.zeros((2, 8, 8), int)
    loss = mf.functional.cross_entropy(x, target)
    loss.backward(retain_graph=True)
    once = x.grad.data.copy()
    loss.backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.data, 2 * once)
    x.grad = None
    loss.backward()
    np.testing.assert_array_equal(x.grad.data, once)


def test_a_leaf_keeps_a_gradient_that_is_its_alone():
    """No copy: the memory that the kernel wrote is the memory that the leaf holds."""
    x = leaf(4, 32, 64, 64)
    written = []

    class Seen(mf.ops.pointwise.ReLU):
        def backward(self, grad):
            (dx,) = super().backward(grad)
            written.append(dx.data.ctypes.data)
            return (dx,)

    Seen()(x).backward(np.ones(x.shape, np.float32))
    assert x.grad.data.ctypes.data == written[0]
