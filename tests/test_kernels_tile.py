"""The register tile by itself, in every kind, and the columns of a matrix cut into its blocks."""

import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.kernels import tiling
from minifcn.kernels.strip import strip, strip_code
from minifcn.kernels.tiling import blocks, rows
from minifcn.kernels.vector import lanes


@nb.njit
def run(code, a, a_row, a_k, b, c, depth, count, halves, ahead):  # pragma: no cover - compiled
    """C += A · B, over views that begin amid their arrays."""
    wide, below = b.shape[1], c.dtype.type(-np.inf)
    flat_a, flat_b, flat_c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    strip(
        code, flat_a, 1, a_row, a_k, flat_b, 2, wide, flat_c, 3, c.shape[1], flat_c, 3,
        c.shape[1], depth, count, halves, below, False, ahead,
    )  # fmt: skip


KINDS = sorted({halves for _, halves in tiling.NARROW + tiling.WIDE})


@pytest.mark.parametrize("halves", KINDS)
@pytest.mark.parametrize("by", ["rows", "columns"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_strip_is_a_matrix_product_and_touches_nothing_else(dtype, by, halves):
    rng, wide = np.random.default_rng(0), lanes(dtype) * halves // 2
    for depth in (1, 2, 31, 33, 130, 271):
        for count in (1, 4, 7, 8, 9, 12, 20, 41):
            room, gap = rows(count), 5
            shape, part = (room + 1, depth + 3), np.s_[:count, :depth]
            if by == "columns":
                shape, part = (depth + 1, room + 3), np.s_[:depth, :count]
            a = rng.standard_normal(shape).astype(dtype)
            b = rng.standard_normal((depth + 1, wide)).astype(dtype)
            c = rng.standard_normal((room + 1, wide + gap)).astype(dtype)
            before = c.copy()
            ahead = b.size if depth == 33 else 0  # fetches what is not there: does no harm
            a_row, a_k = (a.shape[1], 1) if by == "rows" else (1, a.shape[1])
            run(strip_code(np.dtype(dtype)), a, a_row, a_k, b, c, depth, count, halves, ahead)
            last = a.size - a.shape[1]
            left = a.reshape(-1)[1 : 1 + last].reshape(-1, a.shape[1])[part]
            left = left if by == "rows" else left.T
            right = b.reshape(-1)[2 : 2 + depth * wide].reshape(depth, wide)
            wanted = left.astype(float) @ right.astype(float)
            flat, old = c.reshape(-1)[3:], before.reshape(-1)[3:]
            size = count * (wide + gap)
            found = flat[:size].reshape(count, -1)
            was = old[:size].reshape(count, -1)
            worst = np.abs(found[:, :wide] - was[:, :wide] - wanted).max()
            assert worst <= 40 * np.finfo(dtype).eps * depth**0.5, (depth, count)
            assert np.array_equal(found[:, wide:], was[:, wide:])  # beside its columns
            over = flat[room * (wide + gap) :]
            assert np.array_equal(over, old[room * (wide + gap) :])  # under its last tile


@pytest.mark.skipif(tiling.MOST < 3, reason="16 registers hold no tile of three vectors")
def test_three_vectors_go_over_by_three_rows_at_most():
    for wanted in range(1, 200):
        talls, shorts, tall, short = tiling.tiles.py_func(wanted, 6)
        assert (tall, short) == (8, 4) and shorts < 2
        assert wanted <= talls * tall + shorts * short < wanted + 4
        assert talls * tall + shorts * short <= rows(wanted)


@given(wanted=st.integers(1, 700), shares=st.integers(1, 9), dtype=st.sampled_from(["f4", "f8"]))
def test_blocks_cover_all_columns_in_even_shares(wanted, shares, dtype):
    side = lanes(np.dtype(dtype))
    vectors = -(-wanted // side)
    shares = min(shares, vectors)
    ends, owned = blocks(np.dtype(dtype), wanted, shares)
    assert ends[0] == owned[0] == 0
    assert ends[-1] == vectors * side and owned[-1] == len(ends) - 1
    widths = np.diff(ends) / side
    own = [widths[a:b].sum() for a, b in zip(owned, owned[1:])]
    assert max(own) - min(own) <= 1
    for a, b in zip(owned, owned[1:]):
        alone = b - a == 1
        if tiling.MOST == 3:  # one vector only where there is no other, and as few blocks as may be
            assert set(widths[a:b]) <= ({1, 2, 3} if alone else {2, 3})
            assert b - a == -(-int(widths[a:b].sum()) // 3)
        else:
            assert set(widths[a:b]) <= {1, 2} and (widths[a : b - 1] == 2).all()
