"""Max-pooling and average-pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minifcn import device, kernels
from minifcn.errors import ShapeError
from minifcn.function import Function
from minifcn.ops.conv2d import Conv2d, Settings
from minifcn.ops.layout import Pair, channels_first, channels_last, is_picture, pair, pooled
from minifcn.ops.pointwise import relu
from minifcn.ops.reduction import mean
from minifcn.tensor import Tensor


class MaxPool2d(Function):
    """The largest value of each window; the gradient goes to the pixel that had it.

    With ``relu``, 0 where that is larger, and then the gradient goes nowhere.
    """

    reads = {}
    makes_new = True

    def __init__(
        self, windows: tuple[Pair, Pair, Pair, Pair], out: Pair, relu: bool = False
    ) -> None:
        self.windows, self.out, self.relu = windows, out, relu

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.size = x.shape[2:]
        y, self.index = kernels.max_pool2d(channels_last(x), *self.windows, self.out, self.relu)
        return channels_first(y)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (MaxUnpool2d(self.index, self.size, self.windows)(grad),)


class MaxUnpool2d(Function):
    """The gradient put back at the winners: linear, with `TakePixels` as its adjoint."""

    reads = {}
    makes_new = True

    def __init__(
        self, index: np.ndarray, size: Pair, windows: tuple[Pair, Pair, Pair, Pair]
    ) -> None:
        self.index, self.size, self.windows = index, size, windows

    def forward(self, grad: np.ndarray) -> np.ndarray:
        dx = kernels.max_unpool2d(channels_last(grad), self.index, self.size, *self.windows)
        return channels_first(dx)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (TakePixels(self.index, self.size, self.windows)(grad),)


class TakePixels(Function):
    """The winners' pixels of another picture: linear, with `MaxUnpool2d` as its adjoint."""

    reads = {}

    def __init__(
        self, index: np.ndarray, size: Pair, windows: tuple[Pair, Pair, Pair, Pair]
    ) -> None:
        self.index, self.size, self.windows = index, size, windows

    def forward(self, x: np.ndarray) -> np.ndarray:
        return channels_first(kernels.take_pixels(channels_last(x), self.index, *self.windows))

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (MaxUnpool2d(self.index, self.size, self.windows)(grad),)


def max_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of each window, channel by channel.

    Args:
        x: (N, C, H, W).
        kernel_size: rows and columns of a window.
        stride: pixels between windows; the kernel's size if left out.
        padding: rows (columns) on each side that no value can win in; at most half the window.
        dilation: pixels between a window's taps.
        ceil_mode: let a last window hang over the edge, if it starts inside (Caffe's rule).

    Returns:
        (N, C, P, Q). At a tie the first pixel in reading order wins; NaN wins over every number.
    """
    return _pool("max_pool2d", False, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d_relu(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """``relu(max_pool2d(…))`` in one operation; PyTorch has no such name.

    On a GPU, and of windows of more than 255 pixels, it is those two. Arguments, result and errors
    are those of `max_pool2d`.
    """
    return _pool("max_pool2d_relu", True, x, kernel_size, stride, padding, dilation, ceil_mode)


def _pool(
    name: str,
    with_relu: bool,
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Tensor:
    is_picture(name, x)
    kernel = pair(name, "kernel_size", kernel_size)
    windows = (
        kernel,
        kernel if stride is None else pair(name, "stride", stride),
        pair(name, "padding", padding),
        pair(name, "dilation", dilation),
    )
    size: Pair = x.shape[2], x.shape[3]
    together = with_relu and kernels.joins_relu(x.data, kernel)
    y = MaxPool2d(windows, pooled(name, size, *windows, ceil_mode), together)(x)
    return relu(y) if with_relu and not together else y


def avg_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window, channel by channel.

    It is a depthwise convolution with a filter of ones, divided by what each window counts: its
    pixels inside the padded picture, or inside the picture alone without ``count_include_pad``.

    Args:
        x: (N, C, H, W).
        kernel_size: rows and columns of a window.
        stride: pixels between windows; the kernel's size if left out.
        padding: rows (columns) of zeros on each side; at most half the window.
        ceil_mode: let a last window hang over the edge, if it starts inside.
        count_include_pad: whether zeros of the padding count as pixels.

    Returns:
        (N, C, P, Q).
    """
    name = "avg_pool2d"
    is_picture(name, x)
    kernel = pair(name, "kernel_size", kernel_size)
    step = kernel if stride is None else pair(name, "stride", stride)
    pad = pair(name, "padding", padding)
    c, h, w = x.shape[1:]
    out = pooled(name, (h, w), kernel, step, pad, (1, 1), ceil_mode)
    counts = [
        _counts(*axis, include=count_include_pad) for axis in zip((h, w), kernel, step, pad, out)
    ]
    by_tap = device.array_module(x.data).ones((*kernel, 1, c), x.dtype)  # as layers keep weights
    ones = Tensor(by_tap.transpose(3, 2, 0, 1))
    sums = Conv2d(Settings(step, pad, (1, 1), c), out)(x, ones, None)  # zeros outside x
    share = 1.0 / np.outer(*counts)
    return sums * Tensor(device.like(share.astype(x.dtype), x.data)[None, None])


def _counts(size: int, k: int, s: int, p: int, out: int, include: bool) -> np.ndarray:
    """How many pixels each window along one axis counts."""
    first = np.arange(out) * s - p
    last = np.minimum(first + k, size + (p if include else 0))
    return last - (first if include else np.maximum(first, 0))


def adaptive_avg_pool2d(x: Tensor, output_size: int | Sequence[int] = 1) -> Tensor:
    """The mean of each channel: (N, C, H, W) → (N, C, 1, 1). Only output size 1 is offered."""
    is_picture("adaptive_avg_pool2d", x)
    if pair("adaptive_avg_pool2d", "output_size", output_size) != (1, 1):
        raise ShapeError(
            f"adaptive_avg_pool2d: output_size is {output_size}, wanted 1 (global average "
            "pooling); for windows use avg_pool2d"
        )
    return mean(x, (2, 3), keepdim=True)
