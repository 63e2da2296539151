"""Every operation against PyTorch's of the same name, in float64: values and gradients."""

import warnings

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import device
from tests.oracle.compare import compare, error, torch

TF = torch.nn.functional
pytestmark = pytest.mark.oracle


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def on_device(request):
    with device.use(request.param):
        yield request.param


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    "x, w, settings",
    [
        ((2, 3, 9, 7), (4, 3, 3, 3), {}),
        ((2, 3, 9, 7), (4, 3, 3, 2), {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1)}),
        ((2, 4, 9, 7), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
        ((2, 4, 9, 7), (4, 1, 3, 3), {"groups": 4, "stride": 4}),
        ((1, 2, 1, 1), (3, 2, 3, 3), {"padding": 4}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d(x, w, settings, bias):
    arrays = [random(*x), random(*w, seed=1)] + [random(w[0], seed=2)] * bias
    compare(lambda *a: F.conv2d(*a, **settings), lambda *a: TF.conv2d(*a, **settings), *arrays)


@pytest.mark.parametrize(
    "x, w, settings",
    [
        ((2, 3, 4, 5), (3, 4, 3, 3), {}),
        ((2, 3, 4, 5), (3, 4, 4, 3), {"stride": (2, 3), "padding": (1, 2), "output_padding": 1}),
        ((2, 4, 4, 5), (4, 3, 3, 3), {"groups": 2, "dilation": 2}),
        ((1, 5, 3, 3), (5, 1, 16, 16), {"groups": 5, "stride": 8, "padding": 4}),
        ((1, 2, 3, 3), (2, 2, 2, 2), {"stride": 1, "dilation": 3, "output_padding": 2}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_transpose2d(x, w, settings, bias):
    k = w[1] * settings.get("groups", 1)
    arrays = [random(*x), random(*w, seed=1)] + [random(k, seed=2)] * bias
    compare(
        lambda *a: F.conv_transpose2d(*a, **settings),
        lambda *a: TF.conv_transpose2d(*a, **settings),
        *arrays,
    )


WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": (1, 3), "stride": (4, 5), "padding": (0, 1), "ceil_mode": True},
]


@pytest.mark.parametrize("size", [(9, 7), (8, 8), (3, 5)])
@pytest.mark.parametrize("settings", [*WINDOWS, {"kernel_size": 2, "dilation": 2, "stride": 1}])
def test_max_pool2d(settings, size):
    x = random(2, 3, *size)
    compare(lambda x: F.max_pool2d(x, **settings), lambda x: TF.max_pool2d(x, **settings), x)


def test_max_pool2d_of_ties():
    x = np.random.default_rng(0).choice([0.0, 1.0, -np.inf], (2, 3, 9, 7))
    compare(lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: TF.max_pool2d(x, 3, 2, 1), x)


def test_max_pool2d_of_nan():
    """Of several NaN in a window PyTorch gives the gradient to the last, minifcn to the first."""
    x = np.random.default_rng(0).choice([0.0, 1.0, np.nan, -np.inf], (2, 3, 9, 7))
    found = F.max_pool2d(mf.Tensor(x), 3, 2, 1).numpy()
    np.testing.assert_array_equal(found, TF.max_pool2d(torch.tensor(x), 3, 2, 1).numpy())


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("size", [(9, 7), (8, 8), (3, 5)])
@pytest.mark.parametrize("settings", WINDOWS)
def test_avg_pool2d(settings, size, include):
    both = {**settings, "count_include_pad": include}
    x = random(2, 3, *size)
    compare(lambda x: F.avg_pool2d(x, **both), lambda x: TF.avg_pool2d(x, **both), x)


def test_adaptive_avg_pool2d():
    compare(
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: TF.adaptive_avg_pool2d(x, 1),
        random(2, 3, 9, 7),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum, eps", [(0.1, 1e-5), (0.7, 1e-2)])
def test_batch_norm(training, momentum, eps):
    x, weight, bias = random(2, 3, 9, 7) * 2 + 3, random(3, seed=1), random(3, seed=2)
    mean, var = random(3, seed=3), np.abs(random(3, seed=4)) + 0.5
    their_mean, their_var = torch.tensor(mean.copy()), torch.tensor(var.copy())
    rest = training, momentum, eps
    compare(
        lambda x, w, b: F.batch_norm(x, mean, var, w, b, *rest),
        lambda x, w, b: TF.batch_norm(x, their_mean, their_var, w, b, *rest),
        x,
        weight,
        bias,
    )
    assert error(mean, their_mean.numpy()) < 1e-12 and error(var, their_var.numpy()) < 1e-12


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 6, 7)])
def test_cross_entropy(shape, weighted, reduction):
    target = np.random.default_rng(1).integers(0, 5, (shape[0], *shape[2:]))
    target.flat[::3] = 255
    weight = np.abs(random(5, seed=2)) + 0.1 if weighted else None
    compare(
        lambda x: F.cross_entropy(x, target, weight, 255, reduction),
        lambda x: TF.cross_entropy(
            x,
            torch.tensor(target),
            None if weight is None else torch.tensor(weight),
            ignore_index=255,
            reduction=reduction,
        ),
        random(*shape),
    )


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax(dim):
    x = 5 * random(2, 3, 4)
    compare(lambda x: F.softmax(x, dim), lambda x: TF.softmax(x, dim), x)
    compare(lambda x: F.log_softmax(x, dim), lambda x: TF.log_softmax(x, dim), x)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    "how",
    [{"size": (17, 5)}, {"size": (1, 1)}, {"size": 3}, {"scale_factor": 2}, {"scale_factor": 2.7},
     {"scale_factor": (0.5, 1.3)}],
    ids=str,
)  # fmt: skip
def test_interpolate(how, corners):
    both = {**how, "mode": "bilinear", "align_corners": corners}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(
            lambda x: F.interpolate(x, **both),
            lambda x: TF.interpolate(x, **both),
            random(2, 3, 7, 9),
        )


@pytest.mark.parametrize("padding", [(1, 2, 3, 4), (-1, 2, 0, -3), (2, 1), (-3, 3, 0, 0)], ids=str)
def test_pad(padding):
    compare(
        lambda x: F.pad(x, padding, value=1.5),
        lambda x: TF.pad(x, padding, value=1.5),
        random(2, 3, 5, 4),
    )


def test_linear_and_matmul():
    compare(F.linear, TF.linear, random(2, 7, 3), random(4, 3, seed=1), random(4, seed=2))
    compare(lambda a, b: a @ b, lambda a, b: a @ b, random(5, 1, 3, 4), random(2, 4, 6, seed=1))


POINTWISE = {
    "relu": (F.relu, TF.relu),
    "exp": (lambda x: x.exp(), lambda x: x.exp()),
    "log": (lambda x: x.abs().log(), lambda x: x.abs().log()),
    "sqrt": (lambda x: x.abs().sqrt(), lambda x: x.abs().sqrt()),
    "tanh": (lambda x: x.tanh(), lambda x: x.tanh()),
    "sigmoid": (lambda x: (8 * x).sigmoid(), lambda x: (8 * x).sigmoid()),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), lambda x: x.clamp(-0.5, 0.7)),
    "pow": (lambda x: x**3, lambda x: x**3),
    "div": (lambda x: 1 / x - x / 3, lambda x: 1 / x - x / 3),
    "sum": (lambda x: x.sum((0, 2)), lambda x: x.sum((0, 2))),
    "mean": (lambda x: x.mean((0, 2), keepdim=True), lambda x: x.mean((0, 2), keepdim=True)),
    "var": (lambda x: x.var((0, 2)), lambda x: x.var((0, 2))),
    "max": (lambda x: x.max(1), lambda x: x.max(1).values),
    "index": (lambda x: x[:, [1, 1, 0], ::2], lambda x: x[:, [1, 1, 0], ::2]),
    "permute": (lambda x: x.permute(2, 0, 1), lambda x: x.permute(2, 0, 1)),
    "reshape": (lambda x: x.reshape(-1, 6), lambda x: x.reshape(-1, 6)),
    "flatten": (lambda x: x.flatten(1), lambda x: x.flatten(1)),
    "cat": (lambda x: mf.cat([x, x * 2], 1), lambda x: torch.cat([x, x * 2], 1)),
    "stack": (lambda x: mf.stack([x, x * 2], 1), lambda x: torch.stack([x, x * 2], 1)),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_and_shape(name):
    compare(*POINTWISE[name], random(2, 3, 4))


