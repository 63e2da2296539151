"""A matrix turned about: by squares, in strips less than one, and amid others' memory."""

import numba as nb
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from minifcn.kernels.turn import turn
from minifcn.kernels.vector import lanes


@nb.njit(error_model="numpy")
def turned(source, at, row, height, width, target, to, to_row, side):
    """`turn` is called by kernels alone."""
    turn(source, at, row, height, width, target, to, to_row, side)


@given(
    height=st.integers(0, 70),
    width=st.integers(0, 70),
    gaps=st.tuples(*[st.integers(0, 3)] * 4),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@example(height=1, width=1, gaps=(0, 0, 0, 0), dtype=np.float32)
@example(height=16, width=21, gaps=(0, 0, 0, 0), dtype=np.float32)  # a square and part of one
@example(height=64, width=21, gaps=(1, 0, 3, 2), dtype=np.float32)
@example(height=15, width=64, gaps=(0, 0, 0, 0), dtype=np.float32)  # less than one
def test_equals_the_transpose_and_writes_nothing_else(height, width, gaps, dtype):
    at, to, beside, beside_target = gaps
    row, to_row = width + beside, height + beside_target
    source = np.arange(at + height * row, dtype=dtype)
    target = np.full(to + width * to_row, np.nan, dtype)
    turned(source, at, row, height, width, target, to, to_row, lanes(dtype))
    wanted = np.full_like(target, np.nan)
    matrix = source[at:].reshape(height, row)[:, :width]
    wanted[to:].reshape(width, to_row)[:, :height] = matrix.T
    np.testing.assert_array_equal(target, wanted)
