"""The convolutions' CUDA kernels on the simulated GPU: values, faults, traffic, mistakes."""

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minifcn import conv_algorithm, device, kernels, launch, simulator
from minifcn.kernels import conv2d_cuda
from tests.convolutions import like_a_layers, random
from tests.simulated import ORDERS, agree, at_most, needs_compiler, on_gpu, planted, running

pytestmark = needs_compiler
DTYPES = st.sampled_from([np.float32, np.float64])


@st.composite
def cases(draw, most=12):
    """1×1, primes, stride > kernel, padding > size, dilation, groups, an empty batch."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    c, k = (groups * draw(st.sampled_from([1, 2, 3, 4, 7, 8, most])) for _ in range(2))
    kernel, stride, dilation = (
        (draw(st.integers(1, limit)), draw(st.integers(1, limit))) for limit in (4, 4, 3)
    )
    padding = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    size = draw(st.sampled_from([1, 2, 3, 5, 8, 13])), draw(st.sampled_from([1, 2, 3, 5, 7, 11]))
    n = draw(st.sampled_from([0, 1, 2, 3]))
    out = tuple(
        (a + 2 * p - d * (r - 1) - 1) // s + 1
        for a, p, d, r, s in zip(size, padding, dilation, kernel, stride)
    )
    assume(min(out) > 0 and (groups == 1 or not groups == c == k))
    return (n, *size, c), k, kernel, stride, padding, dilation, groups, out


def three(case, dtype=np.float32, floor=-np.inf, bias=True, layout=True, wild=False):
    """y, dx and dw of a case by the GPU's kernels and by the definitions: (found, wanted)."""
    (n, h, w, c), k, kernel, stride, padding, dilation, groups, out = case
    shapes = (n, h, w, c), (k, c // groups, *kernel), (k,), (n, *out, k)
    x, weight, b, dy = random(c + k, *shapes, dtype=dtype)
    if wild and x.size:
        x.reshape(-1)[0], dy.reshape(-1)[-1] = np.nan, np.nan
    ours = simulator.asarray(weight)
    if layout:
        weight = like_a_layers(weight)
        ours = simulator.asarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    windows = stride, padding, dilation, groups

    def run(x, weight, b, dy):
        return (
            kernels.conv2d(x, weight, b if bias else None, *windows, out, floor),
            kernels.conv_transpose2d(dy, weight, None, *windows, (h, w)),
            kernels.conv2d_weight(x, dy, kernel, *windows)[0],
        )

    found = tuple(a.get() for a in run(on_gpu(x), ours, on_gpu(b), on_gpu(dy)))
    with device.use("reference"):
        return found, run(x, weight, b, dy)


def terms(case):
    """The roundings that the longest sum of a case may add up."""
    (n, *_, c), k, (r, s), *_, (p, q) = case
    return 8 + max(c * r * s, k * r * s, n * p * q)


@pytest.fixture
def parts(monkeypatch):
    """The weight gradient's sums in parts, few as the pixels of a test are."""
    monkeypatch.setattr(conv2d_cuda, "PIXELS", 16)


@pytest.mark.parametrize("order", ORDERS)
@given(cases(), DTYPES, st.booleans(), st.booleans(), st.booleans())
@at_most(12)
def test_values(parts, order, case, dtype, relu, bias, layout):
    with running(order):
        found, wanted = three(case, dtype, 0.0 if relu else -np.inf, bias, layout)
    agree(found, wanted, terms(case))


#: more than one tile in every direction: pixels, channels out, taps; and whole vectors or none
LARGE = [
    ((2, 11, 13, 20), 68, (3, 3), (1, 1), (1, 1), (1, 1), 1, (11, 13)),
    ((2, 9, 17, 5), 67, (5, 6), (1, 2), (2, 3), (1, 1), 1, (9, 9)),
    ((3, 8, 8, 16), 24, (2, 2), (2, 2), (0, 0), (1, 1), 2, (4, 4)),
    ((1, 40, 30, 3), 8, (3, 3), (1, 1), (1, 1), (1, 1), 1, (40, 30)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_several_tiles(parts, case, dtype):
    agree(*three(case, dtype, floor=0.0), terms(case))


@given(cases())
@at_most(8)
def test_nan_stays_where_the_definition_has_it(case):
    with np.errstate(invalid="ignore"):
        found, wanted = three(case, wild=True, floor=0.0)
    for ours, theirs in zip(found, wanted):
        assert np.array_equal(np.isnan(ours), np.isnan(theirs))


@given(cases(), st.booleans())
@at_most(15)
def test_no_fault(parts, case, layout):
    with running(check=True):
        three(case, layout=layout)


@given(cases(), DTYPES, st.booleans())
@at_most(12)
def test_im2col(case, dtype, checked):
    """The study version, forced; groups keep the implicit product."""
    with running(check=checked), conv_algorithm("im2col"):
        found, wanted = three(case, dtype, floor=0.0)
    agree(found, wanted, terms(case))


def test_1x1_is_a_plain_product():
    case = (2, 5, 7, 12), 8, (1, 1), (1, 1), (0, 0), (1, 1), 1, (5, 7)
    with launch.counted() as launches:
        found, wanted = three(case, floor=0.0)
    agree(found, wanted, terms(case))
    assert [start.name for start in launches] == ["add_bias"]


def test_depthwise():
    case = (2, 5, 7, 6), 6, (3, 3), (1, 2), (1, 0), (1, 1), 6, (5, 3)
    agree(*three(case, floor=0.0), terms(case))


def test_weights_that_begin_between_two_vectors():
    """As a view of a flat arena may: read one by one there."""
    x, flat = random(0, (1, 4, 5, 8), (9 * 8 * 8 + 1,))
    weight = flat[1:].reshape(3, 3, 8, 8).transpose(3, 2, 0, 1)
    ours = on_gpu(flat)[1:].reshape(3, 3, 8, 8).transpose(3, 2, 0, 1)
    settings = None, (1, 1), (1, 1), (1, 1), 1, (4, 5)
    with running(check=True):
        found = kernels.conv2d(on_gpu(x), ours, *settings).get()
    with device.use("reference"):
        agree((found,), (kernels.conv2d(x, weight, *settings),), 80)


def test_same_bits_for_any_order_and_grid(parts, monkeypatch):
    bits = set()
    for order, limit in zip((*ORDERS, 0), (1 << 20, 1 << 20, 3, 1)):
        monkeypatch.setattr(conv2d_cuda, "LIMIT", limit)  # blocks, each with many tiles
        with running(order):
            found, _ = three(LARGE[0])
        bits.add(b"".join(a.tobytes() for a in found))
    assert len(bits) == 1


# -- what is moved ---------------------------------------------------------------------------------

FACES = "conv2d", "conv_transpose2d", "conv2d_weight"
VGG = (1, 16, 16, 32), 64, (3, 3), (1, 1), (1, 1), (1, 1), 1, (16, 16)


def faces(case):
    """Each of the three kernels, to be called, and (rows, columns, depth) of its product."""
    x_shape, k, kernel, *windows, groups, out = case
    n, h, w, c = x_shape
    taps, pixels = kernel[0] * kernel[1], n * out[0] * out[1]
    x, dy = on_gpu(np.ones(x_shape, np.float32)), on_gpu(np.ones((n, *out, k), np.float32))
    weight = on_gpu(np.ones((*kernel, c, k), np.float32)).transpose(3, 2, 0, 1)
    forward = partial(kernels.conv2d, x, weight, None, *windows, groups, out)
    backward = partial(kernels.conv_transpose2d, dy, weight, None, *windows, groups, (h, w))
    by_weight = partial(conv2d_cuda.conv2d_weight, x, dy, (kernel, *windows), groups)
    return {
        "conv2d": (forward, (pixels, k, taps * c)),
        "conv_transpose2d": (backward, (n * h * w, c, taps * k)),
        "conv2d_weight": (by_weight, (taps * c, k, pixels)),
    }


#: the tests below, with channels that are read 16 bytes at a time and with odd ones
LAYERS = {
    "vgg": VGG,
    "rgb": ((1, 16, 24, 3), 64, (3, 3), (1, 1), (1, 1), (1, 1), 1, (16, 24)),
    "21 classes": ((1, 16, 16, 32), 21, (3, 3), (1, 1), (1, 1), (1, 1), 1, (16, 16)),
    "up": ((1, 16, 16, 24), 24, (4, 4), (2, 2), (1, 1), (1, 1), 1, (8, 8)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", FACES)
def test_traffic(name, layer, monkeypatch):
    """Each tile reads its rows of both matrices once and writes its results.

    In whole sectors, before any cache; but 21 channels begin anywhere in a sector.
    """
    monkeypatch.setattr(conv2d_cuda, "PIXELS", 1 << 20)  # one part: no partial sums
    case = LAYERS[layer]
    call, (rows, columns, depth) = faces(case)[name]
    with running(check=True) as reports:
        call()
    (report,) = reports
    across, down = -(-columns // 64), -(-rows // 128)
    if name == "conv_transpose2d":  # a phase meets its own taps only
        phases = case[3][0] * case[3][1]
        depth, down = depth // phases, phases * -(-rows // phases // 128)
    implied = 4 * (across * rows * depth + down * columns * depth + rows * columns)
    assert report.moved <= 1.02 * implied
    if layer in ("vgg", "up"):
        assert report.sectors * 32 <= 1.02 * implied and report.bytes_a_sector >= 31.5
    else:
        most = 1.82 if (name, layer) == ("conv_transpose2d", "21 classes") else 1.5
        assert report.sectors * 32 <= most * implied
    if layer == "vgg":  # operations a byte
        assert report.intensity(2 * rows * columns * depth) > 20


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", FACES)
def test_no_bank_conflict(name, layer):
    """No instruction takes more passes over shared memory than its bytes need."""
    with running(check=True) as reports:
        faces(LAYERS[layer])[name][0]()
    assert reports and all(report.conflicts == 0 for report in reports)


def test_a_row_without_its_padding_has_bank_conflicts(monkeypatch):
    with planted(monkeypatch, "conv2d.cu", "A_ROW = TALL + VECTOR", "A_ROW = TALL"):
        with running(check=True) as reports:
            faces(VGG)["conv2d"][0]()
    assert sum(report.conflicts for report in reports) > 0


# -- planted mistakes ------------------------------------------------------------------------------

RACE, BARRIER, OUTSIDE = "(?i)race|uninitialised", "(?i)barrier|deadlock", "(?i)out of bounds"
MISTAKES = {
    "no barrier before the first product": (
        "right.store(tiles.b[0]);\n    __syncthreads();",
        "right.store(tiles.b[0]);",
        RACE,
    ),
    "no barrier after a product": ("        __syncthreads();\n    }\n}", "    }\n}", RACE),
    "the next tile on top of this one": ("tiles.a[1 - now]", "tiles.a[now]", RACE),
    "a row too many": ("k = 0; k < DEPTH", "k = 0; k < DEPTH + 1", "(?i)uninitialised|race|out"),
    "a barrier for some": (
        "if (more) {",
        "if (threadIdx.x) __syncthreads();\nif (more) {",
        BARRIER,
    ),
    "part of a tile never written": (
        "i < B_LOADS; ++i) store_vector",
        "i < B_LOADS - 1; ++i) store_vector",
        "(?i)uninitialised",
    ),
    "a row beyond the matrix": ("i * STEP < rows_left &&", "i * STEP <= rows_left &&", OUTSIDE),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("file", ["conv2d.cu", "conv2d_weight.cu"])
def test_a_mistake_in_the_tiles_is_caught(mistake, file, monkeypatch):
    right, wrong, kind = MISTAKES[mistake]
    case = (1, 3, 5, 12), 8, (1, 3), (1, 1), (1, 1), (1, 1), 1, (5, 5)
    call = faces(case)[file.removesuffix(".cu")][0]
    with planted(monkeypatch, file, right, wrong), running(check=True):
        with pytest.raises(simulator.KernelFault, match=kind):
            call()


@pytest.mark.parametrize(
    "name, file, right, wrong",
    [
        ("conv2d", "conv2d.cu", "y < size.h", "y <= size.h"),
        ("conv2d", "conv2d.cu", "if (k < size.k) store_vector", "store_vector"),
        ("conv_transpose2d", "conv2d.cu", "i >= width", "i > width"),
        ("conv2d_weight", "conv2d_weight.cu", "y >= h", "y > h"),
        ("conv2d_weight", "conv2d_weight.cu", "m >= depth", "m > depth"),
    ],
)
def test_one_too_many_is_caught(name, file, right, wrong, monkeypatch):
    case = (1, 3, 5, 4), 4, (2, 2), (1, 1), (1, 1), (1, 1), 1, (4, 6)
    with planted(monkeypatch, file, right, wrong), running(check=True):
        with pytest.raises(simulator.KernelFault, match=OUTSIDE):
            faces(case)[name][0]()


@pytest.mark.parametrize(
    "file, right, wrong",
    [
        ("conv2d.cu", "e.high * rows.step", "e.high"),
        ("conv2d.cu", "element_step = period", "element_step = 1"),
        ("conv2d_weight.cu", "m.middle * dilation_x", "m.middle"),
        ("conv2d.cu", "value.at[v] < floor", "value.at[v] > floor"),
    ],
)
def test_a_wrong_value_is_seen(file, right, wrong, monkeypatch):
    case = (1, 9, 9, 4), 4, (3, 3), (2, 2), (1, 1), (1, 3), 1, (5, 3)
    with planted(monkeypatch, file, right, wrong):
        with pytest.raises(AssertionError):
            agree(*three(case, floor=0.0), terms(case))
