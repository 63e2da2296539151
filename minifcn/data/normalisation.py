"""What others' networks were trained to see: mean and deviation of each channel.

A network's first weights belong to the numbers that it was shown. torchvision's ImageNet networks
saw red, green and blue from 0 to 1, with IMAGENET_MEAN taken away, divided by IMAGENET_STD. Those
trained with Caffe (VGG16 and FCN as published) saw blue, green and red from 0 to 255 with
CAFFE_BGR_MEAN taken away and no division.

minifcn shows red first. A network that expects blue first sees the same once the input channels of
its first convolution are turned round (`minifcn.models.weights.red_first`): a sum over channels
does not ask for their order.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_BGR_MEAN = (104.00698793, 116.66876762, 122.67891434)

KNOWN = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "caffe": (tuple(value / 255 for value in reversed(CAFFE_BGR_MEAN)), (1 / 255,) * 3),
}
"""(mean, std) by name as `minifcn.data.normalise` takes them: red first, of pixels in 0..1."""


@dataclass(frozen=True)
class Normalisation:
    """`mean` and `std`, three numbers each, of red, green and blue in 0..1; or both None: each
    picture by its own (see `minifcn.data.normalise`).
    """

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @property
    def name(self) -> str:
        """One of KNOWN, "picture", or "weights": numbers that belong to the weights alone."""
        if self.mean is None:
            return "picture"
        names = (name for name, known in KNOWN.items() if known == (self.mean, self.std))
        return next(names, "weights")
