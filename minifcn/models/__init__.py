"""Networks: classifiers and their surgery, trunks, and the fully convolutional heads on them."""

from minifcn.models.classifier import Classifier, alexnet, small_classifier, vgg16, vgg16_bn
from minifcn.models.dense import to_dense
from minifcn.models.fcn import FCN, fcn2s, fcn4s, fcn8s, fcn16s, fcn32s
from minifcn.models.named import TRUNKS, fcn_on, from_config
from minifcn.models.patches import classify_densely, classify_patches, enlarge, windows_about
from minifcn.models.resnet import RESNET_BLOCKS, RESNET_WIDTHS, ResNet, resnet18, resnet34
from minifcn.models.resnet_fcn import ResNetFCN
from minifcn.models.surgery import to_fully_convolutional
from minifcn.models.verdict import SurgeryVerdict
from minifcn.models.vgg import VGG, VGG16_CONVS, VGG16_WIDTHS
from minifcn.nn import parameter_count

__all__ = [
    "Classifier",
    "FCN",
    "RESNET_BLOCKS",
    "RESNET_WIDTHS",
    "ResNet",
    "ResNetFCN",
    "SurgeryVerdict",
    "TRUNKS",
    "VGG",
    "VGG16_CONVS",
    "VGG16_WIDTHS",
    "alexnet",
    "classify_densely",
    "classify_patches",
    "enlarge",
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
    "small_classifier",
    "to_dense",
    "to_fully_convolutional",
    "vgg16",
    "vgg16_bn",
    "windows_about",
]
