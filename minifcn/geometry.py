"""Where each unit of a network lies over its input: sizes, positions, crops.

Everything here is exact (ints and Fractions) and speaks of one axis; a layer with different
settings for height and width is asked twice. Letters: n is an input size, k a kernel size, s a
stride, p a padding, d a dilation, all in units of the layer's input.

The idea, from Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation" (2015), and their ``coord_map.py``: unit ``i`` of a feature map lies over input
coordinate ``scale * i + shift``. Convolution and pooling multiply the scale by their stride,
transposed convolution divides it. Two maps with one scale can be added once the first is cropped
by the difference of their shifts, so the crop offsets of a skip network follow from its layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from minifcn.errors import ShapeError

__all__ = [
    "IDENTITY",
    "CoordinateMap",
    "Window",
    "cells",
    "conv_output_size",
    "conv_transpose_output_size",
    "coordinate_map",
    "crop_offset",
    "output_size",
    "pool_output_size",
    "receptive_interval",
]


@lru_cache(maxsize=1024, typed=True)  # a net asks for the same few at every step
def conv_output_size(n: int, k: int, s: int = 1, p: int = 0, d: int = 1) -> int:
    """Size of a convolution's output: the windows that fit into the padded input.

    Raises ShapeError if a setting is out of range or no window fits.
    """
    _check_settings(n, k, s, p, d)
    span = d * (k - 1) + 1
    if n + 2 * p < span:
        raise ShapeError(
            f"a window that spans {span} does not fit into an input of size {n} with padding {p}; "
            f"pad by {-(-(span - n) // 2)} or more, or use a smaller kernel"
        )
    return (n + 2 * p - span) // s + 1


@lru_cache(maxsize=1024, typed=True)
def conv_transpose_output_size(
    n: int, k: int, s: int = 1, p: int = 0, output_padding: int = 0, d: int = 1
) -> int:
    """Size of a transposed convolution's output: (n-1)s - 2p + d(k-1) + 1 + output_padding.

    ``output_padding`` says which of the input sizes that a convolution with stride s maps to n is
    meant, so it must be smaller than s or d, as in PyTorch. Raises ShapeError if a setting is out
    of range or nothing is left.
    """
    _check_settings(n, k, s, p, d)
    if not 0 <= output_padding < max(s, d):
        raise ShapeError(
            f"output_padding is {output_padding}, but must be 0 or more and smaller than the "
            f"stride ({s}) or the dilation ({d}); choose one from 0 to {max(s, d) - 1}"
        )
    size = (n - 1) * s - 2 * p + d * (k - 1) + 1 + output_padding
    if size < 1:
        raise ShapeError(
            f"a transposed convolution of an input of size {n} with kernel {k}, stride {s} and "
            f"padding {p} leaves {size} units; use less padding"
        )
    return size


@lru_cache(maxsize=1024, typed=True)
def pool_output_size(
    n: int, k: int, s: int | None = None, p: int = 0, d: int = 1, ceil_mode: bool = False
) -> int:
    """Size of a pooling layer's output; a stride of None means the kernel size.

    With ``ceil_mode`` a last window may hang over the right edge, but by the rule of Caffe and
    PyTorch none starts in the right padding or beyond it: it would see no input at all.
    Raises ShapeError if a setting is out of range or no window is left.
    """
    s = k if s is None else s
    _check_settings(n, k, s, p, d)
    span = d * (k - 1) + 1
    if 2 * p > k:
        raise ShapeError(
            f"a pooling padding of {p} is more than half of the kernel size {k}, so that a window "
            f"could lie in the padding alone; pad by {k // 2} or less"
        )
    room = n + 2 * p - span
    size = (-(-room // s) if ceil_mode else room // s) + 1
    if ceil_mode and (size - 1) * s >= n + p:
        size -= 1
    if size < 1:
        raise ShapeError(
            f"a pooling window that spans {span} leaves nothing of an input of size {n} with "
            f"padding {p}; use a smaller window"
        )
    return size


def _check_settings(n: int, k: int, s: int, p: int, d: int) -> None:
    for name, value, least in (
        ("the input size", n, 1),
        ("the kernel size", k, 1),
        ("the stride", s, 1),
        ("the padding", p, 0),
        ("the dilation", d, 1),
    ):
        if value < least:
            raise ShapeError(f"{name} is {value}; it must be {least} or more")


@dataclass(frozen=True)
class Window:
    """How one layer moves its window along one axis.

    ``transposed`` marks a transposed convolution (which alone reads ``output_padding``),
    ``pooling`` a pooling layer (which alone reads ``ceil_mode``).
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False
    output_padding: int = 0
    pooling: bool = False
    ceil_mode: bool = False

    @property
    def reach(self) -> int:
        """Distance from a window's first tap to its last: d(k-1)."""
        return self.dilation * (self.kernel - 1)

    def output_size(self, n: int) -> int:
        """Number of output units for an input of size n; ShapeError if there would be none."""
        k, s, p, d = self.kernel, self.stride, self.padding, self.dilation
        if self.transposed:
            return conv_transpose_output_size(n, k, s, p, self.output_padding, d)
        if self.pooling:
            return pool_output_size(n, k, s, p, d, self.ceil_mode)
        return conv_output_size(n, k, s, p, d)


