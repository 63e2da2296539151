"""Image classifiers: convolutions and pools, then fully connected layers, for one picture size.

    (N, C, H, W) → features (N, K, P, Q) → flattened, (N, K·P·Q) → fc6 → fc7 → fc8 → scores

The first fully connected layer, fc6, has a weight for each of the K·P·Q values, and so fixes H and
W: that is what `to_fully_convolutional` (`models/surgery.py`) undoes. Softmax of the scores gives
the classes' shares; the loss, cross-entropy, has it inside.

The parts bear torchvision's names (``features.0.weight``, …, ``classifier.6.bias``), and so do the
weights of `alexnet`, `vgg16` and `vgg16_bn`, shape by shape. torchvision averages the features to
6×6 (AlexNet) or 7×7 (VGG) before it flattens them; at 224×224 they have that size already.

Sources: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), for
AlexNet in one column; Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale
Image Recognition" (2015), for VGG16.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from minifcn import nn
from minifcn.errors import InputError, ShapeError
from minifcn.geometry import output_size
from minifcn.models.vgg import VGG16_CONVS, VGG16_WIDTHS
from minifcn.nn.windowed import pair
from minifcn.tensor import Tensor


class Classifier(nn.Module):
    """A classifier of pictures of one size: (N, C, H, W) → scores (N, classes).

    Args:
        features: convolutions and pools, whose first convolution has C channels in.
        classifier: what works on the flattened features, Linear layers first and last.
        input_size: H and W, one int for a square.

    Raises:
        InputError: if there is no convolution, or ``input_size`` is not positive.
    """

    def __init__(
        self, features: nn.Sequential, classifier: nn.Sequential, input_size: int | tuple[int, int]
    ) -> None:
        self.features = features
        self.classifier = classifier
        self.in_channels = first_convolution(features).in_channels
        self.input_size = pair("Classifier", "input_size", input_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → scores (N, classes); ShapeError for any other C, H or W."""
        wanted = (self.in_channels, *self.input_size)
        if x.ndim != 4 or x.shape[1:] != wanted:
            sizes = ", ".join(str(n) for n in wanted)
            raise ShapeError(
                f"Classifier: the input has the shape {x.shape}, wanted (N, {sizes}): its "
                "first fully connected layer has a weight for each value; cut the picture to that "
                "size, or make the net fully convolutional (models.to_fully_convolutional)"
            )
        return self.classifier(self.features(x).flatten(1))


