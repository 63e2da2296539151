"""What holds for the kernels as a whole: memory, threads, and that every element is written."""

import numba
import numpy as np
import pytest

import minifcn as mf
from minifcn import kernels
from minifcn.kernels import (
    channel_sums,
    im2col,
    im2col_weight,
    jobs,
    lines,
    stream,
    tiling,
    winograd,
    workspace,
)
from minifcn.kernels.tiling import narrow_columns, rows
from minifcn.kernels.vector import lanes
from tests.convolutions import on_one_thread

F = mf.functional


def tensor(*shape, seed=0, dtype=np.float32):
    return mf.randn(*shape, generator=np.random.default_rng(seed), dtype=dtype, requires_grad=True)


def convolution():
    x, w, b = tensor(2, 5, 13, 17), tensor(21, 5, 3, 3, seed=1), tensor(21, seed=2)
    return F.conv2d(x, w, b, stride=2, padding=1), (x, w, b)


def wide_convolution():
    x, w = tensor(3, 64, 31, 29), tensor(64, 64, 3, 3, seed=1)
    return F.conv2d(x, w, padding=1), (x, w)


def first_layer():
    x, w, b = tensor(2, 3, 61, 67), tensor(64, 3, 3, 3, seed=1), tensor(64, seed=2)
    return F.conv2d(x, w, b, padding=1), (x, w, b)


def first_layer_without_bias():
    x, w = tensor(1, 4, 80, 80), tensor(64, 4, 3, 3, seed=1)
    return F.conv2d(x, w, padding=1), (x, w)


def fully_connected_layer():
    """As many weights as a classifier's first layer, on a map of which most taps miss a part."""
    x, w = tensor(3, 136, 5, 9), tensor(160, 136, 7, 7, seed=1)
    return F.conv2d(x, w, padding=3), (x, w)


def deep_convolution():
    """More channels than a piece of the weight gradient's work has rows."""
    x, w = tensor(2, 276, 9, 8), tensor(24, 276, 3, 3, seed=1)
    return F.conv2d(x, w, stride=2, padding=1), (x, w)


def padded_pixelwise_convolution():
    """Where a thread's share ends amid a tile; what only meets padding is left out or not."""
    x, w = tensor(2, 18, 20, 20), tensor(32, 9, 1, 1, seed=1)
    return F.conv2d(x, w, padding=1, groups=2), (x, w)


def pixelwise_convolution():
    x, w = tensor(1, 40, 37, 53), tensor(64, 40, 1, 1, seed=1)
    return F.conv2d(x, w), (x, w)


def grouped_convolution():
    x, w = tensor(2, 12, 17, 19), tensor(20, 3, 3, 2, seed=1)
    return F.conv2d(x, w, dilation=2, groups=4), (x, w)


def upsampling():
    x, w = tensor(2, 7, 19, 23), tensor(7, 7, 16, 16, seed=1)
    return F.conv_transpose2d(x, w, stride=8, padding=4), (x, w)


def depthwise_upsampling():
    x, w = tensor(2, 21, 19, 23), tensor(21, 1, 4, 4, seed=1)
    return F.conv_transpose2d(x, w, stride=2, padding=1, groups=21), (x, w)


def pooling():
    x = tensor(2, 24, 41, 43)
    return F.max_pool2d(x, 3, 2, 1, ceil_mode=True), (x,)


def pooling_in_tiles():
    x = tensor(2, 24, 40, 42)
    return F.max_pool2d(x, 2), (x,)


def normalisation():
    x, w, b = tensor(3, 17, 61, 67), tensor(17, seed=1), tensor(17, seed=2)
    return F.relu(F.batch_norm(x, None, None, w, b, training=True)), (x, w, b)


def joined_normalisation():
    x, w, b = tensor(3, 17, 61, 67), tensor(17, seed=1), tensor(17, seed=2)
    return F.batch_norm_relu(x, None, None, w, b, training=True), (x, w, b)


def resizing():
    x = tensor(2, 19, 31, 37)
    return F.interpolate(x, (75, 83)), (x,)


def loss():
    x = tensor(2, 21, 61, 67)
    target = np.random.default_rng(1).integers(0, 21, (2, 61, 67))
    return F.cross_entropy(x, target, reduction="none"), (x,)


def strided_convolution():
    """Taps by themselves, whose pixels are listed; some of them meet padding only."""
    x, w = tensor(2, 100, 13, 11), tensor(64, 100, 3, 3, seed=1)
    return F.conv2d(x, w, padding=2, stride=2), (x, w)


def strided_convolution_tap_by_tap():
    with mf.conv_algorithm("direct"):
        x, w, b = tensor(2, 36, 13, 11), tensor(300, 36, 3, 3, seed=1), tensor(300, seed=2)
        return F.conv2d(x, w, b, padding=2, stride=2), (x, w, b)


