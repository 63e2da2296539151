"""Which algorithm computes a convolution, how one is forced, and what all of them keep to."""

from importlib import import_module

import numpy as np
import pytest

import minifcn as mf
from minifcn.errors import InputError
from minifcn.functional import conv2d_relu
from minifcn.kernels import algorithm, winograd_matrices, workspace
from tests.convolutions import (
    ALGORITHMS,
    by_elements,
    by_minifcn,
    errors,
    layer,
    like_a_layers,
    on_one_thread,
)

F = mf.functional
#: the module, whose name the function of the package hides
entry = import_module("minifcn.kernels.conv2d")


def chosen(kind, c, k, kernel=(3, 3), stride=(1, 1), dilation=(1, 1), groups=1, out=(64, 64), **on):
    return algorithm.choose(kind, c, k, kernel, stride, dilation, groups, out, **on)


@pytest.mark.parametrize("kind", ["forward", "input", "weight"])
def test_the_well_known_cases(kind):
    assert chosen(kind, 64, 64) == "winograd4"
    assert chosen(kind, 64, 64, dtype=np.float64) == "im2col"
    assert chosen(kind, 3, 64) == chosen(kind, 64, 3) == "im2col"
    assert chosen(kind, 64, 64, kernel=(1, 1)) == "gemm"
    assert chosen(kind, 64, 64, kernel=(1, 1), stride=(2, 2)) == "im2col"
    assert chosen(kind, 64, 64, stride=(2, 2)) == "winograd2"
    assert chosen(kind, 64, 31, stride=(2, 2)) == "im2col"
    assert chosen(kind, 64, 64, stride=(2, 2), out=(8, 8)) == "im2col"
    assert chosen(kind, 64, 64, stride=(2, 1)) == chosen(kind, 64, 64, stride=(3, 3)) == "im2col"
    assert chosen(kind, 64, 64, stride=(2, 2), dilation=(2, 2)) == "im2col"
    assert chosen(kind, 64, 64, dilation=(2, 2)) == "winograd4"
    assert chosen(kind, 64, 64, groups=2) == "winograd4"
    assert chosen(kind, 64, 64, groups=8) == "im2col"  # eight channels: less than a vector
    assert chosen(kind, 64, 64, kernel=(5, 5)) == ("im2col" if kind == "weight" else "winograd4")
    assert chosen(kind, 64, 64, kernel=(5, 5), stride=(2, 2)) == "im2col"
    assert chosen(kind, 64, 64, kernel=(5, 2)) == chosen(kind, 8, 64, kernel=(5, 5)) == "im2col"
    assert chosen(kind, 64, 64, groups=64) == "depthwise"
    assert chosen(kind, 512, 512, out=(2, 2)) != "winograd4"  # six rows of tiles for two


def test_many_weights_and_few_pixels():
    """VGG's fc6 and fc7 over a small map; their weight gradient has no tap by tap."""
    fc6 = {"kernel": (7, 7), "out": (8, 8)}
    assert chosen("forward", 512, 4096, **fc6) == chosen("input", 4096, 512, **fc6) == "direct"
    assert chosen("weight", 512, 4096, **fc6) == "im2col"
    assert chosen("forward", 4096, 4096, kernel=(1, 1), out=(8, 8)) == "direct"
    assert chosen("forward", 512, 4096, kernel=(7, 7), out=(8, 8), batch=100) == "winograd4"
    assert chosen("forward", 8, 8, **fc6) == "im2col"


def test_forcing_leaves_alone_what_the_forced_cannot_serve():
    with mf.conv_algorithm("winograd4"):
        assert chosen("forward", 3, 3) == "winograd4"
        assert chosen("forward", 64, 64, stride=(2, 2)) == "winograd2"
        assert chosen("forward", 64, 64, stride=(3, 3)) == "im2col"
        assert chosen("forward", 64, 64, kernel=(1, 1)) == "gemm"
        assert chosen("forward", 64, 64, groups=64) == "depthwise"
        assert chosen("forward", 3, 3, kernel=(5, 4), groups=3, dtype=np.float64) == "depthwise"
        assert chosen("forward", 3, 6, kernel=(5, 4), groups=3) == "winograd4"
        assert chosen("weight", 64, 64, kernel=(5, 5)) == "im2col"
    with mf.conv_algorithm("direct"):
        assert chosen("forward", 64, 64, kernel=(5, 5), groups=2) == "direct"
        assert chosen("forward", 64, 64, kernel=(1, 1)) == "direct"
        assert chosen("input", 64, 64, stride=(1, 2)) == "direct"
        assert chosen("input", 64, 64, dilation=(2, 1)) == "direct"
        assert chosen("weight", 64, 64, kernel=(5, 5)) == "im2col"
        assert chosen("forward", 64, 64, groups=64) == "depthwise"
    with mf.conv_algorithm("im2col"):
        assert chosen("forward", 64, 64) == "im2col"
        assert chosen("forward", 64, 64, groups=64) == "depthwise"


