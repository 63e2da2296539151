"""Modules: layers with parameters, under PyTorch's names, and what holds them together."""

from minifcn.nn import init
from minifcn.nn.containers import ModuleDict, ModuleList, Sequential, through
from minifcn.nn.convolution import Conv2d, ConvTranspose2d, Linear
from minifcn.nn.loss import CrossEntropyLoss
from minifcn.nn.module import LoadResult, Module, RemovableHandle, parameter_count
from minifcn.nn.normalization import BatchNorm2d
from minifcn.nn.parameter import Parameter
from minifcn.nn.pointwise import Dropout, Flatten, ReLU, Softmax, Upsample, reseed_dropout
from minifcn.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minifcn.nn.windowed import Windowed, windows

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Linear",
    "LoadResult",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "ReLU",
    "RemovableHandle",
    "Sequential",
    "Softmax",
    "Upsample",
    "Windowed",
    "init",
    "parameter_count",
    "reseed_dropout",
    "through",
    "windows",
]
