"""The operations by PyTorch's names: what `torch.nn.functional` is to PyTorch."""

from minifcn.ops.batch_norm import batch_norm, batch_norm_relu
from minifcn.ops.conv2d import conv2d, conv2d_relu, conv_transpose2d
from minifcn.ops.cross_entropy import cross_entropy
from minifcn.ops.interpolate import interpolate
from minifcn.ops.matmul import linear
from minifcn.ops.pointwise import dropout, relu, sigmoid, tanh
from minifcn.ops.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_pool2d_relu
from minifcn.ops.shape import crop, pad
from minifcn.ops.softmax import log_softmax, softmax

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_relu",
    "conv2d",
    "conv2d_relu",
    "conv_transpose2d",
    "crop",
    "cross_entropy",
    "dropout",
    "interpolate",
    "linear",
    "log_softmax",
    "max_pool2d",
    "max_pool2d_relu",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
