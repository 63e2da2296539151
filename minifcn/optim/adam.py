"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Any

import numpy as np

from minifcn import kernels
from minifcn.errors import InputError
from minifcn.optim.optimizer import Optimizer, zeros_beside


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), in PyTorch's form; t counts from 1.

    g ← g + λp;  m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²;
    p ← p − lr·lr_mult/(1 − β₁ᵗ) · m ÷ (√v/√(1 − β₂ᵗ) + eps).

    Weight decay is added to the gradient, so it is divided by √v as well; `AdamW` keeps it apart.
    """

    buffers = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings)

    def check(self, index: int, group: dict[str, Any]) -> None:
        """Refuse betas outside [0, 1) and a negative eps."""
        name = type(self).__name__
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise InputError(
                f"{name}: group {index} has betas {group['betas']}, wanted two numbers from 0 to "
                "below 1; PyTorch's are (0.9, 0.999)"
            )
        if not group["eps"] >= 0:
            raise InputError(
                f"{name}: group {index} has eps {group['eps']}, wanted 0 or more; turn its sign"
            )

    def update(
        self, p: np.ndarray, g: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Move p in place by the rule in the class's description."""
        beta1, beta2 = group["betas"]
        lr, decay = group["lr"] * group["lr_mult"], group["weight_decay"]
        if not state:
            state.update(step=0, exp_avg=zeros_beside(p), exp_avg_sq=zeros_beside(p))
        state["step"] += 1
        kernels.adam(
            p,
            g,
            state["exp_avg"],
            state["exp_avg_sq"],
            lr=lr / (1 - beta1 ** state["step"]),
            beta1=beta1,
            beta2=beta2,
            root=sqrt(1 - beta2 ** state["step"]),
            eps=group["eps"],
            decay=0.0 if self.decoupled else decay,
            shrink=1 - lr * decay if self.decoupled else 1.0,
        )


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019, algorithm 2).

    p ← p − lr·lr_mult·λ·p, then Adam's rule with λ = 0. PyTorch's form and defaults.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
