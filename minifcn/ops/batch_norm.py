"""Batch normalisation: each channel to mean 0, variance 1 over the batch; then scaled and shifted.

    y = γ · (x − μ) / √(σ² + ε) + β        μ, σ² over the m = N·H·W pixels of a channel

Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
"""

from __future__ import annotations

import numpy as np

from minifcn import device, kernels
from minifcn.errors import ShapeError
from minifcn.function import Function
from minifcn.ops.layout import channels_first, channels_last, is_picture
from minifcn.ops.pointwise import Gate
from minifcn.recomputation import recomputing
from minifcn.recording import is_grad_enabled
from minifcn.tensor import Tensor


class BatchNorm(Function):
    """With x̂ = (x − μ)/√(σ² + ε):  dx = γ/√(σ² + ε) · (g − mean(g) − x̂ · mean(g·x̂)).

    The two means are there because x moves μ and σ² too. Settings: ``eps``; with ``relu``, negative
    results are 0, and g is the gradient where the result is positive, else 0. `forward` moves the
    ``running`` mean and variance (C,), where given, towards the batch's by ``momentum``.
    """

    reads = {0: (0, 1), 1: (0, 1), 2: (0, 1)}

    def __init__(
        self,
        eps: float,
        relu: bool = False,
        running: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        momentum: float = 0.0,
    ) -> None:
        self.eps, self.relu = eps, relu
        self.running, self.momentum = running, momentum

    def forward(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        rows = channels_last(x)
        flat = rows.reshape(-1, x.shape[1])
        self.mean, self.rate, self.scale, self.shift = kernels.statistics(
            flat, weight, bias, self.eps, self.running, self.momentum
        )
        y = kernels.scale_shift(flat, self.scale, self.shift, self.relu)
        return channels_first(y.reshape(rows.shape))

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = self.inputs
        if is_grad_enabled():
            return self._recorded(x, weight, grad)
        rows = channels_last(grad.data)
        g, flat = rows.reshape(-1, x.shape[1]), channels_last(x.data).reshape(-1, x.shape[1])
        affine = self.scale, self.shift
        d_weight, d_bias, slope, constant = kernels.slopes(
            g, flat, self.mean, self.rate, *affine, weight.data, self.relu
        )
        dx = None
        if self.needs[0]:  # all that multiplies x is gathered into one slope a channel
            flat_dx = kernels.backward_input(g, flat, *affine, slope, constant, self.relu)
            dx = Tensor(channels_first(flat_dx.reshape(rows.shape)))
        return dx, Tensor(d_weight), Tensor(d_bias)

    def _recorded(self, x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The same, in operations that can be differentiated again."""
        if self.relu:
            rows = channels_last(x.data)
            y = kernels.scale_shift(rows.reshape(-1, x.shape[1]), self.scale, self.shift)
            grad = Gate(kernels.positive(channels_first(y.reshape(rows.shape))))(grad)
        over = (0, 2, 3)
        centred = x - x.mean(over, keepdim=True)
        rate = 1.0 / ((centred * centred).mean(over, keepdim=True) + self.eps).sqrt()
        normal = centred * rate
        mean_g, mean_gx = grad.mean(over, keepdim=True), (grad * normal).mean(over, keepdim=True)
        scale = weight.reshape(1, -1, 1, 1) * rate
        return (
            scale * (grad - mean_g - normal * mean_gx),
            (grad * normal).sum(over),
            grad.sum(over),
        )


class ScaleShift(Function):
    """scale[c] · x + shift[c], max(·, 0) of it with ``relu``: normalised by fixed statistics."""

    reads = {0: (1,), 1: (0,), 2: ()}

    def __init__(self, relu: bool = False) -> None:
        self.relu = self.reads_output = relu

    def forward(self, x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        rows = channels_last(x)
        y = kernels.scale_shift(rows.reshape(-1, x.shape[1]), scale, shift, self.relu)
        return channels_first(y.reshape(rows.shape))

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        if self.relu:
            grad = Gate(kernels.positive(self.output))(grad)
        x, scale, _ = self.inputs
        over = (0, 2, 3)
        return (
            grad * scale.reshape(1, -1, 1, 1) if self.needs[0] else None,
            (grad * x).sum(over) if self.needs[1] else None,
            grad.sum(over) if self.needs[2] else None,
        )


def batch_norm(
    x: Tensor,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation over N, H and W.

    Args:
        x: (N, C, H, W).
        running_mean: (C,), moved towards the batch's mean by ``momentum`` when training.
        running_var: (C,), likewise, towards the *unbiased* variance (÷ m − 1), as in PyTorch.
        weight: γ (C,); 1 if left out.
        bias: β (C,); 0 if left out.
        training: use the batch's own statistics; otherwise the running ones.
        momentum: how far the running statistics move, 0 … 1.
        eps: added to the variance.

    Returns:
        (N, C, H, W).
    """
    given = (x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _normalised("batch_norm", False, *given)


def batch_norm_relu(
    x: Tensor,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """relu(batch_norm(…)) in one operation, which PyTorch has no name for; arguments as there.

    The pictures are read and written once instead of twice, forwards and backwards.
    """
    given = (x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _normalised("batch_norm_relu", True, *given)


def _normalised(
    name: str,
    relu: bool,
    x: Tensor,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    is_picture(name, x)
    c = x.shape[1]
    given = {
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }
    for which, value in given.items():
        if value is not None and value.shape != (c,):
            raise ShapeError(f"{name}: {which} has shape {value.shape}, wanted ({c},)")
    device.together(name, x.data, running_mean, running_var)
    here = device.array_module(x.data)
    weight = Tensor(here.ones(c, x.dtype)) if weight is None else weight
    bias = Tensor(here.zeros(c, x.dtype)) if bias is None else bias
    if not training:
        if running_mean is None or running_var is None:
            raise ShapeError(f"{name}: running_mean and running_var are wanted when not training")
        rate = Tensor((1.0 / np.sqrt(running_var.astype(np.float64) + eps)).astype(x.dtype))
        scale = weight * rate
        return ScaleShift(relu)(x, scale, bias - scale * Tensor(running_mean.astype(x.dtype)))
    m = x.numel() // max(c, 1)
    if m < 2:
        raise ShapeError(
            f"{name}: input of shape {x.shape} has {m} value(s) a channel, wanted 2 or more to "
            "take a variance of; use a larger batch or picture, or eval()"
        )
    # what is computed again has moved them once already
    running = (None, None) if recomputing() else (running_mean, running_var)
    return BatchNorm(eps, relu, running, momentum)(x, weight, bias)
