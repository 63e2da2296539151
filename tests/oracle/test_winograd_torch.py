"""float32 rounding of every algorithm beside PyTorch's own: how far both are from float64."""

import numpy as np
import pytest

import minifcn.functional as F
from tests.convolutions import by_minifcn, layer, like_a_layers
from tests.oracle.compare import compare, torch

TF = torch.nn.functional
pytestmark = pytest.mark.oracle

SHAPES = [(16, 16, 64, 2), (64, 64, 56, 2), (64, 128, 28, 2), (128, 128, 28, 4), (256, 256, 14, 4)]
LARGER = [(16, 16, 64, 2, 5), (64, 64, 28, 2, 5), (256, 128, 16, 4, 7)]  # the kernel last


def theirs(x, w, b, dy, dtype, stride, padding):
    """[y, dx, dw] by PyTorch."""
    x, w, b = (torch.tensor(a, dtype=dtype, requires_grad=True) for a in (x, w, b))
    y = TF.conv2d(x, w, b, stride, padding)
    y.backward(torch.tensor(dy, dtype=dtype))
    return [a.detach().numpy() for a in (y, x.grad, w.grad)]


def rms(found, exact):
    """Error relative to the size of the result, root mean square."""
    difference = np.square(found.astype(np.float64) - exact).mean() ** 0.5
    return difference / np.square(exact).mean() ** 0.5


def largest(found, exact):
    """Largest error relative to the largest result."""
    return np.abs(found - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("name", ["winograd2", "winograd4", "im2col", "direct"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounding_in_float32(shape, stride, name):
    """At most three times PyTorch's, root mean square, in the result and both gradients.

    The largest of a million errors is a matter of chance: it has twice the room.
    """
    if (name, stride) == ("winograd4", 2):
        pytest.skip("of stride 2 there is no tile of 4 × 4")
    bounded(name, shape, stride, 3)


@pytest.mark.parametrize("name", ["winograd2", "winograd4"])
@pytest.mark.parametrize("shape", LARGER, ids=str)
def test_rounding_of_larger_kernels_in_parts(shape, name):
    """The same bounds."""
    *shape, kernel = shape
    bounded(name, shape, 1, kernel)


def bounded(name, shape, stride, kernel):
    """Assert the bounds of `test_rounding_in_float32` for one layer."""
    (c, k, side, n), padding = shape, kernel // 2
    x, w, b, dy = layer((n, c, side, side), k, padding, kernel, seed=c, stride=stride)
    exact = theirs(x, w, b, dy, torch.float64, stride, padding)
    single = theirs(x, w, b, dy, torch.float32, stride, padding)
    found = by_minifcn(name, x, like_a_layers(w), b, dy, padding=padding, stride=stride)
    for measure, most in ((rms, 3), (largest, 6)):
        factors = [
            float(measure(ours, right) / measure(other, right))
            for ours, other, right in zip(found[:3], single, exact, strict=True)
        ]
        print(name, shape, stride, measure.__name__, *(f"{factor:.2f}" for factor in factors))
        assert max(factors) <= most, factors


@pytest.mark.parametrize(
    "settings",
    [{}, {"padding": 1}, {"stride": 2, "padding": 2}, {"dilation": 2}, {"groups": 2}],
    ids=str,
)
def test_conv2d_relu(settings):
    rng = np.random.default_rng(0)
    shapes = (2, 4, 9, 7), (6, 4 // settings.get("groups", 1), 3, 3), (6,)
    compare(
        lambda *a: F.conv2d_relu(*a, **settings),
        lambda *a: TF.relu(TF.conv2d(*a, **settings)),
        *(rng.standard_normal(shape) for shape in shapes),
    )
