"""The soft IoU loss against sums over pixels in a loop, and its gradient against differences."""

import numpy as np
import pytest

from minifcn.check import gradcheck
from minifcn.tensor import Tensor
from minifcn.training.iou_loss import soft_iou_loss

VOID = 255


def drawn(seed, shape=(2, 3, 4, 5), classes=(0, 1, 2, VOID)):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, shape)
    return logits, rng.choice(np.array(classes), (shape[0], *shape[2:])).astype(np.int64)


def naive(logits, labels):
    n, classes, height, width = logits.shape
    both, either, seen = np.zeros(classes), np.zeros(classes), np.zeros(classes, int)
    for i, h, w in np.ndindex(n, height, width):
        if labels[i, h, w] == VOID:
            continue
        p = np.exp(logits[i, :, h, w])
        p /= p.sum()
        for c in range(classes):
            y = float(labels[i, h, w] == c)
            both[c] += p[c] * y
            either[c] += p[c] + y - p[c] * y
            seen[c] += y > 0
    return 1 - np.mean([both[c] / either[c] for c in range(classes) if seen[c]])


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 1, 2, VOID), (0, 2, VOID), (1,)])
def test_the_value_is_the_loops(classes):
    logits, labels = drawn(0, classes=classes)
    got = soft_iou_loss(Tensor(logits), labels, VOID).item()
    assert got == pytest.approx(naive(logits, labels), rel=1e-12)


def test_certain_answers_give_one_minus_the_score():
    """With probabilities of 0 and 1 it is the mean IoU: here 2/3 for class 0, 1/2 for class 1."""
    labels = np.array([[[0, 0, 1, 1]]])
    answer = np.array([0, 0, 0, 1])
    logits = np.where(answer == np.arange(2)[:, None], 200.0, -200.0)[None, :, None]
    assert soft_iou_loss(Tensor(logits), labels, VOID).item() == pytest.approx(
        1 - (2 / 3 + 1 / 2) / 2
    )


def test_a_batch_of_void_alone_gives_no_loss_and_no_gradient():
    logits, labels = drawn(1, classes=(VOID,))
    x = Tensor(logits, requires_grad=True)
    loss = soft_iou_loss(x, labels, VOID)
    loss.backward()
    assert loss.item() == 0 and not x.grad.numpy().any()


@pytest.mark.parametrize("classes", [(0, 1, 2, VOID), (0, 2)])
def test_the_gradient(classes):
    logits, labels = drawn(2, classes=classes)
    gradcheck(lambda x: soft_iou_loss(x, labels, VOID), [Tensor(logits, requires_grad=True)])
    x = Tensor(logits, requires_grad=True)
    soft_iou_loss(x, labels, VOID).backward()
    void = np.broadcast_to((labels == VOID)[:, None], logits.shape)
    assert not x.grad.numpy()[void].any() and x.grad.numpy()[~void].any()


def test_float32_stays_float32():
    logits, labels = drawn(3)
    assert soft_iou_loss(Tensor(logits.astype(np.float32)), labels, VOID).dtype == np.float32
