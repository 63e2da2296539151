"""Fully convolutional networks, FCN-32s to FCN-2s, by one rule.

Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation"
(2015), section 4; the finer heads go on as theirs do:

    score the deepest features; while the stride is coarser than the head's, upsample the score by
    two and add the score of the stage that has the new stride; at last upsample to the picture.

Two ways to make every picture fit, from one pixel on; pools round up in both, and the crops are
derived from the layers (`geometry.crop_offset`):

- padding "same": every convolution keeps the size. The scores hang over: what falls off them at the
  left is the transposed convolution's padding, what falls off at the right depends on the picture's
  size and is cut.
- padding 100, the published nets' (Shelhamer, Long and Darrell, TPAMI 2017, and their code): the
  first convolution pads by 100, fc6 not at all. The skips hang over: 5 units fall off pool4, 9 off
  pool3, and off the last scores 19 (32s), 27 (16s) or 31 (8s). It is dearer: a picture of 500 × 500
  becomes one of 698 × 698, 1.9 times the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minifcn import functional as F
from minifcn import nn
from minifcn.errors import InputError, ShapeError
from minifcn.geometry import IDENTITY, CoordinateMap, Window, coordinate_map, crop_offset
from minifcn.models.vgg import VGG, conv_block
from minifcn.tensor import Tensor

UPSAMPLE = ("learned", "last-frozen", "frozen")
AT_ONCE = 0.01
"""By how much the first skip's features are scaled down for training at once; the next by this
squared."""


class FCN(nn.Module):
    """An FCN on a VGG trunk: (N, C, H, W) → scores (N, K, H, W), for every H and W from 1 on.

    Its parts, by name: ``trunk`` (see VGG), ``fc6`` and ``fc7`` (the classifier's layers as
    convolutions), ``score`` with one 1×1 convolution for "fc7" and each skip ("pool4", "pool3", …),
    ``upscore`` with one transposed convolution for each skip, named after it, and one, "input_x8",
    for the last step, named after its factor. A finer head adds parts and changes none but the
    last, so a coarser net's weights load into it with ``strict=False``. Neither ``padding`` nor
    ``at_once`` changes a weight's shape.

    The score layers start at zero, as in the paper: the first scores are zero and the first step
    moves the score layers alone. ``upscore`` starts as bilinear interpolation and is depthwise
    (groups = K): a full one would hold K·K filters of which all but the diagonal start, and mostly
    stay, at zero; at K = 21 and kernel 16 that is 112,896 weights for 5,376.

    Attributes:
        positions: where the scores lie over the picture, by step: "fc7", then as in ``upscore``.
        crops: with padding 100, the units that fall off each skip ("pool4") and, in the end, off
            the scores ("input_x8") at the top and left; otherwise empty.
        scales: what a skip's features are multiplied by before they are scored, if not by 1.

    Args:
        num_classes: K.
        in_channels: C.
        head: "fcn32s", "fcn16s", "fcn8s", "fcn4s" or "fcn2s": the stride of the finest skip. In
            general any power of two up to 2^stages.
        widths: channels of each trunk stage.
        convs: convolutions in each trunk stage.
        fc_channels: channels of fc6 and fc7.
        fc_kernel: kernel size of fc6, odd; None: 3, or 7 with padding 100.
        batch_norm: whether the trunk's convolutions are followed by batch normalisation.
        fc_batch_norm: the same of fc6 and fc7; None: as in the trunk. (VGG16 with normalisation
            as published has none there.)
        dropout: chance of dropping an element after fc6 and after fc7.
        upsample: "learned"; "frozen" to keep the interpolation bilinear, as in the authors' code;
            "last-frozen" to keep the last step's alone, as in the paper of 2015.
        padding: "same" or 100, see above; 100 is for five stages or fewer and an fc_kernel of 5 or
            7, with which it suffices for every picture.
        at_once: scale the skips' features, to train all of them at once and not in stages: pool4
            by 0.01, pool3 by 0.0001 (in the nets released with the TPAMI paper), and so on.
            The shallower, the larger features are, and the steps that they make the scores take.
        generator: where the weights are drawn from; dropout gets a child of its own.
        dtype: of all parameters, and of the input.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        head: str = "fcn8s",
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        convs: Sequence[int] = (2, 2, 2, 2, 2),
        fc_channels: int = 512,
        fc_kernel: int | None = None,
        batch_norm: bool = True,
        fc_batch_norm: bool | None = None,
        dropout: float = 0.5,
        upsample: str = "learned",
        padding: str | int = "same",
        at_once: bool = False,
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; give 1 or more")
        stride = _stride(head, len(widths))
        if fc_kernel is None:
            fc_kernel = 7 if padding == 100 else 3
        if fc_kernel % 2 == 0:
            raise InputError(f"fc_kernel is {fc_kernel}; give an odd one, so that fc6 has a centre")
        if upsample not in UPSAMPLE:
            raise InputError(f"upsample is {upsample!r}; choose one of {', '.join(UPSAMPLE)}")
        if padding not in ("same", 100):
            raise InputError(f"padding is {padding!r}; choose 'same' or 100")
        if padding == 100 and (len(widths) > 5 or fc_kernel not in (5, 7)):
            raise InputError(
                f"padding is 100 with {len(widths)} stages and fc_kernel {fc_kernel}; choose "
                "'same', or 5 stages or fewer and a kernel of 5 or 7"
            )
        if at_once and stride == 2 ** len(widths):
            raise InputError(f"at_once scales skips, and {head} has none; leave it out")
        nn.init.check_generator(generator, "FCN")
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "head": head,
            "widths": list(widths),
            "convs": list(convs),
            "fc_channels": fc_channels,
            "fc_kernel": fc_kernel,
            "batch_norm": batch_norm,
            "fc_batch_norm": fc_batch_norm,
            "dropout": dropout,
            "upsample": upsample,
            "padding": padding,
            "at_once": at_once,
        }
        padded = padding == 100
        made: dict[str, Any] = {"generator": generator, "dtype": dtype}
        masks = generator.spawn(1)[0]

        self.trunk = VGG(
            in_channels,
            widths=widths,
            convs=convs,
            batch_norm=batch_norm,
            first_padding=100 if padded else 1,
            **made,
        )
        fc_norm = batch_norm if fc_batch_norm is None else fc_batch_norm
        around = 0 if padded else fc_kernel // 2
        fc6 = conv_block("", widths[-1], fc_channels, fc_kernel, around, fc_norm, **made)
        self.fc6 = nn.Sequential(fc6 | {"drop": nn.Dropout(dropout, generator=masks)})
        fc7 = conv_block("", fc_channels, fc_channels, 1, 0, fc_norm, **made)
        self.fc7 = nn.Sequential(fc7 | {"drop": nn.Dropout(dropout, generator=masks)})

        self.score = nn.ModuleDict({"fc7": score_layer(fc_channels, num_classes, **made)})
        self.upscore = nn.ModuleDict()
        maps = self.trunk.coordinate_maps()
        here = coordinate_map(nn.windows(nn.Sequential(self.fc6, self.fc7)), maps[-1])
        self._begin_at("fc7", here)
        for i in range(len(widths) - 1, 0, -1):  # stage i has stride 2^i
            if 2**i < stride:
                break
            self.score[f"pool{i}"] = score_layer(widths[i - 1], num_classes, **made)
            if at_once:
                self.scales[f"pool{i}"] = AT_ONCE ** (len(widths) - i)
            here = self._add_step(f"pool{i}", 2, here, maps[i - 1], **made)
        self._add_step(f"input_x{stride}", stride, here, IDENTITY, **made)

    def _begin_at(self, name: str, here: CoordinateMap) -> None:
        self.positions = {name: here}
        self.crops: dict[str, int] = {}
        self.scales: dict[str, float] = {}

    def _add_step(
        self, name: str, factor: int, here: CoordinateMap, target: CoordinateMap, **made: Any
    ) -> CoordinateMap:
        """Add a step from scores that lie ``here``, and give where those behind it lie."""
        last = target is IDENTITY
        uncut = here.then(Window(2 * factor, factor, transposed=True))
        padding = 0
        if self.config.get("padding") != 100:
            padding, there = crop_offset(uncut, target), target
        elif last:
            self.crops[name], there = crop_offset(uncut, target), target
        else:  # the skip is the larger map
            self.crops[name], there = crop_offset(target, uncut), uncut
        upsample = self.config["upsample"]
        learned = upsample == "learned" or (upsample == "last-frozen" and not last)
        self.upscore[name] = upscore_layer(
            self.config["num_classes"], factor, padding, learned, **made
        )
        self.positions[name] = there
        return there

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> FCN:
        """Build the net that ``config``, as ``FCN.config`` gives it, describes.

        Raises InputError if a setting is unknown, or num_classes is missing.
        """
        known = [name for name in signature(cls).parameters if name not in ("generator", "dtype")]
        unknown = [name for name in config if name not in known]
        if unknown:
            raise InputError(
                f"the FCN settings hold {unknown[0]!r}, which is not one of {', '.join(known)}; "
                "take it out"
            )
        if "num_classes" not in config:
            raise InputError("the FCN settings lack num_classes; add the number of classes")
        return cls(**config, generator=generator, dtype=dtype)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The picture's features by name, finest first: "pool1", …, "fc7".

        With padding "same", "pool3" is (N, widths[2], ⌈H/8⌉, ⌈W/8⌉), and "fc7" has the deepest
        pool's height and width. With padding 100, ⌈(H + 198)/8⌉ and so on, and "fc7" has
        fc_kernel - 1 fewer than that pool.
        """
        pools = self.trunk(x)
        named = {f"pool{i}": pool for i, pool in enumerate(pools, 1)}
        named["fc7"] = self.fc7(self.fc6(pools[-1]))
        return named

    def decode(self, features: Mapping[str, Tensor], height: int, width: int) -> Tensor:
        """Scores (N, K, height, width) from the features of a picture of that size."""
        return list(self.decoding(features, height, width).values())[-1]

    def decoding(
        self, features: Mapping[str, Tensor], height: int, width: int
    ) -> dict[str, Tensor]:
        """The scores step by step, from "fc7" over the skips to "input_x8", each (N, K, …).

        Where they lie over the picture is in ``positions``.
        """
        deepest = next(iter(self.score))
        x = self.score[deepest](features[deepest])
        steps = {deepest: x}
        for name, upscore in self.upscore.items():
            x = upscore(x)
            if name not in self.score:
                x = _cut(x, self.crops.get(name, 0), height, width)
            elif name in self.crops:
                x = x + _cut(self._scored(name, features), self.crops[name], *x.shape[2:])
            else:
                skip = self._scored(name, features)
                x = _cut(x, 0, *skip.shape[2:]) + skip
            steps[name] = x
        return steps

    def _scored(self, name: str, features: Mapping[str, Tensor]) -> Tensor:
        """A skip's own scores."""
        x = features[name]
        return self.score[name](x * self.scales[name] if name in self.scales else x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → scores (N, K, H, W); ShapeError for another number of channels."""
        channels = self.config["in_channels"]
        if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
            raise ShapeError(
                f"{type(self).__name__}: the input has the shape {x.shape}, wanted "
                f"(N, {channels}, H, W) with H and W of 1 or more; check the order of the "
                "dimensions"
            )
        return self.decode(self.features(x), *x.shape[2:])


def fcn32s(num_classes: int, **settings: Any) -> FCN:
    """FCN-32s, no skip; settings as for `FCN`, which needs at least ``generator``."""
    return FCN(num_classes, head="fcn32s", **settings)


def fcn16s(num_classes: int, **settings: Any) -> FCN:
    """FCN-16s, a skip from pool4; settings as for `FCN`, which needs at least ``generator``."""
    return FCN(num_classes, head="fcn16s", **settings)


def fcn8s(num_classes: int, **settings: Any) -> FCN:
    """FCN-8s, skips from pool4 and 3; settings as for `FCN`, which needs at least ``generator``."""
    return FCN(num_classes, head="fcn8s", **settings)


def fcn4s(num_classes: int, **settings: Any) -> FCN:
    """FCN-4s, skips from pool4 to 2; settings as for `FCN`, which needs at least ``generator``."""
    return FCN(num_classes, head="fcn4s", **settings)


def fcn2s(num_classes: int, **settings: Any) -> FCN:
    """FCN-2s, skips from pool4 to 1; settings as for `FCN`, which needs at least ``generator``."""
    return FCN(num_classes, head="fcn2s", **settings)


def _stride(head: str, stages: int) -> int:
    heads = {f"fcn{2**i}s": 2**i for i in range(stages, 0, -1)}
    if head not in heads:
        raise InputError(
            f"head is {head!r}; with a trunk of {stages} stages choose one of {', '.join(heads)}"
        )
    return heads[head]


def score_layer(channels: int, num_classes: int, **made: Any) -> nn.Conv2d:
    """A 1×1 convolution that starts at zero."""
    layer = nn.Conv2d(channels, num_classes, 1, **made)
    nn.init.zeros_(layer.weight)
    return layer


def upscore_layer(
    num_classes: int, factor: int, padding: int, learned: bool, **made: Any
) -> nn.ConvTranspose2d:
    """Depthwise bilinear upsampling."""
    layer = nn.ConvTranspose2d(
        num_classes,
        num_classes,
        2 * factor,
        stride=factor,
        padding=padding,
        groups=num_classes,
        bias=False,
        **made,
    )
    nn.init.bilinear_(layer.weight, groups=num_classes)
    layer.requires_grad_(learned)
    return layer


def _cut(x: Tensor, first: int, height: int, width: int) -> Tensor:
    """The part of this height and width that begins at unit ``first`` of both."""
    if x.shape[2:] == (height, width):
        return x
    return F.crop(x, first, first, height, width)
