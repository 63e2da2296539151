"""CUDA kernels with a number a channel (batch normalisation, sums), on the simulated GPU."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import device, kernels, simulator
from tests.simulated import ORDERS, agree, both, needs_compiler, on_gpu, planted, running, traffic

pytestmark = needs_compiler
MATRICES = st.tuples(
    st.sampled_from([1, 2, 3, 7, 64, 129, 700]),
    st.sampled_from([1, 2, 3, 4, 8, 21, 64, 100, 257, 1100]),
).filter(lambda shape: shape[0] * shape[1] < 80_000)
DTYPES = st.sampled_from([np.float32, np.float64])


def loops(shape, dtype, relu):
    """Each kernel once: (found, wanted), and how many roundings they may differ by."""
    rng = np.random.default_rng(shape[0])
    grad, x = rng.standard_normal((2, *shape)).astype(dtype)
    a, b, d, e = rng.standard_normal((4, shape[1])).astype(dtype)
    a[0] = 0
    sums = 8 + shape[0]  # each row rounds once, in whatever order
    yield both(kernels.scale_shift, x, a, b, relu), 8
    yield both(kernels.backward_input, grad, x, a, b, d, e, relu), 8
    yield both(kernels.column_sums, grad), sums
    yield both(kernels.relu_backward_sum, grad, x), sums
    yield statistics(x + 5, a, b), sums
    if len(x) > 1:
        mean, rate = x.mean(0), 1 / (x.std(0, dtype=np.float64) + 1)
        found, wanted = both(kernels.slopes, grad, x, mean, rate, a, b, d, relu)
        yield (found, tuple(w.astype(dtype) for w in wanted)), sums


def statistics(x, weight, bias):
    """All that it gives, and the running mean and variance, from 1 on."""

    def followed(x, weight, bias, running_mean, running_variance):
        running = running_mean, running_variance
        return (*kernels.statistics(x, weight, bias, 1e-5, running, 0.3), *running)

    ones = [np.ones_like(weight) for _ in range(4)]
    found = followed(*map(on_gpu, (x, weight, bias, *ones[:2])))
    with device.use("reference"):
        wanted = followed(x, weight, bias, *ones[2:])
    assert found[1].dtype == np.float64
    return tuple(a.get().astype(x.dtype) for a in found), tuple(a.astype(x.dtype) for a in wanted)


@pytest.mark.parametrize("order", ORDERS)
@given(MATRICES, DTYPES, st.booleans())
def test_values(order, shape, dtype, relu):
    with running(order):
        for (found, wanted), rounding in loops(shape, dtype, relu):
            agree(found, wanted, rounding)


@given(MATRICES, st.booleans())
def test_no_fault(shape, relu):
    with running(check=True):
        for _ in loops(shape, np.float32, relu):
            pass


def test_empty():
    for shape in ((0, 3), (5, 0)):
        none = np.zeros(shape, np.float32)
        agree(*both(kernels.column_sums, none))
        agree(*both(kernels.relu_backward_sum, none, none))
        numbers = [np.ones(shape[1], np.float32)] * 3
        agree(*both(kernels.scale_shift, none, *numbers[:2]))
    found, wanted = both(kernels.slopes, none, none, *[none[0]] * 5, False)  # no channel
    agree(found, tuple(w.astype(np.float32) for w in wanted))


def test_nan_passes_a_relu():
    x = np.array([[np.nan, 1.0], [-1.0, np.nan]], np.float32)
    agree(*both(kernels.scale_shift, x, np.ones(2, np.float32), np.zeros(2, np.float32), True))


def test_no_digit_is_lost_far_from_zero():
    """Mean 10⁴, variance 1: E[x²] − E[x]² in float32 would be off by more than the variance."""
    x = (np.random.default_rng(0).standard_normal((3000, 5)) + 1e4).astype(np.float32)
    ones = np.ones(5, np.float32)
    (mean, rate, _, shift), _ = both(kernels.statistics, x, ones, ones, 0.0)
    exact = x.astype(np.float64)
    assert np.abs(rate - 1 / exact.std(0)).max() < 1e-4
    for found, wanted in (mean, exact.mean(0)), (shift, 1 - exact.mean(0) / exact.std(0)):
        assert np.abs(found - wanted).max() <= np.spacing(np.float32(1e4))


def test_the_same_bits_in_any_order_of_threads():
    grad, x = np.random.default_rng(0).standard_normal((2, 5000, 21)).astype(np.float32)
    bits = set()
    for order in ORDERS:
        with running(order):
            g, sums = kernels.relu_backward_sum(on_gpu(grad), on_gpu(x))
            found = kernels.statistics(on_gpu(x), *map(on_gpu, x[:2]), 1e-5)
        bits.add(b"".join(a.get().tobytes() for a in (g, sums, *found)))
    assert len(bits) == 1


@pytest.mark.parametrize("c", [21, 24, 64])
def test_traffic(c):
    """Each byte once, and a channel's own numbers once in many rows: 2 × 32 × 32 pixels."""
    grad, x = (on_gpu(np.ones((2048, c), np.float32)) for _ in range(2))
    number, rate = on_gpu(np.ones(c, np.float32)), on_gpu(np.ones(c))
    for arrays, call in (
        (2, lambda: kernels.scale_shift(x, number, number, True)),
        (3, lambda: kernels.backward_input(grad, x, *[number] * 4, True)),
        (3, lambda: kernels.relu_backward_sum(grad, x)),
        (1, lambda: kernels.column_sums(x)),
        (1, lambda: kernels.statistics(x, number, number, 1e-5)),
        (2, lambda: kernels.slopes(grad, x, number, rate, *[number] * 3, True)),
    ):
        with traffic() as moved:
            call()
        assert moved.moved <= 1.1 * arrays * x.nbytes and moved.per_sector >= 28


