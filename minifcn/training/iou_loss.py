"""A loss that is the score itself, made smooth."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn import device
from minifcn import functional as F
from minifcn.tensor import Tensor


def soft_iou_loss(logits: Tensor, labels: Any, void: int) -> Tensor:
    """1 − the mean over the classes of Σ p·y / Σ (p + y − p·y), a scalar.

    p are the softmax probabilities of `logits` (N, K, H, W), y is 1 where `labels` (N, H, W), an
    array of the same device, is the class and 0 elsewhere. The sums run over all pixels of the
    batch that are not `void`, and the mean over the classes that occur there; if none does, the
    loss is 0.
    Source: Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image
    Segmentation" (2016), equations 3 to 5.
    """
    classes = device.array_module(labels).arange(logits.shape[1])
    # (N, H, W, K) in memory, (N, K, H, W) to the eye, as the kernels keep activations.
    truth = (labels[..., None] == classes).astype(logits.dtype).transpose(0, 3, 1, 2)
    known = (labels != void).astype(logits.dtype)[:, None]
    p = F.softmax(logits, 1) * Tensor(known)
    pixels = truth.sum(axis=(0, 2, 3))
    present = pixels > 0
    if not present.any():
        return (p * 0.0).sum()
    both = (p * Tensor(truth)).sum((0, 2, 3))
    # A class that does not occur is left out: weight 0, and never a division by zero.
    either = p.sum((0, 2, 3)) - both + Tensor(np.where(present, pixels, 1).astype(logits.dtype))
    weight = Tensor((present / present.sum()).astype(logits.dtype))
    return 1.0 - (both / either * weight).sum()
