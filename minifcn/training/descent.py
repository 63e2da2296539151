"""How weights move: the optimiser and the course of its learning rate, as the settings say."""

from __future__ import annotations

from typing import Any

from minifcn import optim
from minifcn.nn import Module, Parameter
from minifcn.training.settings import Settings


def optimizer_of(settings: Settings, model: Module) -> optim.Optimizer:
    """AdamW or SGD, the biases with a rate and a decay of their own if the settings say so."""
    every: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return optim.SGD(_groups(settings, model), momentum=settings.momentum, **every)
    return optim.AdamW(_groups(settings, model), **every)


def _groups(settings: Settings, model: Module) -> list[dict[str, Any]]:
    """All parameters together, or the biases apart if something else holds for them."""
    if settings.bias_lr == 1.0 and settings.bias_decay:
        return [{"params": model.parameters()}]
    weights: list[Parameter] = []
    biases: list[Parameter] = []
    for name, parameter in model.named_parameters():
        (biases if name.split(".")[-1] == "bias" else weights).append(parameter)
    own: dict[str, Any] = {"params": biases, "lr_mult": settings.bias_lr}
    if not settings.bias_decay:
        own["weight_decay"] = 0.0
    return [{"params": weights}, own]


def schedule_of(settings: Settings, optimizer: optim.Optimizer) -> optim.Schedule:
    """The course of the learning rate, step by step."""
    schedule: optim.Schedule
    if settings.schedule == "poly":
        schedule = optim.PolyLR(optimizer, settings.steps)
    elif settings.schedule == "cosine":
        schedule = optim.CosineAnnealingLR(optimizer, settings.steps)
    else:
        schedule = optim.StepLR(optimizer, settings.steps + 1)  # the first stair never ends
    if settings.warmup:
        schedule = optim.LinearWarmup(schedule, settings.warmup)
    return schedule
