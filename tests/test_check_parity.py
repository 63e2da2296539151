"""Parity of the devices: agreement is seen, and so is a difference in a value or a gradient."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import Function, Tensor, device
from minifcn.check import parity
from minifcn.errors import InputError

X = Tensor(np.random.default_rng(0).standard_normal((3, 4)), requires_grad=True)


class Uneven(Function):
    """2x, but on the device `cpu` its value or its gradient is off by one part in 10⁶."""

    def __init__(self, value=0.0, gradient=0.0):
        self.value, self.gradient = value, gradient

    def forward(self, x):
        return x * (2 + (self.value if device.current() == "cpu" else 0.0))

    def backward(self, grad):
        return (grad * (2 + (self.gradient if device.current() == "cpu" else 0.0)),)


def test_agreement():
    report = parity(lambda x: (Uneven()(x), x.sum()), [X], title="twice")
    assert report and report.error == 0
    assert [d.what for d in report.differences] == ["output 0", "output 1", "gradient of input 0"]
    assert str(report).startswith("twice against reference: the devices agree")


def test_difference_in_value():
    report = parity(lambda x: Uneven(value=2e-6)(x), [X])
    assert not report and report.error == pytest.approx(1e-6, rel=1e-3)
    assert "differs" in str(report)


def test_difference_in_gradient_only():
    report = parity(lambda x: Uneven(gradient=2e-6)(x), [X])
    assert [d.error > 1e-7 for d in report.differences] == [False, True]
    assert parity(lambda x: Uneven(gradient=2e-6)(x), [X], rtol=1e-5)


def test_nan_and_infinity_must_stand_in_the_same_places():
    class Holes(Function):
        def forward(self, x):
            y = x.copy()
            y[0, 0] = np.nan if device.current() == "cpu" else np.inf
            return y

        def backward(self, grad):
            return (grad,)

    assert parity(lambda x: Holes()(x), [X]).error == np.inf


def test_another_shape_or_dtype_is_a_difference():
    def fn(x):
        return x.reshape(-1) if device.current() == "cpu" else x

    assert parity(fn, [X.detach()]).error == np.inf
    single = lambda x: x.to(np.float32) if device.current() == "cpu" else x  # noqa: E731
    assert parity(single, [X.detach()]).error == np.inf


def test_the_current_device_and_the_inputs_are_left_alone():
    with device.use("reference"):
        parity(mf.functional.relu, [X])
        assert device.current() == "reference"
    assert X.grad is None


def test_two_devices_are_needed():
    with pytest.raises(InputError, match="at least two"):
        parity(mf.functional.relu, [X], devices=["cpu"])
