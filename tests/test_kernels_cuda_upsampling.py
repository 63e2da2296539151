"""The CUDA kernels of up-sampling (resampling, depthwise convolution), on the simulated GPU."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import device, kernels, simulator
from minifcn.kernels import depthwise
from tests.simulated import ORDERS, agree, both, needs_compiler, on_gpu, planted, running, traffic

pytestmark = needs_compiler
DTYPES = st.sampled_from([np.float32, np.float64])
CHANNELS = st.sampled_from([1, 2, 3, 4, 8, 21, 33])


@st.composite
def resamplings(draw):
    """(shape, axis, size wanted, align_corners)."""
    shape = [draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 9))]
    axis = draw(st.integers(1, 2))
    shape[axis] = draw(st.sampled_from([1, 2, 3, 7, 16, 70]))
    wanted = draw(st.sampled_from([1, 2, 5, 16, 64, 65, 130]))
    return (*shape, draw(CHANNELS)), axis, wanted, draw(st.booleans())


def there_and_back(resampling, dtype):
    shape, axis, wanted, corners = resampling
    matrix = kernels.bilinear(shape[axis], wanted, shape[axis] / wanted, corners)
    rng = np.random.default_rng(0)
    yield both(kernels.resample, rng.standard_normal(shape).astype(dtype), matrix, axis)
    shape = (*shape[:axis], wanted, *shape[axis + 1 :])
    slope = rng.standard_normal(shape).astype(dtype)
    yield both(kernels.resample, slope, matrix.transpose, axis)


@pytest.mark.parametrize("order", ORDERS)
@given(resamplings(), DTYPES)
def test_resampling(order, resampling, dtype):
    with running(order):
        for found, wanted in there_and_back(resampling, dtype):
            agree(found, wanted, rounding=64)


@given(resamplings())
def test_resampling_without_fault(resampling):
    with running(check=True):
        for _ in there_and_back(resampling, np.float32):
            pass


@st.composite
def convolutions(draw):
    """(shape of x, windows, size of the result, transposed)."""
    transposed = draw(st.booleans())
    kernel, stride, padding, dilation, size, out = [], [], [], [], [], []
    for _ in range(2):
        k, s, d = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
        p, h = draw(st.integers(0, 4)), draw(st.integers(1, 11))
        reach = d * (k - 1) + 1
        most = (h - 1) * s - 2 * p + reach if transposed else (h + 2 * p - reach) // s + 1
        kernel, stride, padding = [*kernel, k], [*stride, s], [*padding, p]
        dilation, size, out = [*dilation, d], [*size, h], [*out, max(most, 1)]
    n, c = draw(st.integers(1, 2)), draw(CHANNELS)
    windows = tuple(tuple(pair) for pair in (kernel, stride, padding, dilation))
    return (n, *size, c), windows, tuple(out), transposed


def convolve(case, dtype):
    """The result, and of a plain convolution the weight's gradient: (found, wanted)."""
    shape, windows, out, transposed = case
    c, rng = shape[3], np.random.default_rng(0)
    x, bias = rng.standard_normal(shape).astype(dtype), rng.standard_normal(c).astype(dtype)
    weight = rng.standard_normal((c, 1, *windows[0])).astype(dtype)
    by_tap = np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, c))
    y = depthwise.depthwise_cuda(*map(on_gpu, (x, by_tap, bias)), windows, out, transposed)
    defined = kernels.conv_transpose2d if transposed else kernels.conv2d
    with device.use("reference"):
        wanted = defined(x, weight, bias, *windows[1:], c, out)
    yield (y.get(),), (wanted,)
    if not transposed:
        slope = rng.standard_normal(wanted.shape).astype(dtype)
        found = depthwise.depthwise_weight_cuda(on_gpu(x), on_gpu(slope), windows).get()
        with device.use("reference"):
            wanted, _ = kernels.conv2d_weight(x, slope, *windows, c)
        yield (found.reshape(*windows[0], 1, c).transpose(3, 2, 0, 1),), (wanted,)


