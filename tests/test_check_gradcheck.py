"""The checker checked: right is called right, wrong wrong, and a kink neither."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn import Function, Tensor
from minifcn.check import gradcheck, gradgradcheck
from minifcn.errors import InputError


def leaf(*values):
    return Tensor(np.array(values, np.float64), requires_grad=True)


class Square(Function):
    """x², with a derivative that is `fault` times what it should be, plus `offset`."""

    def __init__(self, fault=1.0, offset=0.0):
        self.fault, self.offset = fault, offset

    def forward(self, x):
        return x * x

    def backward(self, grad):
        return (grad * self.inputs[0] * 2.0 * self.fault + self.offset,)


class Claimed(Function):
    """Any function of one array, with any claimed derivative."""

    def __init__(self, value, slope):
        self.value, self.slope = value, slope

    def forward(self, x):
        return self.value(x)

    def backward(self, grad):
        return (grad * Tensor(self.slope(self.inputs[0].numpy())),)


def test_right():
    report = gradcheck(lambda x: Square()(x), [leaf(1.0, -2.0, 3.0)])
    assert report and report.ok and report.verdict == "right"
    assert report.error < 1e-8
    assert report.inputs[0].entries == 3 and report.inputs[0].directions == 2


@pytest.mark.parametrize("fault", [1.00001, 0.99, -1.0, 0.0, 2.0, float("nan"), float("inf")])
def test_a_factor_is_wrong(fault):
    report = gradcheck(lambda x: Square(fault)(x), [leaf(1.0, -2.0, 3.0)])
    assert report.verdict == "wrong" and not report
    if np.isfinite(fault):
        expected = abs(fault - 1) / max(1, abs(fault))
        assert report.error == pytest.approx(expected, rel=0.02)


def test_an_offset_is_wrong():
    assert gradcheck(lambda x: Square(offset=1e-4)(x), [leaf(1.0, 2.0)]).verdict == "wrong"


def test_one_wrong_entry_among_many_is_named():
    def slope(x):
        s = 2 * x
        s[2, 1] *= 1.001
        return s

    x = Tensor(np.random.default_rng(0).standard_normal((4, 3)), requires_grad=True)
    report = gradcheck(lambda x: Claimed(lambda v: v * v, slope)(x), [x])
    (line,) = report.inputs
    assert line.verdict == "wrong" and line.place == (2, 1)
    assert line.analytic == pytest.approx(1.001 * line.numeric, rel=1e-6)


def test_one_wrong_entry_is_seen_by_directions_alone():
    def slope(x):
        s = 2 * x
        s[2, 1] *= 1.1
        return s

    x = Tensor(np.random.default_rng(0).standard_normal((40, 30)), requires_grad=True)
    fn = lambda x: Claimed(lambda v: v * v, slope)(x)  # noqa: E731
    assert gradcheck(fn, [x], entries=0, directions=2).verdict == "wrong"


def test_the_upstream_gradient_is_random():
    """Softmax without its derivative passes where all upstream entries are equal: here it fails."""

    class Softmax(Function):
        def forward(self, x):
            e = np.exp(x - x.max())
            return e / e.sum()

        def backward(self, grad):
            return (grad * 0.0,)

    x = leaf(0.1, 0.7, -0.3)
    y = Softmax()(x)
    assert abs(y.sum().item() - 1) < 1e-15  # its sum is constant: the derivative of that is 0
    assert gradcheck(lambda x: Softmax()(x), [x]).verdict == "wrong"


KINKS = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, 0.0),
    "relu, the other side": (lambda x: np.maximum(x, 0), lambda x: (x >= 0) * 1.0, 0.0),
    "abs": (np.abs, np.sign, 0.0),
    "abs, a side": (np.abs, lambda x: np.where(x >= 0, 1.0, -1.0), 0.0),
    "slopes 1 and 1.01": (
        lambda x: np.where(x > 0, 1.01 * x, x),
        lambda x: 1 + 0.01 * (x > 0),
        0.0,
    ),
    "on a curve": (lambda x: np.exp(x) + np.abs(x - 1), lambda x: np.exp(x) + np.sign(x - 1), 1.0),
    "step": (lambda x: (x > 0) * 1.0, lambda x: x * 0.0, 0.0),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks(name):
    value, slope, at = KINKS[name]
    report = gradcheck(lambda x: Claimed(value, slope)(x), [leaf(at, 0.5, -0.5)])
    assert report.verdict == "kink", f"\n{report}"
    assert not report and report.inputs[0].place == (0,)


@pytest.mark.parametrize("name", KINKS)
def test_a_wrong_slope_elsewhere_is_wrong_although_there_is_a_kink(name):
    value, slope, at = KINKS[name]
    wrong = lambda x: slope(x) + np.where(x == 0.5, 0.01, 0.0)  # noqa: E731
    report = gradcheck(lambda x: Claimed(value, wrong)(x), [leaf(at, 0.5, -0.5)])
    assert report.verdict == "wrong" and report.inputs[0].place == (1,)


def test_a_value_beyond_both_slopes_is_wrong_even_at_a_kink():
    report = gradcheck(
        lambda x: Claimed(np.abs, lambda x: np.sign(x) + 1.5 * (x == 0))(x), [leaf(0.0)]
    )
    assert report.verdict == "wrong"


@given(
    exponent=st.floats(-12, -3), steep=st.floats(0.1, 10), fault=st.sampled_from([0.0, 1e-3, 0.5])
)
def test_a_kink_at_any_distance(exponent, steep, fault):
    """A corner within ε, or just beyond it, hides no fault and invents none."""
    at = 10.0**exponent
    value = lambda x: np.where(x > at, steep * (x - at), 0.0) + np.sin(x)  # noqa: E731
    slope = lambda x: np.where(x > at, steep, 0.0) + np.cos(x) * (1 + fault)  # noqa: E731
    report = gradcheck(lambda x: Claimed(value, slope)(x), [leaf(0.0)], eps=1e-6)
    allowed = {"right", "kink"} if fault == 0 else {"wrong"} if at > 1e-7 else {"wrong", "kink"}
    assert report.verdict in allowed, f"\n{report}"


@given(seed=st.integers(0, 1000))
def test_curvature_is_no_kink(seed):
    """Third powers and exponentials with large second derivatives are smooth."""
    rng = np.random.default_rng(seed)
    x = Tensor(rng.uniform(-3, 3, (3, 2)), requires_grad=True)
    assert gradcheck(lambda x: (x * 5.0).exp() * 0.1 + x**3 * 50.0, [x])
    assert gradcheck(lambda x: Claimed(lambda v: v**3, lambda v: 3.03 * v**2)(x), [x]).verdict == (
        "wrong"
    )


def test_sums_of_many_corners():
    """Ten entries at a tie at once: the direction that moves them all is a kink as well."""
    x = Tensor(np.zeros((2, 5)), requires_grad=True)
    report = gradcheck(mf.functional.relu, [x])
    assert report.verdict == "kink" and report.inputs[0].kinks == 12


def test_a_gradient_of_zero_is_right():
    x = leaf(1.0, 2.0)
    assert gradcheck(lambda x: x * 0.0, [x])
    assert gradcheck(lambda x: (x - x.detach()) * 0.0 + x / x, [x])


def test_an_unused_input_has_gradient_zero():
    x, y = leaf(1.0), leaf(2.0)
    report = gradcheck(lambda x, y: x * 3.0, [x, y])
    assert report and report.inputs[1].largest == 0


def test_a_forgotten_input_is_wrong():
    """It is used, but cut off from the graph."""
    x, y = leaf(1.0), leaf(2.0)
    report = gradcheck(lambda x, y: x * y.detach(), [x, y])
    assert [line.verdict for line in report.inputs] == ["right", "wrong"]


def test_several_outputs_and_constants():
    x, w, constant = leaf(1.0, 2.0), leaf(3.0, -1.0), Tensor(np.array([5.0, 6.0]))
    report = gradcheck(lambda x, w, c: (x * w, (x + c).sum(), c), [x, w, constant])
    assert report and len(report.inputs) == 2


def test_inputs_read_by_closure_and_left_as_they_were():
    """The parameters of a network are moved in place and put back bit for bit."""
    w = leaf(0.1, 0.7)
    x = Tensor(np.array([1.0, 3.0]))
    before = w.numpy().tobytes()
    assert gradcheck(lambda *_: (x * w) ** 2, [w])
    assert w.numpy().tobytes() == before and w.grad is None


def test_inputs_are_put_back_when_fn_fails():
    w = leaf(0.5)
    calls = []

    def fails(w):
        calls.append(1)
        if len(calls) == 4:
            raise ZeroDivisionError
        return w * 2.0

    with pytest.raises(ZeroDivisionError):
        gradcheck(fails, [w])
    assert w.item() == 0.5


def test_samples():
    x = Tensor(np.random.default_rng(0).standard_normal((50, 50)), requires_grad=True)
    report = gradcheck(lambda x: x.tanh(), [x], entries=7, directions=3)
    assert report and report.inputs[0].entries == 7 and report.inputs[0].directions == 3


def test_empty_and_scalar_inputs():
    assert gradcheck(lambda x: x * 2.0, [Tensor(np.zeros((0, 3)), requires_grad=True)])
    assert gradcheck(lambda x: x * x, [Tensor(np.array(3.0), requires_grad=True)])


def test_works_under_no_grad():
    with mf.no_grad():
        assert gradcheck(lambda x: x * x, [leaf(1.0)])
        assert gradgradcheck(lambda x: x * x, [leaf(1.0)])


class TestSecond:
    def test_right(self):
        report = gradgradcheck(lambda x, w: (x * w).exp(), [leaf(0.5, -1.0), leaf(0.3, 0.2)])
        assert report and len(report.inputs) == 3  # x, w and the upstream gradient

    def test_wrong_second_derivative_of_a_right_first(self):
        class Cube(Function):
            def forward(self, x):
                return x**3

            def backward(self, grad):  # right, but the 3x² is a constant to the next derivative
                return (grad * Tensor(3 * self.inputs[0].numpy() ** 2),)

        x = leaf(1.0, -2.0)
        assert gradcheck(lambda x: Cube()(x), [x])
        report = gradgradcheck(lambda x: Cube()(x), [x])
        assert [line.verdict for line in report.inputs] == ["wrong", "right"]

    def test_linear(self):
        assert gradgradcheck(lambda x: x * 3.0, [leaf(1.0, 2.0)])

    def test_tie(self):
        report = gradgradcheck(mf.functional.relu, [leaf(0.0, 1.0)])
        assert report.verdict == "kink"


class TestErrors:
    def test_float32(self):
        x = Tensor(np.ones(2, np.float32), requires_grad=True)
        with pytest.raises(InputError, match="input 0 is float32.*float64"):
            gradcheck(lambda x: x * x, [x])

    def test_float32_inside(self):
        with pytest.raises(InputError, match="returned float32"):
            gradcheck(lambda x: x.to(np.float32), [leaf(1.0)])

    def test_nothing_to_check(self):
        with pytest.raises(InputError, match="requires_grad"):
            gradcheck(lambda x: x, [Tensor(np.ones(2))])

    def test_not_a_tensor(self):
        with pytest.raises(InputError, match="ndarray"):
            gradcheck(lambda x: x, [np.ones(2)])
        with pytest.raises(InputError, match="float"):
            gradcheck(lambda x: x.item(), [leaf(1.0)])

    def test_random_function(self):
        rng = np.random.default_rng(0)
        with pytest.raises(InputError, match="generator"):
            gradcheck(lambda x: x * float(rng.random()), [leaf(1.0)])

    def test_read_only(self):
        x = Tensor(np.broadcast_to(np.ones(1), (3,)), requires_grad=True)
        with pytest.raises(InputError, match="input 0.*copy"):
            gradcheck(lambda x: x * x, [x])


def test_inputs_have_names():
    x, y = leaf(1.0), leaf(2.0)
    report = gradcheck(lambda x, y: x * y, [x, y], names=["weight", "bias"])
    assert [line.name for line in report.inputs] == ["weight", "bias"]
    with pytest.raises(InputError, match="1 names for 2 inputs"):
        gradcheck(lambda x, y: x * y, [x, y], names=["weight"])


def test_the_report_reads_as_a_table():
    good = str(gradcheck(lambda x: Square()(x), [leaf(1.0)], title="square"))
    assert good.startswith("square: right\n") and "input 0" in good
    bad = gradcheck(lambda a, x: Square(1.5)(x) + a, [leaf(1.0), leaf(1.0, 2.0)], title="bad")
    lines = str(bad).splitlines()
    assert lines[0] == "bad: wrong"
    assert lines[1].split() == (
        ["input", "shape", "entries", "error", "at", "analytic", "numeric", "largest", "verdict"]
    )
    assert "right" in lines[3] and "wrong" in lines[4] and "3.3e-01" in lines[4]
