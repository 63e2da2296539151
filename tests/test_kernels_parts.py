"""Parts of a sum added up: in their order, whatever their length and the number of threads."""

import numba as nb
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minifcn.kernels.parts import BLOCK, add_parts


@nb.njit(error_model="numpy")
def added(parts, count, total):
    """`add_parts` is called by kernels alone."""
    add_parts(parts, count, total)


def by_loop(parts):
    """Part after part, in the parts' own precision."""
    total = parts[0].copy()
    for part in parts[1:]:
        total = total + part
    return total


@given(
    count=st.integers(1, 17),
    size=st.one_of(st.integers(0, 40), st.integers(BLOCK - 2, 2 * BLOCK + 3)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
@example(count=3, size=1, dtype=np.float32, seed=0)
@example(count=16, size=3 * BLOCK, dtype=np.float64, seed=0)
def test_equals_a_loop_over_the_parts(count, size, dtype, seed):
    parts = np.random.default_rng(seed).standard_normal((count, size)).astype(dtype)
    wanted = by_loop(parts)
    total = np.full(size, np.nan, dtype)
    added(parts.reshape(-1), count, total)
    np.testing.assert_array_equal(total, wanted)
    added(parts.reshape(-1), count, parts[0])  # into the first of them
    np.testing.assert_array_equal(parts[0], wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_reach_the_sum(value):
    parts = np.ones((4, 37), np.float32)
    parts[2, 5] = value
    total = np.zeros(37, np.float32)
    added(parts.reshape(-1), 4, total)
    np.testing.assert_array_equal(total, np.where(np.arange(37) == 5, value, 4))


def test_the_same_bits_for_any_number_of_threads():
    if nb.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one processor, nothing to compare")
    parts = np.random.default_rng(0).standard_normal((9, 5 * BLOCK + 7)).astype(np.float32)
    both = []
    for threads in (1, nb.config.NUMBA_NUM_THREADS):
        before = nb.get_num_threads()
        nb.set_num_threads(threads)
        try:
            both.append(np.empty(parts.shape[1], np.float32))
            added(parts.reshape(-1), 9, both[-1])
        finally:
            nb.set_num_threads(before)
    np.testing.assert_array_equal(*both)
