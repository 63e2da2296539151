"""The convolutional part of VGG, at any width: the trunk under the FCN.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition" (2015). Their 16-layer net is ``VGG(widths=VGG16_WIDTHS, convs=VGG16_CONVS,
batch_norm=False, ...)``, except that pools here round up, so that every picture fits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from minifcn import nn
from minifcn.errors import InputError
from minifcn.geometry import IDENTITY, CoordinateMap, coordinate_map
from minifcn.recomputation import checkpoint
from minifcn.tensor import Tensor

VGG16_WIDTHS = (64, 128, 256, 512, 512)
VGG16_CONVS = (2, 2, 3, 3, 3)


class VGG(nn.Module):
    """Stages of 3×3 convolutions, each ended by a 2×2 max pool: (N, C, H, W) → a tuple of features.

    Stage i, "stage1" first, holds conv1, norm1, relu1, conv2, … and pool, and its output has stride
    2^i: (N, widths[i-1], ⌈H/2^i⌉, ⌈W/2^i⌉). The convolutions pad by 1 and keep the size; the pools
    round up, so that a picture of any size from 1×1 on passes and no pixel is dropped.

    Args:
        in_channels: C.
        widths: channels of each stage.
        convs: number of convolutions of each stage.
        batch_norm: whether each convolution is followed by batch normalisation (it then has no
            bias of its own). It is what lets a deep trunk train from scratch.
        first_padding: of the first convolution; 1 keeps the size, the published FCNs have 100.
        generator: where the weights are drawn from.
        dtype: of all parameters.

    Set ``gradient_checkpointing`` to True to have `backward` compute each stage again.
    """

    gradient_checkpointing = False

    def __init__(
        self,
        in_channels: int = 3,
        *,
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        convs: Sequence[int] = (2, 2, 2, 2, 2),
        batch_norm: bool = True,
        first_padding: int = 1,
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if not widths or len(widths) != len(convs):
            raise InputError(
                f"widths is {tuple(widths)} and convs is {tuple(convs)}; "
                "give one width and one number of convolutions for each stage"
            )
        if any(count < 1 for count in convs):
            raise InputError(f"convs is {tuple(convs)}; give every stage one convolution or more")
        before = in_channels
        for i, (width, count) in enumerate(zip(widths, convs, strict=True), 1):
            layers: dict[str, nn.Module] = {}
            for j in range(1, count + 1):
                padding = first_padding if i == j == 1 else 1
                layers |= conv_block(
                    str(j), before, width, 3, padding, batch_norm, generator=generator, dtype=dtype
                )
                before = width
            layers["pool"] = nn.MaxPool2d(2, ceil_mode=True)
            self.add_module(f"stage{i}", nn.Sequential(layers))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) → the output of every stage, finest first."""
        features = []
        for stage in self.children():
            x = checkpoint(stage, x) if self.gradient_checkpointing else stage(x)
            features.append(x)
        return tuple(features)

    def coordinate_maps(self) -> list[CoordinateMap]:
        """Where the units of each stage's output lie over the picture, finest stage first."""
        maps, here = [], IDENTITY
        for stage in self.children():
            here = coordinate_map(nn.windows(stage), here)
            maps.append(here)
        return maps


def conv_block(
    suffix: str,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    padding: int,
    batch_norm: bool,
    *,
    generator: np.random.Generator,
    dtype: DTypeLike = np.float32,
) -> dict[str, nn.Module]:
    """A convolution, batch normalisation if asked, and ReLU.

    Gives them as "conv", "norm" and "relu", each name followed by ``suffix``, for a Sequential.
    """
    block: dict[str, nn.Module] = {
        f"conv{suffix}": nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=padding,
            bias=not batch_norm,
            generator=generator,
            dtype=dtype,
        )
    }
    if batch_norm:
        block[f"norm{suffix}"] = nn.BatchNorm2d(out_channels, dtype=dtype)
    block[f"relu{suffix}"] = nn.ReLU()
    return block
