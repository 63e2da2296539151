"""Which algorithm computes a convolution: one function of the shapes, and a way to force it.

=========  ======================================================  ===========================
name       what                                                    serves
=========  ======================================================  ===========================
im2col     panels of the column matrix, times register tiles       everything
gemm       the same without a panel: the picture is the matrix     1×1 kernels of stride 1
winograd2  F(2×2, 3×3): 16 multiplications for 36                  3×3, stride 1, one group
winograd4  F(4×4, 3×3): 36 multiplications for 144                 3×3, stride 1, one group
depthwise  one filter a channel, summed directly                   as many groups as channels
=========  ======================================================  ===========================
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from minifcn.errors import InputError
from minifcn.kernels.taps import Pair

#: the tile sizes m of the Winograd algorithms F(m×m, 3×3)
WINOGRAD = {"winograd2": 2, "winograd4": 4}
FORCIBLE = ("im2col", "winograd2", "winograd4")

_forced: str | None = None


def choose(
    kind: str,
    c: int,
    k: int,
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
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
        dtype: of all arrays. float64 is for proofs, so Winograd's rounding stays out of it.
    """
    if groups == c == k and groups > 1:
        return "depthwise"
    winograd = kernel == (3, 3) and stride == dilation == (1, 1) and groups == 1
    if _forced is not None and (winograd or _forced not in WINOGRAD):
        return _forced
    if kernel == stride == dilation == (1, 1) and groups == 1:
        return "gemm"
    if not winograd or np.dtype(dtype) != np.float32 or min(c, k) < 16:
        return "im2col"
    # Transforming the weights costs as much as some tiles: a small map has too few to repay it.
    return "winograd4" if min(out) >= 12 else "im2col"


class conv_algorithm:
    """Force the algorithm of all convolutions that it serves: for good as a call, or under `with`.

    Others keep the one that `choose` gives them. For study: the choice by itself is the fast one.

    Args:
        name: "im2col", "winograd2" or "winograd4"; None gives the choice back.

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

    def __enter__(self) -> conv_algorithm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _forced
        _forced = self._before
