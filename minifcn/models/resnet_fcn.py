"""A fully convolutional network on a ResNet trunk, with or without skips.

The plain one, head "fcn32s": trunk, a 1×1 convolution to K classes, and one transposed convolution
of kernel 64, stride 32 and padding 16 that starts as bilinear interpolation. Skips join by the rule
of `minifcn.models.fcn`, from layer3 (stride 16), layer2 (8) and layer1 (4).

Where do the scores lie? Every window of stride 2 in a ResNet is odd and padded by half, so unit i
of layer4 is centred over pixel 32·i. To lay bilinear upsampling of kernel 64 over these centres,
31.5 pixels would have to fall off at the left (`geometry.crop_offset` refuses), and even with 31
the output would end 30 pixels short of a picture whose size 32 divides: nothing lies over the last
ones. So here the score of unit i stands for its cell of 32 pixels, 32·i to 32·i + 31, which it sees
with hundreds around them: ⌈H/32⌉ cells cover every picture, and from `geometry.cells` follow the
padding 16 for factor 32, 8 for 16, 4 for 8 and 1 for 2. The 15.5 pixels between a window's centre
and its cell's are left to the trunk to learn. (In VGG, whose pools are 2×2, the two are one.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minifcn import nn
from minifcn.errors import InputError
from minifcn.geometry import IDENTITY, cells
from minifcn.models.fcn import FCN, UPSAMPLE, score_layer
from minifcn.models.resnet import RESNET_BLOCKS, RESNET_WIDTHS, ResNetTrunk
from minifcn.tensor import Tensor

STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8, "fcn4s": 4}
"""The heads, and the stride of each one's finest skip."""


class ResNetFCN(FCN):
    """An FCN on a ResNet trunk: (N, C, H, W) → scores (N, K, H, W), for every H and W from 1 on.

    Its parts, by name: ``trunk`` (see `ResNetTrunk`); ``score`` with one 1×1 convolution, zero at
    first, for "layer4" and each skip ("layer3", …); ``upscore`` as in `FCN`.

    Args:
        num_classes: K.
        in_channels: C.
        trunk: "resnet18" or "resnet34".
        head: "fcn32s" (no skip), "fcn16s", "fcn8s" or "fcn4s".
        widths: channels of layer1 to layer4.
        upsample: "learned", "last-frozen" or "frozen", see `FCN`.
        generator: where the weights are drawn from.
        dtype: of all parameters, and of the input.
    """

    trunk: ResNetTrunk  # type: ignore[assignment]

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        trunk: str = "resnet18",
        head: str = "fcn32s",
        widths: Sequence[int] = RESNET_WIDTHS,
        upsample: str = "learned",
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; give 1 or more")
        for name, value, choices in (
            ("trunk", trunk, tuple(RESNET_BLOCKS)),
            ("head", head, tuple(STRIDES)),
            ("upsample", upsample, UPSAMPLE),
        ):
            if value not in choices:
                raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
        nn.init.check_generator(generator, "ResNetFCN")
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "trunk": trunk,
            "head": head,
            "widths": list(widths),
            "upsample": upsample,
        }
        made: dict[str, Any] = {"generator": generator, "dtype": dtype}
        self.trunk = ResNetTrunk(in_channels, blocks=RESNET_BLOCKS[trunk], widths=widths, **made)
        self.score = nn.ModuleDict({"layer4": score_layer(widths[3], num_classes, **made)})
        self.upscore = nn.ModuleDict()
        self._begin_at("layer4", cells(32))
        stride = 32
        for i in (3, 2, 1):  # layer i has stride 2^(i+1)
            if stride == STRIDES[head]:
                break
            self.score[f"layer{i}"] = score_layer(widths[i - 1], num_classes, **made)
            self._add_step(f"layer{i}", 2, cells(stride), cells(stride // 2), **made)
            stride //= 2
        self._add_step(f"input_x{stride}", stride, cells(stride), IDENTITY, **made)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The picture's features by name, finest first: "layer1", …, "layer4"."""
        return {f"layer{i}": f for i, f in enumerate(self.trunk(x), 1)}
