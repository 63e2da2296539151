"""Convolution and transposed convolution: each is the other's input gradient.

With x (N, C, H, W), w (K, C, R, S) and y (N, K, P, Q), a convolution is linear in x and in w. Its
three faces are one trilinear form T(x, w, g) = Σ g · conv2d(x, w), differentiated once:

    by g:  conv2d(x, w)                 y
    by x:  conv_transpose2d(g, w)       dL/dx
    by w:  conv2d_weight(x, g)          dL/dw

so the backward of each is made of the other two, and derivatives of any order come out.

Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minifcn import device, geometry, kernels
from minifcn.errors import ShapeError
from minifcn.function import Function
from minifcn.kernels import ahead
from minifcn.ops.layout import Pair, channels_first, channels_last, is_picture, pair
from minifcn.ops.pointwise import Gate
from minifcn.recording import is_grad_enabled
from minifcn.tensor import Tensor


class Settings(NamedTuple):
    """What all three faces share."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


class Conv2d(Function):
    """y[n, k, p, q] = b[k] + Σ x[n, c, p·stride + r·dilation − padding, …] · w[k, c, r, s].

    With ``relu``, y = max(0, …), and the gradient counts where y is positive.
    """

    reads = {0: (1,), 1: (0,), 2: ()}
    makes_new = True

    def __init__(self, settings: Settings, out: Pair, relu: bool = False) -> None:
        self.settings, self.out = settings, out
        self.relu = self.reads_output = self.gates = relu

    def forward(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        self.size, self.kernel = x.shape[2:], weight.shape[2:]
        floor = 0.0 if self.relu else -np.inf
        y = kernels.conv2d(channels_last(x), weight, bias, *self.settings, self.out, floor)
        return channels_first(y)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = self.inputs
        d_x: Tensor | None = None
        d_weight: Tensor | None = None
        d_bias: Tensor | None = None
        if self.relu and is_grad_enabled():
            grad = Gate(kernels.positive(self.output))(grad)
        elif self.relu and not grad._gated:
            grad, d_bias = _gated_sum(grad, self.output)
        if self.needs[0]:
            gate = self._gate(x, grad, weight)
            d_x = ConvTranspose2d(self.settings, self.size, gate)(grad, weight, None)
            d_x._gated = gate is not None
        if self.needs[1] and self.needs[2] and d_bias is None and not is_grad_enabled():
            d_weight, d_bias = _weight_and_bias(x, grad, self.kernel, self.settings)
        elif self.needs[1]:
            d_weight = Conv2dWeight(self.settings, self.kernel)(x, grad)
        if self.needs[2] and d_bias is None:
            d_bias = ChannelSum()(grad)
        return d_x, d_weight, d_bias if self.needs[2] else None

    def _gate(self, x: Tensor | None, grad: Tensor, weight: Tensor) -> np.ndarray | None:
        """x, where its gradient counts only where x is positive, and the kernel can see to that."""
        node = self.nodes[0]
        if x is None or is_grad_enabled() or not isinstance(node, Function):
            return None
        if not node.gates or node.result is not None:  # somebody looks at it
            return None
        rows, (stride, _, dilation, groups) = channels_last(grad.data), self.settings
        joins = kernels.joins_gate(rows, weight.data, stride, dilation, groups, self.size)
        return channels_last(x.data) if joins else None


def _gated_sum(grad: Tensor, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """The gradient where y is positive, else 0; and its sum over N, H and W: in one pass."""
    rows = channels_last(grad.data)
    flat = channels_last(y).reshape(-1, y.shape[1])
    gated, sums = kernels.relu_backward_sum(rows.reshape(flat.shape), flat)
    return Tensor(channels_first(gated.reshape(rows.shape))), Tensor(sums)


def _weight_and_bias(
    x: Tensor, grad: Tensor, kernel: Pair, settings: Settings
) -> tuple[Tensor, Tensor]:
    """What `Conv2dWeight` and `ChannelSum` give, without a graph: in one pass, if one does both."""
    rows = channels_last(x.data), channels_last(grad.data)
    weight, bias = kernels.conv2d_weight(*rows, kernel, *settings, bias=True)
    return Tensor(weight), Tensor(bias)


class ConvTranspose2d(Function):
    """The adjoint of `Conv2d` in x: every output pixel gives back through the taps that read it.

    With a ``gate``, which has no derivative here, 0 where that is not positive.
    """

    reads = {0: (1,), 1: (0,), 2: ()}
    makes_new = True

    def __init__(self, settings: Settings, size: Pair, gate: np.ndarray | None = None) -> None:
        self.settings, self.size, self.gate = settings, size, gate

    def forward(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        self.input_size, self.kernel = x.shape[2:], weight.shape[2:]
        rows, settings = channels_last(x), self.settings
        y = kernels.conv_transpose2d(rows, weight, bias, *settings, self.size, self.gate)
        return channels_first(y)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = self.inputs
        return (
            Conv2d(self.settings, self.input_size)(grad, weight, None) if self.needs[0] else None,
            Conv2dWeight(self.settings, self.kernel)(grad, x) if self.needs[1] else None,
            ChannelSum()(grad) if self.needs[2] else None,
        )


class Conv2dWeight(Function):
    """The adjoint of `Conv2d` in w: dw[k, c, r, s] = Σ_{n, p, q} x[n, c, …] · g[n, k, p, q]."""

    reads = {0: (1,), 1: (0,)}
    makes_new = True

    def __init__(self, settings: Settings, kernel: Pair) -> None:
        self.settings, self.kernel = settings, kernel

    def forward(self, x: np.ndarray, grad: np.ndarray) -> np.ndarray:
        self.size, self.out = x.shape[2:], grad.shape[2:]
        rows = channels_last(x), channels_last(grad)
        return kernels.conv2d_weight(*rows, self.kernel, *self.settings)[0]

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, g = self.inputs
        return (
            ConvTranspose2d(self.settings, self.size)(g, grad, None) if self.needs[0] else None,
            Conv2d(self.settings, self.out)(x, grad, None) if self.needs[1] else None,
        )


class ChannelSum(Function):
    """Σ over N, H and W: the gradient of a bias."""

    reads = {}
    makes_new = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.input_shape = x.shape
        return kernels.column_sums(channels_last(x).reshape(-1, x.shape[1]))

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (grad.reshape(1, -1, 1, 1).expand(self.input_shape),)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation, as in all frameworks), padded with zeros.

    Args:
        x: (N, C, H, W).
        weight: (K, C/groups, R, S).
        bias: (K,) or None.
        stride: pixels between output positions.
        padding: rows (columns) of zeros on each side of x.
        dilation: pixels between the kernel's taps.
        groups: the channels fall into so many groups; each sees its own filters.

    Returns:
        (N, K, P, Q) with P = ⌊(H + 2·padding − dilation·(R − 1) − 1)/stride⌋ + 1.

    Raises:
        ShapeError: if the shapes do not fit each other or a kernel does not fit the padded input.
    """
    return _convolved("conv2d", False, x, weight, bias, stride, padding, dilation, groups)


def conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``relu(conv2d(…))`` in one operation; PyTorch has no such name.

    The picture between the two is never written, and neither is its gradient. Arguments, result and
    errors are those of `conv2d`.
    """
    return _convolved("conv2d_relu", True, x, weight, bias, stride, padding, dilation, groups)


def _convolved(
    name: str,
    relu: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> Tensor:
    settings = _settings(name, stride, padding, dilation, groups)
    forms = _form(x), _form(weight), None if bias is None else _form(bias)
    out = _conv2d_size(name, *forms, settings)
    trains = weight.requires_grad and is_grad_enabled() and not device.is_reference()
    if trains and x.dtype == np.float32 and not device.is_gpu(x.data):
        ahead.begin()
    return Conv2d(settings, out, relu)(x, weight, bias)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Transposed convolution ("deconvolution"): the adjoint of `conv2d` with the same settings.

    Args:
        x: (N, C, P, Q).
        weight: (C, K/groups, R, S).
        bias: (K,) or None.
        stride: by how much the picture grows.
        padding: rows (columns) cut off each side of the result.
        output_padding: which of the sizes that a convolution of this stride shrinks alike is meant.
        groups: the channels fall into so many groups.
        dilation: pixels between the kernel's taps.

    Returns:
        (N, K, H, W) with H = (P − 1)·stride − 2·padding + dilation·(R − 1) + output_padding + 1.

    Raises:
        ShapeError: if the shapes do not fit each other or nothing would be left.
    """
    name = "conv_transpose2d"
    settings = _settings(name, stride, padding, dilation, groups)
    extra = pair(name, "output_padding", output_padding)
    forms = _form(x), _form(weight), None if bias is None else _form(bias)
    return ConvTranspose2d(settings, _transposed_size(*forms, settings, extra))(x, weight, bias)


def _settings(op: str, stride: Any, padding: Any, dilation: Any, groups: int) -> Settings:
    if not isinstance(groups, int | np.integer):
        raise ShapeError(f"{op}: groups is {groups!r}, wanted one integer")
    return _checked(
        op,
        pair(op, "stride", stride),
        pair(op, "padding", padding),
        pair(op, "dilation", dilation),
        int(groups),
    )


@lru_cache(maxsize=1024, typed=True)  # a net asks for the same few at every step
def _checked(op: str, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Settings:
    if groups < 1:
        raise ShapeError(f"{op}: groups is {groups}, wanted 1 or more")
    settings = Settings(stride, padding, dilation, groups)
    for name, value, least in zip(settings._fields, settings[:3], (1, 0, 1)):
        if min(value) < least:
            raise ShapeError(f"{op}: {name} is {value}, wanted {least} or more")
    return settings


class Form(NamedTuple):
    """What the checks ask of an argument."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)


def _form(x: Tensor) -> Form:
    return Form(x.data.shape, x.data.dtype)


@lru_cache(maxsize=1024, typed=True)  # a net asks for the same few at every step
def _conv2d_size(op: str, x: Form, weight: Form, bias: Form | None, settings: Settings) -> Pair:
    """(P, Q), or the complaint of what does not fit."""
    groups = settings.groups
    _check(op, x, weight)
    k, c, *kernel = weight.shape
    if x.shape[1] != c * groups:
        raise ShapeError(
            f"{op}: input has {x.shape[1]} channels (shape {x.shape}), but weight of shape "
            f"{weight.shape} with groups={groups} wants {c * groups}"
        )
    if k % groups:
        raise ShapeError(f"{op}: weight has {k} filters, which groups={groups} does not divide")
    _check_bias(op, x, bias, k)
    try:
        p, q = map(geometry.conv_output_size, x.shape[2:], kernel, *settings[:3])
    except ShapeError as error:
        raise ShapeError(f"{op}: {error}") from None
    return p, q


@lru_cache(maxsize=1024, typed=True)
def _transposed_size(
    x: Form, weight: Form, bias: Form | None, settings: Settings, extra: Pair
) -> Pair:
    """(H, W), or the complaint of what does not fit."""
    op, groups = "conv_transpose2d", settings.groups
    _check(op, x, weight)
    c, k, *kernel = weight.shape
    if x.shape[1] != c:
        raise ShapeError(
            f"{op}: input has {x.shape[1]} channels (shape {x.shape}), but weight of shape "
            f"{weight.shape} wants {c}"
        )
    if c % groups:
        raise ShapeError(f"{op}: groups={groups} does not divide the {c} channels")
    _check_bias(op, x, bias, k * groups)
    stride, padding, dilation, _ = settings
    size = geometry.conv_transpose_output_size
    try:
        h, w = map(size, x.shape[2:], kernel, stride, padding, extra, dilation)
    except ShapeError as error:
        raise ShapeError(f"{op}: {error}") from None
    return h, w


def _check(op: str, x: Form, weight: Form) -> None:
    is_picture(op, x)
    if weight.ndim != 4 or 0 in weight.shape:
        raise ShapeError(f"{op}: weight has shape {weight.shape}, wanted four lengths of 1 or more")
    if weight.dtype != x.dtype:
        raise ShapeError(
            f"{op}: input is {x.dtype} and weight {weight.dtype}; convert one with .to(...)"
        )


def _check_bias(op: str, x: Form, bias: Form | None, k: int) -> None:
    if bias is not None and (bias.shape != (k,) or bias.dtype != x.dtype):
        raise ShapeError(
            f"{op}: bias has shape {bias.shape} and dtype {bias.dtype}, wanted ({k},), one a "
            f"filter, and the input's {x.dtype}"
        )
