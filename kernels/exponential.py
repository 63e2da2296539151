"""e to the power of x for x ≤ 0, in a form that runs in all lanes of a vector register at once.

    eˣ = 2ⁿ · eʳ        n = round(x / ln 2),  r = x − n·ln 2,  |r| ≤ ln 2 / 2

In float32, eʳ is a polynomial of degree 7 (Taylor's) and 2ⁿ is n shifted into the exponent's bits;
the relative error is below 1e-7. In float64 it is the library's function, which takes one number at
a time.

Source: Cody and Waite, "Software Manual for the Elementary Functions", 1980 (ln 2 in two parts).
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

_LOWEST = np.float32(-87.0)  # below, eˣ (under 1.7e-38) counts as 0
_ONE_OVER_LN2 = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # few bits, so that n·high is exact
_LN2_LOW = np.float32(-2.12194440e-4)
# x + 1.5·2²³ has no bits left behind the point: it is rounded, and n stands in its lowest bits
_ROUND = np.float32(12582912.0)
_EXPONENT_OF_ONE = np.int32(127)
_MANTISSA_BITS = np.int32(23)
_TERMS = tuple(np.float32(1.0 / d) for d in (5040.0, 720.0, 120.0, 24.0, 6.0, 2.0))


def exp_of_negative(x):  # type: ignore[no-untyped-def]
    """eˣ for x ≤ 0; NaN stays NaN. To be called from compiled code; here is its definition."""
    return np.exp(x)


@overload(exp_of_negative)
def _exp_of_negative(x):  # type: ignore[no-untyped-def]
    if x != types.float32:
        return lambda x: np.exp(x)

    def polynomial(x):  # type: ignore[no-untyped-def]
        shifted = x * _ONE_OVER_LN2 + _ROUND
        n = shifted - _ROUND
        r = (x - n * _LN2_HIGH) - n * _LN2_LOW
        p = _TERMS[0]
        p = p * r + _TERMS[1]
        p = p * r + _TERMS[2]
        p = p * r + _TERMS[3]
        p = p * r + _TERMS[4]
        p = p * r + _TERMS[5]
        p = p * r * r + r + np.float32(1.0)
        bits = np.float32(shifted).view(np.int32) + _EXPONENT_OF_ONE
        value = p * np.int32(bits << _MANTISSA_BITS).view(np.float32)
        return np.float32(0.0) if x < _LOWEST else value

    return polynomial
