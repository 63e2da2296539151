"""Learning rates as pure functions of the step number: to resume, the number is enough."""

from __future__ import annotations

from math import cos, pi

from minifcn.errors import InputError
from minifcn.optim.optimizer import Optimizer


class Schedule:
    """Sets every group's lr = lr_at(last_step, base_lr); base_lr is what the group was made with.

    Step 0 is set at once, on construction; call `step()` after each update of the parameters.

    Attributes:
        last_step: the step whose lr is set, 0 at first.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.last_step = 0
        self.step(0)

    def lr_at(self, step: int, base_lr: float) -> float:
        """Give the learning rate at a step; depends on nothing else."""
        raise NotImplementedError

    def step(self, to: int | None = None) -> None:
        """Go on by one step, or to the step `to`, which is how a run is resumed."""
        target = self.last_step + 1 if to is None else to
        if target < 0:
            raise InputError(f"schedule: step is {target}, wanted 0 or more; steps count from 0")
        self.last_step = target
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(self.last_step, group["base_lr"])


class PolyLR(Schedule):
    """base_lr · (1 − step/total_steps)^power, and 0 after total_steps.

    The "poly" policy of Caffe and ParseNet (Liu et al. 2015); PyTorch's `PolynomialLR`, whose
    power is 1 by default.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, power: float = 0.9) -> None:
        self.total_steps = _positive("PolyLR", "total_steps", total_steps)
        self.power = power
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """Give the learning rate at a step."""
        return base_lr * max(0.0, 1 - step / self.total_steps) ** self.power


class StepLR(Schedule):
    """base_lr · gamma^(step // step_size): a staircase, as PyTorch's `StepLR`."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = _positive("StepLR", "step_size", step_size)
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """Give the learning rate at a step."""
        return base_lr * self.gamma ** (step // self.step_size)


class CosineAnnealingLR(Schedule):
    """Half a cosine from base_lr to eta_min over T_max steps (Loshchilov and Hutter 2017, eq. 5).

    eta_min + (base_lr − eta_min)(1 + cos(π·step/T_max))/2, as PyTorch's, which beyond T_max rises
    again along the same cosine.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = _positive("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = eta_min
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """Give the learning rate at a step."""
        return self.eta_min + (base_lr - self.eta_min) * (1 + cos(pi * step / self.T_max)) / 2


class LinearWarmup(Schedule):
    """Another schedule, times (step + 1)/steps while that is below 1 (Goyal et al. 2017, 2.2)."""

    def __init__(self, schedule: Schedule, steps: int) -> None:
        self.schedule = schedule
        self.steps = _positive("LinearWarmup", "steps", steps)
        super().__init__(schedule.optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """Give the learning rate at a step."""
        return self.schedule.lr_at(step, base_lr) * min(1.0, (step + 1) / self.steps)


def _positive(name: str, argument: str, value: int) -> int:
    """Give back a positive whole number, refuse anything else."""
    if value < 1:
        raise InputError(f"{name}: {argument} is {value}, wanted 1 or more; give it in steps")
    return value
