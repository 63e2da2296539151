"""The dot-product test catches a wrong adjoint and refuses what is not linear."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import Function, Tensor
from minifcn.check import adjoint
from minifcn.errors import InputError


class Shift(Function):
    """y[i] = 2 x[i − 1], with a backward of choice."""

    def __init__(self, back):
        self.back = back

    def forward(self, x):
        return 2 * np.roll(x, 1)

    def backward(self, grad):
        return (Tensor(self.back(grad.numpy())),)


X = Tensor(np.random.default_rng(0).standard_normal(1000))


def test_right():
    report = adjoint(lambda x: Shift(lambda g: 2 * np.roll(g, -1))(x), X, title="shift")
    assert report and report.ok and report.error < 1e-13
    assert str(report).startswith("shift: right")


@pytest.mark.parametrize(
    "back",
    [
        lambda g: 2 * np.roll(g, 1),
        lambda g: 2 * g,
        lambda g: 2.01 * np.roll(g, -1),
        lambda g: 0 * g,
    ],
)
def test_wrong(back):
    report = adjoint(lambda x: Shift(back)(x), X)
    assert not report and report.error > 1e-3
    assert "wrong" in str(report)


def test_float32():
    x = Tensor(X.numpy().astype(np.float32))
    assert adjoint(lambda x: x * 3.0, x)
    assert adjoint(lambda x: Shift(lambda g: 2.01 * np.roll(g, -1))(x), x).ok is False


@pytest.mark.parametrize("fn", [lambda x: x + 1.0, lambda x: x * x, mf.functional.relu])
def test_not_linear(fn):
    with pytest.raises(InputError, match="not linear"):
        adjoint(fn, X)


def test_the_point_is_left_alone():
    before = X.numpy().tobytes()
    adjoint(lambda x: x * 3.0, X)
    assert X.numpy().tobytes() == before and X.grad is None and not X.requires_grad
