"""Winograd's convolution for 3×3 kernels of stride 1: F(2×2, 3×3) and F(4×4, 3×3).

A tile of m × m results reads a patch d of n × n pixels, n = m + 2. With the matrices below,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

where ⊙ is element by element: n² multiplications instead of 9 m², that is 16 for 36 with m = 2 and
36 for 144 with m = 4. Summed over channels, each of the n² elements ("frequencies") is a matrix
product of (tiles, C) with (C, K), which the register tile does; the transforms are additions and a
few multiplications by constants.

The idea: a convolution is a product of polynomials, Y(z) = g(z)·d(z); evaluate both at n points,
multiply there, interpolate (Toom, Cook). Which points decides how errors grow. With 0, ±⅝, ±3⁄2
and ∞ for m = 4, float32 rounds 2.1 to 2.9 times as much as PyTorch's plain sums (root mean square,
16 to 256 channels); with 0, ±1, ½, −2 and ∞ half as much again. Points in pairs also put more zeros
into B.

The gradient for w is the same with the roles exchanged: d and dy are transformed, and

    dg = Gᵀ [ Σ_tiles (Bᵀ d B) ⊙ (A dy Aᵀ) ] G

Arrays as in `conv2d`; weights come and go by tap, (9, C, K). Infinity in the input becomes NaN in
the results around it (∞ − ∞), here as in every fast convolution.

Sources: Winograd, "Arithmetic Complexity of Computations", SIAM 1980; Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.
"""

from __future__ import annotations

from fractions import Fraction

import numba as nb
import numpy as np
from numba import njit, prange

from minifcn.kernels import workspace
from minifcn.kernels.pack import contiguous
from minifcn.kernels.sandwich import finished_sandwich_of, sandwich_of
from minifcn.kernels.taps import Pair
from minifcn.kernels.tile import TALL, clear, columns, copy, lanes, rows, strip

PATCHES_BYTES = 640 * 1024  # transformed patches of one thread: most of a second-level cache
GRADIENT_BYTES = 8 << 20  # transformed patches of all threads, in the third-level cache
LINE = 64  # bytes of a cache line


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


_A2, _G2, _B2 = matrices(2)
_A4, _G4, _B4 = matrices(4)
# Module globals, not closures: otherwise Numba could not keep the callers' machine code on disk.
_picture_2, _picture_4 = sandwich_of(_B2), sandwich_of(_B4)
_weight_2, _weight_4 = sandwich_of(_G2), sandwich_of(_G4)
_result_2, _result_4 = finished_sandwich_of(_A2), finished_sandwich_of(_A4)
_gradient_2, _gradient_4 = sandwich_of(_A2.T.copy()), sandwich_of(_A4.T.copy())
_kernel_2, _kernel_4 = sandwich_of(_G2.T.copy()), sandwich_of(_G4.T.copy())


