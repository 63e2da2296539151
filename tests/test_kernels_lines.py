"""Few channels, line by line: results and gradients against sums in float64, over any width."""

import numba
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minifcn import kernels
from minifcn.kernels import lines, lines_weight, tiling
from minifcn.kernels.taps import convolution, transposed
from tests import naive
from tests.convolutions import by_elements, random

SIZES = st.sampled_from([1, 2, 5, 7, 8, 12, 13, 19, 28, 41])


@st.composite
def cases(draw, most=8):
    """Shapes and settings whose taps go line by line."""
    c, k = (
        draw(st.sampled_from([1, 2, 3, 4, 5, 16, 17, 21, 32])),
        draw(st.sampled_from([1, 21, 32])),
    )
    kernel = draw(st.integers(1, most)), draw(st.integers(1, most))
    stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    dilation = draw(st.integers(1, 3)), 1
    size = draw(st.integers(1, 9)), draw(SIZES)
    return draw(st.integers(0, 3)), c, k, kernel, stride, padding, dilation, size


def arrays(case, out, dtype):
    n, c, k, kernel, *_, size = case
    shapes = (n, c, *size), (k, c, *kernel), (k,), (n, k, *out)
    return random(4, *shapes, dtype=dtype)


def last(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def close(found, wanted, terms, dtype):
    error = np.abs(found - wanted).max(initial=0) / max(terms, 1) ** 0.5
    assert found.shape == wanted.shape and error <= (5e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(case=cases())
def test_a_convolution(dtype, case):
    n, c, k, kernel, stride, padding, dilation, size = case
    axes = zip(size, kernel, padding, dilation, stride, strict=True)
    out = tuple((a + 2 * p - d * (r - 1) - 1) // s + 1 for a, r, p, d, s in axes)
    assume(min(out) > 0)
    x, w, b, dy = arrays(case, out, dtype)
    y, _, dw, db = by_elements(x, w, b, dy, padding, dilation, stride)
    taps = convolution(kernel, stride, padding, dilation, out)
    assert lines.windows(taps) is not None
    by_tap = w.transpose(2, 3, 1, 0).reshape(-1, c, k)
    found = lines.along_taps(last(x), by_tap, b, taps, out)
    close(found.transpose(0, 3, 1, 2), y, by_tap.size // k, dtype)
    floored = lines.along_taps(last(x), by_tap, b, taps, out, 0.0)
    assert np.array_equal(floored, np.maximum(found, 0))
    if n == 0:
        return
    found, bias = lines_weight.weight_along_taps(last(x), last(dy), taps, bias=True)
    terms = n * out[0] * out[1]
    close(found.reshape(*kernel, c, k).transpose(3, 2, 0, 1), dw, terms, dtype)
    if bias is not None:
        close(bias, db, terms, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(case=cases(most=5))
def test_a_transposed_convolution(dtype, case):
    n, c, k, kernel, stride, padding, _, size = case
    axes = zip(size, kernel, padding, stride, strict=True)
    out = tuple((a - 1) * s - 2 * p + r for a, r, p, s in axes)
    taps = transposed(kernel, stride, padding, (1, 1), out, merged=True) if min(out) > 0 else None
    assume(taps is not None and lines.windows(taps) is not None)
    x, w, b, _ = arrays((n, c, k, kernel, size), out, dtype)
    w = w.transpose(1, 0, 2, 3)
    wanted = naive.conv_transpose2d(x[:1].astype(float), w.astype(float), b, stride, padding)
    by_tap = w.transpose(2, 3, 0, 1).reshape(-1, c, k)
    found = lines.along_taps(last(x), by_tap, b, taps, out).transpose(0, 3, 1, 2)
    close(found[:1], wanted, by_tap.size // k, dtype)


def rgb(n=4, side=64, filters=32):
    x, w, b, dy = random(
        5, (n, side, side, 3), (9, 3, filters), (filters,), (n, side, side, filters)
    )
    return x, w, b, dy, convolution((3, 3), (1, 1), (1, 1), (1, 1), (side, side))


def test_a_first_layer_goes_line_by_line(monkeypatch):
    x, w, b, dy, _ = rgb()
    met, one, weight = [], (1, 1), w.reshape(3, 3, 3, 32).transpose(3, 2, 0, 1)
    for module, name in ((lines, "along_taps"), (lines_weight, "weight_along_taps")):
        plain = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, plain=plain, name=name: met.append(name) or plain(*a)
        )
    kernels.conv2d(x, weight, b, one, one, one, 1, (64, 64))
    _, db = kernels.conv2d_weight(x, dy, (3, 3), one, one, one, 1, bias=True)
    assert met == ["along_taps", "weight_along_taps"]
    close(db, dy.astype(np.float64).sum(axis=(0, 1, 2)), 4 * 64 * 64, np.float32)


def test_the_same_bits_on_any_number_of_threads():
    if numba.get_num_threads() < 2:
        pytest.skip("one processor: nothing to compare")
    x, w, b, dy, taps = rgb()

    def bits():
        y = lines.along_taps(x, w, b, taps, (64, 64))
        return [a.tobytes() for a in (y, *lines_weight.weight_along_taps(x, dy, taps, True))]

    many, threads = bits(), numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert bits() == many
    finally:
        numba.set_num_threads(threads)


def test_not_a_number_and_infinity_reach_the_results_that_see_them():
    x, w, b, _, taps = rgb(n=1, side=16)
    x[0, 5, 7, 1], x[0, 12, 2, 0] = np.nan, np.inf
    y = lines.along_taps(x, np.abs(w), b, taps, (16, 16))
    seen = np.zeros((16, 16), bool)
    seen[4:7, 6:9] = seen[11:14, 1:4] = True
    assert (~np.isfinite(y).any(axis=-1))[0].tolist() == seen.tolist()
    assert (~np.isfinite(y).all(axis=-1))[0].tolist() == seen.tolist()


def test_of_rows_that_lie_in_one_line_none_sees_another():
    """13 results a row end amid a tile: rows of both pictures are computed together."""
    x, w, b, _ = random(5, (2, 9, 13, 3), (9, 3, 21), (21,), (1,))
    taps = convolution((3, 3), (1, 1), (1, 1), (1, 1), (9, 13))
    (window,) = lines.windows(taps)
    assert lines._group(13, window, (1, 1)).rows > 1
    plain = lines.along_taps(x, w, b, taps, (9, 13))
    for image, row, column in ((0, 8, 12), (1, 0, 0), (1, 4, 6)):
        one = x.copy()
        one[image, row, column, 1] = np.nan
        y = lines.along_taps(one, w, b, taps, (9, 13))
        seen = np.zeros((2, 9, 13), bool)
        seen[image, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        assert (np.isnan(y).any(axis=3) == seen).all()
        assert (y[~seen] == plain[~seen]).all()


@pytest.mark.parametrize("wide, step", [(1, 1), (2, 1), (4, 2), (3, 3), (1, 4)])
@pytest.mark.parametrize("width", [1, 5, 12, 13, 14, 15, 28, 41])
def test_as_many_rows_together_as_leave_least_in_vain(width, wide, step):
    group = lines._group(width, lines.Window(0, 0, 1, wide, 1), (1, step))
    assert group.apart * step >= (width - 1) * step + wide > (group.apart - 1) * step
    needed = (group.rows - 1) * group.apart + width
    assert group.computed == tiling.rows(needed) >= needed
    alone = tiling.rows(width) / width
    if alone <= lines.IN_VAIN:
        assert group.rows == 1
    for rows in range(1, lines.TOGETHER + 1):
        others = tiling.rows((rows - 1) * group.apart + width) / (rows * width)
        assert alone <= lines.IN_VAIN or others >= group.computed / (group.rows * width)


def test_taps_that_are_no_rows_of_neighbours_are_told():
    apart = convolution((3, 3), (1, 1), (1, 1), (1, 2), (8, 8))
    assert lines.windows(apart) is None
    nothing = transposed((1, 1), (2, 2), (0, 0), (1, 1), (7, 7))  # phases without a tap
    assert lines.windows(nothing) is None
    assert not lines.serve(convolution((3, 3), (1, 1), (1, 1), (1, 1), (8, 8)), 33, 1)


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 96])
def test_each_row_is_in_one_piece_for_any_number_of_threads(threads):
    up = transposed((16, 16), (8, 8), (4, 4), (1, 1), (56, 56), merged=True)
    plan = lines._plan(up, 3, 21, 21, np.dtype(np.float32), threads)
    rows = [(f, row) for f, begin, end in plan.work.tolist() for row in range(begin, end)]
    wanted = [
        (f, row) for f, height in enumerate(up.phases[:, 2]) for row in range(3 * int(height))
    ]
    assert sorted(rows) == wanted
    down = convolution((3, 3), (1, 1), (1, 1), (1, 1), (19, 19))
    weights = lines_weight._plan(down, 3, 21, 32, np.dtype(np.float32), threads)
    met = [
        (line, row)
        for _, low, up_to, begin, end in weights.work.tolist()
        for line in range(low, up_to)
        for row in range(begin, end)
    ]
    assert sorted(met) == [(line, row) for line in range(3) for row in range(3 * 19)]
