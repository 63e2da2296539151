"""Per-pixel softmax cross-entropy: the loss of semantic segmentation.

    ℓ[m] = −w[t[m]] · ln softmax(z[m])[t[m]]          m runs over all pixels that are not void

The normalisations in use differ by what the sum over m is divided by. A recipe's learning rate
belongs to one of them:

======= ==========================================================================================
"mean"  Σ w[t[m]] over the valid pixels of the batch (PyTorch's; a plain mean without weights)
"sum"   1
"batch" N, the number of pictures ("sum over pixels ÷ batch", Caffe's ``normalize: false`` at N = 1)
"image" the valid pixels of each picture, then N: every picture counts the same (FCN's 2016 journal
        version discusses it as the per-image loss)
"none"  nothing is summed: the result has the target's shape
======= ==========================================================================================

Source: Long, Shelhamer, Darrell, "Fully Convolutional Networks", CVPR 2015, sections 3 and 4.3.
"""

from __future__ import annotations

import warnings
from operator import mul
from typing import Any

import numpy as np

from minifcn import device, kernels
from minifcn.errors import InputError, ShapeError
from minifcn.function import Function
from minifcn.ops.layout import elementwise
from minifcn.ops.pointwise import Gate
from minifcn.ops.softmax import log_softmax
from minifcn.recording import is_grad_enabled
from minifcn.tensor import Tensor

REDUCTIONS = ("mean", "sum", "batch", "image", "none")


class CrossEntropy(Function):
    """The loss a pixel, already scaled, or its sum; one kernel makes it and its gradient.

    Settings: ``target`` (N, …) of class numbers, ``share`` (N, K), what a pixel of a picture and a
    class counts for, ``void``, the class number of pixels that count for nothing, and whether the
    result is ``summed``, to a scalar.
    """

    def __init__(
        self, target: np.ndarray, share: np.ndarray, void: int, summed: bool = False
    ) -> None:
        self.target, self.share, self.void, self.summed = target, share, void, summed

    def forward(self, logits: np.ndarray) -> np.ndarray:
        pixels = range(2, logits.ndim)
        rows = device.contiguous(logits.transpose(0, *pixels, 1))
        flat = rows.reshape(-1, logits.shape[1])
        loss, grad = kernels.cross_entropy(
            flat, self.target.reshape(-1), self.share, self.void, self.summed
        )
        self.slope = grad.reshape(rows.shape).transpose(0, -1, *(axis - 1 for axis in pixels))
        return loss if self.summed else loss.reshape(self.target.shape)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = self.inputs
        each = grad if self.summed else grad.reshape(grad.shape[0], 1, *grad.shape[1:])
        if not is_grad_enabled():
            if _is_one(grad.data):
                return (Tensor(self.slope),)
            return (Tensor(elementwise(np.multiply, self.slope, each.data)),)
        # asked for a derivative that can be differentiated: the same slope, a·(softmax − one-hot),
        # in recorded operations
        here = device.array_module(logits.data)
        classes = here.arange(logits.shape[1]).reshape(-1, *[1] * (logits.ndim - 2))
        hot = Tensor(elementwise(np.equal, classes, self.target[:, None]).astype(logits.dtype))
        flat = kernels.amounts(self.target.reshape(-1), self.share, self.void)
        amount = flat.reshape(self.target.shape)[:, None]
        counted = Gate(kernels.positive(np.broadcast_to(amount, logits.shape)))(logits)  # void: 0
        return ((log_softmax(counted, 1).exp() - hot) * Tensor(amount) * each,)


