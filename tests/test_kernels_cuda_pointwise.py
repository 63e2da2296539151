"""Point-wise CUDA kernels and optimiser steps, on the simulated GPU, against their definitions."""

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import device, kernels, simulator
from minifcn.kernels import elementwise
from tests.simulated import ORDERS, agree, both, needs_compiler, on_gpu, planted, running, traffic

pytestmark = needs_compiler
SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13, 16, 31])
SHAPES = st.tuples(st.integers(0, 2), SIZES, SIZES, SIZES)
DTYPES = st.sampled_from([np.float32, np.float64])
SEEDS = st.integers(0, 99)


def numbers(shape, dtype, seed=0):
    """Random, with a NaN, zeros of both signs and infinities among them."""
    a = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    special = np.array([np.nan, 0.0, -0.0, np.inf, -np.inf], dtype)[: a.size]
    a.reshape(-1)[: special.size] = special
    return a


def packed(a):
    """The gate of a contiguous array, bit by bit."""
    gate = np.zeros(-(-a.size // 8), np.uint8)
    for i in np.flatnonzero(a > 0):
        gate[i // 8] += 1 << i % 8
    return gate


def pointwise(shape, dtype, seed):
    """Each kernel of relu.cu and elementwise.cu once: (found, wanted)."""
    a, b = numbers(shape, dtype, seed), numbers(shape, dtype, seed + 1)[::-1].copy()
    pictures = a.transpose(0, 3, 1, 2), b.transpose(0, 3, 1, 2)
    yield both(kernels.relu, pictures[0])
    yield both(kernels.relu, a.reshape(-1))
    yield both(kernels.relu_backward, pictures[0], packed(b))
    yield both(kernels.positive, pictures[1])
    with np.errstate(invalid="ignore"):
        yield both(kernels.add, *pictures)
    yield both(kernels.cat_channels, [a, b, a])
    yield both(kernels.cat_channels, [a, b[..., : shape[3] // 2].copy()])
    third = shape[3] // 3
    yield both(kernels.split_channels, a, (third, shape[3] - third))
    yield both(kernels.split_channels, a, (third, shape[3] - 2 * third, third))


@pytest.mark.parametrize("order", ORDERS)
@given(SHAPES, DTYPES, SEEDS)
def test_values_to_the_bit(order, shape, dtype, seed):
    with running(order):
        for found, wanted in pointwise(shape, dtype, seed):
            agree(found, wanted, rounding=0)


@given(SHAPES, st.just(np.float32), SEEDS)
def test_no_fault(shape, dtype, seed):
    with running(check=True):
        for _ in pointwise(shape, dtype, seed):
            pass


def test_a_sum_into_its_own_first_part():
    a, b = numbers((3, 5), np.float32), numbers((3, 5), np.float32, 1)
    ours = on_gpu(a)
    with np.errstate(invalid="ignore"):
        assert kernels.add(ours, on_gpu(b), out=ours) is ours
        agree((ours.get(),), (a + b,), rounding=0)


def test_an_array_that_begins_between_two_vectors():
    """No load of 16 bytes is possible there: one by one."""
    a = numbers((41,), np.float32)
    for first in (1, 2, 3):
        with running(check=True), np.errstate(invalid="ignore"):
            found = kernels.add(on_gpu(a)[first:], on_gpu(a)[first:])
        agree((found.get(),), ((a + a)[first:],), rounding=0)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 255, 256, 257, 2047, 2048, 2049, 5000])
def test_relu_where_warps_and_blocks_end(size):
    """From any element on: the gate's bytes begin at its own first. NaN's and −0's bits are 0."""
    a = numbers((size + 1,), np.float32, size)
    for first in (0, 1):
        part = a[first : first + size]
        wanted = np.array([v if not v < 0 else np.float32(0) for v in part], np.float32)
        with running(check=True):
            y, gate = kernels.relu(on_gpu(a)[first : first + size])
            dx = kernels.relu_backward(y, gate)
        agree((y.get(), gate.get()), (wanted, packed(part)), rounding=0)
        agree((dx.get(),), (np.where(part > 0, part, np.float32(0)),), rounding=0)


def test_more_elements_than_all_blocks_take_at_once(monkeypatch):
    monkeypatch.setattr(import_module("minifcn.kernels.relu"), "MOST", 1)
    a = numbers((2 * 2048 + 300,), np.float32)
    with running(check=True):
        found, wanted = both(kernels.relu, a)
        agree(found, wanted, rounding=0)
        agree(*both(kernels.relu_backward, a, wanted[1]), rounding=0)


def test_integers():
    """They have no gradient, and take the definition."""
    found, wanted = both(kernels.relu, np.arange(-7, 8))
    agree(found, wanted)
    assert wanted[0].tolist() == 8 * [0] + list(range(1, 8))


def step(kernel, shape, axes, buffers, dtype, seed, **rates):
    """One step on arrays whose axes lie in memory in the order ``axes``: (found, wanted)."""
    rng = np.random.default_rng(seed)
    wanted = [np.abs(rng.standard_normal(shape)).astype(dtype) for _ in range(2 + buffers)]
    found = [simulator.asarray(a).transpose(*axes) for a in wanted]
    wanted = [a.transpose(*axes) for a in wanted]
    if kernel is kernels.sgd and not buffers:
        found, wanted = [*found, None], [*wanted, None]
    kernel(*found, **rates)
    with device.use("reference"):
        kernel(*wanted, **rates)
    arrays = slice(0, 2 + buffers)
    return tuple(a.get() for a in found[arrays]), wanted[arrays]


def steps(shape, axes, dtype, seed):
    sgd = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "decay": 1e-3}
    yield step(kernels.sgd, shape, axes, 0, dtype, seed, **sgd, nesterov=False)
    yield step(kernels.sgd, shape, axes, 1, dtype, seed, **sgd, nesterov=False)
    yield step(kernels.sgd, shape, axes, 1, dtype, seed, **{**sgd, "decay": 0.0}, nesterov=True)
    adam = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "root": 0.3, "eps": 1e-8}
    yield step(kernels.adam, shape, axes, 2, dtype, seed, **adam, decay=1e-2, shrink=0.99)


ORDER_OF_AXES = st.permutations(range(4))


@pytest.mark.parametrize("order", ORDERS)
@given(SHAPES, ORDER_OF_AXES, DTYPES, SEEDS)
def test_optimisers(order, shape, axes, dtype, seed):
    with running(order):
        for found, wanted in steps(shape, axes, dtype, seed):
            agree(found, wanted)


@given(SHAPES, ORDER_OF_AXES, SEEDS)
def test_optimisers_without_fault(shape, axes, seed):
    with running(check=True):
        for _ in steps(shape, axes, np.float32, seed):
            pass


def test_a_parameter_with_gaps_takes_the_definition():
    p, g = (numbers((6, 8), np.float32, seed)[:, ::2] for seed in (0, 1))
    p, g = np.abs(p), np.abs(g)
    ours = simulator.asarray(np.repeat(p, 2, axis=1))[:, ::2]
    rates = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "decay": 0.0, "nesterov": False}
    with np.errstate(invalid="ignore"):
        kernels.sgd(ours, on_gpu(g), None, **rates)
        with device.use("reference"):
            kernels.sgd(p, g, None, **rates)
    agree((ours.get(),), (p,))


@pytest.mark.parametrize("c", [21, 24, 64])
def test_traffic(c):
    """Every byte once, and whole sectors: an activation of 2 × 16 × 16 pixels."""
    x, y = (on_gpu(numbers((2, 16, 16, c), np.float32, s).transpose(0, 3, 1, 2)) for s in (0, 1))
    g, b, v = (on_gpu(np.ones((2, 16, 16, c), np.float32)) for _ in range(3))
    rates = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "decay": 0.0, "nesterov": False}
    adam = {"lr": 0.1, "beta1": 0.9, "beta2": 0.9, "root": 1.0, "eps": 1.0, "decay": 0.0}
    bits = x.nbytes // 32
    gate = on_gpu(np.ones(bits, np.uint8))
    for call in (lambda: kernels.relu(x), lambda: kernels.relu_backward(x, gate)):
        with traffic() as moved:
            call()
        assert moved.moved == 2 * x.nbytes + bits and moved.per_sector == 32
    for arrays, call in (
        (3, lambda: kernels.add(x, y)),
        (3, lambda: kernels.sgd(g, b, None, **rates)),
        (5, lambda: kernels.sgd(g, b, v, **rates)),
        (7, lambda: kernels.adam(g, b, v, v + 1, **adam, shrink=1.0)),
    ):
        with traffic() as moved, np.errstate(invalid="ignore"):
            call()
        assert moved.moved == arrays * x.nbytes and moved.per_sector == 32


