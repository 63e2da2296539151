"""A layer and the ReLU behind it as one operation: when Sequential joins them, and when not."""

import functools

import numpy as np
import pytest

import minifcn as mf
from minifcn import functional as F
from minifcn import nn


class Spy(nn.BatchNorm2d):
    """Says which of the two was called."""

    def forward(self, x):
        self.called = "forward"
        return super().forward(x)

    def forward_relu(self, x):
        self.called = "forward_relu"
        return super().forward_relu(x)


class Doubled(Spy):
    """Another layer, which must not be mistaken for its base."""

    def forward(self, x):
        return super().forward(x) * 2.0


class Leaky(nn.ReLU):
    """Another ReLU."""

    def forward(self, x):
        return mf.functional.relu(x) + x * 0.1


def picture():
    return mf.randn(2, 3, 5, 7, generator=np.random.default_rng(0))


def test_joined():
    layer = Spy(3)
    y = nn.Sequential(layer, nn.ReLU())(picture())
    assert layer.called == "forward_relu"
    assert int(layer.num_batches_tracked) == 1
    apart = Spy(3)
    wanted = nn.ReLU()(apart(picture())).numpy()
    assert y.numpy().tobytes() == wanted.tobytes()
    assert layer.running_mean.tobytes() == apart.running_mean.tobytes()
    assert layer.running_var.tobytes() == apart.running_var.tobytes()


@pytest.mark.parametrize("layers", [(), (nn.Softmax(1),), (nn.Softmax(1), nn.ReLU())])
def test_only_a_direct_neighbour_is_joined(layers):
    layer = Spy(3)
    nn.Sequential(layer, *layers)(picture())
    assert layer.called == "forward"


@pytest.mark.parametrize("which", [0, 1])
def test_a_hook_sees_what_lies_between(which):
    layer, seen = Spy(3), []
    chain = nn.Sequential(layer, nn.ReLU())
    handle = chain[which].register_forward_hook(lambda m, inputs, output: seen.append(output))
    chain(picture())
    assert layer.called == "forward" and len(seen) == 1
    assert (seen[0].numpy() < 0).any() == (which == 0)
    handle.remove()
    chain(picture())
    assert layer.called == "forward_relu"


def test_a_forward_given_to_a_class_later_is_called():
    class Mine(nn.Conv2d):
        pass

    layer = Mine(3, 4, 3, generator=np.random.default_rng(0))
    chain = nn.Sequential(layer, nn.ReLU())
    before = chain(picture()).numpy()
    Mine.forward = lambda self, x: nn.Conv2d.forward(self, x) * 2.0
    np.testing.assert_array_equal(chain(picture()).numpy(), before * 2)


def test_a_subclass_with_a_forward_of_its_own_is_called():
    layer = Doubled(3)
    y = nn.Sequential(layer, nn.ReLU())(picture())
    np.testing.assert_array_equal(
        y.numpy(), np.maximum(nn.BatchNorm2d(3)(picture()).numpy() * 2, 0)
    )
    assert layer.called == "forward"


def test_another_relu_is_called():
    layer = Spy(3)
    y = nn.Sequential(layer, Leaky())(picture())
    assert layer.called == "forward" and (y.numpy() < 0).any()


def test_a_forward_put_on_the_instance_is_called():
    layer, relu = Spy(3), nn.ReLU()
    relu.forward = lambda x: x
    y = nn.Sequential(layer, relu)(picture())
    assert layer.called == "forward" and (y.numpy() < 0).any()


def test_a_layer_without_forward_relu_is_called():
    y = nn.Sequential(nn.Softmax(1), nn.ReLU())(picture())
    assert y.shape == (2, 3, 5, 7)


def convolution(seed=0):
    return nn.Conv2d(3, 16, 3, padding=1, generator=np.random.default_rng(seed))


class Watched(nn.MaxPool2d):
    """A pool of its own kind, which must not be mistaken for its base."""

    def forward(self, x):
        self.seen = x.numpy().copy()
        return super().forward(x)


POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.MaxPool2d(3, 2, 1),  # windows overlap, and reach into the padding
    nn.MaxPool2d((1, 3), 1),
    nn.MaxPool2d(2, 2, 1, dilation=9),  # a window that sees nothing of the picture
]


@pytest.mark.parametrize("device", mf.device.HOST)
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["", "ties", "nan", "infinity"])
def test_relu_behind_a_pool_differs_in_no_bit(pool, kind, device):
    """Values and gradients are those of the three one by one."""
    data = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    if kind == "ties":
        data = np.round(data)
    if kind in ("nan", "infinity"):
        data[0, 1, 3, 3], data[1, :, 0, 7] = np.nan, np.nan if kind == "nan" else -np.inf
    layer, results = convolution(), []
    with mf.device.use(device), np.errstate(invalid="ignore"):
        for run in (nn.Sequential(layer, nn.ReLU(), pool), None):
            x = mf.Tensor(data, requires_grad=True)
            y = run(x) if run else pool(nn.ReLU()(layer(x)))
            upstream = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
            gradients = mf.grad(y, [x, layer.weight, layer.bias], upstream)
            results.append([a.numpy().copy() for a in (y, *gradients)])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


# the last has windows of 256 pixels, which leave no index for none of them
@pytest.mark.parametrize("pool", [*POOLS, nn.MaxPool2d(16, 1)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [(19, 18), (18, 20)], ids=str)  # 2×2 windows fill the second
def test_a_relu_joins_the_pool_before_it(pool, size, dtype):
    data = np.round(np.random.default_rng(0).standard_normal((2, 3, *size)) - 1).astype(dtype)
    data[0, 0, 0, :4], data[0, 0, 1, :4], data[1, 1, 7] = -0.0, -0.0, np.nan
    results = []
    for run in (nn.Sequential(pool, nn.ReLU()), lambda x: F.relu(pool(x))):
        x = mf.Tensor(data, requires_grad=True)
        y = run(x)
        upstream = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
        results.append([a.numpy() for a in (y, *mf.grad(y, [x], upstream))])
    for found, wanted in zip(*results, strict=True):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


def test_its_derivatives_are_right():
    rng = np.random.default_rng(0)
    data = rng.permutation(2 * 2 * 7 * 6).reshape(2, 2, 7, 6) / 9.0 - 16.05
    x = mf.Tensor(data, requires_grad=True)
    pooled = functools.partial(F.max_pool2d_relu, kernel_size=3, stride=2, padding=1)
    y = pooled(x).numpy()
    assert (y == 0).any() and (y > 0).any()
    assert mf.check.gradcheck(pooled, [x]) and mf.check.gradgradcheck(pooled, [x])


def test_a_pool_sees_what_lies_before_the_relu(monkeypatch):
    """So fewer elements pass the ReLU, and the layer's result is not kept for its gradient."""
    seen = []

    def watch(name, pool):
        monkeypatch.setattr(F, name, lambda x, *a: seen.append(x.numpy().copy()) or pool(x, *a))

    watch("max_pool2d_relu", F.max_pool2d_relu)
    watch("max_pool2d", F.max_pool2d)
    chain = nn.Sequential(convolution(), nn.ReLU(), nn.MaxPool2d(2))
    with_gradient = chain(picture()).numpy()
    with mf.no_grad():  # then it belongs to the convolution
        without = chain(picture()).numpy()
    assert (seen[0] < 0).any() and (seen[1] >= 0).all()
    assert with_gradient.tobytes() == without.tobytes()


@pytest.mark.parametrize("change", ["hook", "forward", "class"])
def test_a_pool_that_somebody_looks_at_stays_behind_the_relu(change):
    pool, seen = Watched(2) if change == "class" else nn.MaxPool2d(2), []
    if change == "hook":
        pool.register_forward_hook(lambda m, inputs, output: seen.append(output.numpy()))
    if change == "forward":
        pool.forward = lambda x: seen.append(x.numpy()) or F.max_pool2d(x, 2)
    nn.Sequential(convolution(), nn.ReLU(), pool)(picture())
    assert ((pool.seen if change == "class" else seen[0]) >= 0).all()
