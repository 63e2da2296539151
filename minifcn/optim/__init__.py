"""Optimisers with PyTorch's update rules, and learning-rate schedules as functions of the step."""

from minifcn.optim.adam import Adam, AdamW
from minifcn.optim.optimizer import Optimizer
from minifcn.optim.schedules import (
    CosineAnnealingLR,
    LinearWarmup,
    PolyLR,
    Schedule,
    StepLR,
)
from minifcn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "LinearWarmup",
    "Optimizer",
    "PolyLR",
    "Schedule",
    "StepLR",
]
