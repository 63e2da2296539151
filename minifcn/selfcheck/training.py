"""Steps of a whole small FCN-8s on a device, beside the same steps on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn import functional as F
from minifcn import optim
from minifcn.models import FCN
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

VOID = 255


def settings(widths: tuple[int, ...]) -> dict[str, Any]:
    """Of the net with stages of these widths, under the names of `FCN`."""
    return {
        "num_classes": 3,
        "widths": widths,
        "convs": (1,) * len(widths),
        "fc_channels": widths[-1],
        "fc_kernel": 3,
        "dropout": 0.0,
        "batch_norm": True,
    }


def network(widths: tuple[int, ...], generator: np.random.Generator | None = None) -> FCN:
    """The net, on the host."""
    drawn = np.random.default_rng(3) if generator is None else generator
    return FCN(**settings(widths), head="fcn8s", generator=drawn)


def step(
    name: str, size: int = 40, batch: int = 2, widths: tuple[int, ...] = (4, 5, 6, 7, 8)
) -> Callable[[], float]:
    """A function that takes one training step on device ``name`` and gives the loss before it.

    Weights, pictures and labels are drawn on the host from one seed: each device sees the same.
    """
    generator = np.random.default_rng(3)
    model = network(widths, generator)
    with no_grad():
        for path, p in model.score.named_parameters():
            if path.endswith("weight"):  # they start at zero, and would let nothing through
                p.copy_(0.3 * generator.standard_normal(p.shape))
    model.to(name)
    pictures = generator.standard_normal((batch, size, size, 3)).astype(np.float32)
    labels = generator.integers(0, 3, (batch, size, size))
    labels[:, :2] = VOID
    images = Tensor(pictures.transpose(0, 3, 1, 2)).to(name)
    target = Tensor(labels).to(name)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def run() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), target, ignore_index=VOID)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return run


def differences(name: str, steps: int = 20, size: int = 40) -> list[float]:
    """Of each step: |loss there − loss on the CPU| ÷ the CPU's."""
    there, here = step(name, size), step("cpu", size)
    pairs = [(there(), here()) for _ in range(steps)]
    return [abs(a - b) / max(abs(b), 1e-30) for a, b in pairs]


def repeated(name: str, steps: int = 3, times: int = 2, size: int = 40) -> bool:
    """Whether training again from the start gives the same losses to the last bit."""
    runs = []
    for _ in range(times):
        run = step(name, size)
        runs.append([run() for _ in range(steps)])
    return all(run == runs[0] for run in runs)
