"""Count what a network does while it does it: multiplications, and bytes that its layers store.

`study.summary` says what one picture would cost, from the layers' settings. Here a hook on each
layer looks at what really came out, call by call, so that work which is done again counts again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minifcn import nn


@dataclass
class Count:
    """Sums over all calls since counting began.

    Attributes:
        multiplications: each with an addition: for every output of a convolution or a Linear its
            weights, one each. Holes and padding are not special; a fast algorithm needs fewer.
        fed: bytes of the net's own inputs.
        stored: bytes of all layers' outputs.
    """

    multiplications: int = 0
    fed: int = 0
    stored: int = 0


@contextmanager
def counting(net: nn.Module) -> Iterator[Count]:
    """Inside the block the calls of every layer below ``net`` are added to the Count it gives.

    While they are watched, a layer and the ReLU behind it run as two: do not time such a run.
    """
    count = Count()

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        count.stored += output.numel() * output.dtype.itemsize
        if isinstance(layer, nn.Conv2d | nn.Linear):
            count.multiplications += output.numel() * (
                layer.weight.numel() // layer.weight.shape[0]
            )

    def fed(net: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        count.fed += inputs[0].numel() * inputs[0].dtype.itemsize

    leaves = [module for module in net.modules() if not any(module.children())]
    handles = [leaf.register_forward_hook(look) for leaf in leaves]
    handles.append(net.register_forward_hook(fed))
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()