@pytest.mark.parametrize("value", [0.0, -1.0, 2.0, 1.0])
def test_derivatives_by_convention(value):
    """Where there is no derivative, PyTorch's choice."""
    x = np.array([value, 0.0, 0.0])
    compare(F.relu, TF.relu, x)
    compare(lambda x: x.abs(), lambda x: x.abs(), x)
    compare(lambda x: x.clamp(-1, 1), lambda x: x.clamp(-1, 1), x)


def test_second_derivatives():
    """The gradient of a squared gradient through convolution, norm, pool, loss."""
    x, w = random(2, 2, 6, 6), random(3, 2, 3, 3, seed=1)
    target = np.random.default_rng(2).integers(0, 3, (2, 3, 3))

    def ours(x, w):
        y = F.batch_norm(F.conv2d(x, w, padding=1), None, None, training=True)
        loss = F.cross_entropy(F.max_pool2d(y, 2), target)
        gx, gw = mf.grad(loss, [x, w], create_graph=True)
        return (gx * gx).sum() + (gw * gw).sum()

    def theirs(x, w):
        y = TF.batch_norm(TF.conv2d(x, w, padding=1), None, None, training=True)
        loss = TF.cross_entropy(TF.max_pool2d(y, 2), torch.tensor(target))
        gx, gw = torch.autograd.grad(loss, [x, w], create_graph=True)
        return (gx * gx).sum() + (gw * gw).sum()

    compare(ours, theirs, x, w)
