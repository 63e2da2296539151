"""The walk back through the graph: order, accumulation, freeing, misuse, higher derivatives."""

import gc
import weakref

import numpy as np
import pytest

import minifcn as mf
from minifcn.errors import GraphError, ShapeError
from minifcn.function import Function
from tests.ops.checks import close, leaf, random


class Count(Function):
    """The identity, which counts how often its backward runs."""

    def __init__(self, calls):
        self.calls = calls

    def forward(self, x):
        return x.copy()

    def backward(self, grad):
        self.calls.append(grad.numpy().copy())
        return (grad,)


def test_each_node_is_walked_once_with_its_whole_gradient():
    """A ladder of 40 diamonds has 2⁴⁰ paths and 80 nodes."""
    calls = []
    x = leaf(np.array([1.0]))
    y = x
    for _ in range(40):
        y = Count(calls)(y)
        y = y + y
    y.backward(np.array([1.0]))
    assert len(calls) == 40
    assert x.grad.item() == 2.0**40


def test_a_node_waits_for_all_its_uses():
    """A long and a short way from the same value meet before it is differentiated."""
    calls = []
    x = leaf(np.array([3.0]))
    y = Count(calls)(x)
    z = y * 2.0
    for _ in range(5):
        z = z + 1.0
    (z * y).backward(np.ones(1))
    assert len(calls) == 1
    close(x.grad, [2 * 3.0 + (2 * 3.0 + 5)])


def test_a_deep_graph_needs_no_recursion():
    x = leaf(np.array(1.0))
    y = x
    for _ in range(20_000):
        y = y + 0.0
    y.backward()
    assert x.grad.item() == 1.0


def test_gradients_accumulate_over_calls_and_zero_by_none():
    x = leaf(np.array([2.0]))
    (x * 3.0).backward(np.ones(1))
    (x * 4.0).backward(np.ones(1))
    assert x.grad.item() == 7.0
    x.grad = None
    (x * 5.0).backward(np.ones(1))
    assert x.grad.item() == 5.0


def test_accumulating_leaves_other_gradients_alone():
    """x and y receive the same array; adding to one must not add to the other."""
    x, y = leaf(np.ones(2)), leaf(np.ones(2))
    (x + y).backward(np.ones(2))
    (x * 5.0).backward(np.ones(2))
    assert x.grad.numpy().tolist() == [6, 6]
    assert y.grad.numpy().tolist() == [1, 1]


def test_accumulating_after_create_graph_leaves_other_gradients_alone():
    x, y = leaf(np.ones(2)), leaf(np.ones(2))
    (x + y).backward(np.ones(2), create_graph=True)
    (x * 5.0).backward(np.ones(2))
    assert x.grad.numpy().tolist() == [6, 6]
    assert y.grad.numpy().tolist() == [1, 1]


def test_accumulating_does_not_change_the_gradient_that_was_passed_in():
    x, upstream = leaf(np.ones(2)), mf.Tensor(np.ones(2))
    for create_graph in (False, True):
        x.grad = None
        (x + 0.0).backward(upstream, create_graph=create_graph)
        (x + 0.0).backward(upstream)
        assert x.grad.numpy().tolist() == [2, 2]
        assert upstream.numpy().tolist() == [1, 1]


def test_accumulating_does_not_change_what_a_graph_has_kept():
    """x.grad took part in a graph: adding to it in place would spoil that graph silently."""
    x = leaf(np.array([2.0]))
    (x**3).backward(np.ones(1), create_graph=True)  # grad = 3x² = 12
    square = x.grad * x.grad
    (x * 100.0).backward(np.ones(1))
    (derivative,) = mf.grad([square], [x], [mf.Tensor(np.ones(1))])  # 2·12·6x
    assert derivative.item() == 2 * 12 * 12.0


def test_a_leaf_is_its_own_output():
    x = leaf(np.array(3.0))
    x.backward()
    assert x.grad.item() == 1.0


def test_scalars_need_no_gradient_and_others_do():
    x = leaf(np.ones((2, 1)))
    with pytest.raises(GraphError, match=r"\(2, 1\).*gradient="):
        (x * 2.0).backward()
    x.sum().backward()
    (x[:1] * 2.0).backward()
    with pytest.raises(ShapeError, match=r"gradient has shape \(2,\).*\(2, 1\)"):
        (x * 2.0).backward(np.ones(2))


