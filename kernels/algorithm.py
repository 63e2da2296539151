"""Which algorithm computes a convolution: one function of the shapes, and a way to force it.

=========  ======================================================  ===========================
name       what                                                    serves
=========  ======================================================  ===========================
im2col     panels of the column matrix, times register tiles;      everything
           with few channels rows of the picture instead (`lines`)
gemm       the same without a panel: the picture is the matrix     1×1 kernels of stride 1
direct     tap by tap, no column matrix, each weight read once     all but weight gradients
winograd2  F(2×2, 3×3): 16 multiplications for 36; 25 of stride 2  3×3 kernels of stride 1, 2
winograd4  F(4×4, 3×3): 36 multiplications for 144                 3×3 kernels of stride 1
depthwise  one filter a channel, summed directly                   as many groups as channels
=========  ======================================================  ===========================

A larger kernel of stride 1 is so many of 3×3 beside each other, and Winograd's serve it in parts:
4 of F(4×4, 3×3) take 144 multiplications for the 400 of a 5×5 kernel. Its weights' gradient they
leave to im2col. The gradient for the weights of a 1×1 layer with few filters has a way of its own
(`narrow_weight`), whatever is forced.

On a GPU, see `choose_cuda`:

=========  ======================================================  ===========================
implicit   the same products tile by tile, no column matrix        everything
im2col     the column matrix whole, times the weights by cuBLAS    one group
depthwise  one filter a channel, summed directly                   as many groups as channels
=========  ======================================================  ===========================

A 1×1 kernel of stride 1 goes to cuBLAS by itself, the picture being its column matrix. To force
"im2col" forces it there too; "direct" and Winograd's have no kernel on a GPU, so the choice stays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minifcn.errors import InputError
from minifcn.kernels.taps import Pair

#: the tile sizes m of the Winograd algorithms F(m×m, 3×3)
WINOGRAD = {"winograd2": 2, "winograd4": 4}
FORCIBLE = ("im2col", "direct", "winograd2", "winograd4")

MANY_WEIGHTS = 1 << 20  # from here on, reading them is what takes the time …
FEW_PIXELS = 1024  # … if no more than so many pixels meet them
CACHE_BYTES = 16 << 20  # of the third-level cache, for the weights
#: up to here Winograd's threads share the columns, if there are enough of them; of more tiles, as
#: under a kernel in parts, so many at a time
FEW_TILES = 64

_forced: str | None = None


@lru_cache(maxsize=4096)  # a net asks for the same few at every step
def choose(
    kind: str,
    c: int,
    k: int,
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
    batch: int = 1,
    dtype: Any = np.float32,
) -> str:
    """The algorithm for a convolution from ``c`` to ``k`` channels with results of size ``out``.

    Args:
        kind: "forward", "input" (the gradient for the input, or a transposed convolution) or
            "weight" (the gradient for the weights).
        c: channels that are read.
        k: channels that are written.
        kernel: (R, S).
        stride: of the convolution, as for dilation and groups.
        dilation: pixels between taps.
        groups: into which the channels fall.
        out: rows and columns of the result; of the output's gradient where kind is "weight".
        batch: pictures at once.
        dtype: of all arrays. float64 is for proofs, so Winograd's rounding stays out of it.
    """
    if groups == c == k and groups > 1:
        return "depthwise"
    plain = stride == (1, 1) and groups == 1
    halves = stride == (2, 2) and dilation == (1, 1)
    three, fast = kernel == (3, 3), dtype == np.float32 and min(c, k) // groups >= 16 * stride[0]
    by_parts = min(kernel) >= 3 and stride == (1, 1) and kind != "weight"
    served = {
        "im2col": True,
        "direct": kind != "weight",
        "winograd2": three and (stride == (1, 1) or halves) or by_parts,
        "winograd4": three and stride == (1, 1) or by_parts,
    }
    if _forced is not None and served[_forced]:
        return _forced
    weights, pixels = kernel[0] * kernel[1] * c * k, batch * out[0] * out[1]
    read_once = plain and kind != "weight" and weights >= MANY_WEIGHTS and pixels <= FEW_PIXELS
    if plain and kernel == (1, 1):
        return "direct" if read_once else "gemm"
    others = "direct" if read_once else "im2col"
    if served["winograd2"] and fast:
        names = ("winograd4", "winograd2", others) if three else ("winograd4", others)
        names = names if stride == (1, 1) else names[1:]
        # with dilation, the pixels so far apart are a picture by themselves; the gradient for the
        # input of stride 2 falls into four phases
        apart = stride if kind == "input" and stride == (2, 2) else dilation
        size = -(-out[0] // apart[0]), -(-out[1] // apart[1])
        batch *= dilation[0] * dilation[1]
        filters = c * k // groups
        return min(names, key=lambda name: _cost(name, filters, kernel, batch, size, stride[0]))
    return others


def choose_cuda(c: int, k: int, windows: tuple[Pair, Pair, Pair, Pair], groups: int) -> str:
    """The algorithm on a GPU, from ``c`` to ``k`` channels: "implicit", "im2col" or "depthwise".

    ``windows`` are kernel, stride, padding and dilation.
    """
    if groups == c == k and groups > 1:
        return "depthwise"
    plain = windows[:3] == ((1, 1), (1, 1), (0, 0))
    return "im2col" if groups == 1 and (plain or _forced == "im2col") else "implicit"


def _cost(name: str, filters: int, kernel: Pair, batch: int, out: Pair, stride: int) -> float:
    """The time of a convolution, counted in products of one matrix with one pixel or tile.

    Each of an algorithm's matrices of so many ``filters`` (C·K), the taps or n² frequencies, meets
    every pixel or tile; and it is made from the weights, written and read again, which takes as
    long as some more products: few where the matrices stay in the third-level cache, many where
    they go through memory, and of stride 2, where less is saved (so it was measured). Kernels in
    parts make them anew for every `FEW_TILES` tiles.
    """
    m = WINOGRAD.get(name, 1)
    parts = -(-kernel[0] // 3) * -(-kernel[1] // 3)
    matrices = kernel[0] * kernel[1] if m == 1 else parts * (m + 1 + stride) ** 2
    met = batch * -(-out[0] // m) * -(-out[1] // m)
    if parts > 1 and m > 1:
        return matrices * (met + 45 * -(-met // FEW_TILES))
    in_cache = 4 * matrices * filters <= CACHE_BYTES
    return matrices * (met + (9 if in_cache and (m == 1 or stride == 1) else 45))


class conv_algorithm:
    """Force the algorithm of all convolutions that it serves: for good as a call, or under `with`.

    Others keep the one that `choose` gives them. For study: the choice by itself is the fast one.

    Args:
        name: "im2col", "direct", "winograd2" or "winograd4"; None gives the choice back.

    Raises:
        InputError: if there is no such algorithm.
    """

    def __init__(self, name: str | None) -> None:
        global _forced
        if name is not None and name not in FORCIBLE:
            raise InputError(
                f"conv_algorithm is {name!r}; choose one of {', '.join(FORCIBLE)}, or None"
            )
        self._before = _forced
        _forced = name
        choose.cache_clear()

    def __enter__(self) -> conv_algorithm:
        return self

    def __exit__(self, *failure: object) -> None:
        global _forced
        _forced = self._before
        choose.cache_clear()
