"""What rows and columns of a transform's matrix share is computed once, and comes out the same."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.kernels.sandwich import _combined, _product
from minifcn.kernels.winograd_matrices import STRIDED, TURNED, matrices


class Arithmetic:
    """Does with exact numbers what the code that an `Emitter` writes does with vectors; counts."""

    def __init__(self):
        self.builder, self.operations = self, 0

    def constant(self, value):
        return Fraction(float(value))

    def multiply_add(self, a, b, c):
        self.operations += 1
        return a * b + c

    def fadd(self, a, b):
        return self.multiply_add(1, a, b)

    def fsub(self, a, b):
        return self.multiply_add(-1, b, a)

    def fmul(self, a, b):
        return self.multiply_add(a, b, 0)


def product_of(matrix, values):
    return [sum(Fraction(float(a)) * x for a, x in zip(row, values, strict=True)) for row in matrix]


# With 0, ±1, ±2 and ±4 every quotient is exact; rows alike and rows of opposite signs are common.
elements = st.sampled_from([0, 0, 1, -1, 2, -2, 4, -4])
rows = st.integers(1, 5).flatmap(
    lambda n: st.lists(
        st.lists(elements, min_size=n, max_size=n).filter(any), min_size=1, max_size=5
    )
)


@given(rows, st.data())
def test_a_product_with_shared_parts_is_the_product(matrix, data):
    matrix = np.array(matrix)
    drawn = st.lists(st.integers(-99, 99), min_size=len(matrix.T), max_size=len(matrix.T))
    values = [Fraction(v) for v in data.draw(drawn)]
    arithmetic = Arithmetic()
    assert _product(arithmetic, matrix, values) == product_of(matrix, values)


@pytest.mark.parametrize(
    "matrix", [M for triple in (matrices(2), matrices(4), STRIDED, TURNED) for M in triple]
)
@pytest.mark.parametrize("turned", [False, True])
def test_transforms_are_their_matrices(matrix, turned):
    matrix = matrix.T if turned else matrix
    values = [Fraction(v) for v in range(2, 2 + len(matrix.T))]
    found = [float(v) for v in _product(Arithmetic(), matrix, values)]
    wanted = [float(v) for v in product_of(matrix, values)]
    np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-14)


def test_a_column_is_in_one_pair_alone():
    matrix, values = np.array([[1, 1, 1], [1, -1, 1], [1, 1, -1]]), [Fraction(v) for v in (2, 3, 5)]
    arithmetic = Arithmetic()
    assert _product(arithmetic, matrix, values) == [10, 4, 0]
    assert arithmetic.operations == 5  # two for the pair, one a row; six row by row


@pytest.mark.parametrize("which, alone, shared", [(0, 16, 12), (1, 13, 9), (2, 16, 12)])
def test_points_in_pairs_save_a_quarter(which, alone, shared):
    matrix = matrices(4)[which]
    values = [Fraction(v) for v in range(len(matrix.T))]
    one, other = Arithmetic(), Arithmetic()
    _product(one, matrix, values)
    for row in matrix:
        _combined(other, row, values)
    assert (other.operations, one.operations) == (alone, shared)