def test_nothing_wants_a_gradient():
    with pytest.raises(GraphError, match="requires_grad"):
        mf.Tensor(np.array(1.0)).backward()


def test_a_freed_graph_says_so():
    x = leaf(np.array(2.0))
    y = x * x
    y.backward()
    with pytest.raises(GraphError, match="freed.*retain_graph"):
        y.backward()


def test_a_freed_graph_below_says_so():
    x = leaf(np.array(2.0))
    y = x * x
    z, w = y * 3.0, y * 4.0
    z.backward()
    before = x.grad.item()
    with pytest.raises(GraphError, match="freed"):
        w.backward()
    assert x.grad.item() == before


def test_retain_graph():
    x = leaf(np.array(2.0))
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8.0


def test_backward_gives_the_memory_back():
    x = leaf(np.ones(10))
    y = x * 2.0
    z = y * y
    seen = weakref.ref(y)
    del y
    assert seen() is not None  # kept for z's backward
    z.sum().backward()
    gc.collect()
    assert seen() is None


def test_nothing_is_kept_that_no_backward_reads():
    x = leaf(np.ones(10))
    y = x * 2.0
    seen = weakref.ref(y)
    z = y + 1.0
    del y
    gc.collect()
    assert seen() is None
    z.sum().backward()
    assert x.grad.numpy().tolist() == [2.0] * 10


def test_no_grad_and_enable_grad():
    x = leaf(np.array(2.0))
    assert mf.is_grad_enabled()
    with mf.no_grad():
        assert not mf.is_grad_enabled()
        assert not (x * x).requires_grad
        with mf.enable_grad():
            assert (x * x).requires_grad
        assert not mf.is_grad_enabled()
    assert mf.is_grad_enabled()


def test_no_grad_as_a_decorator_of_a_function_that_calls_itself():
    @mf.no_grad()
    def depth(n):
        assert not mf.is_grad_enabled()
        if n:
            with mf.enable_grad():
                depth(n - 1)
                assert mf.is_grad_enabled()
        assert not mf.is_grad_enabled()

    depth(3)
    assert mf.is_grad_enabled()


def test_one_object_nested_in_itself():
    off = mf.no_grad()
    with off:
        with off:
            assert not mf.is_grad_enabled()
        assert not mf.is_grad_enabled()
    assert mf.is_grad_enabled()


def test_no_grad_ends_when_an_error_leaves_it():
    with pytest.raises(ZeroDivisionError), mf.no_grad():
        raise ZeroDivisionError
    assert mf.is_grad_enabled()


def test_detach_and_clone():
    x = leaf(np.array([2.0]))
    assert not x.detach().requires_grad
    y = x.clone()
    assert y.requires_grad and not np.shares_memory(y.numpy(), x.numpy())
    (y * x.detach()).backward(np.ones(1))
    assert x.grad.item() == 2.0


def test_clone_keeps_the_layout_of_memory():
    x = np.zeros((2, 5, 6, 3)).transpose(0, 3, 1, 2)
    assert mf.Tensor(x).clone().numpy().strides == x.strides


def test_integers_want_no_gradient():
    with pytest.raises(ShapeError, match="int64"):
        mf.Tensor(np.arange(3), requires_grad=True)