def conv(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray,
    padding: Pair,
    out: Pair,
    m: int,
    floor: float = -np.inf,
    flipped: bool = False,
) -> np.ndarray:
    """max(floor, b + x * w): x (N, H, W, C), by_tap (9, C, K), bias (K,) → (N, *out, K).

    ``padding`` is above and to the left, and may be negative (rows and columns that are left out).
    ``flipped`` takes the taps in the opposite order: the last meets the upper left pixel.
    """
    n, (p, q), (c, k) = x.shape[0], out, by_tap.shape[1:]
    y = workspace.empty((n, p, q, k), x.dtype)
    wide = columns(x.dtype, k)
    blocks, deep, line = -(-k // wide), _whole(c, x.dtype), LINE // x.itemsize
    frequencies = (m + 2) ** 2
    # one row of weights more than needed: streams a power of two apart would share a cache set
    weights = workspace.empty((blocks, frequencies, c + 1, wide), x.dtype)
    start = np.zeros((blocks * wide,), x.dtype)
    start[:k] = bias
    filters = _padded(by_tap, blocks * wide)
    vectors = wide // lanes(x.dtype)
    _weights_loop(filters, weights.reshape(-1), c, wide, vectors, m == 4, flipped)

    tiles = n * -(-p // m) * -(-q // m)
    threads = nb.get_num_threads()
    size = frequencies * x.itemsize * (deep + wide)
    chunk = max(PATCHES_BYTES // size, min(96, 12 * c // 32), TALL)
    chunk = _even(tiles, chunk, threads)
    room = rows(chunk) + TALL
    patches = workspace.empty((threads, frequencies, room * deep + line), x.dtype)
    products = workspace.empty((threads, frequencies, room * wide + line), x.dtype)
    edges = workspace.empty((threads, frequencies * max(deep, wide)), x.dtype)
    _conv_loop(
        x, weights.reshape(-1), start, y, patches, products, edges,
        padding, chunk, c, wide, wide > lanes(x.dtype), m == 4, x.dtype.type(floor),
    )  # fmt: skip
    return y


def weight(x: np.ndarray, dy: np.ndarray, padding: Pair, m: int) -> np.ndarray:
    """dL/dw by tap (9, C, K) from x (N, H, W, C) and dL/dy = dy (N, P, Q, K)."""
    (n, p, q, k), c = dy.shape, x.shape[3]
    wide = columns(x.dtype, k)
    blocks, deep, line = -(-k // wide), _whole(c, x.dtype), LINE // x.itemsize
    frequencies = (m + 2) ** 2
    tiles = n * -(-p // m) * -(-q // m)
    chunk = GRADIENT_BYTES // (frequencies * x.itemsize * (deep + blocks * wide))
    chunk = min(max(chunk, 64), 512, tiles)
    patches = workspace.empty((frequencies, chunk * deep + TALL + line), x.dtype)
    gradients = workspace.empty((frequencies, blocks * chunk * wide + line), x.dtype)
    # a thread's last tile may hang over the C rows; one more row, as for the weights above
    sums = workspace.empty((frequencies, (c + TALL + 1) * blocks * wide), x.dtype)
    edges = workspace.empty((nb.get_num_threads(), frequencies * max(deep, blocks * wide)), x.dtype)
    by_tap = np.empty((9, c, blocks * wide), x.dtype)
    _weight_loop(
        x, dy, patches, gradients, sums, edges, by_tap,
        padding, chunk, wide, wide > lanes(x.dtype), m == 4,
    )  # fmt: skip
    return by_tap[:, :, :k]


def _whole(channels: int, dtype: np.dtype) -> int:
    """Channels rounded up to whole vectors."""
    return -(-channels // lanes(dtype)) * lanes(dtype)


def _padded(by_tap: np.ndarray, wide: int) -> np.ndarray:
    """by_tap as one row, each row of output channels filled up with zeros to ``wide``."""
    taps, c, k = by_tap.shape
    if k == wide:
        return contiguous(by_tap).reshape(-1)
    padded = np.zeros((taps, c, wide), by_tap.dtype)
    padded[:, :, :k] = by_tap
    return padded.reshape(-1)


def _even(tiles: int, chunk: int, threads: int) -> int:
    """A chunk of about this size that gives every thread the same number of chunks."""
    rounds = max(1, -(-tiles // (chunk * threads)))
    even = -(-tiles // (rounds * threads))
    return max(1, -(-even // 4) * 4)


@njit(cache=True, nogil=True, parallel=True)
def _weights_loop(by_tap, weights, channels, wide, vectors, four, flipped):  # type: ignore[no-untyped-def]
    """G g Gᵀ of every filter: (9, C, blocks · wide) → (blocks, n², C + 1, wide)."""
    n = 6 if four else 4
    k = by_tap.size // (9 * channels)
    tap, step = channels * k, (channels + 1) * wide
    first, row, column = (8 * tap, -3 * tap, -tap) if flipped else (0, 3 * tap, tap)
    for c in prange(channels):
        for j in range(k // wide):
            source, to = first + c * k + j * wide, (j * n * n * (channels + 1) + c) * wide
            if four:
                _weight_4(by_tap, source, row, column, weights, to, n * step, step, vectors)
            else:
                _weight_2(by_tap, source, row, column, weights, to, n * step, step, vectors)


@njit(cache=True, nogil=True)
def _patch(x, image, top, left, size, edge, deep):  # type: ignore[no-untyped-def]
    """The size × size pixels at (top, left), zeros outside x, in ``edge`` (size, size, deep)."""
    _, h, w, c = x.shape
    flat = x.reshape(-1)
    first = min(max(-left, 0), size)
    last = max(min(size, w - left), first)
    for i in range(size):
        y = top + i
        at = i * size * deep
        if y < 0 or y >= h or last == first:
            clear(edge, at, size * deep)
            continue
        clear(edge, at, first * deep)
        source = ((image * h + y) * w + left) * c
        if c == deep:
            copy(edge, at + first * c, flat, source + first * c, (last - first) * c)
        else:
            for j in range(first, last):
                copy(edge, at + j * deep, flat, source + j * c, c)
                clear(edge, at + j * deep + c, deep - c)
        clear(edge, at + last * deep, (size - last) * deep)


@njit(cache=True, nogil=True, parallel=True)
def _conv_loop(  # type: ignore[no-untyped-def]
    x, weights, start, y, patches, products, edges, padding, chunk, c, wide, two, four, floor
):
    _, h, w, _ = x.shape
    images, p, q, k = y.shape
    m, n = (4, 6) if four else (2, 4)
    across = (q + m - 1) // m
    area = (p + m - 1) // m * across
    tiles = images * area
    lanes = wide // 2 if two else wide
    deep = (c + lanes - 1) // lanes * lanes
    zeros = np.zeros(wide, x.dtype)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for block in prange((tiles + chunk - 1) // chunk):
        patch, product = patches[nb.get_thread_id()], products[nb.get_thread_id()]
        edge = edges[nb.get_thread_id()]
        first, count = block * chunk, min(chunk, tiles - block * chunk)
        apart, between = patch.shape[1], product.shape[1]
        flat_patch, flat_product = patch.reshape(-1), product.reshape(-1)
        for t in range(count):
            image, tile = (first + t) // area, (first + t) % area
            top, left = tile // across * m - padding[0], tile % across * m - padding[1]
            if top >= 0 and left >= 0 and top + n <= h and left + n <= w and c == deep:
                source, at, row = flat_x, ((image * h + top) * w + left) * c, w * c
            else:
                _patch(x, image, top, left, n, edge, deep)
                source, at, row = edge, 0, n * deep
            if four:
                _picture_4(
                    source, at, row, deep, flat_patch, t * deep, n * apart, apart, deep // lanes
                )
            else:
                _picture_2(
                    source, at, row, deep, flat_patch, t * deep, n * apart, apart, deep // lanes
                )
        for j in range((k + wide - 1) // wide):
            for f in range(n * n):
                strip(
                    flat_patch, f * apart, deep, 1,
                    weights, (j * n * n + f) * (c + 1) * wide, wide, zeros, 0, 0,
                    flat_product, f * between, wide, c, count, two, x.dtype.type(-np.inf),
                )  # fmt: skip
            used = min(wide, k - j * wide)
            for t in range(count):
                image, tile = (first + t) // area, (first + t) % area
                top, left = tile // across * m, tile % across * m
                inside = top + m <= p and left + m <= q and used == wide
                target = flat_y if inside else edge
                to = ((image * p + top) * q + left) * k + j * wide if inside else 0
                row, column = (q * k, k) if inside else (m * wide, wide)
                if four:
                    _result_4(
                        flat_product, t * wide, n * between, between,
                        target, to, row, column, wide // lanes, start, j * wide, floor,
                    )  # fmt: skip
                else:
                    _result_2(
                        flat_product, t * wide, n * between, between,
                        target, to, row, column, wide // lanes, start, j * wide, floor,
                    )  # fmt: skip
                if not inside:
                    for r in range(min(m, p - top)):
                        for s in range(min(m, q - left)):
                            to = ((image * p + top + r) * q + left + s) * k + j * wide
                            copy(flat_y, to, edge, (r * m + s) * wide, used)


@njit(cache=True, nogil=True, parallel=True)
def _weight_loop(  # type: ignore[no-untyped-def]
    x, dy, patches, gradients, sums, edges, by_tap, padding, chunk, wide, two, four
):
    _, h, w, c = x.shape
    images, p, q, k = dy.shape
    m, n = (4, 6) if four else (2, 4)
    across = (q + m - 1) // m
    area = (p + m - 1) // m * across
    tiles = images * area
    lanes = wide // 2 if two else wide
    deep = (c + lanes - 1) // lanes * lanes
    all_k = by_tap.shape[2]
    zeros = np.zeros(wide, x.dtype)
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    flat_patches, flat_gradients, flat_sums = (
        patches.reshape(-1),
        gradients.reshape(-1),
        sums.reshape(-1),
    )
    apart, between, step = patches.shape[1], gradients.shape[1], sums.shape[1]
    group = 4 * TALL  # rows of a piece of work
    pieces = (c + group - 1) // group
    for block in range((tiles + chunk - 1) // chunk):
        first, count = block * chunk, min(chunk, tiles - block * chunk)
        for t in prange(count):
            edge = edges[nb.get_thread_id()]
            image, tile = (first + t) // area, (first + t) % area
            row_m, column_m = tile // across * m, tile % across * m
            top, left = row_m - padding[0], column_m - padding[1]
            if top >= 0 and left >= 0 and top + n <= h and left + n <= w and c == deep:
                source, at, row = flat_x, ((image * h + top) * w + left) * c, w * c
            else:
                _patch(x, image, top, left, n, edge, deep)
                source, at, row = edge, 0, n * deep
            if four:
                _picture_4(
                    source, at, row, deep, flat_patches, t * deep, n * apart, apart, deep // lanes
                )
            else:
                _picture_2(
                    source, at, row, deep, flat_patches, t * deep, n * apart, apart, deep // lanes
                )
            if row_m + m <= p and column_m + m <= q and k == all_k:
                source, at, row = flat_dy, ((image * p + row_m) * q + column_m) * k, q * k
            else:
                _patch(dy, image, row_m, column_m, m, edge, all_k)
                source, at, row = edge, 0, m * all_k
            for j in range(all_k // wide):
                to = (j * chunk + t) * wide
                if four:
                    _gradient_4(
                        source,
                        at + j * wide,
                        row,
                        all_k,
                        flat_gradients,
                        to,
                        n * between,
                        between,
                        wide // lanes,
                    )
                else:
                    _gradient_2(
                        source,
                        at + j * wide,
                        row,
                        all_k,
                        flat_gradients,
                        to,
                        n * between,
                        between,
                        wide // lanes,
                    )
        for piece in prange(n * n * pieces):
            f, low = piece // pieces, piece % pieces * group
            for j in range(all_k // wide):
                to = f * step + low * all_k + j * wide
                before, row = (flat_sums, all_k) if block else (zeros, 0)
                strip(
                    flat_patches, f * apart + low, 1, deep,
                    flat_gradients, f * between + j * chunk * wide, wide,
                    before, to if block else 0, row,
                    flat_sums, to, all_k, count, min(group, c - low), two, x.dtype.type(-np.inf),
                )  # fmt: skip
    flat_taps = by_tap.reshape(-1)
    tap = c * all_k
    for e in prange(c):
        if four:
            _kernel_4(
                flat_sums,
                e * all_k,
                n * step,
                step,
                flat_taps,
                e * all_k,
                3 * tap,
                tap,
                all_k // lanes,
            )
        else:
            _kernel_2(
                flat_sums,
                e * all_k,
                n * step,
                step,
                flat_taps,
                e * all_k,
                3 * tap,
                tap,
                all_k // lanes,
            )
