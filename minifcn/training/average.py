"""A moving average of a model's weights: steadier than the weights of any one step.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), in the
exponential form that is usual now.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from minifcn import device
from minifcn.kernels import sgd
from minifcn.nn import Module

PIECE = 1 << 18
"""Numbers."""


def follow(average: Module, model: Module, decay: float, step: int) -> None:
    """Move `average`, a module of the same make, towards `model` after step 1, 2, …

    a ← d·a + (1 − d)·w for every parameter and every buffer, so batch normalisation's running
    statistics too; integers are copied. d is `decay`, but at most step/(step + 9): the first
    weights, drawn by chance, are soon forgotten. With decay 0 the average is the model.
    """
    d = min(decay, step / (step + 9))
    arrays = chain(
        ((a.data, w.data) for a, w in zip(average.parameters(), model.parameters(), strict=True)),
        zip(average.buffers(), model.buffers(), strict=True),
    )
    for a, w in arrays:
        if d == 0 or not np.issubdtype(a.dtype, np.floating):
            a[...] = w
        elif device.is_gpu(a):
            # a ← a + (1 − d)·(w − a) in one launch, as a step of gradient descent
            sgd(a, w, None, d - 1, momentum=0.0, dampening=0.0, decay=-1.0, nesterov=False)
        else:
            for part, other in _in_pieces(a, w):
                part *= d
                part += other * a.dtype.type(1 - d)
    for parameter in average.parameters():
        parameter._version += 1  # graphs that kept the old value must notice


def _in_pieces(a: Any, w: Any) -> Iterator[tuple[Any, Any]]:
    """Both arrays, one as long as a cache at a time: (1 − d)·w then takes no memory to speak of."""
    axes = sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))
    rows = [x.transpose(axes) if axes else x for x in (a, w)]
    if a.size <= PIECE or not all(x.flags.c_contiguous for x in rows):
        yield a, w
        return
    flat, other = (x.reshape(-1) for x in rows)
    for start in range(0, flat.size, PIECE):
        yield flat[start : start + PIECE], other[start : start + PIECE]