def close(found, wanted):
    agree(found, wanted, rounding=64 * 11)


@pytest.mark.parametrize("order", ORDERS)
@given(convolutions(), DTYPES)
def test_convolution(order, case, dtype):
    with running(order):
        for found, wanted in convolve(case, dtype):
            close(found, wanted)


@given(convolutions())
def test_convolution_without_fault(case):
    with running(check=True):
        for _ in convolve(case, np.float32):
            pass


def upsampling(n, size, factor, c):
    """The arguments of up-sampling by ``factor``, whose kernel is twice as large."""
    rng = np.random.default_rng(0)
    shapes = (n, size, size, c), (4 * factor * factor, c), (c,)
    arrays = [on_gpu(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    pad = factor // 2
    windows = (2 * factor,) * 2, (factor, factor), (pad, pad), (1, 1)
    return *arrays, windows, (size * factor,) * 2, True


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_fcn_upsampling(factor):
    """Through shared memory, whatever the factor."""
    shape = 1, 3, 4, 21
    windows = (2 * factor,) * 2, (factor, factor), (factor // 2,) * 2, (1, 1)
    assert depthwise._tile(windows, (3 * factor, 4 * factor), 21, 4, True) is not None
    case = shape, windows, (3 * factor, 4 * factor), True
    for found, wanted in convolve(case, np.float32):
        close(found, wanted)


@pytest.mark.parametrize("n, size, factor", [(2, 32, 2), (1, 24, 8)])
def test_traffic_of_upsampling(n, size, factor):
    arguments = upsampling(n, size, factor, 21)
    with traffic() as moved:
        y = depthwise.depthwise_cuda(*arguments)
    least = sum(a.nbytes for a in (*arguments[:3], y))
    assert moved.moved <= 1.1 * least and moved.per_sector >= 28


def downsampling(size, factor, c):
    """The arguments of the adjoint of up-sampling by ``factor``."""
    x, weight, bias, windows, wanted, _ = upsampling(2, size, factor, c)
    slope = on_gpu(np.random.default_rng(0).standard_normal((2, *wanted, c)).astype(np.float32))
    return slope, weight, bias, windows, (size, size), False


@pytest.mark.parametrize("size, factor", [(32, 2), (57, 2), (16, 8), (12, 16)])
def test_traffic_of_its_adjoint(size, factor):
    """Rows at the edges of a tile are read for both its neighbours."""
    arguments = downsampling(size, factor, 21)
    with traffic() as moved:
        y = depthwise.depthwise_cuda(*arguments)
    assert [report.kernel for report in moved.reports] == ["depthwise_strided"]
    least = sum(a.nbytes for a in (*arguments[:3], y))
    assert moved.moved <= 1.1 * least and moved.per_sector >= 28


@pytest.mark.parametrize("size, factor, c", [(32, 2, 21), (31, 2, 2), (24, 8, 2), (12, 8, 21)])
def test_traffic_of_the_weights_gradient(size, factor, c):
    """Of learned up-sampling: the large array is read once, the small one seldom."""
    slope, weight, _, windows, *_ = downsampling(size, factor, c)
    x = on_gpu(np.random.default_rng(1).standard_normal((2, size, size, c)).astype(np.float32))
    with traffic() as moved:
        dw = depthwise.depthwise_weight_cuda(slope, x, windows)
    least = slope.nbytes + x.nbytes + dw.nbytes
    assert moved.moved <= 1.1 * least and moved.per_sector >= 28


def weight_once():
    """The weight's gradient of two strips below two others: found and wanted are close."""
    case = (1, 36, 300, 3), ((4, 4), (2, 2), (1, 1), (1, 1)), (18, 150), False
    for found, wanted in list(convolve(case, np.float32))[1:]:
        close(found, wanted)


def test_a_missing_barrier_between_rows_of_the_weights_gradient_is_caught(monkeypatch):
    right = "__syncthreads();  // the next rows take"
    with planted(monkeypatch, "depthwise_weight.cu", right, "// "), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"(race)"):
            weight_once()


def test_a_row_of_slopes_too_few_is_caught(monkeypatch):
    right, wrong = "u = strip.top - slots + 1;", "u = strip.top;"
    weight_once()
    with planted(monkeypatch, "depthwise_weight.cu", right, wrong), pytest.raises(AssertionError):
        weight_once()


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("factor", [2, 8])
def test_traffic_of_resampling(factor, axis):
    shape = (2, 32, 32, 21)
    x = on_gpu(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    matrix = kernels.bilinear(32, 32 * factor, 1 / factor, False)
    with traffic() as moved:
        y = kernels.resample(x, matrix, axis)
    assert moved.moved <= 1.1 * (x.nbytes + y.nbytes) and moved.per_sector >= 28
    with traffic() as moved:
        kernels.resample(y, matrix.transpose, axis)
    assert moved.moved <= 1.1 * (x.nbytes + y.nbytes) and moved.per_sector >= 28


def resample_once(lead=1):
    x = np.random.default_rng(0).standard_normal((lead, 5, 3, 21)).astype(np.float32)
    return both(kernels.resample, x, kernels.bilinear(5, 20, 0.25, False), 1)


def test_an_offset_too_few_is_caught(monkeypatch):
    with planted(monkeypatch, "resample.cu", "o <= rows", "o < rows"), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"resample.cu:\d+: (uninitialised)"):
            resample_once()


def test_each_card_has_tables_of_its_own(monkeypatch):
    """What lies on the first card the second cannot read."""
    module = importlib.import_module("minifcn.kernels.resample")  # not the function
    passed, plain = [], module.launch

    def recording(file, name, grid, block, arguments, *others):
        passed.append(arguments[1:5])
        plain(file, name, grid, block, arguments, *others)

    monkeypatch.setattr(module, "launch", recording)
    x = on_gpu(np.ones((1, 5, 3, 2), np.float32))
    matrix = kernels.bilinear(5, 9, 5 / 9, False)
    for card in (0, 0, 1):
        monkeypatch.setattr(simulator.ndarray, "device", simulator.cuda.Device(card))
        kernels.resample(x, matrix, 1)
    first, again, other = passed
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert not any(a is b for a, b in zip(first, other, strict=True))


def test_a_missing_barrier_between_pictures_is_caught(monkeypatch):
    right = "__syncthreads();  // the next picture's"
    with planted(monkeypatch, "resample.cu", right, "// "), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"resample.cu:\d+: (race)"):
            resample_once(lead=3)


def test_a_missing_barrier_after_the_taps_is_caught(monkeypatch):
    right = "tile.channel, channels);\n        __syncthreads();"
    with planted(monkeypatch, "depthwise.cu", right, "tile.channel, channels);"):
        with (
            running(check=True),
            pytest.raises(simulator.KernelFault, match=r"depthwise.cu:\d+: (race|uninit)"),
        ):
            depthwise.depthwise_cuda(*upsampling(1, 4, 2, 5))


def test_a_missing_barrier_between_rows_is_caught(monkeypatch):
    right = "__syncthreads();  // the next row, or"
    with planted(monkeypatch, "depthwise.cu", right, "// "), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"depthwise.cu:\d+: (race)"):
            depthwise.depthwise_cuda(*downsampling(4, 2, 5))


def test_a_wrong_phase_is_caught(monkeypatch):
    right, wrong = "return (p + padding) % stride;", "return p % stride;"
    case = (1, 5, 5, 3), ((4, 4), (2, 2), (1, 1), (1, 1)), (10, 10), True
    with planted(monkeypatch, "depthwise.cu", right, wrong), pytest.raises(AssertionError):
        for found, wanted in convolve(case, np.float32):
            close(found, wanted)


def test_a_long_thin_picture_asks_for_no_grid_that_a_gpu_refuses():
    """Five million rows of a pixel: 78,125 parts would keep the bytes of their sums few."""
    one = (1, 1)
    tile = depthwise._phases((one, one, (0, 0), one), (1, 5_000_000, 1, 2), 5_000_000, 4)
    assert max(tile[0][1:]) <= 65535