def test_a_missing_barrier_is_caught(monkeypatch):
    """The tree adds what other threads have yet to write; the values may come out right."""
    right, wrong = "__syncthreads();\n        for (int n = rows", "for (int n = rows"
    x = on_gpu(np.ones((700, 3), np.float32))
    with planted(monkeypatch, "channel_sums.cu", right, wrong), running(check=True):
        with pytest.raises(
            simulator.KernelFault, match=r"(columns.cuh|channel_sums.cu):\d+: (race|uninitialised)"
        ):
            kernels.column_sums(x)


def test_a_row_too_many_is_caught(monkeypatch):
    right, wrong = "m - row < rows ? m - row : rows", "rows"
    x, number = on_gpu(np.ones((3, 5), np.float32)), on_gpu(np.ones(5, np.float32))
    with planted(monkeypatch, "batch_norm.cu", right, wrong), running(check=True):
        with pytest.raises(
            simulator.KernelFault, match=r"(columns.cuh|batch_norm.cu):\d+: (out of bounds)"
        ):
            kernels.scale_shift(x, number, number)


def test_a_wrong_channel_is_caught(monkeypatch):
    x = np.ones((40, 3), np.float32)
    numbers = np.arange(3, dtype=np.float32)
    with planted(monkeypatch, "batch_norm.cu", "first + place(j) % width", "first + j % width"):
        found, wanted = both(kernels.scale_shift, x, numbers, numbers)
        with pytest.raises(AssertionError):
            agree(found, wanted)


@pytest.mark.parametrize(
    "right, wrong",
    [("variance + eps", "variance"), ("* m / (m > 1 ? m - 1 : 1)", ""), ("- s * mean[i]", "")],
)
@pytest.mark.parametrize("rows", [9, 70_000])  # one part; several, which another kernel merges
def test_a_wrong_formula_of_a_channel_is_caught(monkeypatch, right, wrong, rows):
    grad, x = np.random.default_rng(0).standard_normal((2, rows, 1)) * 0.01
    numbers = np.random.default_rng(1).standard_normal((5, 1))

    def differ():
        agree(*statistics(x, *numbers[:2]), rounding=rows)
        agree(*both(kernels.slopes, grad, x, numbers[0] ** 2, *numbers[1:], False), rounding=rows)

    differ()
    with planted(monkeypatch, "batch_norm.cu", right, wrong), pytest.raises(AssertionError):
        differ()
