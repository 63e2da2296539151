"""exp, log, sqrt, abs, tanh, sigmoid, clamp, relu; +, −, ·, /, power with broadcasting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.errors import InputError, ShapeError
from minifcn.ops import arithmetic, pointwise
from tests.ops.checks import (
    LAYOUTS,
    assert_caught,
    assert_right,
    close,
    dropped,
    laid_out,
    leaf,
    random,
    scaled,
    spaced,
)

# name: (Tensor function, the same for one Python number, inputs must be positive)
UNARY = {
    "exp": (lambda x: x.exp(), math.exp, False),
    "log": (lambda x: x.log(), math.log, True),
    "sqrt": (lambda x: x.sqrt(), math.sqrt, True),
    "abs": (lambda x: x.abs(), abs, False),
    "tanh": (lambda x: x.tanh(), math.tanh, False),
    "sigmoid": (lambda x: x.sigmoid(), lambda v: 1 / (1 + math.exp(-v)), False),
    "clamp": (lambda x: x.clamp(-0.51, 0.76), lambda v: min(max(v, -0.51), 0.76), False),
    "clamp below": (lambda x: x.clamp(min=0.1), lambda v: max(v, 0.1), False),
    "relu": (mf.functional.relu, lambda v: max(v, 0.0), False),
    "neg": (lambda x: -x, lambda v: -v, False),
    "cube": (lambda x: x**3, lambda v: v**3, False),
    "power -1.5": (lambda x: x**-1.5, lambda v: v**-1.5, True),
    "power 0": (lambda x: x**0, lambda v: 1.0, False),
}

BINARY = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "sub": (lambda a, b: a - b, lambda a, b: a - b),
    "mul": (lambda a, b: a * b, lambda a, b: a * b),
    "div": (lambda a, b: a / b, lambda a, b: a / b),
}

SHAPES = [(), (1,), (7,), (0, 3), (2, 3, 1, 1), (2, 3, 5, 7)]


def values(name, rng, *shape):
    x = spaced(rng, *shape)
    return np.abs(x) + 0.5 if UNARY[name][2] else x


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES[2:], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_unary_values(name, shape, layout):
    x = values(name, np.random.default_rng(0), *shape)
    wanted = np.array([UNARY[name][1](float(v)) for v in x.ravel()]).reshape(shape)
    found = UNARY[name][0](mf.Tensor(laid_out(x, layout)))
    assert found.dtype == np.float64
    close(found, wanted, 1e-14)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_unary_derivatives(name, shape):
    x = values(name, np.random.default_rng(1), *shape)
    assert_right(UNARY[name][0], leaf(x), entries=30)


@pytest.mark.parametrize("name", UNARY)
def test_float32_stays_float32(name):
    x = values(name, np.random.default_rng(2), 2, 3, 4, 5).astype(np.float32)
    x = leaf(x)
    y = UNARY[name][0](x)
    y.sum().backward()
    assert y.dtype == np.float32 and x.grad.dtype == np.float32


@given(data=st.data())
@pytest.mark.parametrize("name", BINARY)
def test_binary_broadcasts(name, data):
    """Shapes that broadcast in every way: lengths of 1, fewer dimensions, none, empty."""
    full = data.draw(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=4))
    shapes = []
    for _ in range(2):
        kept = data.draw(st.integers(0, len(full)))
        ones = data.draw(st.lists(st.booleans(), min_size=kept, max_size=kept))
        tail = full[len(full) - kept :]
        shapes.append(tuple(1 if o else n for o, n in zip(ones, tail, strict=True)))
    rng = np.random.default_rng(3)
    a, b = random(rng, *shapes[0]), np.abs(random(rng, *shapes[1])) + 0.5
    fn, loop = BINARY[name]
    out = np.broadcast_shapes(*shapes)
    wanted = np.zeros(out)
    for index in np.ndindex(*out):
        u, v = (
            float(x[tuple(0 if n == 1 else i for i, n in zip(index[len(out) - x.ndim :], x.shape))])
            for x in (a, b)
        )
        wanted[index] = loop(u, v)
    close(fn(mf.Tensor(a), mf.Tensor(b)), wanted, 1e-15)
    assert_right(fn, leaf(a), leaf(b), entries=10)


@pytest.mark.parametrize("name", BINARY)
def test_plain_numbers_on_either_side(name):
    fn, loop = BINARY[name]
    x = np.array([0.5, 2.0, -3.0], np.float32)
    for found, wanted in [(fn(mf.Tensor(x), 2), loop(x, 2)), (fn(2.0, mf.Tensor(x)), loop(2.0, x))]:
        assert found.dtype == np.float32
        close(found, wanted.astype(np.float32), 1e-7)
    for found in (fn(np.float64(2), mf.Tensor(x)), fn(mf.Tensor(x), np.float32(2))):
        assert isinstance(found, mf.Tensor) and found.dtype == np.float32


@pytest.mark.parametrize("name", BINARY)
def test_an_array_on_the_left_gives_a_tensor(name):
    x = leaf(np.array([0.5, 2.0]))
    found = BINARY[name][0](np.array([3.0, 4.0]), x)
    assert isinstance(found, mf.Tensor) and found.requires_grad


def test_the_same_input_twice():
    assert_right(lambda x: x * x + x / x - x, leaf(np.array([0.7, -1.3])))


def test_comparisons():
    a, b = mf.Tensor(np.array([1.0, 2.0, np.nan])), mf.Tensor(np.array([2.0, 2.0, 1.0]))
    assert (a < b).numpy().tolist() == [True, False, False]
    assert (a <= b).numpy().tolist() == [True, True, False]
    assert (a > 1).numpy().tolist() == [False, True, False]
    assert (a >= 1).numpy().tolist() == [True, True, False]
    assert (a == b).numpy().tolist() == [False, True, False]
    assert not (a < b).requires_grad


def test_relu_at_zero_and_nan():
    """Derivative 0 at 0, as in PyTorch; NaN goes through."""
    x = leaf(np.array([[[[-1.0, 0.0, -0.0, 2.0, np.nan, np.inf, -np.inf]]]]))
    y = mf.functional.relu(x)
    np.testing.assert_array_equal(y.numpy().ravel(), [0, 0, 0, 2, np.nan, np.inf, 0])
    y[..., :4].sum().backward()
    assert x.grad.numpy().ravel()[:4].tolist() == [0, 0, 0, 1]


def test_sigmoid_and_tanh_do_not_overflow():
    x = leaf(np.array([-1e4, -800.0, 0.0, 800.0, 1e4]))
    with np.errstate(over="raise"):
        y = x.sigmoid()
        y.sum().backward()
    close(y, [0, 0, 0.5, 1, 1])
    close(x.grad, [0, 0, 0.25, 0, 0])


def test_sigmoid_keeps_its_digits_in_the_tail():
    x = -np.array([20.0, 30.0, 36.0])
    found = mf.Tensor(x).sigmoid().numpy()
    np.testing.assert_allclose(found, [math.exp(v) / (1 + math.exp(v)) for v in x], rtol=1e-14)


def test_clamp_at_its_bounds():
    """The bounds count as inside, as in PyTorch."""
    x = leaf(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    x.clamp(-1, 1).sum().backward()
    assert x.grad.numpy().tolist() == [0, 1, 1, 1, 0]


def test_a_kink_is_no_mistake():
    report = mf.check.gradcheck(mf.functional.relu, [leaf(np.array([0.0, 1.0]))])
    assert report.verdict == "kink" and not report


FAULTS = [
    (pointwise.Exp, "exp"),
    (pointwise.Log, "log"),
    (pointwise.Sqrt, "sqrt"),
    (pointwise.Abs, "abs"),
    (pointwise.Tanh, "tanh"),
    (pointwise.Sigmoid, "sigmoid"),
    (pointwise.Clamp, "clamp"),
    (pointwise.ReLU, "relu"),
    (arithmetic.Neg, "neg"),
    (arithmetic.Pow, "cube"),
]


@pytest.mark.parametrize("op, name", FAULTS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_derivative_is_caught(op, name):
    x = leaf(values(name, np.random.default_rng(4), 2, 3))
    assert_caught(op, scaled(0), UNARY[name][0], x)


@pytest.mark.parametrize("spoil", [scaled, dropped])
@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    "op, name",
    [
        (arithmetic.Add, "add"),
        (arithmetic.Sub, "sub"),
        (arithmetic.Mul, "mul"),
        (arithmetic.Div, "div"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_wrong_binary_derivative_is_caught(op, name, position, spoil):
    rng = np.random.default_rng(5)
    a, b = leaf(random(rng, 2, 3)), leaf(np.abs(random(rng, 3)) + 1)
    assert_caught(op, spoil(position), BINARY[name][0], a, b)


def test_errors():
    a = mf.Tensor(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"add: .*\(2, 3\).*\(4,\)"):
        a + mf.Tensor(np.zeros(4))
    with pytest.raises(InputError, match="clamp"):
        a.clamp()
    with pytest.raises(ShapeError, match="pow"):
        a**a
