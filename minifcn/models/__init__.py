"""Networks: the VGG trunk and the fully convolutional heads on it."""

from minifcn.models.fcn import FCN, fcn2s, fcn4s, fcn8s, fcn16s, fcn32s
from minifcn.models.vgg import VGG, VGG16_CONVS, VGG16_WIDTHS
from minifcn.nn import parameter_count

__all__ = [
    "FCN",
    "VGG",
    "VGG16_CONVS",
    "VGG16_WIDTHS",
    "fcn2s",
    "fcn4s",
    "fcn8s",
    "fcn16s",
    "fcn32s",
    "parameter_count",
]