CASES = [
    convolution,
    strided_convolution,
    strided_convolution_tap_by_tap,
    wide_convolution,
    first_layer,
    first_layer_without_bias,
    fully_connected_layer,
    deep_convolution,
    pixelwise_convolution,
    padded_pixelwise_convolution,
    grouped_convolution,
    upsampling,
    depthwise_upsampling,
    pooling,
    pooling_in_tiles,
    normalisation,
    joined_normalisation,
    resizing,
    loss,
]


def everything(case):
    """The result and the gradients of a case, as bytes."""
    output, inputs = case()
    output.backward(np.random.default_rng(3).standard_normal(output.shape).astype(np.float32))
    return [t.numpy() for t in (output, *(x.grad for x in inputs))]


@pytest.fixture
def poisoned():
    workspace.poisoned = True
    yield
    workspace.poisoned = False


@pytest.mark.parametrize("case", CASES)
def test_every_element_is_written(case, poisoned):
    """New memory is filled with NaN: an element that a kernel forgets, or reads first, shows."""
    assert all(np.isfinite(array).all() for array in everything(case))


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_computed_with_what_memory_held(case, monkeypatch):
    """Not even to be thrown away: sums of old numbers would overflow, and warn."""
    plain = workspace.empty
    monkeypatch.setattr(workspace, "empty", lambda *a: filled(plain(*a)))
    with np.errstate(all="raise"):
        everything(case)


def filled(array):
    if array.dtype.kind == "f":
        array.fill(np.finfo(array.dtype).max)
    return array


def test_a_forgotten_element_is_caught(poisoned):
    assert np.isnan(workspace.empty((300, 300), np.float32)).all()
    assert np.isnan(workspace.empty((3,), np.float32)).all()


@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_threads(case):
    many = everything(case)
    one = on_one_thread(lambda: everything(case))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(many, one, strict=True))


