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

import numpy as np

from minifcn import kernels
from minifcn.errors import InputError, ShapeError
from minifcn.ops.pointwise import Gate
from minifcn.ops.reduction import total
from minifcn.ops.softmax import log_softmax
from minifcn.tensor import Function, Tensor, is_grad_enabled

REDUCTIONS = ("mean", "sum", "batch", "image", "none")


class CrossEntropy(Function):
    """The loss a pixel, already scaled by ``amount``; one kernel makes it and its gradient.

    Settings: ``target`` (N, …) of class numbers and ``amount`` (N, …), what each pixel counts for.
    """

    def __init__(self, target: np.ndarray, amount: np.ndarray) -> None:
        self.target, self.amount = target, amount

    def forward(self, logits: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.moveaxis(logits, 1, -1))
        loss, grad = kernels.cross_entropy(
            rows.reshape(-1, logits.shape[1]), self.target.reshape(-1), self.amount.reshape(-1)
        )
        self.slope = np.moveaxis(grad.reshape(rows.shape), -1, 1)
        return loss.reshape(self.target.shape)

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = self.inputs
        each = grad.reshape(grad.shape[0], 1, *grad.shape[1:])
        if not is_grad_enabled():
            return (Tensor(self.slope * each.data),)
        # asked for a derivative that can be differentiated: the same slope, a·(softmax − one-hot),
        # in recorded operations
        classes = np.arange(logits.shape[1]).reshape(-1, *[1] * (logits.ndim - 2))
        hot = Tensor((classes == self.target[:, None]).astype(logits.dtype))
        amount = Tensor(self.amount[:, None])
        counted = Gate(np.broadcast_to(self.amount[:, None], logits.shape))(logits)  # void: 0
        return ((log_softmax(counted, 1).exp() - hot) * amount * each,)


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
        target: class numbers (N, …), integers 0 … K − 1 or ``ignore_index``.
        weight: (K,), what each class counts for; all 1 if left out.
        ignore_index: target pixels with this number are void: they leave the sum and the count.
        reduction: "mean", "sum", "batch", "image" or "none"; see the top of this file.

    Returns:
        A scalar, or (N, …) with "none". If every pixel is void the loss and its gradient are zero
        (PyTorch's mean gives NaN) and a warning says so.

    Raises:
        ShapeError: if shapes do not fit, or a target is neither a class nor ``ignore_index``.
        InputError: for an unknown reduction.
    """
    labels = target.data if isinstance(target, Tensor) else np.asarray(target)
    if reduction not in REDUCTIONS:
        raise InputError(f"cross_entropy: reduction is {reduction!r}; choose from {REDUCTIONS}")
    if input.ndim < 2 or labels.shape != (input.shape[0], *input.shape[2:]):
        wanted = (input.shape[0], *input.shape[2:]) if input.ndim >= 2 else "(N, …)"
        raise ShapeError(
            f"cross_entropy: target has shape {labels.shape}, wanted {wanted} for logits of shape "
            f"{input.shape}, (N, classes, …)"
        )
    if not np.issubdtype(input.dtype, np.floating) or input.shape[1] == 0:
        raise ShapeError(
            f"cross_entropy: input is {input.dtype} of shape {input.shape}, wanted floating logits "
            "of at least one class"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ShapeError(f"cross_entropy: target has dtype {labels.dtype}, wanted an integer dtype")
    labels = labels.astype(np.int64)
    classes = input.shape[1]
    valid = labels != ignore_index
    _check_classes(labels, valid, classes, ignore_index)
    if weight is None:
        weights = np.ones(classes)
    else:
        weights = np.asarray(weight.data if isinstance(weight, Tensor) else weight, np.float64)
        if weights.shape != (classes,):
            raise ShapeError(
                f"cross_entropy: weight has shape {weights.shape}, wanted ({classes},), one a class"
            )
    labels = np.where(valid, labels, 0)
    amount = np.where(valid, weights[labels], 0.0)
    if labels.size and not valid.any():
        warnings.warn(
            "cross_entropy: every target pixel is ignored; the loss and its gradient are zero",
            stacklevel=2,
        )
    each = CrossEntropy(labels, _scaled(amount, valid, reduction).astype(input.dtype))(input)
    return each if reduction == "none" else total(each)


def _check_classes(labels: np.ndarray, valid: np.ndarray, classes: int, ignore_index: int) -> None:
    wrong = valid & ((labels < 0) | (labels >= classes))
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ShapeError(
            f"cross_entropy: target is {labels[where]} at {where}, wanted a class from 0 to "
            f"{classes - 1} or ignore_index={ignore_index}; check the labels and the class count"
        )


def _scaled(amount: np.ndarray, valid: np.ndarray, reduction: str) -> np.ndarray:
    """What each pixel counts for, over the normaliser; nothing is divided by zero."""
    n = max(amount.shape[0], 1)
    if reduction == "mean":
        return amount / (amount.sum() or 1.0)
    if reduction == "batch":
        return amount / n
    if reduction == "image":
        inner = tuple(range(1, amount.ndim))
        return amount / np.maximum(valid.sum(axis=inner, keepdims=True), 1) / n
    return amount
