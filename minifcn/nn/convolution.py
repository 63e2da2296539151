"""Layers that multiply by learned weights: Conv2d, ConvTranspose2d, Linear."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from minifcn import functional as F
from minifcn.errors import InputError
from minifcn.geometry import Window
from minifcn.nn import init
from minifcn.nn.module import Module
from minifcn.nn.parameter import Parameter
from minifcn.nn.windowed import Pair, Windowed, pair, positive
from minifcn.tensor import Tensor


class _Convolution(Windowed):
    weight: Parameter
    bias: Parameter | None

    def _settle(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        generator: np.random.Generator,
    ) -> None:
        name = type(self).__name__
        self.in_channels = positive(name, "in_channels", in_channels)
        self.out_channels = positive(name, "out_channels", out_channels)
        self.groups = positive(name, "groups", groups)
        for which, count in (("in_channels", in_channels), ("out_channels", out_channels)):
            if count % groups:
                raise InputError(
                    f"{name}: {which} is {count}, which {groups} groups do not divide; "
                    "choose groups that divide both channel counts"
                )
        init.check_generator(generator, name)

    def extra_repr(self) -> str:
        """The settings that are not PyTorch's defaults, and the sizes."""
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        for name, default in (
            ("padding", (0, 0)),
            ("output_padding", (0, 0)),
            ("dilation", (1, 1)),
            ("groups", 1),
        ):
            value = getattr(self, name, default)
            if value != default:
                parts.append(f"{name}={value}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


def _by_taps(shape: tuple[int, int, int, int], dtype: DTypeLike) -> Parameter:
    """Zeros of shape (A, B, R, S) that lie as (R, S, B, A) in memory, as the kernels read them."""
    a, b, r, s = shape
    return Parameter(np.zeros((r, s, b, a), dtype).transpose(3, 2, 0, 1))


class Conv2d(_Convolution):
    """Convolution (cross-correlation): (N, C, H, W) → (N, K, P, Q).

    ``weight`` is (K, C/groups, R, S), He normal over its fan-in, which suits the ReLU that follows
    almost every convolution here (PyTorch keeps an older uniform draw of a sixth of that variance);
    ``bias`` is (K,), zero, or None.

    Args:
        in_channels: C.
        out_channels: K.
        kernel_size: R and S, one int or a pair, as for stride, padding and dilation.
        stride: steps between windows.
        padding: zeros around the input.
        dilation: distance between the taps of a window.
        groups: the channels are cut into so many groups that do not mix.
        bias: whether to add one learned value a channel.
        generator: where the weights are drawn from.
        dtype: of weight and bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._set_window(kernel_size, stride, padding, dilation)
        self._settle(in_channels, out_channels, groups, generator)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = _by_taps(shape, dtype)
        self.bias = Parameter(np.zeros(out_channels, dtype)) if bias else None
        init.kaiming_normal_(self.weight, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, K, P, Q)."""
        return self._through(F.conv2d, x)

    def forward_relu(self, x: Tensor) -> Tensor:
        """This layer and a ReLU behind it, in one operation; `Sequential` calls it."""
        return self._through(F.conv2d_relu, x)

    def _through(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        settings = self.stride, self.padding, self.dilation, self.groups
        return function(x, self.weight, self.bias, *settings)


class ConvTranspose2d(_Convolution):
    """Transposed convolution, the adjoint of Conv2d: (N, C, H, W) → (N, K, P, Q).

    ``weight`` is (C, K/groups, R, S), normal with variance 2/fan where fan counts the weights that
    meet in one output, C/groups·R·S/stride²; ``bias`` is (K,), zero, or None. For interpolation
    call ``init.bilinear_(layer.weight, groups)``.

    Args:
        in_channels: C.
        out_channels: K.
        kernel_size: R and S, one int or a pair, as for the next three and dilation.
        stride: distance between the places where two neighbouring inputs are put down.
        padding: rows and columns cut off at every edge of the output.
        output_padding: rows and columns added at the bottom and the right.
        groups: the channels are cut into so many groups that do not mix.
        bias: whether to add one learned value a channel.
        dilation: distance between the taps of a window.
        generator: where the weights are drawn from.
        dtype: of weight and bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        *,
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._set_window(kernel_size, stride, padding, dilation)
        self.output_padding = pair("ConvTranspose2d", "output_padding", output_padding, 0)
        self._settle(in_channels, out_channels, groups, generator)
        shape = (in_channels, out_channels // groups, *self.kernel_size)
        self.weight = _by_taps(shape, dtype)
        self.bias = Parameter(np.zeros(out_channels, dtype)) if bias else None
        fan = in_channels / groups * math.prod(self.kernel_size) / math.prod(self.stride)
        init.normal_(self.weight, generator, std=math.sqrt(2 / fan))

    def window(self, axis: int = 0) -> Window:
        """This layer's window along the height (axis 0) or the width (1), for `geometry`."""
        return self._window(axis, transposed=True, output_padding=self.output_padding[axis])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, K, P, Q)."""
        return F.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


class Linear(Module):
    """Fully connected: (N, C) → (N, K).

    ``weight`` is (K, C), He normal over its fan-in; ``bias`` is (K,), zero, or None.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_features = positive("Linear", "in_features", in_features)
        self.out_features = positive("Linear", "out_features", out_features)
        self.weight = Parameter(np.zeros((out_features, in_features), dtype))
        self.bias = Parameter(np.zeros(out_features, dtype)) if bias else None
        init.kaiming_normal_(self.weight, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) → (N, K)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, and whether there is a bias."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
