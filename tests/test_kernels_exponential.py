"""The vectorised exponential: its error over the whole range, its ends, NaN."""

import math

import numpy as np
import pytest
from numba import njit

from minifcn.kernels.exponential import exp_of_negative


@njit
def fill(x, y):
    for i in range(x.size):
        y[i] = exp_of_negative(x[i])


def exponential(x):
    y = np.empty_like(x)
    fill(x, y)
    return y


def test_error_in_float32():
    x = np.concatenate([-np.linspace(0, 87, 100_003), -np.logspace(-40, 0, 1001)])
    x = x.astype(np.float32)
    wanted = np.array([math.exp(float(v)) for v in x])
    assert np.abs(exponential(x) / wanted - 1).max() < 1e-7


def test_float64_is_the_library_function():
    x = -np.linspace(0, 700, 1001)
    wanted = np.array([math.exp(v) for v in x])
    np.testing.assert_allclose(exponential(x), wanted, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends(dtype):
    x = np.array([0.0, -0.0, -np.inf, -1e30, np.nan], dtype)
    np.testing.assert_array_equal(exponential(x), np.array([1, 1, 0, 0, np.nan], dtype))
