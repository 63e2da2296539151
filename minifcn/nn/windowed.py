"""What convolutions and pools share: a window that moves over a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minifcn.errors import InputError
from minifcn.geometry import Window
from minifcn.nn.module import Module

Pair = int | tuple[int, int]


def pair(layer: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """``value`` for (height, width), from one int or two; InputError if below ``least``."""
    both = (value, value) if isinstance(value, int) else value
    good = (
        isinstance(both, tuple | list)
        and len(both) == 2
        and all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in both)
    )
    if not good:
        raise InputError(
            f"{layer}: {name} is {value!r}; give an int of {least} or more, or a pair of them"
        )
    return int(both[0]), int(both[1])


def positive(layer: str, name: str, value: Any) -> int:
    """``value`` if it is an int of 1 or more; InputError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{layer}: {name} is {value!r}; give an int of 1 or more")
    return value


class Windowed(Module):
    """A layer whose output unit sees a window of its input; settings are (height, width) pairs."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def _set_window(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> None:
        name = type(self).__name__
        self.kernel_size = pair(name, "kernel_size", kernel_size, 1)
        self.stride = pair(name, "stride", kernel_size if stride is None else stride, 1)
        self.padding = pair(name, "padding", padding, 0)
        self.dilation = pair(name, "dilation", dilation, 1)

    def _window(self, axis: int, **more: Any) -> Window:
        return Window(
            self.kernel_size[axis],
            self.stride[axis],
            self.padding[axis],
            self.dilation[axis],
            **more,
        )

    def window(self, axis: int = 0) -> Window:
        """This layer's window along the height (axis 0) or the width (1), for `geometry`."""
        return self._window(axis)


def windows(module: Module, axis: int = 0) -> Iterator[Window]:
    """The windows of all convolutions and pools below ``module``, in order.

    They describe the module's geometry if its layers form one chain.
    """
    for layer in module.modules():
        if isinstance(layer, Windowed):
            yield layer.window(axis)
