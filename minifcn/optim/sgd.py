"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minifcn import kernels
from minifcn.errors import InputError
from minifcn.optim.optimizer import Optimizer, zeros_beside


class SGD(Optimizer):
    """Gradient descent with momentum m, dampening d and weight decay λ, in PyTorch's form.

    g ← g + λp;  b ← m·b + (1 − d)·g (the first time b ← g);  g ← g + m·b with Nesterov, else b;
    p ← p − lr·lr_mult·g.

    The momentum buffer holds gradients, not steps: a changed lr acts at once on the whole step
    (Sutskever et al. 2013 and Caffe put lr inside; see the note in PyTorch's `torch.optim.SGD`).
    Defaults are those of PyTorch, with lr to be given. FCN (Long et al. 2015, section 4.3) uses
    momentum 0.9, weight decay 5e-4 and twice the learning rate for biases.
    """

    buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        settings = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, settings)

    def check(self, index: int, group: dict[str, Any]) -> None:
        """Refuse a negative momentum, and Nesterov's rule where it is not defined."""
        if not group["momentum"] >= 0:
            raise InputError(
                f"SGD: group {index} has momentum {group['momentum']}, wanted 0 or more; "
                "turn its sign"
            )
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise InputError(
                f"SGD: group {index} has nesterov with momentum {group['momentum']} and dampening "
                f"{group['dampening']}, wanted a momentum above 0 and no dampening; change them"
            )

    def update(
        self, p: np.ndarray, g: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Move p in place by the rule in the class's description."""
        momentum, dampening = group["momentum"], group["dampening"]
        if momentum and "momentum_buffer" not in state:
            state["momentum_buffer"] = zeros_beside(p)
            dampening = 0.0  # 0·m + g: the first time the buffer is the gradient itself
        kernels.sgd(
            p,
            g,
            state["momentum_buffer"] if momentum else None,
            lr=group["lr"] * group["lr_mult"],
            momentum=momentum,
            dampening=dampening,
            decay=group["weight_decay"],
            nesterov=group["nesterov"],
        )
