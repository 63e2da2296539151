"""Layers that summarise a window: MaxPool2d, AvgPool2d, AdaptiveAvgPool2d."""

from __future__ import annotations

from collections.abc import Callable

from minifcn import functional as F
from minifcn.errors import InputError
from minifcn.geometry import Window
from minifcn.nn.module import Module
from minifcn.nn.windowed import Pair, Windowed
from minifcn.tensor import Tensor


class _Pool(Windowed):
    ceil_mode: bool

    def window(self, axis: int = 0) -> Window:
        """This layer's window along the height (axis 0) or the width (1), for `geometry`."""
        return self._window(axis, pooling=True, ceil_mode=self.ceil_mode)

    def extra_repr(self) -> str:
        """The settings, one number where height and width agree."""
        parts = []
        for name in ("kernel_size", "stride", "padding", "dilation"):
            a, b = getattr(self, name)
            if name != "dilation" or (a, b) != (1, 1):
                parts.append(f"{name}={a if a == b else (a, b)}")
        return ", ".join([*parts, f"ceil_mode={self.ceil_mode}"])


class MaxPool2d(_Pool):
    """The largest value of each window: (N, C, H, W) → (N, C, P, Q).

    ``stride`` None means the kernel size. With ``ceil_mode`` the last window may hang over the
    edge, but none starts in the padding.
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self._set_window(kernel_size, stride, padding, dilation)
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, P, Q)."""
        return self._through(F.max_pool2d, x)

    def forward_relu(self, x: Tensor) -> Tensor:
        """This layer and a ReLU behind it, in one operation; `Sequential` calls it."""
        return self._through(F.max_pool2d_relu, x)

    def _through(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        return function(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )


class AvgPool2d(_Pool):
    """The mean of each window: (N, C, H, W) → (N, C, P, Q).

    ``count_include_pad`` says whether the padding's zeros count in the mean.
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._set_window(kernel_size, stride, padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, P, Q)."""
        return F.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )


class AdaptiveAvgPool2d(Module):
    """The mean of each whole channel: (N, C, H, W) → (N, C, 1, 1); ``output_size`` must be 1."""

    def __init__(self, output_size: int = 1) -> None:
        if output_size not in (1, (1, 1)):
            raise InputError(
                f"AdaptiveAvgPool2d: output_size is {output_size!r}; only 1 (the global mean) is "
                "built, so use AvgPool2d for others"
            )
        self.output_size = 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 1, 1)."""
        return F.adaptive_avg_pool2d(x, 1)

    def extra_repr(self) -> str:
        """The output size."""
        return "1"
