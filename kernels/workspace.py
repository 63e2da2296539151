"""Where kernels get the memory for their results."""

from __future__ import annotations

from typing import Any

import numpy as np


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array."""
    return np.empty(shape, dtype)