def output_size(windows: Iterable[Window], n: int) -> int:
    """Size of the output of a chain of layers, first layer first, for an input of size n."""
    for window in windows:
        n = window.output_size(n)
    return n


@dataclass(frozen=True)
class CoordinateMap:
    """Unit i of a feature map is centred on input coordinate ``scale * i + shift``.

    Pixel j of the input is at coordinate j. ``extent`` is the distance from the first input pixel
    that a unit can see to the last, before any rounding to whole pixels.
    """

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)
    extent: Fraction = Fraction(0)

    def then(self, window: Window) -> CoordinateMap:
        """The map of the layer ``window`` applied to this feature map.

        Convolution and pooling: output o is centred on input s·o + d(k-1)/2 - p. Transposed
        convolution sends input i to the outputs centred on s·i + d(k-1)/2 - p, so it is the
        inverse of that.
        """
        middle = Fraction(window.reach, 2) - window.padding
        if window.transposed:
            scale = self.scale / window.stride
            return CoordinateMap(
                scale, self.shift - scale * middle, self.extent + scale * window.reach
            )
        return CoordinateMap(
            self.scale * window.stride,
            self.shift + self.scale * middle,
            self.extent + self.scale * window.reach,
        )

    def position(self, i: int) -> Fraction:
        """Input coordinate of the centre of unit i."""
        return self.scale * i + self.shift

    @property
    def receptive_field(self) -> int:
        """Number of input pixels, along this axis, from the first to the last that a unit sees.

        Exact for convolutions and pools. Through a transposed convolution it is an upper bound,
        since what a unit sees there depends on its phase: see ``receptive_interval``.
        """
        return math.floor(self.extent) + 1


IDENTITY = CoordinateMap()


def coordinate_map(windows: Iterable[Window], start: CoordinateMap = IDENTITY) -> CoordinateMap:
    """The map at the end of a chain of layers, first layer first, that begins at ``start``."""
    for window in windows:
        start = start.then(window)
    return start


def cells(stride: int) -> CoordinateMap:
    """The map of units that share the input out among them, ``stride`` pixels each.

    Unit i stands for the pixels stride·i to stride·i + stride - 1, whose middle is the coordinate
    stride·i + (stride - 1)/2. This is where the units of 2×2 pools lie of themselves. A window of
    odd size, stride s and padding (k-1)/2 leaves unit i over pixel s·i, the first of its cell.
    """
    if stride < 1:
        raise ShapeError(f"the stride of the cells is {stride}; it must be 1 or more")
    return CoordinateMap(Fraction(stride), Fraction(stride - 1, 2), Fraction(stride - 1))


def crop_offset(larger: CoordinateMap, smaller: CoordinateMap) -> int:
    """Units to drop from the start of ``larger`` so that it lies over ``smaller``.

    Afterwards unit i of both is centred on one input coordinate. As in the paper's own code, the
    scales must be equal and the offset a whole number that is not negative; ShapeError otherwise.
    """
    if larger.scale != smaller.scale:
        raise ShapeError(
            f"one map has a unit every {larger.scale} pixels, the other every {smaller.scale}; "
            f"bring both to one scale before the crop"
        )
    offset = (smaller.shift - larger.shift) / larger.scale
    if offset.denominator != 1:
        raise ShapeError(
            f"the crop offset is {offset}, which no whole number of units gives; change a padding, "
            f"or choose a kernel 2f - f % 2 to upsample by f"
        )
    if offset < 0:
        raise ShapeError(
            f"the crop offset is {offset}: the map to crop starts inside the other; swap the two, "
            f"or give the first more padding"
        )
    return int(offset)


def receptive_interval(windows: Iterable[Window], i: int) -> tuple[int, int] | None:
    """First and last input pixel that unit i of a chain of layers sees.

    Walks from the last layer to the first in whole numbers. The pixels are numbered as if the
    input had no edge: negative ones, and ones past the end, lie in the padding. Exact where no
    layer has holes (a kernel smaller than its stride, a dilation); with holes the interval may be
    too wide, never too narrow. None if the unit sees nothing: it fell into a hole.
    """
    first = last = i
    for window in reversed(list(windows)):
        if window.transposed:
            first = -(-(first + window.padding - window.reach) // window.stride)
            last = (last + window.padding) // window.stride
            if first > last:
                return None
        else:
            first = first * window.stride - window.padding
            last = last * window.stride - window.padding + window.reach
    return first, last
