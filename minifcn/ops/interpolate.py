"""Bilinear resizing: one sparse matrix an axis, y = A_h · x · A_wᵀ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minifcn import kernels
from minifcn.errors import InputError, ShapeError
from minifcn.function import Function
from minifcn.kernels.resample import Matrix
from minifcn.ops.layout import channels_first, channels_last, is_picture, pair
from minifcn.tensor import Tensor


class Resample(Function):
    """Both axes through their matrices; the adjoint goes back through the transposed ones."""

    reads = {}

    def __init__(self, rows: Matrix, columns: Matrix) -> None:
        self.rows, self.columns = rows, columns

    def forward(self, x: np.ndarray) -> np.ndarray:
        y = kernels.resample(channels_last(x), self.rows, axis=1)
        return channels_first(kernels.resample(y, self.columns, axis=2))

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (Resample(self.rows.transpose, self.columns.transpose)(grad),)


def interpolate(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    align_corners: bool = False,
) -> Tensor:
    """Resize (N, C, H, W) bilinearly, as PyTorch does (no smoothing when shrinking).

    Args:
        x: (N, C, H, W).
        size: the new H and W; or
        scale_factor: by how much they grow (rounded down).
        mode: "bilinear"; no other is offered.
        align_corners: corner pixels, not corner edges, keep their place.

    Returns:
        (N, C, *size).
    """
    is_picture("interpolate", x)
    if mode != "bilinear":
        raise InputError(f"interpolate: mode is {mode!r}, wanted 'bilinear', the only one offered")
    if (size is None) == (scale_factor is None):
        raise InputError("interpolate: give size or scale_factor, one of the two")
    if size is not None:
        out = pair("interpolate", "size", size)
        scales = [n / max(m, 1) for n, m in zip(x.shape[2:], out)]
    else:
        both = isinstance(scale_factor, Sequence)
        factors = [float(f) for f in (scale_factor if both else (scale_factor,) * 2)]  # type: ignore
        if len(factors) != 2 or min(factors) <= 0:
            raise InputError(
                f"interpolate: scale_factor is {scale_factor}, wanted one positive number, or two"
            )
        out_h, out_w = (int(n * f) for n, f in zip(x.shape[2:], factors))
        out = out_h, out_w
        scales = [1.0 / f for f in factors]
    if min(out) < 1 or min(x.shape[2:]) < 1:
        raise ShapeError(f"interpolate: cannot make {out} from input of shape {x.shape}")
    rows, columns = (
        kernels.bilinear(n, m, scale, align_corners)
        for n, m, scale in zip(x.shape[2:], out, scales)
    )
    return Resample(rows, columns)(x)