@pytest.mark.parametrize("name", ["fft", "winograd", "gemm", "depthwise", "", 2])
def test_a_wrong_name_is_an_error_and_changes_nothing(name):
    with mf.conv_algorithm("winograd2"):
        with pytest.raises(InputError, match=r"conv_algorithm is .*choose one of im2col, direct"):
            mf.conv_algorithm(name)
        assert chosen("forward", 3, 3) == "winograd2"


def test_what_was_forced_before_comes_back():
    with mf.conv_algorithm("winograd2"):
        with mf.conv_algorithm("direct"):
            with mf.conv_algorithm(None):
                assert chosen("forward", 3, 3) == "im2col"
            assert chosen("forward", 3, 3) == "direct"
        assert chosen("forward", 3, 3) == "winograd2"
        with pytest.raises(ZeroDivisionError), mf.conv_algorithm("direct"):
            _ = 1 / 0
        assert chosen("forward", 3, 3) == "winograd2"
    assert chosen("forward", 3, 3) == "im2col"


def test_forced_for_good():
    try:
        mf.conv_algorithm("winograd2")
        assert chosen("forward", 3, 3) == "winograd2"
    finally:
        mf.conv_algorithm(None)
    assert chosen("forward", 3, 3) == "im2col"


RUNS = {  # the function that must be called for result, input gradient and weight gradient
    "im2col": ["im2col.along_taps", "im2col.along_taps", "im2col_weight.weight_along_taps"],
    "direct": ["direct.along_taps", "direct.along_taps", "im2col_weight.weight_along_taps"],
    "winograd2": ["winograd.conv", "winograd.conv", "winograd_weight.weight"],
    "winograd4": ["winograd.conv", "winograd.conv", "winograd_weight.weight"],
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_forced_one_computes(name, monkeypatch):
    calls = []

    def spy(where):
        module, function = where.split(".")
        original = getattr(getattr(entry, module), function)

        def called(*args, **kwargs):
            calls.append(where)
            whole = [a for a in args if isinstance(a, int)]  # the last: m, for tiles of m × m
            assert name[:-1] != "winograd" or whole[-1] == int(name[-1])
            return original(*args, **kwargs)

        monkeypatch.setattr(getattr(entry, module), function, called)

    for where in {where for names in RUNS.values() for where in names}:
        spy(where)
    by_minifcn(name, *layer((1, 36, 9, 9), 12), padding=1)
    assert calls == RUNS[name]


# -- what holds for every algorithm ---------------------------------------------------------------

SHAPES = {
    "one chunk": ((1, 17, 9, 11), 33),
    "many": ((2, 64, 41, 43), 72),
    "a tile over the last channel": ((2, 49, 50, 51), 19),
    "every other pixel": ((2, 49, 61, 58), 40, 2),
}
every_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def everything(name, shapes, relu=True):
    x_shape, filters, stride = (*shapes, 1)[:3]
    x, w, b, dy = layer(x_shape, filters, stride=stride)
    op = conv2d_relu if relu else F.conv2d
    return by_minifcn(name, x, like_a_layers(w), b, dy, op, padding=1, stride=stride)


@every_shape
@every_algorithm
def test_every_element_is_written_and_none_is_read_before(name, shapes, monkeypatch):
    """New memory is full of NaN; the results are those without."""
    wanted = everything(name, shapes)
    monkeypatch.setattr(workspace, "poisoned", True)
    for found, right in zip(everything(name, shapes), wanted, strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found, right)


@every_shape
@every_algorithm
def test_the_same_bits_from_one_thread_and_every_time(name, shapes):
    first, again = everything(name, shapes), everything(name, shapes)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    one = on_one_thread(lambda: everything(name, shapes))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, one, strict=True))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@every_algorithm
