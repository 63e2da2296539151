"""The published nets at full size: parameters and sizes, without a weight drawn or multiplied."""

from __future__ import annotations

import numpy as np
import pytest

from minifcn import models, nn
from minifcn.study import summary

TRUNK = 14_714_688  # VGG16's thirteen convolutions, with biases
FC = (512 * 49 + 1) * 4096 + 4097 * 4096
SCORES = {"fcn32s": 4097 * 21, "fcn16s": (4097 + 513) * 21, "fcn8s": (4097 + 513 + 257) * 21}


@pytest.fixture(autouse=True)
def no_draws(monkeypatch):
    """Weights stay the zeros that they are made as, for which the system spends no memory."""
    monkeypatch.setattr(nn.init, "_drawn", lambda w, draw: w)


@pytest.mark.parametrize("head", SCORES)
def test_vgg16_fcns_have_the_published_134_million(head):
    settings = {"upsample": "frozen", "generator": np.random.default_rng(0)}
    net = models.fcn_on("vgg16", 21, head=head, **settings)
    # Long et al. (2015), table 1: 134 M.
    found = models.parameter_count(net, trainable=True)
    assert found == TRUNK + FC + SCORES[head]
    assert found == {"fcn32s": 134_346_581, "fcn16s": 134_357_354, "fcn8s": 134_362_751}[head]


def test_a_forward_at_500_squared_is_counted_from_the_sizes_alone():
    net = models.fcn_on("vgg16", 21, head="fcn8s", generator=np.random.default_rng(0))
    layers = {layer.name: layer for layer in summary(net, (3, 500, 500)).layers}
    assert layers["fc6.conv"].output == (4096, 16, 16)
    assert layers["fc6.conv"].multiplications == 16 * 16 * 4096 * 512 * 49
    assert layers["score.pool4"].output == (21, 32, 32)
    assert layers["score.pool3"].output == (21, 63, 63)
    assert layers["upscore.input_x8"].output == (21, 504, 504)  # cut to 500


@pytest.mark.parametrize(("trunk", "count"), [("resnet18", 11_176_512), ("resnet34", 21_284_672)])
def test_resnet_fcns(trunk, count):
    """The classifier's parameters without fc's 513,000; 21 scores; one filter of 64×64 a class."""
    net = models.fcn_on(trunk, 21, generator=np.random.default_rng(0))
    assert models.parameter_count(net) == count + 513 * 21 + 21 * 64 * 64
    assert models.parameter_count(net.trunk) == count