@pytest.mark.parametrize("c", [8, 64])
def test_traffic_of_joined_channels(c):
    """Whole sectors where each part's channels are a multiple of 8."""
    a = on_gpu(numbers((2, 16, 16, c), np.float32))
    with traffic() as moved:
        kernels.split_channels(kernels.cat_channels([a, a]), (c, c))
    assert moved.moved == 8 * a.nbytes and moved.per_sector == 32


@pytest.mark.parametrize("c, d", [(21, 21), (5, 12), (64, 21)])
def test_traffic_of_two_joined_and_split(c, d):
    """Whole sectors whatever the channels."""
    a, b = (on_gpu(numbers((2, 16, 16, k), np.float32)) for k in (c, d))
    with traffic() as moved:
        kernels.split_channels(kernels.cat_channels([a, b]), (c, d))
    assert moved.moved == 4 * (a.nbytes + b.nbytes) and moved.per_sector == 32


def test_a_missing_barrier_between_joined_tiles_is_caught(monkeypatch):
    right = "__syncthreads();  // the next tile takes"
    a = on_gpu(np.ones((1, 1, 40, 300), np.float32))
    with planted(monkeypatch, "elementwise.cu", right, "// "), running(check=True):
        monkeypatch.setattr(elementwise, "MOST", 1)
        with pytest.raises(simulator.KernelFault, match=r"elementwise.cu:\d+: (race)"):
            kernels.cat_channels([a, a])


