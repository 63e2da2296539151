"""Which array under torchvision's names is which of a network's here.

A classifier and an FCN on the same trunk differ in four ways:

- the trunk's parts have other names: ``features.0`` is ``trunk.stage1.conv1``;
- fc6 and fc7 are convolutions in an FCN. Flattening (C, H, W) before a Linear puts the weights of
  one output in the order c, h, w, so the kernel (K, C, R, S) is the matrix (K, C·R·S) with its rows
  cut up: nothing moves, (4096, 25088) is (4096, 512, 7, 7) read otherwise;
- vgg16_bn's convolutions have a bias, which the normalisation behind them takes away again. Here
  they have none: (w·x + b) - mean = w·x - (mean - b), so b goes into the running mean;
- the last layer tells other classes apart, and stays behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from minifcn import nn
from minifcn.models.fcn import FCN
from minifcn.models.named import TRUNKS, fcn_on
from minifcn.models.resnet_fcn import ResNetFCN


@dataclass(frozen=True)
class Row:
    """One array. The values are the same on both sides, in the same order; shapes may differ.

    Attributes:
        theirs: its name in torchvision.
        ours: its name here, or "" for a bias that goes into a running mean; it is zero on the
            way out.
        shape: in torchvision.
        less: torchvision's name of what is taken away from it on the way in, or "".
    """

    theirs: str
    ours: str
    shape: tuple[int, ...]
    less: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is a number of batches: whole, and missing in files older than it."""
        return self.theirs.endswith("num_batches_tracked")


def rows(net: nn.Module) -> list[Row]:
    """The table of a network: an FCN's trunk (with fc6 and fc7), or all of a classifier."""
    shapes = {name: p.shape for name, p in net.named_parameters()}
    shapes |= {name: buffer.shape for name, buffer in net.named_buffers()}
    if isinstance(net, ResNetFCN):
        inside = "trunk."
        return [
            Row(name.removeprefix(inside), name, shape)
            for name, shape in shapes.items()
            if name.startswith(inside)
        ]
    if isinstance(net, FCN):
        return list(_of_vgg(net, shapes))
    return [Row(name, name, shape) for name, shape in shapes.items()]


def left_behind(net: nn.Module) -> tuple[str, ...]:
    """How names begin that belong to the classifier alone and may be passed over."""
    if isinstance(net, ResNetFCN):
        return ("fc.",)
    if isinstance(net, FCN):
        return ("classifier.6.",) if _has_plain_fc(net) else ("classifier.",)
    return ()


def _has_plain_fc(net: FCN) -> bool:
    """Whether fc6 and fc7 have a bias and no normalisation, as in a classifier."""
    return not any(isinstance(module, nn.BatchNorm2d) for module in net.fc6.modules())


def _of_vgg(net: FCN, shapes: dict[str, tuple[int, ...]]) -> Iterator[Row]:
    """torchvision counts convolutions, normalisations, ReLUs and pools in one chain."""
    layers = [
        (f"trunk.{stage}.{name}", layer)
        for stage, layers in net.trunk.named_children()
        for name, layer in layers.named_children()
    ]
    for number, (ours, layer) in enumerate(layers):
        theirs = f"features.{number}"
        parts = [name.removeprefix(f"{ours}.") for name in shapes if name.startswith(f"{ours}.")]
        bias_before = f"features.{number - 1}.bias" if isinstance(layer, nn.BatchNorm2d) else ""
        for part in parts:
            less = bias_before if part == "running_mean" else ""
            yield Row(f"{theirs}.{part}", f"{ours}.{part}", shapes[f"{ours}.{part}"], less)
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            yield Row(f"{theirs}.bias", "", (layer.out_channels,))
    if _has_plain_fc(net):
        for name, theirs in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
            k, c, r, s = shapes[f"{name}.conv.weight"]
            yield Row(f"{theirs}.weight", f"{name}.conv.weight", (k, c * r * s))
            yield Row(f"{theirs}.bias", f"{name}.conv.bias", (k,))


def network_of(names: Iterable[str]) -> str:
    """Which of torchvision's networks has just these names; "" if none that is known here.

    The classifier's may be there or not, for an FCN leaves the last of them behind. A part of the
    names proves nothing: ResNet-50 has all convolutions of ResNet-34, VGG19 all numbers of VGG16.
    """
    return _networks().get(_features(names), "")


def _features(names: Iterable[str]) -> frozenset[str]:
    """Those names that tell networks apart."""
    apart = ("classifier.", "fc.")
    return frozenset(
        name
        for name in names
        if not name.startswith(apart) and not name.endswith("num_batches_tracked")
    )


@cache
def _networks() -> dict[frozenset[str], str]:
    """Names to network. Of the trunks they are read off nets one channel wide."""
    alexnet = (f"features.{n}.{part}" for n in (0, 3, 6, 8, 10) for part in ("weight", "bias"))
    known = {frozenset(alexnet): "alexnet"}
    for trunk, own in TRUNKS.items():
        narrow = {"fc_channels": 1} if "fc_channels" in own else {}
        widths = (1,) * len(own["widths"])
        net = fcn_on(trunk, 1, widths=widths, generator=np.random.default_rng(0), **narrow)
        known[_features(row.theirs for row in rows(net))] = trunk
    return known
