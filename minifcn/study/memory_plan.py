"""What a training step will take of memory, layer by layer, before it is run.

    at the highest   weights + averaged weights + gradients so far + optimiser's state + batch
                     + what is kept for backward + what one kernel works with

Early in `backward` all activations are held and few gradients, late it is the other way round; so
the highest moment is found by going through it (`minifcn.study.dry_run`), not by adding all up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import functional as F
from minifcn import nn, optim
from minifcn.recording import enable_grad
from minifcn.study.dry_run import Watch, dry_run
from minifcn.tensor import Tensor

Loss = Callable[[Tensor, np.ndarray], Tensor]


@dataclass(frozen=True)
class LayerMemory:
    """Bytes of one layer.

    Attributes:
        name: as `Module.named_modules` gives it, the whole net by its class; "loss" for the rest.
        kinds: the operations that it consists of, in order.
        weights: of its parameters; its gradients take as much, if they are wanted.
        kept: held more after its forward than before: its result and what its backward reads.
        backward: the most that is held while its backward runs, weights and all.
    """

    name: str
    kinds: tuple[str, ...]
    weights: int
    kept: int
    backward: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a training step; what the interpreter and its libraries take is not in it."""

    input: tuple[int, ...]
    weights: int
    averaged: int
    gradients: int
    state: int
    batch: int
    kept: int
    highest: int
    total: int
    layers: tuple[LayerMemory, ...]


def memory_plan(
    model: nn.Module,
    size: tuple[int, int, int],
    batch: int = 1,
    *,
    loss: Loss = F.cross_entropy,
    optimizer: Callable[[Iterable[Any]], optim.Optimizer] | None = None,
    averaged: bool = False,
) -> MemoryPlan:
    """Plan a training step of ``model`` on ``batch`` pictures of ``size`` (C, H, W), on the CPU.

    Args:
        model: parameters on the CPU; its settings, `gradient_checkpointing` too, count.
        size: of one picture.
        batch: N.
        loss: of the model's output and labels (N, H, W), a scalar.
        optimizer: makes one of the parameters; SGD with momentum if left out.
        averaged: whether a second set of weights follows the first.

    Returns:
        The plan. ``total`` is what the process will hold at the highest, beyond what it has loaded.

    Raises:
        MemoryError: if the system does not even promise so much.
    """
    if optimizer is None:
        mover: optim.Optimizer = optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    else:
        mover = optimizer(model.parameters())
    c, h, w = size
    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))

    def step() -> None:
        images = np.zeros((batch, h, w, c), dtype).transpose(0, 3, 1, 2)
        labels = np.zeros((batch, h, w), np.int64)
        mover.zero_grad()
        with enable_grad():
            loss(model.train()(Tensor(images)), labels).backward()
        mover.step()

    watch = dry_run(model, step)
    parameters = list(model.parameters())
    weights = sum(p.data.nbytes for p in parameters) + sum(b.nbytes for b in model.buffers())
    state = sum(a.nbytes for s in mover.state.values() for a in s.values() if hasattr(a, "nbytes"))
    held = weights * (2 if averaged else 1) + state  # before the step begins
    return MemoryPlan(
        (batch, *size),
        weights,
        weights if averaged else 0,
        sum(p.data.nbytes for p in parameters if p.requires_grad),
        state,
        batch * h * w * (c * dtype.itemsize + 8),
        sum(moment.kept for moment in watch.moments),
        held + watch.highest,
        held + watch.touched,
        _layers(model, watch, held),
    )


def _layers(model: nn.Module, watch: Watch, held: int) -> tuple[LayerMemory, ...]:
    """The operations of a layer that follow each other, as one line."""
    weights: dict[str, int] = {}
    for name, p in model.named_parameters():
        owner = name.rpartition(".")[0]
        weights[owner] = weights.get(owner, 0) + p.data.nbytes
    layers: list[LayerMemory] = []
    kinds: tuple[str, ...]
    for moment in watch.moments:
        name, kinds, kept, backward = (
            moment.layer,
            (moment.kind,),
            moment.kept,
            held + moment.backward,
        )
        if layers and layers[-1].name == name:
            last = layers.pop()
            kinds, kept = last.kinds + kinds, last.kept + kept
            backward = max(last.backward, backward)
        layers.append(LayerMemory(name, kinds, weights.get(name, 0), kept, backward))
    return tuple(layers)
