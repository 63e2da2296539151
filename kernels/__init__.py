"""The hot loops of an FCN, each as a NumPy definition and, beside it, a fast Numba reading of it.

Kernels take and give C-contiguous arrays, activations as (N, H, W, C): channels last. Which reading
runs is `minifcn.device`'s choice; the operations above do not ask.
"""

import os

# A thread that waits for its fellows shall soon sleep, not spin on: when the machine does anything
# else at the time, spinning takes the processor from the very thread that is waited for. (With two
# other programs running, a training step took 1,340 ms with OpenMP's own setting; asleep at once it
# took 256, but then an idle machine is slower.) At 11 ns a turn, as on a newer Xeon, 40,000 outlast
# what Python does between two kernels of a step; 20,000 did not.
# OpenMP reads this when it starts.
os.environ.setdefault("GOMP_SPINCOUNT", "40000")

# ruff: noqa: E402
from minifcn.kernels.batch_norm import backward_input, scale_shift, slopes, statistics
from minifcn.kernels.channel_sums import column_sums, relu_backward_sum
from minifcn.kernels.conv2d import (
    conv2d,
    conv2d_weight,
    conv_transpose2d,
    im2col_panel,
    joins_gate,
)
from minifcn.kernels.cross_entropy import amounts, copied_labels, count_labels, cross_entropy
from minifcn.kernels.elementwise import add, cat_channels, split_channels
from minifcn.kernels.max_pool2d import joins_relu, max_pool2d, max_unpool2d, take_pixels
from minifcn.kernels.optimizer import adam, sgd
from minifcn.kernels.relu import positive, relu, relu_backward
from minifcn.kernels.resample import bilinear, resample

__all__ = [
    "adam",
    "add",
    "amounts",
    "backward_input",
    "bilinear",
    "cat_channels",
    "column_sums",
    "conv2d",
    "conv2d_weight",
    "conv_transpose2d",
    "copied_labels",
    "count_labels",
    "cross_entropy",
    "im2col_panel",
    "joins_gate",
    "joins_relu",
    "max_pool2d",
    "max_unpool2d",
    "positive",
    "relu",
    "relu_backward",
    "relu_backward_sum",
    "resample",
    "scale_shift",
    "sgd",
    "slopes",
    "split_channels",
    "statistics",
    "take_pixels",
]