def cross_entropy(
    input: Tensor,
    target: Tensor | np.ndarray,
    weight: Tensor | np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Softmax cross-entropy between logits and class numbers, pixel by pixel.

    Args:
        input: logits (N, K, …), for a segmentation (N, K, H, W).
        target: class numbers (N, …), integers 0 … K − 1 or ``ignore_index``, where the logits are.
        weight: (K,), what each class counts for; all 1 if left out. On any device.
        ignore_index: target pixels with this number are void: they leave the sum and the count.
        reduction: "mean", "sum", "batch", "image" or "none"; see the top of this file.

    Returns:
        A scalar, or (N, …) with "none". If every pixel is void the loss and its gradient are zero
        (PyTorch's mean gives NaN) and a warning says so.

    Raises:
        ShapeError: if shapes do not fit, or a target is neither a class nor ``ignore_index``.
        InputError: for an unknown reduction.
    """
    labels = Tensor(target).data
    if reduction not in REDUCTIONS:
        raise InputError(f"cross_entropy: reduction is {reduction!r}; choose from {REDUCTIONS}")
    if input.ndim < 2 or labels.shape != (input.shape[0], *input.shape[2:]):
        wanted = (input.shape[0], *input.shape[2:]) if input.ndim >= 2 else "(N, …)"
        raise ShapeError(
            f"cross_entropy: target has shape {labels.shape}, wanted {wanted} for logits of shape "
            f"{input.shape}, (N, classes, …)"
        )
    if input.dtype.kind != "f" or input.shape[1] == 0:
        raise ShapeError(
            f"cross_entropy: input is {input.dtype} of shape {input.shape}, wanted floating logits "
            "of at least one class"
        )
    if labels.dtype.kind not in "iu":
        raise ShapeError(f"cross_entropy: target has dtype {labels.dtype}, wanted an integer dtype")
    classes = input.shape[1]
    weights = _class_weights(weight, classes)
    device.together("cross_entropy", input.data, labels)
    # the caller may change theirs
    own, counts = kernels.copied_labels(labels, classes, ignore_index)
    # (N, K + 1) numbers come to the host from any device: a wrong label is refused here, at once
    counted = device.move(counts, "cpu").tolist()
    beyond = [row.pop() for row in counted]  # what is no class leaves the rows
    if any(beyond):
        _refuse_labels(device.move(labels, "cpu"), classes, ignore_index)
    if own.size and not any(map(any, counted)):
        warnings.warn(
            "cross_entropy: every target pixel is ignored; the loss and its gradient are zero",
            stacklevel=2,
        )
    share = device.like(_shares(counted, weights, reduction, input.dtype), input.data)
    return CrossEntropy(own, share, ignore_index, summed=reduction != "none")(input)


def _is_one(grad: Any) -> bool:
    """Whether one number, 1, stands for all pixels: the gradient of a sum.

    Of a GPU's array that is not asked: to read the number is to wait for all that was started.
    """
    expanded = grad.size and not any(grad.strides)
    return bool(expanded and not device.is_gpu(grad) and grad.flat[0] == 1)


def _class_weights(weight: Tensor | np.ndarray | None, classes: int) -> list[float]:
    if weight is None:
        return [1.0] * classes
    weights = device.move(Tensor(weight).data, "cpu").astype(np.float64)
    if weights.shape != (classes,):
        raise ShapeError(
            f"cross_entropy: weight has shape {weights.shape}, wanted ({classes},), one a class"
        )
    return weights.tolist()


def _refuse_labels(labels: np.ndarray, classes: int, ignore_index: int) -> None:
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    raise ShapeError(
        f"cross_entropy: target is {labels[where]} at {where}, wanted a class from 0 to "
        f"{classes - 1} or ignore_index={ignore_index}; check the labels and the class count"
    )


def _shares(
    counts: list[list[int]], weights: list[float], reduction: str, dtype: np.dtype
) -> np.ndarray:
    """What a pixel counts for (N, K), by its picture and class; nothing is divided by zero.

    ``counts`` are the pixels of each class in each picture: so few numbers that Python is faster
    than NumPy.
    """
    n = len(counts)
    if reduction == "mean":
        total = sum(sum(map(mul, row, weights)) for row in counts)
        divisors = [total or 1.0] * n
    elif reduction == "image":
        divisors = [max(sum(row), 1) * n for row in counts]
    else:
        divisors = [n if reduction == "batch" else 1] * n
    rows = [[weight / divisor for weight in weights] for divisor in divisors]
    return np.array(rows, dtype).reshape(n, len(weights))
