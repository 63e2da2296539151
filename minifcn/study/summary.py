"""The layers of a network, in the order in which they run, with their sizes and costs.

Nothing is computed to find them out. The network's own ``forward`` runs, skips, crops and all, but
on pictures of nothing: arrays of the right shape whose elements are all one and the same number in
memory (`numpy.broadcast_to`). A layer whose output size follows from its settings gives the next
such picture, so the summary of a VGG16 of 134 million weights needs no multiplication. Layers that
are not known here run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import nn
from minifcn.errors import ShapeError
from minifcn.kernels.algorithm import choose
from minifcn.recording import no_grad
from minifcn.study.counting import multiplications
from minifcn.tensor import Tensor


@dataclass(frozen=True)
class Layer:
    """One layer, for one picture.

    Attributes:
        name: as `Module.named_modules` gives it.
        kind: its class.
        output: (K, P, Q), or what else comes after the batch.
        parameters: learned values; 0 where the layer ran before in this network.
        multiplications: each with an addition, P·Q·K·(C/groups)·R·S for a convolution; see
            `counting.multiplications`.
        memory: bytes of the output.
        algorithm: by which `minifcn.kernels` computes it, for convolutions; otherwise "".
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiplications: int
    memory: int
    algorithm: str


@dataclass(frozen=True)
class Summary:
    """All layers, and their sums for one picture."""

    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    parameters: int
    """Of the whole network, those that belong to no layer here included."""

    @property
    def multiplications(self) -> int:
        """Multiplications (each with an addition) of one forward pass."""
        return sum(layer.multiplications for layer in self.layers)

    @property
    def memory(self) -> int:
        """Bytes of all outputs: what training holds at most; prediction gives most back earlier."""
        return sum(layer.memory for layer in self.layers)


def summary(model: nn.Module, size: tuple[int, ...]) -> Summary:
    """The layers of ``model`` for a picture of ``size`` (C, H, W).

    Raises:
        ShapeError: if the model cannot take such a picture.
    """
    if len(size) != 3 or any(length < 1 for length in size):
        raise ShapeError(
            f"summary: the size is {tuple(size)}, wanted three numbers of 1 or more; "
            "give channels, height and width, such as (3, 360, 480)"
        )
    layers: list[Layer] = []
    seen: set[int] = set()

    def record(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            layers.append(_layer(name, module, inputs[0], output, module_is_new(module)))

        return hook

    def module_is_new(module: nn.Module) -> bool:
        new = id(module) not in seen
        seen.add(id(module))
        return new

    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    leaves = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    handles = [m.register_forward_hook(record(name)) for name, m in leaves]
    try:
        with no_grad(), _shapes_only([module for _, module in leaves]):
            model(_nothing((1, *size), dtype))
    finally:
        for handle in handles:
            handle.remove()
    return Summary(tuple(size), tuple(layers), nn.parameter_count(model))


def _nothing(shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    """A Tensor of this shape that takes no memory."""
    return Tensor(np.broadcast_to(np.zeros((), dtype), shape))


@contextmanager
def _shapes_only(leaves: list[nn.Module]) -> Iterator[None]:
    """Inside the block these modules give pictures of nothing, where their output size is known."""
    replaced = [module for module in leaves if isinstance(module, _KNOWN)]
    for module in replaced:
        module.forward = _forward_of(module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in replaced:
            del module.forward  # its class's is seen again


_SAME = (nn.BatchNorm2d, nn.Dropout, nn.ReLU, nn.Softmax)
_KNOWN = (nn.Windowed, nn.Linear, *_SAME)


def _forward_of(module: nn.Module) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return _nothing(_output_shape(module, x.shape), x.dtype)

    return forward


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a module of `_KNOWN` makes of this one."""
    if isinstance(module, nn.Linear):
        return *shape[:-1], module.out_features
    if not isinstance(module, nn.Windowed):
        return shape
    channels = shape[1]
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        if channels != module.in_channels:
            raise ShapeError(
                f"summary: a {type(module).__name__} for {module.in_channels} channels gets "
                f"{channels}; give a picture with the channels that the model was made for"
            )
        channels = module.out_channels
    sizes = (module.window(axis).output_size(n) for axis, n in enumerate(shape[2:]))
    return shape[0], channels, *sizes


def _layer(name: str, module: nn.Module, x: Tensor, output: Tensor, new: bool) -> Layer:
    algorithm = ""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        algorithm = choose(
            "input" if isinstance(module, nn.ConvTranspose2d) else "forward",
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.dilation,
            module.groups,
            (output.shape[2], output.shape[3]),
            dtype=x.dtype,
        )
    return Layer(
        name,
        type(module).__name__,
        output.shape[1:],
        nn.parameter_count(module) if new else 0,
        multiplications(module, x, output),
        output.numel() * output.dtype.itemsize,
        algorithm,
    )