def test_a_missing_barrier_before_a_tile_is_split_is_caught(monkeypatch):
    right = "joined[e] = y[first * width + e];\n        __syncthreads();"
    x = on_gpu(np.ones((1, 1, 40, 301), np.float32))
    with planted(monkeypatch, "elementwise.cu", right, right[:-16]), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"elementwise.cu:\d+: (race)"):
            kernels.split_channels(x, (150, 151))


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("if (i < n) y[i]", "if (i <= n) y[i]"),
        ("first + 8 * lane < n) gate", "first + 8 * lane <= n) gate"),
        ("first + 8 * lane < n ? gate", "first + 8 * lane <= n ? gate"),
    ],
)
def test_an_element_or_a_byte_too_many_is_caught(monkeypatch, right, wrong):
    with planted(monkeypatch, "relu.cu", right, wrong), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"relu.cu:\d+: (out of bounds)"):
            kernels.relu_backward(*kernels.relu(on_gpu(np.ones(8, np.float32))))


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("values[j] > 0);", "values[j] >= 0);"),  # the bit of 0
        ("lane / 4 == j", "lane % 8 == j"),  # another turn's votes
        ("4 * j + lane / 8", "4 * j + lane % 4"),  # another byte
        ("byte >> lane % 8", "byte >> (7 - lane % 8)"),  # the first bit the highest
    ],
)
def test_a_bit_out_of_place_is_caught(monkeypatch, right, wrong):
    a = numbers((300,), np.float32)
    with planted(monkeypatch, "relu.cu", right, wrong), running():
        _, gate = kernels.relu(on_gpu(a))
        dx = kernels.relu_backward(on_gpu(a), on_gpu(packed(a)))
    alike = np.array_equal(gate.get(), packed(a))
    assert not (alike and np.array_equal(dx.get(), np.where(a > 0, a, np.float32(0))))


def test_a_vector_too_many_is_caught(monkeypatch):
    right, wrong = "wide ? n / VECTOR : 0", "wide ? (n + VECTOR - 1) / VECTOR : 0"
    p, g = on_gpu(np.ones(5, np.float32)), on_gpu(np.ones(5, np.float32))
    with planted(monkeypatch, "optimizer.cu", right, wrong), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"optimizer.cu:\d+: (out of bounds)"):
            kernels.sgd(p, g, None, 0.1, 0.0, 0.0, 0.0, False)


def test_two_threads_on_one_column_are_caught(monkeypatch):
    with planted(monkeypatch, "elementwise.cu", "to + e] =", "to] ="), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"elementwise.cu:\d+: (race)"):
            kernels.split_channels(on_gpu(np.ones((1, 2, 2, 6), np.float32)), (2, 2, 2))
