"""ReLU, its gate of one bit an element, and the way back, against a loop over single elements."""

from importlib import import_module

import numba
import numpy as np
import pytest

import minifcn as mf
from minifcn import device, kernels
from minifcn.kernels import stream

relu = import_module("minifcn.kernels.relu")  # the module: the package has a function of its name
SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 16383, 16384, 16385, 40001]
REALS = [np.float32, np.float64]


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def on_device(request):
    with device.use(request.param):
        yield request.param


def numbers(size, dtype, seed=0):
    """Random, with NaN, zeros of both signs, infinities and the least positive number at places
    that fall everywhere in a vector."""
    a = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    least = np.nextafter(dtype(0), dtype(1))
    for value, step in (np.nan, 5), (0.0, 7), (-0.0, 11), (np.inf, 13), (-np.inf, 17), (least, 19):
        a[step // 2 :: step] = value
    return a


def by_elements(x, grad):
    """(y, gate, dx) of rows of numbers, one after the other."""
    y, dx = x.copy(), np.zeros_like(grad)
    gate = [0] * ((len(x) + 7) // 8)
    for i, value in enumerate(x.tolist()):
        if value < 0:
            y[i] = 0
        if value > 0:
            gate[i // 8] |= 1 << (i % 8)
            dx[i] = grad[i]
    return y, np.array(gate, np.uint8), dx


def same(found, wanted):
    """To the bit; NaN is NaN."""
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert np.array_equal(found, wanted, equal_nan=found.dtype.kind == "f")
    if found.dtype.kind == "f":
        numbers = ~np.isnan(wanted)
        assert np.array_equal(np.signbit(found)[numbers], np.signbit(wanted)[numbers])


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("size", SIZES)
def test_values(size, dtype):
    x, grad = numbers(size, dtype), numbers(size, dtype, 1)
    wanted = by_elements(x, grad)
    y, gate = kernels.relu(x)
    for found, right in zip((y, gate, kernels.relu_backward(grad, gate)), wanted, strict=True):
        same(found, right)
    same(kernels.positive(x), wanted[1])
    same(kernels.positive(y), wanted[1])


@pytest.mark.parametrize("dtype", REALS)
def test_pictures_of_any_layout(dtype):
    """The bits stand in the order N, H, W, C, however the elements lie."""
    n, c, h, w = shape = 2, 3, 5, 7
    x, grad = numbers(n * c * h * w, dtype), numbers(n * c * h * w, dtype, 1)
    wanted = by_elements(x, grad)
    last = [a.reshape(n, h, w, c).transpose(0, 3, 1, 2) for a in (x, grad)]
    first = [np.ascontiguousarray(a) for a in last]
    gaps = [np.repeat(a, 2, axis=3)[..., ::2] for a in first]
    for ours, theirs in ((last, last), (first, last), (last, first), (gaps, first), (first, gaps)):
        y, gate = kernels.relu(ours[0])
        dx = kernels.relu_backward(theirs[1], gate)
        assert y.shape == dx.shape == shape
        same(gate, wanted[1])
        same(kernels.positive(ours[0]), wanted[1])
        for found, right in ((y, wanted[0]), (dx, wanted[2])):
            same(found.transpose(0, 2, 3, 1).reshape(-1), right)


def test_a_matrix_with_gaps():
    x = numbers(60, np.float32).reshape(5, 12)[:, ::3]
    y, gate = kernels.relu(x)
    wanted = by_elements(x.reshape(-1), x.reshape(-1))
    for found, right in zip((y, gate, kernels.relu_backward(x, gate)), wanted, strict=True):
        same(found.reshape(-1), right)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8])
def test_integers(dtype):
    x = np.arange(100, 140).astype(dtype) - dtype(120)  # uint8 has no negative numbers: all stay
    y, gate = kernels.relu(x)
    assert y.dtype == dtype and y.tolist() == [max(v, 0) for v in x.tolist()]
    assert np.unpackbits(gate, bitorder="little").tolist() == [int(v > 0) for v in x.tolist()]
    assert mf.functional.relu(mf.Tensor(x)).numpy().tolist() == y.tolist()


@pytest.mark.parametrize("large", [0, 1 << 60])
def test_one_thread_and_two_and_past_the_caches(large, monkeypatch):
    """The same bits, also where no vector may be written past the caches."""
    monkeypatch.setattr(stream, "LARGE", large)
    x = numbers(5 * relu.BLOCK + 21, np.float32)
    wanted, before = by_elements(x, x), numba.get_num_threads()
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            for first in (0, 1):  # from 1 on, elements lie across vectors
                y, gate = kernels.relu(x[first:])
                dx = kernels.relu_backward(x[first:], gate)
                same(y, wanted[0][first:])
                same(dx, wanted[2][first:])
                bits = np.unpackbits(wanted[1], bitorder="little")[first : len(x)]
                same(np.unpackbits(gate, bitorder="little")[: len(bits)], bits)
    finally:
        numba.set_num_threads(before)


def test_a_mistake_is_caught(monkeypatch, on_device):
    """The bits of a byte from the other end."""
    pack = np.packbits
    monkeypatch.setattr(np, "packbits", lambda a, bitorder: pack(a))
    with pytest.raises(AssertionError):
        test_values(15, np.float32)


def test_what_a_step_keeps_is_a_bit_an_element():
    x = mf.randn(2, 16, 8, 8, generator=np.random.default_rng(0), requires_grad=True)
    y = mf.functional.relu(x)
    node = y._creator
    held = [v for v in vars(node).values() if isinstance(v, np.ndarray)]
    assert [a.nbytes for a in held] == [x.data.size // 8]
    assert node._kept == [None] and not hasattr(node, "_output")


def test_a_network_through_checkpoint_has_the_same_bits():
    def gradients(run):
        x = mf.randn(2, 5, 7, 3, generator=np.random.default_rng(0), requires_grad=True)
        run(lambda x: mf.functional.relu(x * x - 1.0) * x, x).sum().backward()
        return x.grad.numpy().tobytes()

    assert gradients(mf.checkpoint) == gradients(lambda function, x: function(x))
