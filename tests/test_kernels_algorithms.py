"""Every algorithm of convolution, forced, against sums in float64: results and gradients."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minifcn as mf
from minifcn import device
from minifcn.kernels import workspace
from tests import naive
from tests.convolutions import (
    ALGORITHMS,
    by_elements,
    by_minifcn,
    errors,
    layer,
    like_a_layers,
    random,
)
from tests.ops.checks import LAYOUTS, laid_out

#: what rounding may do: numbers are standard normal, so a sum of T products is of size √T
TOLERANCE = {
    ("im2col", np.float64): 1e-14,
    ("direct", np.float64): 1e-14,
    ("winograd2", np.float64): 1e-14,
    ("winograd4", np.float64): 1e-13,
    ("im2col", np.float32): 5e-6,
    ("direct", np.float32): 5e-6,
    ("winograd2", np.float32): 5e-6,
    ("winograd4", np.float32): 5e-5,
}
CHANNELS = st.sampled_from([1, 2, 3, 5, 16, 17, 21, 32, 33, 49])
SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 11, 13])


@st.composite
def cases(draw, winograd, larger=False):
    """Shapes and layouts: 1 × 1, primes, odd channels, padding > size, empty batch."""
    n = draw(st.sampled_from([0, 1, 2, 3]))
    kernel = (3, 3) if winograd else (draw(st.integers(1, 5)), draw(st.integers(1, 4)))
    dilation = (1, 1) if winograd else (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    stride = draw(st.sampled_from([(1, 1), (2, 2)]))
    if larger:
        kernel, stride = (draw(st.integers(3, 7)), draw(st.integers(4, 8))), (1, 1)
    size = (draw(SIZES), draw(SIZES))
    out = output(size, kernel, padding, dilation, stride)
    assume(min(out) > 0)
    c, k = draw(CHANNELS), draw(CHANNELS)
    shapes = (n, c, *size), (k, c, *kernel), (k,), (n, k, *out)
    layouts = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS)), draw(st.booleans())
    return shapes, {"padding": padding, "dilation": dilation, "stride": stride}, layouts


def output(size, kernel, padding, dilation, stride):
    """Rows and columns of a convolution's result."""
    axes = zip(size, kernel, padding, dilation, stride, strict=True)
    return [(a + 2 * p - d * (r - 1) - 1) // n + 1 for a, r, p, d, n in axes]


def compare(algorithm, dtype, case):
    """Assert that result and gradients are right, to what rounding may do."""
    shapes, settings, (of_x, of_dy, by_taps) = case
    x, w, b, dy = random(1, *shapes, dtype=dtype)
    wanted = by_elements(x, w, b, dy, **settings)
    x, dy, w = laid_out(x, of_x), laid_out(dy, of_dy), like_a_layers(w) if by_taps else w
    found = by_minifcn(algorithm, x, w, b, dy, **settings)
    (n, c, *_), (k, _, r, s), _, (_, _, p, q) = shapes
    tolerance = TOLERANCE[algorithm, dtype]
    for a, right, terms in zip(found[:3], wanted, (c * r * s, k * r * s, n * p * q)):
        assert a.shape == right.shape and a.dtype == dtype
        error = float(np.abs(a - right).max(initial=0)) / max(terms, 1) ** 0.5
        assert error <= tolerance, f"{error:.1e}"


@given(case=cases(winograd=False))
def test_the_sums_themselves_against_seven_loops(case):
    """The float64 sums of this file, which everything below is compared with."""
    shapes, settings, _ = case
    shapes = [tuple(min(length, 5) for length in shape) for shape in shapes]
    n, size = shapes[0][0], shapes[0][2:]
    out = output(size, shapes[1][2:], **settings)
    assume(min(out) > 0)
    x, weight, bias, dy = random(2, *shapes[:3], (n, shapes[1][0], *out), dtype=np.float64)
    y, dx, d_weight, _ = by_elements(x, weight, bias, dy, **settings)
    np.testing.assert_allclose(y, naive.conv2d(x, weight, bias, **settings), atol=1e-13)
    # the adjoint of the convolution is the transposed one, and the form is linear in the weight
    back = naive.conv_transpose2d(dy, weight, **settings)
    reached = (..., *(slice(0, length) for length in back.shape[2:]))  # strides may leave a rest
    back = back[..., : size[0], : size[1]]
    np.testing.assert_allclose(dx[reached], back, atol=1e-13)
    other = random(3, weight.shape, dtype=np.float64)[0]
    along = naive.conv2d(x, other, **settings)
    np.testing.assert_allclose((along * dy).sum(), (other * d_weight).sum(), atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["im2col", "direct"])
@given(case=cases(winograd=False))
def test_any_kernel(algorithm, dtype, case):
    compare(algorithm, dtype, case)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
@given(case=cases(winograd=True))
def test_3_by_3(algorithm, dtype, case):
    compare(algorithm, dtype, case)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
@given(case=cases(winograd=False, larger=True))
def test_larger_kernels_in_parts_of_3_by_3(algorithm, dtype, case):
    compare(algorithm, dtype, case)


#: layers that cross the borders of the pieces in which the algorithms work
LARGER = {
    "some hundred tiles a thread": ((1, 16, 60, 57), 33, 1),
    "a column matrix in three panels": ((1, 230, 13, 11), 21, 1),
    "several blocks of pixels in the weight gradient": ((3, 33, 29, 31), 64, 2),
    "two shares of filters tap by tap": ((2, 5, 12, 19), 420, 0),
    "a tile over the last channel, tiles in two parts": ((3, 49, 56, 57), 17, 1),
    "two pieces of channels and one channel": ((2, 97, 31, 24), 50, 1),
    "padding that no pixel fills": ((2, 18, 21, 5), 35, 3),
    "some hundred tiles a thread, every other pixel": ((2, 33, 61, 58), 40, 1, 2),
    "every other pixel, from before the picture": ((1, 70, 40, 39), 17, 2, 2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("shapes", LARGER.values(), ids=LARGER)
def test_larger(shapes, algorithm, dtype):
    x_shape, filters, padding, stride = (*shapes, 1)[:4]
    x, w, b, dy = layer(x_shape, filters, padding, dtype=dtype, stride=stride)
    found = by_minifcn(algorithm, x, like_a_layers(w), b, dy, padding=padding, stride=stride)
    wanted = by_elements(x, w, b, dy, (padding, padding), stride=(stride, stride))
    rtol = 2 * TOLERANCE[algorithm, dtype]  # ten thousand terms, one after the other
    assert max(errors(found, wanted)) <= rtol, errors(found, wanted)


#: C, K, kernel, stride, padding, dilation, groups, where panels, lists of pixels and phases differ
SPREAD = {
    "a tap of some pixels, dy where it lies": (100, 64, (3, 3), (2, 1), (2, 1), (1, 2), 1),
    "taps cut for the threads": (128, 40, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "stride over kernel": (33, 17, (2, 1), (3, 4), (0, 2), (1, 1), 1),
    "groups of a tap a piece": (96, 60, (3, 2), (1, 2), (1, 1), (2, 1), 3),
    "groups of a few channels": (12, 90, (5, 3), (2, 3), (4, 0), (1, 1), 3),
    "one pixel of many channels, strided": (300, 21, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    "one pixel, a few channels": (6, 300, (1, 1), (1, 1), (1, 1), (1, 1), 1),
    "most taps see padding only": (36, 300, (7, 7), (1, 1), (6, 5), (1, 1), 1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["im2col", "direct"])
@pytest.mark.parametrize("case", SPREAD.values(), ids=SPREAD)
def test_strides_and_groups(case, algorithm, dtype):
    c, k, kernel, stride, padding, dilation, groups = case
    settings = dict(zip(("stride", "padding", "dilation", "groups"), case[3:], strict=True))
    x, w, b = random(5, (3, c, 11, 9), (k, c // groups, *kernel), (k,), dtype=dtype)
    wide = [a.astype(np.float64) for a in (x, w, b)]
    with device.use("reference"):
        dy = random(6, mf.functional.conv2d(*map(mf.Tensor, wide), **settings).shape)[0]
        wanted = by_minifcn(None, *wide, dy.astype(np.float64), **settings)
    found = by_minifcn(algorithm, x, like_a_layers(w), b, dy.astype(dtype), **settings)
    assert max(errors(found, wanted)) <= (5e-6 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("name", [*ALGORITHMS, None])
def test_a_map_far_smaller_than_its_weights(name):
    """As VGG's fc6 over a small picture; without a forced algorithm `direct` is chosen."""
    x, w, b, dy = random(4, (2, 41, 4, 3), (700, 41, 7, 7), (700,), (2, 700, 4, 3))
    found = by_minifcn(name, x, like_a_layers(w), b, dy, padding=3)
    assert max(errors(found, by_elements(x, w, b, dy, (3, 3)))) <= 5e-6


@pytest.mark.parametrize("kernel", [1, 3])
def test_many_weights_and_pixels_a_page_apart(kernel):
    """As VGG's fc7: pixels of 4 KB, which `direct` spreads. A stray line of them would be NaN."""
    shape, padding = (1030, 1024, kernel, kernel), kernel // 2
    x, w, b, dy = random(7, (2, 1024, 3, 5), shape, shape[:1], (2, 1030, 3, 5))
    workspace.poisoned = True
    try:
        found = by_minifcn("direct", x, like_a_layers(w), b, dy, padding=padding)
    finally:
        workspace.poisoned = False
    assert max(errors(found, by_elements(x, w, b, dy, (padding, padding)))) <= 5e-6


@pytest.mark.parametrize("c, k", [(16, 16), (64, 48), (15, 64), (64, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_chosen_algorithm(c, k, stride, dtype):
    """Nothing forced: the entry points pass `choose` what it wants to know."""
    x, w, b, dy = layer((2, c, 34, 30), k, dtype=dtype, stride=stride)
    found = by_minifcn(None, x, w, b, dy, padding=1, stride=stride)
    rtol = 5e-5 if dtype == np.float32 else 1e-14
    assert max(errors(found, by_elements(x, w, b, dy, (1, 1), stride=(stride, stride)))) <= rtol


def test_gradients_come_in_the_layers_layout():
    """(R, S, C, K) in memory, whichever algorithm computed them: no optimiser step copies."""
    x, w, b, dy = layer((1, 20, 9, 9), 40)
    for algorithm in ALGORITHMS:
        dw = by_minifcn(algorithm, x, like_a_layers(w), b, dy, padding=1)[2]
        strides = [s // dw.itemsize for s in dw.transpose(2, 3, 1, 0).strides]
        assert strides[3] == 1 and strides == sorted(strides, reverse=True), algorithm


def test_it_is_the_whole_operation_that_is_compared():
    """The comparison above sees one wrong element in any of the four."""
    x, w, b, dy = layer((1, 3, 7, 5), 4)
    found = by_minifcn("im2col", x, w, b, dy, padding=1)
    wanted = by_elements(x, w, b, dy, (1, 1))
    for i in range(4):
        spoiled = [a.copy() for a in wanted]
        spoiled[i].flat[-1] += 1e-3
        assert errors(found, spoiled)[i] > 5e-5
