"""The gradient of a ReLU before a convolution, which the convolution's own kernel can leave out."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import Tensor, kernels
from minifcn import functional as F
from minifcn.kernels import workspace
from tests.convolutions import by_elements, errors, random

#: size, and the second layer's settings
LAYERS = {
    "whole tiles": ((2, 32, 16, 16), {}),
    "parts of tiles": ((2, 40, 9, 13), {}),
    "many tiles": ((1, 33, 61, 50), {}),
    "stride 2": ((1, 64, 19, 22), {"stride": 2}),
    "dilation": ((1, 24, 17, 12), {"dilation": 2}),
    "one pixel": ((1, 32, 1, 1), {}),
}
every_layer = pytest.mark.parametrize("shape, settings", LAYERS.values(), ids=LAYERS)


def chain(shape, settings, watch=None, also=False):
    """y, the middle and the leaves of a convolution with ReLU and another; dy for y."""
    c = shape[1]
    arrays = random(3, shape, (c, c, 3, 3), (c,), (c, c, 3, 3), (c,))
    x, w, b, v, d = (Tensor(a, requires_grad=True) for a in arrays)
    middle = F.conv2d_relu(x, w, b, padding=1)
    if watch:
        watch(middle)
    y = F.conv2d(middle, v, d, padding=settings.get("dilation", 1), **settings)
    dy = random(4, y.shape)[0]
    loss = (y * Tensor(dy)).sum()
    return loss + (middle * middle).sum() if also else loss, middle, (x, w, b, v, d), dy


def wanted(middle, leaves, dy, settings, also=False):
    """Gradients of the middle and of all leaves, by sums in float64; through it where positive."""
    x, w, b, v, d = (leaf.numpy() for leaf in leaves)
    pairs = {key: (value, value) for key, value in settings.items()}
    at = settings.get("dilation", 1)
    _, d_middle, d_v, d_d = by_elements(middle.numpy(), v, d, dy, padding=(at, at), **pairs)
    d_middle = d_middle + (2 * middle.numpy() if also else 0)
    passed = np.where(middle.numpy() > 0, d_middle, 0)
    return d_middle, [*by_elements(x, w, b, passed, padding=(1, 1))[1:], d_v, d_d]


@every_layer
@pytest.mark.parametrize("algorithm", ["im2col", "winograd2", "winograd4"])
@pytest.mark.parametrize("also", [False, True])
def test_gradients_of_a_chain(shape, settings, algorithm, also, monkeypatch):
    monkeypatch.setattr(workspace, "poisoned", True)
    with mf.conv_algorithm(algorithm):
        loss, middle, leaves, dy = chain(shape, settings, also=also)
        loss.backward()
    d_middle, right = wanted(middle, leaves, dy, settings, also)
    found = [leaf.grad.numpy() for leaf in leaves]
    assert max(errors(found, right)) < 5e-5
    ungated = by_elements(leaves[0].numpy(), leaves[1].numpy(), leaves[2].numpy(), d_middle, (1, 1))
    if middle.data.size > 1000:
        assert errors(found, ungated[1:2])[0] > 1e-2  # a gate left open is seen


@every_layer
def test_who_looks_at_the_gradient_sees_all_of_it(shape, settings):
    with mf.conv_algorithm("winograd4"):
        loss, middle, leaves, dy = chain(shape, settings, watch=Tensor.retain_grad)
        loss.backward()
        again, other, others, _ = chain(shape, settings)
        asked = mf.grad(again, [other, *others])
    d_middle, right = wanted(middle, leaves, dy, settings)
    for found in ([middle, *leaves], [None, *others]):
        grads = asked if found[0] is None else [t.grad for t in found]
        assert max(errors([g.numpy() for g in grads], [d_middle, *right])) < 5e-5


def passes(run, monkeypatch):
    """How often a pass over the gradient was made to leave out what the ReLU does not let back."""
    calls = []
    original = kernels.relu_backward_sum
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "relu_backward_sum", lambda *a: (calls.append(1), original(*a))[1])
        run()
    return len(calls)


def test_no_pass_is_made_for_it(monkeypatch):
    shape, settings = LAYERS["whole tiles"]
    assert passes(lambda: chain(shape, settings)[0].backward(), monkeypatch) == 0
    watch = Tensor.retain_grad
    assert passes(lambda: chain(shape, settings, watch)[0].backward(), monkeypatch) == 1
    assert passes(lambda: chain(shape, settings, also=True)[0].backward(), monkeypatch) == 1
    with mf.conv_algorithm("im2col"):
        assert passes(lambda: chain(shape, settings)[0].backward(), monkeypatch) == 1


def test_nan_is_not_positive():
    loss, middle, leaves, _ = chain(*LAYERS["whole tiles"])
    leaves[2].data[5] = np.nan  # changes no version: as if the bias had been so
    x, w, b, v, d = leaves
    middle = F.conv2d_relu(x, w, b, padding=1)
    F.conv2d(middle, v, d, padding=1).backward(np.ones(middle.shape, np.float32))
    assert np.isnan(middle.numpy()[:, 5]).all()
    assert b.grad.numpy()[5] == 0 and np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("watched", [False, True])
def test_the_same_bits_with_checkpoints(watched):
    shape, _ = LAYERS["parts of tiles"]
    c = shape[1]
    x, w, b, v, d = random(5, shape, (c, c, 3, 3), (c,), (c, c, 3, 3), (c,))

    def gradients(through):
        leaves = [Tensor(a, requires_grad=True) for a in (x, w, b, v, d)]
        kept = []

        def part(x, w, b, v, d):
            middle = F.conv2d_relu(x, w, b, padding=1)
            if watched and not kept:
                middle.retain_grad()
                kept.append(middle)
            return F.conv2d_relu(middle, v, d, padding=1)

        through(part, *leaves).sum().backward()
        return [t.grad.numpy() for t in (*leaves, *kept)]

    plain = gradients(lambda part, *leaves: part(*leaves))
    again = gradients(mf.checkpoint)
    assert all(np.array_equal(p, q) for p, q in zip(plain, again, strict=True))
