"""Residual networks of basic blocks, ResNet-18 and ResNet-34: trunk and classifier.

Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016): table 1, and
figure 3 for the shortcuts (a 1×1 convolution where size or width changes). A block learns what to
*add* to its input, y = ReLU(x + F(x)), so the gradient of y reaches x undiminished, however many
blocks there are. Modules are named as torchvision's, so that its weights fit by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minifcn import functional as F
from minifcn import nn
from minifcn.errors import InputError
from minifcn.recomputation import checkpoint
from minifcn.tensor import Tensor

RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
"""Blocks of layer1 to layer4."""
RESNET_WIDTHS = (64, 128, 256, 512)
"""Channels of layer1 to layer4."""


class BasicBlock(nn.Module):
    """y = ReLU(shortcut(x) + bn2(conv2(ReLU(bn1(conv1(x)))))): (N, C, H, W) → (N, K, P, Q).

    P = ⌈H/stride⌉, Q alike. The shortcut, ``downsample``, is x itself, or a 1×1 convolution with
    normalisation where the block changes the size or the number of channels.
    """

    downsample: nn.Sequential | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        made: dict[str, Any] = {"bias": False, "generator": generator, "dtype": dtype}
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, **made)
        self.bn1 = nn.BatchNorm2d(out_channels, dtype=dtype)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, **made)
        self.bn2 = nn.BatchNorm2d(out_channels, dtype=dtype)
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, **made),
                nn.BatchNorm2d(out_channels, dtype=dtype),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, K, P, Q)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        residual = nn.through(x, self.conv1, self.bn1, self.relu, self.conv2, self.bn2)
        return self.relu(shortcut + residual)


class ResNetTrunk(nn.Module):
    """The convolutional part: (N, C, H, W) → a tuple of features, for every H and W from 1 on.

    The stem (``conv1`` 7×7 stride 2, ``bn1``, ``relu``, ``maxpool`` 3×3 stride 2) and layer1 have
    stride 4, layer2 to layer4 each twice the one before. Every layer with stride 2 has an odd
    window and half of it as padding, so it makes ⌈n/2⌉ of n, and layer i's output is
    (N, widths[i-1], ⌈H/2^(i+1)⌉, ⌈W/2^(i+1)⌉).

    Args:
        in_channels: C.
        blocks: number of basic blocks in each layer, see RESNET_BLOCKS.
        widths: channels of each layer; the stem has those of the first.
        generator: where the weights are drawn from.
        dtype: of all parameters.

    Set ``gradient_checkpointing`` to True to have `backward` compute stem and layers again, each by
    itself.
    """

    gradient_checkpointing = False

    def __init__(
        self,
        in_channels: int = 3,
        *,
        blocks: Sequence[int] = RESNET_BLOCKS["resnet18"],
        widths: Sequence[int] = RESNET_WIDTHS,
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if len(blocks) != 4 or len(widths) != 4 or min(*blocks, *widths) < 1:
            raise InputError(
                f"blocks is {tuple(blocks)} and widths is {tuple(widths)}; "
                "give four numbers of 1 or more each, for layer1 to layer4"
            )
        made: dict[str, Any] = {"generator": generator, "dtype": dtype}
        self.conv1 = nn.Conv2d(in_channels, widths[0], 7, 2, padding=3, bias=False, **made)
        self.bn1 = nn.BatchNorm2d(widths[0], dtype=dtype)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = widths[0]
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
            first = BasicBlock(before, width, 1 if i == 1 else 2, **made)
            rest = [BasicBlock(width, width, **made) for _ in range(count - 1)]
            self.add_module(f"layer{i}", nn.Sequential(first, *rest))
            before = width

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) → the outputs of layer1 to layer4, strides 4, 8, 16, 32."""
        features = []
        layers = (self.get_submodule(f"layer{i}") for i in range(1, 5))
        parts: list[Callable[[Tensor], Any]] = [self._stem, *layers]
        for part in parts:
            x = checkpoint(part, x) if self.gradient_checkpointing else part(x)
            features.append(x)
        return tuple(features[1:])

    def _stem(self, x: Tensor) -> Tensor:
        return nn.through(x, self.conv1, self.bn1, self.relu, self.maxpool)

    def forward(self, x: Tensor) -> Any:
        """(N, C, H, W) → the tuple of `features`."""
        return self.features(x)


class ResNet(ResNetTrunk):
    """The classifier: the mean of layer4 over the picture, then ``fc``: (N, C, H, W) → (N, K)."""

    def __init__(self, num_classes: int = 1000, **settings: Any) -> None:
        super().__init__(**settings)
        width = settings.get("widths", RESNET_WIDTHS)[-1]
        made = {name: settings[name] for name in ("generator", "dtype") if name in settings}
        self.fc = nn.Linear(width, num_classes, **made)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → class scores (N, K)."""
        return self.fc(F.adaptive_avg_pool2d(self.features(x)[-1], 1).flatten(1))


def resnet18(num_classes: int = 1000, **settings: Any) -> ResNet:
    """ResNet-18 as classifier; settings as for `ResNetTrunk`, at least ``generator``."""
    return ResNet(num_classes, blocks=RESNET_BLOCKS["resnet18"], **settings)


def resnet34(num_classes: int = 1000, **settings: Any) -> ResNet:
    """ResNet-34 as classifier; settings as for `ResNetTrunk`, at least ``generator``."""
    return ResNet(num_classes, blocks=RESNET_BLOCKS["resnet34"], **settings)
