"""What batch normalisation computes once a channel, between its passes over the pixels.

Few numbers and many small formulas: on a CPU they cost nothing, on a GPU each would be a launch of
its own, so there each function is one kernel. All arrays (C,); m is the number of pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn import device
from minifcn.launch import launch

THREADS = 128


def rates(
    mean: np.ndarray, variance: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rate = 1/√(variance + eps), scale = weight·rate, shift = bias − mean·scale."""
    if device.is_gpu(mean):
        xp, real = device.array_module(mean), weight.dtype
        rate = xp.empty(mean.shape, np.float64)
        scale, shift = xp.empty(mean.shape, real), xp.empty(mean.shape, real)
        _each_cuda("rates", (mean, variance, weight, bias, eps, rate, scale, shift), real)
        return rate, scale, shift
    rate = 1.0 / np.sqrt(variance + eps)
    scale = weight * rate
    return rate, scale, bias - mean * scale


def follow(running: np.ndarray, value: np.ndarray, momentum: float, factor: float = 1.0) -> None:
    """running ← running + momentum·(factor·value − running), in place; value float64."""
    if device.is_gpu(running):
        _each_cuda("follow", (running, value, momentum, factor), running.dtype)
    else:
        running += momentum * (value * factor - running)


def slopes(
    sums: np.ndarray,
    products: np.ndarray,
    mean: np.ndarray,
    rate: np.ndarray,
    weight: np.ndarray,
    m: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(d_weight, d_bias, slope, constant), with which dx = scale·g + slope·x + constant.

    d_weight = products·rate and d_bias = sums, in the weight's dtype; scale = weight·rate;
    slope = −scale·d_weight·rate/m and constant = −scale·sums/m − slope·mean.
    """
    if device.is_gpu(sums):
        xp, real = device.array_module(sums), weight.dtype
        results = [xp.empty(sums.shape, real) for _ in range(4)]
        _each_cuda("slopes", (sums, products, mean, rate, weight, m, *results), real)
        return tuple(results)  # type: ignore[return-value]
    d_weight, scale = products * rate, weight * rate
    slope = -scale * d_weight * rate / m
    constant = -scale * sums / m - slope * mean
    return d_weight.astype(weight.dtype), sums.astype(weight.dtype), slope, constant


def _each_cuda(kernel: str, arguments: tuple[Any, ...], real: Any) -> None:
    c = arguments[0].size
    if c:
        grid = (-(-c // THREADS),)
        launch("channel_rates.cu", kernel, grid, (THREADS,), (*arguments, c), real=real)
