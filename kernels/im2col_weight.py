"""The weight gradient of any convolution, from the same panels as its forward pass.

    dw[k, c, r, s] = Σ_{n, p, q} x[n, p·stride + r·dilation − padding, …, c] · dy[n, p, q, k]

With the panel of some pixels as a matrix (pixels, taps · C), this is its transpose times the
(pixels, K) of dy. A thread takes some rows of the result (taps and channels) and sums over all
pixels, a few hundred at a time, in one fixed order. A result too small to share out that way, as a
first layer's, is summed in a fixed number of parts of the pixels, added in order at the end: the
bits do not depend on the number of threads.
"""

from __future__ import annotations

from functools import lru_cache

import numba as nb
import numpy as np
from numba import njit, prange

from minifcn.kernels import workspace
from minifcn.kernels.im2col import fill_panel
from minifcn.kernels.taps import Taps
from minifcn.kernels.tile import TALL, clear, columns, copy, covered, lanes, rows, strip

PIXELS = 256  # of a panel
SHARE = 16 * TALL  # rows of the result that a thread takes at a time, about
SMALL = 1 << 15  # elements of a result that is summed in parts
PARTS = 16


def weight_along_taps(x: np.ndarray, dy: np.ndarray, taps: Taps, groups: int) -> np.ndarray:
    """dL/dw by tap (R·S, C/groups, K) from x (N, H, W, C) and dL/dy (N, P, Q, K)."""
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    features = len(taps.order) * c
    wide = columns(x.dtype, k)
    across = -(-k // wide) * wide
    if dy.size == 0 or features == 0:
        return np.zeros((len(taps.order), c, groups * k), x.dtype)
    pixels, threads = dy.size // dy.shape[3], nb.get_num_threads()
    parts = PARTS if groups * features * across <= SMALL and pixels >= PARTS * PIXELS else 1
    work = _shares(groups, parts, features, pixels, threads)
    last = int(work[-1, 3] - work[-1, 2])
    exact = parts == 1 and groups == 1 and across == k and rows(last) == last
    shape = (parts, groups, features + 2 * TALL, across)
    sums = workspace.empty((features, k) if exact else shape, x.dtype)
    single = len(taps.order) == 1 and not taps.offset.any()
    as_it_is = single and taps.in_stride == (1, 1) and groups == 1 and x.shape[1:3] == dy.shape[1:3]
    depth = int((work[:, 3] - work[:, 2]).max()) + 2 * c + 2 * TALL + wide
    panels = workspace.empty((threads, PIXELS * depth), x.dtype)
    gradients = workspace.empty((threads, PIXELS * across), x.dtype)
    _weight_loop(
        x, dy, sums.reshape(-1), taps.offset, taps.run, taps.in_stride, work, panels, gradients,
        k, wide, across, features + (0 if exact else 2 * TALL), wide > lanes(x.dtype), as_it_is,
    )  # fmt: skip
    if exact:
        return sums.reshape(len(taps.order), c, k)
    total = sums[0, :, :features, :k]
    for part in range(1, parts):
        total = total + sums[part, :, :features, :k]
    ours = total.transpose(1, 0, 2)  # (taps · C, groups, K/groups)
    return np.ascontiguousarray(ours).reshape(len(taps.order), c, groups * k)


@lru_cache(maxsize=1024)
def _shares(groups: int, parts: int, features: int, pixels: int, threads: int) -> np.ndarray:
    """(group, part, first row, last row + 1, first pixel, last pixel + 1) of each piece."""
    count = -(-features // SHARE)
    if groups * parts < threads:  # the same work for every thread
        count = -(-count // threads) * threads
    size = rows(-(-features // count))
    cuts = [pixels * part // parts for part in range(parts + 1)]
    pieces = [
        (g, part, low, min(low + size, features), cuts[part], cuts[part + 1])
        for g in range(groups)
        for part in range(parts)
        for low in range(0, features, size)
    ]
    return np.array(pieces, np.int64)


@njit(cache=True, nogil=True, parallel=True)
def _weight_loop(  # type: ignore[no-untyped-def]
    x, dy, sums, offset, run, steps, work, panels, gradients, k, wide, across, height, two, as_it_is
):
    _, p, q, all_k = dy.shape
    groups = all_k // k
    c = x.shape[3] // groups
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    lowest = x.dtype.type(-np.inf)
    for item in prange(len(work)):
        g, part, low, high, begin, end = work[item]
        panel, gradient = panels[nb.get_thread_id()], gradients[nb.get_thread_id()]
        zeros = np.zeros(wide, x.dtype)
        first, last = low // c, (high + c - 1) // c  # taps of rows low … high − 1
        depth = (last - first) * c
        base = ((part * groups + g) * height + low) * across
        for pixel in range(begin, end, PIXELS):
            count = min(PIXELS, end - pixel)
            # a 1×1 kernel reads x where it lies, if no tile hangs over its last row
            source, at, row = flat_x, pixel * c + low, c
            if not as_it_is or covered(high - low) != high - low:
                fill_panel(
                    x, g * c, c, offset, run, first, last, (p, q), steps, pixel, count,
                    panel, depth + wide,
                )  # fmt: skip
                source, at, row = panel, low - first * c, depth + wide
            for j in range(across // wide):  # a block of columns together, zeros beyond the last
                used = min(wide, k - j * wide)
                for m in range(count):
                    to = (j * PIXELS + m) * wide
                    copy(gradient, to, flat_dy, (pixel + m) * all_k + g * k + j * wide, used)
                    clear(gradient, to + used, wide - used)
            for j in range(across // wide):
                to = base + j * wide
                before, at_before, before_row = sums, to, across
                if pixel == begin:
                    before, at_before, before_row = zeros, 0, 0
                strip(
                    source, at, 1, row, gradient, j * PIXELS * wide, wide,
                    before, at_before, before_row, sums, to, across, count, high - low, two, lowest,
                )  # fmt: skip
