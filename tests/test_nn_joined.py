"""A layer and the ReLU behind it as one operation: when Sequential joins them, and when not."""

import numpy as np
import pytest

import minifcn as mf
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