def first_convolution(net: nn.Module) -> nn.Conv2d:
    """The first convolution of a chain, which knows C and dtype; InputError if there is none."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            return layer
    raise InputError(
        f"the {type(net).__name__} has no convolution, so nothing says how many channels a picture "
        "has; give a chain with a Conv2d"
    )


def alexnet(
    num_classes: int = 1000,
    *,
    dropout: float = 0.5,
    generator: np.random.Generator,
    dtype: DTypeLike = np.float32,
) -> Classifier:
    """AlexNet for 3×224×224, 61.1 M parameters at 1000 classes; windows stand 32 pixels apart.

    Args:
        num_classes: how many scores come out.
        dropout: chance of dropping an element before fc6 and before fc7.
        generator: where the weights are drawn from; dropout gets a child of its own.
        dtype: of all parameters, and of the input.
    """
    made: dict[str, Any] = {"generator": generator, "dtype": dtype}
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2, **made),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2, **made),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1, **made),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, **made),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1, **made),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    sizes = 256 * 6 * 6, 4096, 4096, num_classes
    return Classifier(features, _fully_connected(sizes, dropout, "before", **made), 224)


def vgg16(
    num_classes: int = 1000,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    generator: np.random.Generator,
    dtype: DTypeLike = np.float32,
) -> Classifier:
    """VGG16 for 3×224×224, 138.4 M parameters at 1000 classes; windows stand 32 pixels apart.

    Args:
        num_classes: how many scores come out.
        batch_norm: whether each convolution is followed by batch normalisation; here, as in
            torchvision's vgg16_bn, it has a bias all the same.
        dropout: chance of dropping an element after fc6 and after fc7.
        generator: where the weights are drawn from; dropout gets a child of its own.
        dtype: of all parameters, and of the input.
    """
    made: dict[str, Any] = {"generator": generator, "dtype": dtype}
    layers: list[nn.Module] = []
    before = 3
    for width, count in zip(VGG16_WIDTHS, VGG16_CONVS, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(before, width, 3, padding=1, **made))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width, dtype=dtype))
            layers.append(nn.ReLU())
            before = width
        layers.append(nn.MaxPool2d(2))
    sizes = before * 7 * 7, 4096, 4096, num_classes
    classifier = _fully_connected(sizes, dropout, "behind", **made)
    return Classifier(nn.Sequential(*layers), classifier, 224)


def vgg16_bn(num_classes: int = 1000, **settings: Any) -> Classifier:
    """VGG16 with batch normalisation; settings as for `vgg16`, at least ``generator``."""
    return vgg16(num_classes, batch_norm=True, **settings)


def small_classifier(
    num_classes: int,
    input_size: int = 45,
    *,
    in_channels: int = 3,
    stages: Sequence[Sequence[int]] = ((16,), (32,), (48, 48, 48)),
    padding: int = 0,
    fc_channels: int = 64,
    dropout: float = 0.0,
    generator: np.random.Generator,
    dtype: DTypeLike = np.float32,
) -> Classifier:
    """AlexNet's shape in small: stages of 3×3 convolutions with a 3×3 max pool of stride 2 between.

    Without padding, at the standard settings, the sizes run 45, 43 | 21, 19 | 9, 7, 5, 3, so that
    fc6 has a window of 3×3; with stages ((16, 16), (32,)) 15, 13, 11 | 5, 3.

    Args:
        num_classes: how many scores come out.
        input_size: H = W.
        in_channels: C.
        stages: the channels of each stage's convolutions.
        padding: zeros around each convolution's input. Only with 0 does the net see a picture's
            window as it sees the same window cut out.
        fc_channels: values that come out of fc6 and fc7.
        dropout: chance of dropping an element before fc6 and before fc7.
        generator: where the weights are drawn from; dropout gets a child of its own.
        dtype: of all parameters, and of the input.

    Raises:
        InputError: if no stage or an empty one is given.
        ShapeError: if the picture is too small for the stages.
    """
    if not stages or not all(stages):
        raise InputError(
            f"stages is {stages}; give each stage the channels of one convolution or more"
        )
    made: dict[str, Any] = {"generator": generator, "dtype": dtype}
    layers: list[nn.Module] = []
    before = in_channels
    for i, widths in enumerate(stages):
        if i:
            layers.append(nn.MaxPool2d(3, 2))
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=padding, **made), nn.ReLU()]
            before = width
    features = nn.Sequential(*layers)
    left = output_size(nn.windows(features), input_size)
    sizes = before * left * left, fc_channels, fc_channels, num_classes
    return Classifier(features, _fully_connected(sizes, dropout, "before", **made), input_size)


def _fully_connected(
    sizes: tuple[int, int, int, int],
    dropout: float,
    dropped: Literal["before", "behind"],
    *,
    generator: np.random.Generator,
    dtype: DTypeLike,
) -> nn.Sequential:
    """fc6, fc7 and fc8; elements are dropped before fc6 and fc7, or behind them."""
    made: dict[str, Any] = {"generator": generator, "dtype": dtype}
    masks = generator.spawn(1)[0]
    layers: list[nn.Module] = []
    for c, k in pairwise(sizes[:3]):
        fc, drop = nn.Linear(c, k, **made), nn.Dropout(dropout, generator=masks)
        layers += [drop, fc, nn.ReLU()] if dropped == "before" else [fc, nn.ReLU(), drop]
    return nn.Sequential(*layers, nn.Linear(sizes[2], sizes[3], **made))
