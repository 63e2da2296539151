"""Networks: the VGG and ResNet trunks and the fully convolutional heads on them."""

from minifcn.models.fcn import FCN, fcn2s, fcn4s, fcn8s, fcn16s, fcn32s
from minifcn.models.named import TRUNKS, fcn_on, from_config
from minifcn.models.resnet import RESNET_BLOCKS, RESNET_WIDTHS, ResNet, resnet18, resnet34
from minifcn.models.resnet_fcn import ResNetFCN
from minifcn.models.vgg import VGG, VGG16_CONVS, VGG16_WIDTHS
from minifcn.nn import parameter_count

__all__ = [
    "FCN",
    "RESNET_BLOCKS",
    "RESNET_WIDTHS",
    "TRUNKS",
    "VGG",
    "VGG16_CONVS",
    "VGG16_WIDTHS",
    "ResNet",
    "ResNetFCN",
    "fcn2s",
    "fcn4s",
    "fcn8s",
    "fcn16s",
    "fcn32s",
    "fcn_on",
    "from_config",
    "parameter_count",
    "resnet18",
    "resnet34",
]
