"""CrossEntropyLoss."""

from __future__ import annotations

import numpy as np

from minifcn import functional as F
from minifcn.errors import InputError
from minifcn.nn.module import Module
from minifcn.ops.cross_entropy import REDUCTIONS
from minifcn.tensor import Tensor


class CrossEntropyLoss(Module):
    """Cross-entropy of scores (N, K, …) and target classes int64 (N, …).

    Args:
        weight: (K,), the weight of each class, or None.
        ignore_index: targets with this value leave both the sum and the count.
        reduction: "mean" over valid pixels, "sum", "none", "batch" (the sum ÷ N) or "image" (the
            mean over each image's valid pixels, then over images).
    """

    def __init__(
        self,
        weight: np.ndarray | Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        if reduction not in REDUCTIONS:
            raise InputError(
                f"CrossEntropyLoss: reduction is {reduction!r}; "
                f"choose one of {', '.join(REDUCTIONS)}"
            )
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = reduction

    def forward(self, input: Tensor, target: np.ndarray | Tensor) -> Tensor:
        """(N, K, …) and int64 (N, …) → a scalar, or (N, …) for "none"."""
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """The settings."""
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"
