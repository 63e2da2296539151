"""Net surgery: an image classifier becomes fully convolutional, with the weights that it has.

A fully connected layer is a convolution whose window is all of its input. If C×R×S values come in,

    y[k] = b[k] + Σ_{c,r,s} w[k, c·R·S + r·S + s] · x[c, r, s]

is the output of a convolution of kernel R×S at its only place, its weights being the same numbers
read as (K, C, R, S). The layers after it have windows of 1×1. Nothing in the net then asks for one
picture size: a larger picture gives a map of scores, a cell for each place of the window. AlexNet's
fc6, fc7 and fc8 become convolutions with the outputs (4096, 1, 1), (4096, 1, 1) and (1000, 1, 1).

The order of flattening is that of the shape, (C, H, W), whatever the order in memory.

Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation"
(2015), section 3.1.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from minifcn import device, nn
from minifcn.errors import InputError
from minifcn.models.classifier import Classifier
from minifcn.models.verdict import SurgeryVerdict, examine
from minifcn.nn.windowed import pair
from minifcn.recording import no_grad


def to_fully_convolutional(
    classifier: nn.Module,
    input_size: int | tuple[int, int],
    *,
    generator: np.random.Generator | None = None,
) -> tuple[nn.Sequential, SurgeryVerdict]:
    """The classifier as a net of convolutions, and how far the two agree.

    Args:
        classifier: a `Classifier`, or a chain (`nn.Sequential`, nested or not) of convolutions,
            pools, point-wise layers, `nn.Flatten` and `nn.Linear`. It stays as it is: the net has
            copies of all weights.
        input_size: H and W of the pictures it was trained on, one int for a square.
        generator: where the pictures of the examination are drawn from; None for seed 0.

    Returns:
        The net, (N, C, H, W) → (N, K, P, Q) for every size from ``input_size`` on, whose parameters
        have the classifier's names (a Linear's weight is (K, C, R, S) now); and the verdict, which
        `print` shows.

    Raises:
        InputError: if a layer is none of those, or ``input_size`` is not the classifier's.
        ShapeError: if the picture is too small for a layer.
    """
    size = pair("to_fully_convolutional", "input_size", input_size, 1)
    own = getattr(classifier, "input_size", size)
    if own != size:
        raise InputError(
            f"to_fully_convolutional: input_size is {size}, but the classifier takes pictures of "
            f"{own}; give that"
        )
    walk = _Walk(size)
    net = walk.convert("", classifier)
    if not isinstance(net, nn.Sequential) or not walk.converted:
        raise InputError(
            f"to_fully_convolutional: the {type(classifier).__name__} has no fully connected layer "
            "and no mean over the whole picture; it is fully convolutional as it is"
        )
    generator = generator or np.random.default_rng(0)
    return net, examine(classifier, net, size, walk.converted, walk.padding, generator)


def window_weight(weight: Any, channels: int, window: tuple[int, int]) -> Any:
    """A Linear's weight, (K, C·R·S), as a convolution's, (K, C, R, S)."""
    return weight.reshape(weight.shape[0], channels, *window)


class _Walk:
    """Goes through the layers in the order in which they run, and keeps what comes out of each.

    Attributes:
        size: height and width, of a picture of the training size; after a Flatten they are what
            the next Linear has to look at.
        channels: None before the first convolution.
        flat: whether a Flatten went by.
        converted: name and weight shape of every layer that is a convolution now.
        padding: names of the layers that see beyond the edge of their input.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.channels: int | None = None
        self.flat = False
        self.converted: list[tuple[str, tuple[int, ...]]] = []
        self.padding: list[str] = []

    def convert(self, name: str, module: nn.Module) -> nn.Module | None:
        """The convolutional form of a module and all below it; None if nothing is left of it."""
        if type(module) is Classifier:
            parts = {"features": module.features, "flatten": nn.Flatten()}
            return self._chain(name, parts | {"classifier": module.classifier})
        if type(module) is nn.Sequential:
            return self._chain(name, dict(module.named_children()))
        if isinstance(module, nn.Flatten) and module.start_dim == 1:
            self.flat = True
            return None
        if isinstance(module, nn.Linear) and self.flat:
            return self._linear(name, module)
        if isinstance(module, nn.Softmax) and self.flat and module.dim in (1, -1):
            return nn.Softmax(1)
        if isinstance(module, nn.ReLU | nn.Dropout):
            return deepcopy(module)
        if not self.flat:
            if isinstance(module, nn.AdaptiveAvgPool2d):
                self.converted.append((name, (self.channels or 1, 1, *self.size)))
                pool = nn.AvgPool2d(self.size, stride=1)
                self.size = (1, 1)
                return pool
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.BatchNorm2d):
                self._pass(name, module)
                return deepcopy(module)
        raise InputError(
            f"to_fully_convolutional: {name or 'the model'} is {_described(module)}"
            f"{' behind a Flatten' if self.flat else ''}; give a chain of convolutions, pools, "
            "ReLU, Dropout, BatchNorm2d, then one Flatten, then Linear layers"
        )

    def _chain(self, name: str, parts: dict[str, nn.Module]) -> nn.Sequential:
        full = {part: f"{name}.{part}" if name else part for part in parts}
        made = {part: self.convert(full[part], module) for part, module in parts.items()}
        return nn.Sequential({part: module for part, module in made.items() if module is not None})

    def _pass(self, name: str, layer: nn.Module) -> None:
        """What a convolution or a pool makes of the size, and whether it sees beyond the edge."""
        if not isinstance(layer, nn.Windowed):
            return
        windows = [layer.window(axis) for axis in (0, 1)]
        after = tuple(w.output_size(n) for w, n in zip(windows, self.size))
        last_seen = [(n - 1) * w.stride - w.padding + w.reach for w, n in zip(windows, after)]
        hangs_over = any(last >= n for last, n in zip(last_seen, self.size))
        if hangs_over or any(w.padding for w in windows):
            self.padding.append(name)
        self.size = after[0], after[1]
        self.channels = getattr(layer, "out_channels", self.channels)

    def _linear(self, name: str, layer: nn.Linear) -> nn.Conv2d:
        height, width = self.size
        channels = layer.in_features // (height * width) if self.channels is None else self.channels
        if channels * height * width != layer.in_features:
            raise InputError(
                f"to_fully_convolutional: {name} takes {layer.in_features} values, but "
                f"{channels}×{height}×{width} = {channels * height * width} come out of the layers "
                "before it; give the input_size that the classifier was trained on"
            )
        drawn = np.random.default_rng(0)  # for start values that are overwritten
        conv = nn.Conv2d(
            channels,
            layer.out_features,
            self.size,
            bias=layer.bias is not None,
            generator=drawn,
            dtype=layer.weight.dtype,
        )
        conv.to(device.name_of(layer.weight.data))
        with no_grad():
            conv.weight.copy_(window_weight(layer.weight.data, channels, self.size))
            conv.weight.requires_grad = layer.weight.requires_grad
            if conv.bias is not None and layer.bias is not None:
                conv.bias.copy_(layer.bias.data)
                conv.bias.requires_grad = layer.bias.requires_grad
        conv.train(layer.training)
        self.converted.append((name, conv.weight.shape))
        self.size, self.channels = (1, 1), layer.out_features
        return conv


def _described(module: nn.Module) -> str:
    """A class, with what of it cannot be converted."""
    kind = type(module).__name__
    return f"a {kind} before any Flatten" if isinstance(module, nn.Linear) else f"a {kind}"
