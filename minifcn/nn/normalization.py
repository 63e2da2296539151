"""BatchNorm2d."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from minifcn import functional as F
from minifcn.errors import InputError
from minifcn.nn.module import Module
from minifcn.nn.parameter import Parameter
from minifcn.nn.windowed import positive
from minifcn.recomputation import recomputing
from minifcn.tensor import Tensor


class BatchNorm2d(Module):
    """Centre and scale each channel, then apply a learned scale and shift: (N, C, H, W) → same.

    While training, mean and variance are the batch's own, and the running ones move towards them;
    in evaluation the running ones are used. State, with PyTorch's names: ``weight`` and ``bias``
    (C,) or None without ``affine``; the buffers ``running_mean`` and ``running_var`` (C,) and
    ``num_batches_tracked`` (int64 scalar).
    Source: Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1.

    Args:
        num_features: C.
        eps: added to the variance under the root.
        momentum: weight of the new batch in the running statistics; None gives every batch seen so
            far the same weight.
        affine: whether there is a learned scale and shift.
        dtype: of parameters and running statistics.
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: np.ndarray
    running_var: np.ndarray
    num_batches_tracked: np.ndarray

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_features = positive("BatchNorm2d", "num_features", num_features)
        if not eps > 0:
            raise InputError(f"BatchNorm2d: eps is {eps!r}; give a number above 0")
        if momentum is not None and not 0 <= momentum <= 1:
            raise InputError(f"BatchNorm2d: momentum is {momentum!r}; give one from 0 to 1")
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        self.register_buffer("running_mean", np.zeros(num_features, dtype))
        self.register_buffer("running_var", np.ones(num_features, dtype))
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return self._through(F.batch_norm, x)

    def forward_relu(self, x: Tensor) -> Tensor:
        """This layer and a ReLU behind it, in one operation; `Sequential` calls it."""
        return self._through(F.batch_norm_relu, x)

    def _through(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / (1 + int(self.num_batches_tracked))
        y = function(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            momentum,
            self.eps,
        )
        if self.training and not recomputing():
            self.num_batches_tracked += 1
        return y

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        )