def test_what_is_not_finite_comes_out(name, value, relu):
    """im2col and direct give what the plain sums give; Winograd that or NaN, also in its tile."""
    x, w, b, _ = layer((2, 16, 13, 11), 24)
    op = conv2d_relu if relu else F.conv2d
    for pixel in ((0, 0), (4, 4), (5, 7), (12, 10)):
        spoiled = x.copy()
        spoiled[1, 3][pixel] = value
        with mf.conv_algorithm(name), np.errstate(invalid="ignore"):
            found = op(mf.Tensor(spoiled), mf.Tensor(w), mf.Tensor(b), padding=1).numpy()
            (wanted,) = by_elements(spoiled, w, b, padding=(1, 1))
        wanted = np.where(wanted < 0, 0, wanted) if relu else wanted
        strange = ~np.isfinite(wanted)
        assert strange.any()
        if name.startswith("winograd"):
            same = np.isnan(found) | (found == wanted)
            assert same[strange].all()
            m = int(name[-1])  # and no further than the tiles that touch it
            near = [slice(max(0, (at - 1) // m * m), (at + 1) // m * m + m) for at in pixel]
            outside = np.ones(found.shape, bool)
            outside[1][:, near[0], near[1]] = False
            assert np.isfinite(found[outside]).all()
        else:
            np.testing.assert_array_equal(found[strange], wanted[strange])
            assert np.isfinite(found[~strange]).all()


# -- faults that the comparisons must see ---------------------------------------------------------


def wrong(name, stride=1):
    """Whether result, input gradient and weight gradient differ from the plain sums."""
    x, w, b, dy = layer((1, 12, 14, 13), 20, stride=stride)
    found = by_minifcn(name, x, w, b, dy, padding=1, stride=stride)
    wanted = by_elements(x, w, b, dy, (1, 1), stride=(stride, stride))
    return [error > 1e-4 for error in errors(found, wanted)][:3]


every_tile = pytest.mark.parametrize(
    "name, stride", [("winograd2", 1), ("winograd4", 1), ("winograd2", 2)]
)


@pytest.mark.parametrize("stride", [1, 2])
@every_algorithm
def test_without_a_fault_nothing_is_wrong(name, stride):
    assert wrong(name, stride) == [False, False, False]


@every_tile
def test_a_wrong_padding_is_seen(name, stride, monkeypatch):
    conv, weight = entry.winograd.conv, entry.winograd_weight.weight

    def moved(padding):
        return padding[0] + 1, padding[1]

    monkeypatch.setattr(
        entry.winograd, "conv", lambda x, w, b, pad, *a, **k: conv(x, w, b, moved(pad), *a, **k)
    )
    monkeypatch.setattr(
        entry.winograd_weight,
        "weight",
        lambda x, g, pad, *a, **k: weight(x, g, moved(pad), *a, **k),
    )
    assert wrong(name, stride) == [True, True, True]


@every_tile
def test_taps_that_are_not_turned_about_are_seen(name, stride, monkeypatch):
    conv = entry.winograd.conv
    monkeypatch.setattr(entry.winograd, "conv", lambda *a, flipped=False, **k: conv(*a, **k))
    assert wrong(name, stride) == [False, True, False]


@pytest.mark.parametrize("name", ["im2col", "direct"])
def test_a_tap_that_reads_the_wrong_column_is_seen(name, monkeypatch):
    original = entry.convolution

    def moved(*args):
        taps = original(*args)
        offset = taps.offset.copy()
        offset[-1, 1] -= 1
        return type(taps)(taps.order, offset, taps.phases, taps.run * 0 + 1, (1, 1), (1, 1))

    monkeypatch.setattr(entry, "convolution", moved)
    assert wrong(name) == [True, False, True]


@pytest.mark.parametrize("m", [2, 4])
def test_the_matrices_are_those_of_an_exact_convolution(m):
    """Aᵀ[(G g) ⊙ (Bᵀ d)] is the sum itself in one dimension; a wrong number in any shows."""
    A, G, B = winograd_matrices.matrices(m)
    g, d = np.random.default_rng(0).standard_normal((2, m + 2))
    g = g[:3]
    wanted = [sum(g[r] * d[p + r] for r in range(3)) for p in range(m)]
    np.testing.assert_allclose(A @ ((G @ g) * (B @ d)), wanted, atol=1e-14)
    for matrix in (A, G, B):
        before = matrix[1, 1]
        matrix[1, 1] += 0.01
        assert np.abs(A @ ((G @ g) * (B @ d)) - wanted).max() > 1e-4
        matrix[1, 1] = before


@pytest.mark.parametrize("turned", [False, True])
def test_the_matrices_of_stride_2_are_those_of_an_exact_convolution(turned):
    """In one dimension again: two results two pixels apart, or four pixels that they go back to."""
    A, G, B = winograd_matrices.STRIDED
    if turned:
        A, B = winograd_matrices.TURNED
    rng = np.random.default_rng(0)
    g, d = rng.standard_normal(3), rng.standard_normal(B.shape[1])
    if turned:  # pixels 1 to 4 of x: 2i + r meets result i with tap r
        wanted = [
            sum(g[r] * d[i] for i in range(3) for r in range(3) if 2 * i + r == pixel)
            for pixel in range(1, 5)
        ]
    else:
        wanted = [sum(g[r] * d[2 * p + r] for r in range(3)) for p in range(2)]
    taps = g[::-1] if turned else g
    np.testing.assert_allclose(A @ ((G @ taps) * (B @ d)), wanted, atol=1e-14)