@pytest.mark.parametrize(
    "case", [convolution, first_layer, fully_connected_layer, deep_convolution]
)
def test_convolutions_agree_with_the_definition(case):
    """Shapes that have ways of their own through the kernels, against NumPy's plain products."""
    found = everything(case)
    with mf.device.use("reference"):
        wanted = everything(case)
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_a_weight_gradients_work_is_shared_out_without_gaps():
    """For any number of threads: each row once, in whole tiles, and summed in the same way."""
    for c in (1, 3, 4, 8, 12, 21, 132, 136, 150, 264, 268, 276, 512, 1000):
        for taps in (1, 2, 9, 49):
            ways = set()
            for threads in (1, 2, 3, 8, 24, 96, 128):
                work, widest, alone = im2col_weight._shares(1, 1, taps, c, 999, threads)
                ends = [0, *work[:, 3].tolist()]
                assert ends[:-1] == work[:, 2].tolist() and ends[-1] == taps * c
                sizes = [high - low for low, high in zip(ends, ends[1:])]
                assert min(sizes) > 0 and all(rows(size) == size for size in sizes[:-1])
                spans = [(low // c, (high - 1) // c) for low, high in zip(ends, ends[1:])]
                assert widest == max(last + 1 - first for first, last in spans) * c
                assert not alone or all(first == last for first, last in spans)
                ways.add(alone)
            assert len(ways) == 1


def test_few_columns_take_a_vector_and_a_half_and_never_more_tiles(monkeypatch):
    vector = lanes(np.float32)
    monkeypatch.setattr(tiling, "HALVES", False)
    assert narrow_columns(np.float32, vector + 1) == 2 * vector
    monkeypatch.setattr(tiling, "HALVES", True)
    half = vector // 2
    for wanted in range(1, 20 * vector):
        wide = narrow_columns(np.float32, wanted)
        assert wide in (vector, vector + half, 2 * vector)
        assert -(-wanted // wide) == -(-wanted // (2 * vector))  # as many as of two vectors
        narrower = [w for w in (vector, vector + half) if w < wide]
        assert all(-(-wanted // w) > -(-wanted // wide) for w in narrower)
    # a block of one vector and a half where 21 classes meet AVX-512: 24 columns, not 32
    assert narrow_columns(np.float32, vector + half - 1) == vector + half
    assert narrow_columns(np.float32, 3 * vector) == vector + half


def grouped_pieces():
    """Each group's 40 results are no whole number of vectors of 16."""
    x, w = tensor(1, 32, 21, 23), tensor(80, 16, 3, 3, seed=1)
    return F.conv2d(x, w, padding=1, groups=2), (x, w)


def blocks_of_a_vector_and_a_half():
    """Every second block's columns begin amid a vector."""
    x, w = tensor(1, 8, 21, 23), tensor(3 * lanes(np.float32), 8, 3, 3, seed=1)
    return F.conv2d(x, w, padding=1), (x, w)


STREAMED = [wide_convolution, first_layer, grouped_pieces, blocks_of_a_vector_and_a_half]


@pytest.mark.parametrize("case", STREAMED)
@pytest.mark.parametrize("name", ["im2col", "winograd2", "winograd4"])
def test_the_same_bits_past_the_caches(name, case, monkeypatch):
    """A result is written past the caches if it is large; here every one that may be."""
    asked = []
    with mf.conv_algorithm(name):
        kept = everything(case)
        monkeypatch.setattr(stream, "LARGE", 0)
        for kernel in (im2col, lines, winograd):
            monkeypatch.setattr(
                kernel, "past_caches", lambda *a: asked.append(stream.past_caches(*a)) or asked[-1]
            )
        past = everything(case)
    assert any(asked) or (case is grouped_pieces and asked)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(kept, past, strict=True))


def test_what_may_be_written_past_the_caches(monkeypatch):
    monkeypatch.setattr(stream, "LARGE", 1 << 20)
    vector = lanes(np.float32)
    large = workspace.empty((1 << 18, vector), np.float32)
    assert stream.past_caches(large, vector)
    assert not stream.past_caches(large[: 1 << 10], vector)  # small
    shifted = large.reshape(-1)[1 : 1 - vector].reshape(-1, vector)
    assert not stream.past_caches(shifted, vector)
    assert not stream.past_caches(workspace.empty((1 << 18, vector + 1), np.float32), vector + 1)
    assert not stream.past_caches(large, vector // 2)  # two groups of half a vector each


@pytest.mark.parametrize("c, k", [(8, 5), (512, 21), (300, 70)])
@pytest.mark.parametrize("kernel", [1, 2])
def test_weights_are_packed_anew_at_each_call(c, k, kernel):
    """Few each thread packs for itself: what another call left in the same place is not taken."""
    rng, one = np.random.default_rng(0), (1, 1)
    x = rng.standard_normal((3, 9, 9, c), dtype=np.float32)
    for _ in range(3):
        w = rng.standard_normal((k, c, kernel, kernel), dtype=np.float32)
        out = 10 - kernel, 10 - kernel
        y = kernels.conv2d(x, w, None, one, (0, 0), one, 1, out)
        windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
        wanted = np.einsum("npqcrs,kcrs->npqk", windows.astype(float), w.astype(float))
        assert np.abs(y - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("c", [5, 16, 48])
@pytest.mark.parametrize("m", [1, 255, 257, 4 * 64 * 256 + 77])
def test_sums_of_many_rows(m, c):
    """In blocks of more rows where there are many; both kinds, whole vectors and not."""
    rng = np.random.default_rng(0)
    a, y = rng.standard_normal((2, m, c), dtype=np.float32)
    wanted, gated = a.sum(axis=0, dtype=float), np.where(y > 0, a, 0).astype(float)
    error = np.abs(channel_sums._sums(channel_sums.PLAIN, a, None, None) - wanted).max()
    g, sums = kernels.relu_backward_sum(a, y)
    assert (g == gated).all()
    assert max(error, np.abs(sums - gated.sum(axis=0)).max()) <= 1e-6 * m**0.5 + 1e-6


@pytest.mark.parametrize("name", ["im2col", "direct", "winograd4"])
@pytest.mark.parametrize("step", [2, -1])
def test_a_bias_may_have_gaps(name, step):
    rng, one = np.random.default_rng(0), (1, 1)
    x = rng.standard_normal((2, 5, 5, 16), dtype=np.float32)
    w = rng.standard_normal((20, 16, 3, 3), dtype=np.float32)
    bias = np.arange(40, dtype=np.float32)[::step][:20]
    with mf.conv_algorithm(name):
        given = x, w, bias, one, one, one, 1, (5, 5)
        plain = kernels.conv2d(*given[:2], None, *given[3:])
        assert np.abs(kernels.conv2d(*given) - plain - bias).max() < 1e-4
        back = rng.standard_normal((2, 5, 5, 20), dtype=np.float32), w, bias[:16], *given[3:]
        plain = kernels.conv_transpose2d(*back[:2], None, *back[3:])
        assert np.abs(kernels.conv_transpose2d(*back) - plain - bias[:16]).max() < 1e-4


def test_jobs_know_how_many_threads_there_are():
    many = numba.get_num_threads()
    assert jobs.threads() == many
    numba.set_num_threads(1)
    try:
        assert jobs.threads() == 1
    finally:
        numba.set_num_threads(many)
