"""A moving average of a model's weights: steadier than the weights of any one step.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), in the
exponential form that is usual now.
"""

from __future__ import annotations

from itertools import chain

import numpy as np

from minifcn.nn import Module


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
        if np.issubdtype(a.dtype, np.floating):
            a *= d
            a += w * a.dtype.type(1 - d)
        else:
            a[...] = w
    for parameter in average.parameters():
        parameter._version += 1  # graphs that kept the old value must notice
