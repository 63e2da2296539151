"""Initial values. Each function overwrites a Tensor in place and gives it back.

Random ones take an explicit generator and draw in float64, one row at a time, so that a float32
and a float64 network from the same seed have the same weights, and no large copy is made.
Weight shapes: (K, C/groups, R, S) for a convolution, (C, K/groups, R, S) for a transposed one,
(K, C) for a linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from minifcn.errors import InputError, ShapeError
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

ROWS = 64  # drawn at a time


def constant_(w: Tensor, value: float) -> Tensor:
    """Fill with one value."""
    with no_grad():
        return w.fill_(value)


def zeros_(w: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(w, 0.0)


def ones_(w: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(w, 1.0)


def normal_(
    w: Tensor, generator: np.random.Generator, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """Draw from a normal distribution."""
    check_generator(generator, "normal_")
    return _drawn(w, lambda size: mean + std * generator.standard_normal(size))


def kaiming_normal_(
    w: Tensor, generator: np.random.Generator, mode: Literal["fan_in", "fan_out"] = "fan_in"
) -> Tensor:
    """He normal: variance 2/fan, which keeps the signal's variance through a ReLU.

    ``mode`` says whether the forward signal ("fan_in") or the gradient ("fan_out") keeps it.
    Source: He et al., "Delving Deep into Rectifiers" (2015), section 2.2.
    """
    fan_in, fan_out = _fans(w, "kaiming_normal_")
    if mode not in ("fan_in", "fan_out"):
        raise InputError(f"mode is {mode!r}; choose 'fan_in' or 'fan_out'")
    return normal_(w, generator, std=math.sqrt(2 / (fan_in if mode == "fan_in" else fan_out)))


def xavier_uniform_(w: Tensor, generator: np.random.Generator, gain: float = 1.0) -> Tensor:
    """Glorot uniform: variance 2·gain²/(fan_in + fan_out), in (-a, a) with a = gain·√(6/sum).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010), equation 16.
    """
    check_generator(generator, "xavier_uniform_")
    a = gain * math.sqrt(6 / sum(_fans(w, "xavier_uniform_")))
    return _drawn(w, lambda size: generator.uniform(-a, a, size))


def _drawn(w: Tensor, draw: Callable[[int], np.ndarray]) -> Tensor:
    """Overwrite with rows that ``draw`` gives, each from its size.

    Some at a time: a layer's rows are its filters, whose elements lie far apart in memory.
    """
    with no_grad():
        for first in range(0, len(w.data), ROWS):
            part = w[first : first + ROWS]
            size = part.data[0].size
            rows = [draw(size).astype(w.dtype) for _ in range(len(part.data))]
            part.copy_(np.reshape(rows, part.shape))
    return w


def bilinear_filter(kernel_size: int) -> np.ndarray:
    """The bilinear interpolation filter of a transposed convolution, float64 (k, k).

    For upsampling by f, take kernel size 2f - f % 2 (or 2f) and stride f. Along one axis it is the
    tent 1 - |i - c|/f with f = (k+1)//2, whose centre c is f - 1 for odd k, f - 0.5 for even k.
    Source: Long, Shelhamer and Darrell (2015), section 3.3, and ``surgery.py`` of their code.
    """
    if kernel_size < 1:
        raise InputError(f"the kernel size of a bilinear filter is {kernel_size}; give 1 or more")
    f = (kernel_size + 1) // 2
    centre = f - 1 if kernel_size % 2 else f - 0.5
    tent = 1 - np.abs(np.arange(kernel_size) - centre) / f
    return tent[:, None] * tent[None, :]


def bilinear_(w: Tensor, groups: int = 1) -> Tensor:
    """Make a transposed convolution upsample each channel bilinearly, and mix none.

    ``w`` has the shape (C, K/groups, R, S) with K = C and R = S. Only the weights from a channel to
    itself are filled; all others become zero.
    """
    if w.ndim != 4 or w.shape[2] != w.shape[3] or w.shape[0] != w.shape[1] * groups:
        raise ShapeError(
            f"bilinear_: the weight has shape {w.shape} with groups={groups}, wanted "
            "(C, C/groups, R, R); use as many output channels as input channels and a square kernel"
        )
    values = np.zeros(w.shape, w.dtype)
    channels = np.arange(w.shape[0])
    values[channels, channels % w.shape[1]] = bilinear_filter(w.shape[2])
    with no_grad():
        return w.copy_(values)


def check_generator(generator: object, where: str) -> None:
    """Raise InputError unless ``generator`` is a `numpy.random.Generator`."""
    if not isinstance(generator, np.random.Generator):
        raise InputError(
            f"{where}: generator is {generator!r}; give a numpy.random.Generator, "
            "for example numpy.random.default_rng(0)"
        )


def _fans(w: Tensor, where: str) -> tuple[int, int]:
    if w.ndim < 2 or 0 in w.shape:
        raise ShapeError(
            f"{where}: a weight of shape {w.shape} has no fan; wanted (K, C) or (K, C, R, S), "
            "none of them zero"
        )
    taps = math.prod(w.shape[2:])
    return w.shape[1] * taps, w.shape[0] * taps
