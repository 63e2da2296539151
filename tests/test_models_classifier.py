"""Classifiers: published sizes and names, one picture size only, values from the naive loops."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.errors import InputError, ShapeError
from minifcn.models import Classifier, alexnet, small_classifier, vgg16, vgg16_bn
from minifcn.study import summary
from tests import naive


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def alex():
    return alexnet(generator=rng())


def test_alexnet_has_the_published_layers(alex):
    assert mf.models.parameter_count(alex) == 61_100_840  # torchvision's alexnet
    shapes = {name: array.shape for name, array in alex.named_parameters()}
    assert {name: shape for name, shape in shapes.items() if name.endswith("weight")} == {
        "features.0.weight": (64, 3, 11, 11),
        "features.3.weight": (192, 64, 5, 5),
        "features.6.weight": (384, 192, 3, 3),
        "features.8.weight": (256, 384, 3, 3),
        "features.10.weight": (256, 256, 3, 3),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    }


def test_alexnet_sizes_on_the_way(alex):
    layers = {layer.name: layer.output for layer in summary(alex.features, (3, 224, 224)).layers}
    assert [layers[i] for i in ("0", "2", "5", "12")] == [
        (64, 55, 55),
        (64, 27, 27),
        (192, 13, 13),
        (256, 6, 6),
    ]


@pytest.mark.parametrize("make", [vgg16, vgg16_bn])
def test_vgg16_has_torchvisions_names(make, monkeypatch):
    # the names need no random draws, and 138 million take seconds
    monkeypatch.setattr("minifcn.nn.init.normal_", lambda w, generator, std=1.0: w)
    net = make(generator=rng())
    step = 3 if make is vgg16_bn else 2
    wanted, i = [], 0
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            wanted += [f"features.{i}.weight", f"features.{i}.bias"]
            if make is vgg16_bn:
                wanted += [f"features.{i + 1}.weight", f"features.{i + 1}.bias"]
            i += step
        i += 1  # the pool
    wanted += [f"classifier.{i}.{what}" for i in (0, 3, 6) for what in ("weight", "bias")]
    assert [name for name, _ in net.named_parameters()] == wanted
    extra = 2 * (64 * 2 + 128 * 2 + 256 * 3 + 512 * 6) if make is vgg16_bn else 0
    assert mf.models.parameter_count(net) == 138_357_544 + extra


def scores_by_loops(net, x):
    """The chain written out with the naive loops; flattened in the order (C, H, W)."""
    for layer in net.features:
        if isinstance(layer, mf.nn.Conv2d):
            x = naive.conv2d(x, layer.weight.numpy(), layer.bias.numpy(), 1, layer.padding)
        elif isinstance(layer, mf.nn.MaxPool2d):
            x = naive.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding)[0]
        else:
            x = np.maximum(x, 0)
    n, c, h, w = x.shape
    x = np.array([[x[i, k, a, b] for k in range(c) for a in range(h) for b in range(w)]
                  for i in range(n)])  # fmt: skip
    for layer in net.classifier:
        if isinstance(layer, mf.nn.Linear):
            x = np.einsum("nc,kc->nk", x, layer.weight.numpy()) + layer.bias.numpy()
        elif isinstance(layer, mf.nn.ReLU):
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("padding", [0, 1])
def test_a_small_one_is_what_the_loops_say(padding):
    net = small_classifier(
        3, 9, in_channels=2, stages=((2,), (3,)), padding=padding, fc_channels=4,
        generator=rng(), dtype=np.float64,
    )  # fmt: skip
    with mf.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.copy_(rng(7).standard_normal(p.shape))
    x = rng(1).standard_normal((2, 2, 9, 9))
    found = net(mf.Tensor(x)).numpy()
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, scores_by_loops(net, x), rtol=1e-12)


def test_the_standard_small_one_has_five_convolutions_and_a_3x3_window_at_fc6():
    net = small_classifier(10, generator=rng())
    assert sum(isinstance(layer, mf.nn.Conv2d) for layer in net.features) == 5
    assert sum(isinstance(layer, mf.nn.Linear) for layer in net.classifier) == 3
    assert net.classifier[1].in_features == 48 * 3 * 3


def test_gradients_reach_every_weight():
    net = small_classifier(2, 9, stages=((2,), (3,)), generator=rng())
    x = mf.Tensor(rng().standard_normal((4, 3, 9, 9)).astype(np.float32))
    mf.functional.cross_entropy(net(x), np.array([0, 1, 0, 1])).backward()
    assert all(p.grad is not None and np.abs(p.grad.numpy()).max() > 0 for p in net.parameters())


def test_no_pictures_give_no_scores():
    net = small_classifier(2, 9, stages=((2,),), generator=rng())
    assert net(mf.Tensor(np.zeros((0, 3, 9, 9), np.float32))).shape == (0, 2)


@pytest.mark.parametrize("shape", [(1, 3, 10, 9), (1, 3, 9, 8), (1, 1, 9, 9), (3, 9, 9)])
def test_another_size_is_refused_with_the_way_out(shape):
    net = small_classifier(2, 9, stages=((2,),), generator=rng())
    with pytest.raises(ShapeError, match=r"wanted \(N, 3, 9, 9\).*to_fully_convolutional"):
        net(mf.Tensor(np.zeros(shape, np.float32)))


@pytest.mark.parametrize("stages", [(), ((),), ((2,), ())])
def test_empty_stages_are_named(stages):
    with pytest.raises(InputError, match="stages is"):
        small_classifier(2, 9, stages=stages, generator=rng())


def test_a_picture_too_small_for_the_stages():
    with pytest.raises(ShapeError, match="does not fit|leaves nothing"):
        small_classifier(2, 5, generator=rng())


def test_features_without_a_convolution_are_named():
    with pytest.raises(InputError, match="the Sequential has no convolution"):
        Classifier(mf.nn.Sequential(mf.nn.ReLU()), mf.nn.Sequential(), 9)


def test_a_bad_input_size_is_named():
    with pytest.raises(InputError, match="Classifier: input_size is 0"):
        conv = mf.nn.Conv2d(1, 1, 1, generator=rng())
        Classifier(mf.nn.Sequential(conv), mf.nn.Sequential(), 0)
