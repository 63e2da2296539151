"""Each way in which Winograd's convolution goes about its work, against sums in float64."""

import numba
import numpy as np
import pytest

from minifcn import functional
from minifcn.kernels import winograd, winograd_weight, workspace
from tests.convolutions import by_elements, by_minifcn, errors, layer, like_a_layers, random

#: (shape of x, output channels, dilation) and what such a layer is to try
SHAPES = {
    "few tiles, three depths of weights": ((2, 264, 6, 5), 272, 1),
    "many tiles, one block after the other": ((1, 20, 41, 37), 72, 1),
    "patches too many for a cache, blocks together": ((1, 260, 43, 38), 390, 1),
    "sums in parts, a last piece that is short": ((1, 33, 51, 47), 70, 1),
    "sums in shares of both kinds of channels": ((1, 130, 18, 22), 100, 1),
    "sums of all threads, in two rounds": ((2, 144, 50, 49), 130, 1),
    "pixels apart, sums in parts": ((1, 24, 37, 41), 40, 2),
    "pixels apart, sums of all threads": ((1, 140, 33, 38), 136, 3),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
BOUND = {np.float32: 5e-5, np.float64: 1e-13}


@pytest.fixture(autouse=True)
def two_threads():
    """Which way is gone depends on how many threads there are."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(2, before))
    yield
    numba.set_num_threads(before)


def apart(shape, dtype=np.float32):
    """The arrays of a layer that keeps the size, and its settings."""
    x, filters, dilation = shape
    arrays = layer(x, filters, dtype=dtype)
    return arrays, {"padding": (dilation, dilation), "dilation": (dilation, dilation)}


@every_shape
@pytest.mark.parametrize("dtype", BOUND)
def test_against_sums(shape, dtype, monkeypatch):
    monkeypatch.setattr(workspace, "poisoned", True)
    arrays, settings = apart(shape, dtype)
    found = by_minifcn("winograd4", *arrays, **settings)
    assert max(errors(found, by_elements(*arrays, **settings))) < BOUND[dtype]
    x, weight, *rest = arrays
    wrong = by_elements(x, np.roll(weight, 1, axis=1), *rest, **settings)
    assert errors(found, wrong)[0] > 100 * BOUND[dtype]  # exchanged filters are seen


def test_shapes_try_what_they_are_named_for():
    """Limits move; then these shapes must move with them."""
    dtype = np.dtype(np.float32)

    def plans(name):
        (n, c, h, w), k, d = SHAPES[name]
        shared = (d, d), (d, d), 1
        forward = winograd._plan(n, c, k, *shared, (h, w), 4, False, 1, (3, 3), dtype, 2)
        return forward, winograd_weight._plan(n, (h, w), c, k, *shared, 4, 1, dtype, 2)

    forward, _ = plans("patches too many for a cache, blocks together")
    together, ends = forward.settings[7], forward.settings[10]
    assert forward.shares == 0 and 1 < together < len(ends) - 1
    assert plans("few tiles, three depths of weights")[0].shares > 1
    assert plans("many tiles, one block after the other")[0].settings[7] == 1
    for name in SHAPES:
        parts = plans(name)[1].parts
        assert (parts > 1) == ("sums in parts" in name or "many tiles" in name), (name, parts)


@pytest.mark.parametrize("layer", [(1, 64, 64, 36), (4, 64, 64, 28), (1, 16, 32, 48)])
def test_small_maps_leave_work_for_some_threads(layer):
    n, c, k, size = layer
    dtype = np.dtype(np.float32)
    one = (1, 1)
    plan = winograd_weight._plan(n, (size, size), c, k, one, one, 1, 4, 1, dtype, 8)
    jobs = np.diff(plan.rounds).max()
    tiles = n * (-(-size // 4)) ** 2
    assert jobs >= min(4, tiles // winograd_weight.PIECE)


@pytest.mark.parametrize("shape", [((2, 80, 9, 7), 96), ((1, 280, 22, 25), 264)])
def test_groups_are_convolutions_beside_each_other(shape):
    arrays = layer(*shape)
    x, weight, bias, dy = arrays
    half = x.shape[1] // 2
    found = by_minifcn("winograd4", x, weight[:, :half], bias, dy, padding=1, groups=2)
    halves = []
    for i in range(2):
        c, k = slice(i * half, (i + 1) * half), slice(i * len(bias) // 2, (i + 1) * len(bias) // 2)
        halves.append(by_elements(x[:, c], weight[k, :half], bias[k], dy[:, k], padding=(1, 1)))
    wanted = [np.concatenate(pair, axis) for pair, axis in zip(zip(*halves), (1, 1, 0, 0))]
    assert max(errors(found, wanted)) < BOUND[np.float32]


def watched(monkeypatch, module, *names):
    """The set of those of the module's functions that will have been called."""
    called = set()

    def watch(name, function):
        monkeypatch.setattr(module, name, lambda *a: (called.add(name), function(*a))[1])

    for name in names:
        watch(name, getattr(module, name))
    return called


def both_ways(shape, module, limit, monkeypatch):
    """What minifcn gives with a limit of 0 and with none, and the sums."""
    arrays, settings = apart(shape)
    results = []
    for value in (0, 1 << 30):
        monkeypatch.setattr(module, limit, value)
        module._plan.cache_clear()  # plans were made with the limit of before
        results.append(by_minifcn("winograd4", *arrays, **settings))
    module._plan.cache_clear()
    return *results, by_elements(*arrays, **settings)


@every_shape
def test_who_transforms_the_weights_changes_no_bit(shape, monkeypatch):
    ways = watched(monkeypatch, winograd, "_tiles_loop", "_columns_loop")
    one, other, _ = both_ways(shape, winograd, "FEW_TILES", monkeypatch)
    assert len(ways) == 2, ways
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@every_shape
def test_both_ways_to_the_weights_gradient(shape, monkeypatch):
    ways = watched(monkeypatch, winograd_weight, "_in_shares", "_together")
    monkeypatch.setattr(workspace, "poisoned", True)
    *results, wanted = both_ways(shape, winograd_weight, "FEW_FILTERS", monkeypatch)
    n, _, h, w = shape[0]
    assert len(ways) == (1 if n * h * w <= 16 * winograd_weight.PIECE else 2), ways
    for found in results:
        assert max(errors(found, wanted)[2:]) < BOUND[np.float32]


#: (shape of x, output channels, kernel, padding, dilation): few tiles and many, one depth and more
LARGER = [
    ((2, 100, 13, 9), 70, (7, 7), (3, 3), (1, 1)),
    ((1, 24, 67, 35), 40, (5, 4), (0, 6), (2, 1)),
    ((1, 200, 6, 31), 96, (3, 8), (1, 2), (1, 2)),
]


@pytest.mark.parametrize("shape, filters, kernel, padding, dilation", LARGER)
def test_larger_kernels_in_parts(shape, filters, kernel, padding, dilation, monkeypatch):
    monkeypatch.setattr(workspace, "poisoned", True)
    settings = {"padding": padding, "dilation": dilation}
    out = [
        a + 2 * p - d * (r - 1)
        for a, p, d, r in zip(shape[2:], padding, dilation, kernel, strict=True)
    ]
    c = shape[1]
    arrays = random(0, shape, (filters, c, *kernel), (filters,), (shape[0], filters, *out))
    wanted = by_elements(*arrays, **settings)
    found = by_minifcn("winograd4", *arrays, **settings)
    assert max(errors(found[:2], wanted[:2])) < BOUND[np.float32]
    x, weight, *rest = arrays
    for axis in (2, 3):  # a tap in the place of the next is seen
        wrong = by_elements(x, np.roll(weight, 1, axis=axis), *rest, **settings)
        assert min(errors(found[:2], wrong[:2])) > 100 * BOUND[np.float32]
    numba.set_num_threads(1)
    alone = by_minifcn("winograd4", *arrays, **settings)
    assert all(np.array_equal(a, b) for a, b in zip(alone, found, strict=True))


@pytest.mark.parametrize("groups", [1, 2])
def test_larger_kernels_of_groups_and_transposed(groups):
    """A transposed convolution, beside the same by another algorithm."""
    x, weight, dy = random(1, (2, 40, 9, 11), (40, 48 // groups, 5, 4), (2, 48, 9, 10))

    def transposed(*arrays, bias=None, **settings):
        return functional.conv_transpose2d(*arrays, **settings)

    settings = {"groups": groups, "padding": (2, 2)}
    results = [
        by_minifcn(name, x, weight, None, dy, op=transposed, **settings)
        for name in ("im2col", "winograd2", "winograd4")
    ]
    for found in results[1:]:
        assert max(errors(found, results[0])) < BOUND[np.float32]
    assert not np.array_equal(results[1][0], results[0][0])  # it was another algorithm


@pytest.mark.parametrize("size", [4, 40])  # threads share columns, or tiles
def test_weights_that_may_not_be_written_serve(size):
    x, w, b, dy = layer((1, 32, size, size), 32)
    w = like_a_layers(w)
    wanted = by_minifcn("winograd4", x, w, b, dy, padding=1)
    w.flags.writeable = False
    for found, right in zip(by_minifcn("winograd4", x, w, b, dy, padding=1), wanted, strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("c, k", [(128, 128), (256, 256), (192, 96), (136, 304), (64, 256)])
def test_what_is_fetched_ahead_is_what_the_jobs_meet_next(c, k):
    """Gradients behind the first block, the next frequency's first, then its patches: each once."""
    chunk, lanes, f, rows = 32, 16, 1, winograd_weight.ROWS
    # patches of a frequency, gradients; behind them room for what a narrow last block leaves over
    apart, between = chunk * (c + 3 * lanes), chunk * (k + 3 * lanes)
    memory = np.zeros(3 * apart + 3 * between, np.int64)  # patches first, and frequencies 0 to 2
    firsts = []
    for channel in range(0, c, rows):
        column = 0
        while column < k:
            wide = min(k - column, 3 * lanes)
            here = f * between + column * chunk
            after = winograd_weight._met_next.py_func(
                f, channel, column, wide, c, k, chunk, apart, between, -3 * apart
            )
            firsts.append(wide)
            if after:
                start = 3 * apart + here + after
                memory[start : start + wide * chunk] += 1
            column += wide
    patches, gradients = memory[: 3 * apart].reshape(3, apart), memory[3 * apart :].reshape(3, -1)
    reached = min(c, (-(-c // rows) - 1) * k)  # a job fetches as much as it multiplies by
    assert (patches[2, : reached * chunk] == 1).all() and not patches[:2].any()
    assert not gradients[1, : firsts[0] * chunk].any() and not gradients[0].any()
    assert (gradients[1, firsts[0] * chunk : k * chunk] == 1).all()
    assert gradients[2, 0] == 1
