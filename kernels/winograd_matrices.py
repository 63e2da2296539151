"""The matrices of Winograd's convolution, of which `winograd` makes transforms.

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

The idea: a convolution is a product of polynomials, Y(z) = g(z)·d(z); evaluate both at n points,
multiply there, interpolate (Toom, Cook). Which points decides how errors grow. With 0, ±⅝, ±3⁄2
and ∞ for m = 4, float32 rounds 2.1 to 2.9 times as much as PyTorch's plain sums (root mean square,
16 to 256 channels); with 0, ±1, ½, −2 and ∞ half as much again. Points in pairs also put more zeros
into B, and what a point and its negative share is computed once: see `sandwich`.

**Stride 2.** The even and the odd pixels of a row are two pictures: one meets taps 0 and 2, the
other tap 1. Two results of two taps take three products in place of four, and two of one tap two::

    y0 = (x0 − x2)·g0 + x2·(g0 + g2)   + x1·g1
    y1 = x2·(g0 + g2) − (x2 − x4)·g2   + x3·g1

so a tile of 2 × 2 results reads 5 × 5 pixels and takes 25 multiplications for 36, with no constant
but ±1. The gradient for x is the same turned round: a tile of 4 × 4 of it reads 3 × 3 of dy.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4;
the points: Toom 1963 and Cook 1966, after Blahut, "Fast Algorithms for Signal Processing", 2010.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def matrices(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ (m, n), G (n, 3) and Bᵀ (n, n) of F(m×m, 3×3), n = m + 2, exact and then rounded."""
    points = {2: ("0", "1", "-1"), 4: ("0", "5/8", "-5/8", "3/2", "-3/2")}[m]
    at = [Fraction(p) for p in points]
    n = m + 2
    A = [[p**k for p in at] + [Fraction(k == m - 1)] for k in range(m)]  # values, as of d·g there
    G, B = [], []
    for p in at:
        others = [q for q in at if q != p]
        scale = Fraction(1)
        product = [Fraction(1)]  # Π (z − q), lowest power first
        for q in others:
            scale *= p - q
            product = _times_root(product, q)
        G.append([p**k / scale for k in range(3)])
        B.append([*product, Fraction(0)])
    whole = [Fraction(1)]
    for q in at:
        whole = _times_root(whole, q)
    G.append([Fraction(0), Fraction(0), Fraction(1)])  # the point at infinity: leading coefficients
    B.append(whole)
    assert len(B) == len(G) == n
    return tuple(np.array(M, dtype=np.float64) for M in (A, G, B))  # type: ignore[return-value]


def _times_root(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """polynomial · (z − root)."""
    zero = [Fraction(0)]
    return [
        high - root * low for high, low in zip(zero + polynomial, polynomial + zero, strict=True)
    ]


#: (Aᵀ, G, Bᵀ) of stride 2: three products of the even pixels, then two of the odd ones
STRIDED = (
    np.array([[1, 1, 0, 1, 0], [0, 1, -1, 0, 1]]),
    np.array([[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]]),
    np.array(
        [[1, 0, -1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, -1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]
    ),
)
#: (Aᵀ, Bᵀ) turned round: g2 and g0 change places, results 0 and 2 meet tap 1, 1 and 3 the others
TURNED = (
    np.array([[0, 0, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1, -1, 0, 0]]),
    np.array([[1, -1, 0], [0, 1, 0], [0, 1, -1], [1, 0, 0], [0, 1, 0]]),
)
