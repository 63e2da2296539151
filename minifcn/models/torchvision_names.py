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

from collections.abc import Iterator
from dataclasses import dataclass

from minifcn import nn
from minifcn.models.fcn import FCN
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
    def may_be_missing(self) -> bool:
        """Counts of batches came to the format later; older files lack them."""
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