class TestGrad:
    def test_leaves_grad_alone(self):
        x = leaf(np.array(2.0))
        (g,) = mf.grad(x * x, x)
        assert g.item() == 4.0 and x.grad is None

    def test_of_results_in_the_middle(self):
        x = leaf(np.array(2.0))
        y = x * 3.0
        gy, gx = mf.grad(y * y, [y, x])
        assert (gy.item(), gx.item()) == (12.0, 36.0)

    def test_several_outputs_add(self):
        x = leaf(np.array(2.0))
        (g,) = mf.grad([x * 3.0, x * x], [x])
        assert g.item() == 7.0

    def test_an_output_that_feeds_another(self):
        x = leaf(np.array(2.0))
        y = x * x
        (g,) = mf.grad([y, y * y], [x])
        assert g.item() == 4 + 4 * 8

    def test_an_output_is_an_input(self):
        x = leaf(np.array(2.0))
        y = x * x
        gy, gx = mf.grad([y], [y, x])
        assert (gy.item(), gx.item()) == (1.0, 4.0)

    def test_unused(self):
        x, y = leaf(np.array(2.0)), leaf(np.array(1.0))
        with pytest.raises(GraphError, match="input 1.*allow_unused"):
            mf.grad(x * x, [x, y])
        assert mf.grad(x * x, [x, y], allow_unused=True)[1] is None

    def test_as_many_gradients_as_outputs(self):
        x = leaf(np.ones(2))
        with pytest.raises((ShapeError, GraphError), match="grad_outputs"):
            mf.grad([x * 2.0, x * 3.0], [x], [mf.Tensor(np.ones(2))])

    def test_third_derivative(self):
        x = leaf(np.array([0.5, 2.0]))
        y = (x**4).sum()
        for factor, power in [(4, 3), (12, 2), (24, 1)]:
            (y,) = mf.grad(y, x, create_graph=True)
            close(y, factor * x.numpy() ** power, 1e-14)
            y = y.sum()

    def test_without_create_graph_nothing_is_recorded(self):
        x = leaf(np.array(2.0))
        (g,) = mf.grad(x * x * x, x)
        assert not g.requires_grad

    def test_gradient_penalty(self):
        """A loss that holds a gradient: d/dw (d(w·x²)/dx)² = d/dw (2wx)² = 8wx²."""
        w, x = leaf(np.array(3.0)), leaf(np.array(2.0))
        (g,) = mf.grad(w * x * x, x, create_graph=True)
        (g * g).backward()
        assert w.grad.item() == 8 * 3 * 4


def test_retain_grad():
    x = leaf(np.array(2.0))
    y = x * 3.0
    y.retain_grad()
    z = x * 5.0
    (y * y + z).backward()
    assert y.grad.item() == 12.0
    assert z.grad is None
    assert x.grad.item() == 41.0


def test_only_what_is_needed_is_computed():
    """A backward is told which gradients are wanted."""
    seen = []

    class Spy(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, grad):
            seen.append(self.needs)
            return tuple(grad if need else None for need in self.needs)

    Spy()(mf.Tensor(np.ones(2)), leaf(np.ones(2))).sum().backward()
    assert seen == [(False, True)]


def test_a_gradient_of_the_wrong_shape_names_the_operation():
    class Wrong(Function):
        def forward(self, x):
            return x * 2

        def backward(self, grad):
            return (grad.sum(),)

    with pytest.raises(ShapeError, match=r"Wrong.backward.*\(\).*\(2,\)"):
        Wrong()(leaf(np.ones(2))).backward(np.ones(2))


def test_too_few_gradients_name_the_operation():
    class Short(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, grad):
            return (grad,)

    with pytest.raises((ShapeError, GraphError, TypeError), match="Short"):
        Short()(leaf(np.ones(2)), leaf(np.ones(2))).backward(np.ones(2))


def test_an_operation_is_applied_once():
    """What it saved belongs to one application; the second must not overwrite it silently."""

    class Square(Function):
        def forward(self, x):
            self.saved = x
            return x * x

        def backward(self, grad):
            return (grad * mf.Tensor(2 * self.saved),)

    square = Square()
    square(leaf(np.ones(2)))
    with pytest.raises(GraphError, match="Square"):
        square(leaf(np.ones(2)))


def test_item_and_repr():
    x = leaf(np.array([1.5]))
    assert x.item() == 1.5 and isinstance(x.item(), float)
    with pytest.raises(ShapeError, match=r"item.*\(2,\)"):
        mf.Tensor(np.zeros(2)).item()
    assert "requires_grad" in repr(x) and "Mul" in repr(x * 2.0)


def test_dtype_of_gradients_follows_the_leaf():
    x = mf.Tensor(np.ones(3, np.float32), requires_grad=True)
    w = mf.Tensor(np.ones(3), requires_grad=True)
    (x * w).sum().backward()
    assert x.grad.dtype == np.float32
    assert w.grad.dtype == np.float64


def test_the_same_bits_every_time():
    """Sums run in an order that does not depend on addresses in memory."""
    found = []
    for _ in range(3):
        rng = np.random.default_rng(0)
        x = leaf(random(rng, 50).astype(np.float32))
        y = x
        for _ in range(10):
            y = (y * 1.1 + x).tanh() + y.sigmoid() * x
        y.sum().backward()
        found.append(x.grad.numpy().tobytes())
        gc.collect()
    assert found[0] == found[1] == found[2]
