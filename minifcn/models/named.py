"""FCNs by the name of their trunk, and from the description in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minifcn.errors import InputError
from minifcn.models.fcn import FCN
from minifcn.models.resnet import RESNET_BLOCKS, RESNET_WIDTHS
from minifcn.models.resnet_fcn import ResNetFCN
from minifcn.models.vgg import VGG16_CONVS, VGG16_WIDTHS

_VGG16 = {"widths": VGG16_WIDTHS, "convs": VGG16_CONVS, "fc_channels": 4096, "fc_kernel": 7}
TRUNKS: dict[str, dict[str, Any]] = {
    "vgg16": {**_VGG16, "batch_norm": False},
    "vgg16_bn": {**_VGG16, "batch_norm": True, "fc_batch_norm": False},
    **{name: {"trunk": name, "widths": RESNET_WIDTHS} for name in RESNET_BLOCKS},
}
"""The settings that make an FCN fit torchvision's weights of that name."""


def fcn_on(trunk: str, num_classes: int, **settings: Any) -> FCN:
    """An FCN on the trunk of that name, with ``settings`` in place of the trunk's own.

    ``trunk`` is one of TRUNKS; the settings are `FCN`'s or `ResNetFCN`'s, at least ``generator``.
    Raises InputError for another name.
    """
    if trunk not in TRUNKS:
        raise InputError(f"trunk is {trunk!r}; choose one of {', '.join(TRUNKS)}")
    family = ResNetFCN if trunk in RESNET_BLOCKS else FCN
    return family(num_classes, **{**TRUNKS[trunk], **settings})


def from_config(
    config: Mapping[str, Any], generator: np.random.Generator, dtype: DTypeLike = np.float32
) -> FCN:
    """The net that ``config``, as ``FCN.config`` or ``ResNetFCN.config`` gives it, describes."""
    family = ResNetFCN if "trunk" in config else FCN
    return family.from_config(config, generator, dtype)
