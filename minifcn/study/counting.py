"""Count what a network does while it does it: multiplications, and bytes that its layers store.

`study.summary` says what one picture would cost, from the layers' settings. Here a hook on each
layer looks at what really came out, call by call, so that work which is done again counts again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minifcn import nn
from minifcn.tensor import Tensor


def multiplications(layer: nn.Module, x: Tensor, output: Tensor) -> int:
    """How often ``layer`` multiplies (and adds) to make ``output`` of ``x``, by its definition.

    A convolution and a Linear gather with their weights at each output; a transposed convolution,
    the adjoint of a convolution, scatters from each input. Holes and padding are not special, and
    a fast algorithm needs fewer: F(4×4, 3×3) a quarter. Layers without such weights count as none:
    they pass over their input once.
    """
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        return 0
    places = x if isinstance(layer, nn.ConvTranspose2d) else output
    return places.numel() * math.prod(layer.weight.shape[1:])


@dataclass
class Count:
    """Sums over all calls since counting began.

    Attributes:
        multiplications: see `multiplications`.
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
        count.multiplications += multiplications(layer, inputs[0], output)

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
