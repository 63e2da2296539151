"""Padding 100 and derived crops, as published: offsets, sizes, places, at-once scales."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, nn
from minifcn.geometry import coordinate_map, output_size
from tests.test_models_sizes import check_size, mirror_error, narrow, symmetric

HEADS = ["fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn2s"]
PUBLISHED = {
    "fcn32s": {"input_x32": 19},
    "fcn16s": {"pool4": 5, "input_x16": 27},
    "fcn8s": {"pool4": 5, "pool3": 9, "input_x8": 31},
}


def padded(head, **settings):
    return narrow(head, **{"fc_kernel": 7, "padding": 100, **settings})


@pytest.mark.parametrize("head", PUBLISHED)
def test_crops_are_the_published_ones(head):
    assert padded(head).crops == PUBLISHED[head]
    vgg16 = models.fcn_on(
        "vgg16", 21, head=head, padding=100, widths=(1,) * 5, fc_channels=1,
        generator=np.random.default_rng(0),
    )  # fmt: skip
    assert vgg16.crops == PUBLISHED[head]
    assert vgg16.trunk.stage1.conv1.padding == (100, 100) and vgg16.fc6.conv.padding == (0, 0)
    assert all(up.padding == (0, 0) and up.bias is None for up in vgg16.upscore.values())


def room(net, n):
    """(units that are there, units that are wanted after the crop) at each step, from geometry."""
    pools, size = {}, n
    for i, stage in enumerate(net.trunk.children(), 1):
        size = pools[f"pool{i}"] = output_size(nn.windows(stage), size)
    size = output_size(nn.windows(nn.Sequential(net.fc6, net.fc7)), size)
    for name, upscore in net.upscore.items():
        size = output_size(nn.windows(upscore), size)
        if name in pools:
            yield pools[name], net.crops[name] + size
        else:
            yield size, net.crops[name] + n


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fc_kernel", [5, 7])
def test_every_size_to_700_has_scores_for_all_its_pixels(head, fc_kernel):
    net = padded(head, fc_kernel=fc_kernel)
    for n in range(1, 701):
        assert all(have >= wanted for have, wanted in room(net, n)), n


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("fc_kernel", [5, 7])
def test_fewer_stages_have_room_too(stages, fc_kernel):
    for i in range(1, stages + 1):
        net = models.FCN(
            2, head=f"fcn{2**i}s", widths=(1,) * stages, convs=(1,) * stages, fc_channels=1,
            fc_kernel=fc_kernel, padding=100, generator=np.random.default_rng(0),
        )  # fmt: skip
        for n in range(1, 300):
            assert all(have >= wanted for have, wanted in room(net, n)), n


def test_a_smaller_padding_would_not_do():
    """What the rule is for: with a padding of 40 the smallest pictures have no score."""
    net = padded("fcn8s")
    net.trunk.stage1.conv1.padding = (40, 40)
    with pytest.raises(mf.ShapeError):
        list(room(net, 1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fc_kernel", [5, 7])
def test_every_step_lies_where_its_layers_put_it(head, fc_kernel):
    net = padded(head, fc_kernel=fc_kernel)
    pools = {f"pool{i}": there for i, there in enumerate(net.trunk.coordinate_maps(), 1)}
    here = coordinate_map(nn.windows(nn.Sequential(net.fc6, net.fc7)), pools["pool5"])
    assert net.positions["fc7"] == here
    for name, upscore in net.upscore.items():
        here = coordinate_map(nn.windows(upscore), here)
        if name in pools:  # unit crop + i of the skip is added to unit i
            assert pools[name].position(net.crops[name]) == here.position(0)
            assert pools[name].scale == here.scale == net.positions[name].scale
            assert net.positions[name].shift == here.shift
        else:  # unit crop + i is pixel i
            assert (here.scale, here.position(net.crops[name])) == (1, 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 33), (31, 32), (97, 64), (180, 240)])
@pytest.mark.parametrize("head", HEADS)
def test_sizes(head, size):
    check_size(padded(head, batch_norm=False), *size)


@pytest.mark.parametrize("head", ["fcn32s", "fcn8s"])
def test_a_mirrored_picture_has_mirrored_scores(head):
    """64 + 198 and 96 + 198 are not divided by 32; sizes that are, leave no pool hanging over."""

    def error(net):
        x = np.random.default_rng(1).standard_normal((1, 3, 58, 90))
        with mf.no_grad():
            straight = net(mf.Tensor(x)).numpy()
            turned = net(mf.Tensor(x[..., ::-1, ::-1].copy())).numpy()[..., ::-1, ::-1]
        assert np.abs(straight).max() > 1e-3
        return np.abs(straight - turned).max() / np.abs(straight).max()

    net = symmetric(padded(head, width=6, dtype=np.float64, batch_norm=False))
    assert error(net) < 1e-12
    for name in net.crops:
        net.crops[name] += 1
        assert error(net) > 1e-3, name
        net.crops[name] -= 1
    assert mirror_error(net) > 1e-3  # the planted difference: pools hang over at the right alone


def test_at_once_scales_features_before_they_are_scored():
    settings = {"dtype": np.float64, "batch_norm": False, "width": 4}
    plain, once = padded("fcn8s", **settings), padded("fcn8s", at_once=True, **settings)
    assert once.scales == {"pool4": 0.01, "pool3": 0.0001} and plain.scales == {}
    x = mf.randn(1, 3, 20, 30, generator=np.random.default_rng(3), dtype=np.float64)
    with mf.no_grad():
        for net in (plain, once):
            for score in net.score.values():  # the bias is not scaled
                score.bias.copy_(np.array([0.3, -0.2]))
        wanted, found = plain(x).numpy(), once(x).numpy()
        assert np.abs(wanted - found).max() > 1e-3
        for name, scale in (("pool4", 0.01), ("pool3", 0.0001)):
            plain.score[name].weight.mul_(scale)
        wanted = plain(x).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)
    again = models.from_config(once.config, np.random.default_rng(0))
    assert again.scales == once.scales and again.crops == once.crops


@pytest.mark.parametrize(
    ("upsample", "learned"),
    [
        ("learned", [True, True, True]),
        ("last-frozen", [True, True, False]),
        ("frozen", [False] * 3),
    ],
)
@pytest.mark.parametrize("trunk", ["vgg", "resnet18"])
def test_which_bilinear_layers_learn(trunk, upsample, learned):
    made = {"head": "fcn8s", "upsample": upsample, "generator": np.random.default_rng(0)}
    if trunk == "vgg":
        net = models.FCN(2, widths=(1,) * 5, fc_channels=1, **made)
    else:
        net = models.fcn_on(trunk, 2, widths=(1,) * 4, **made)
    assert [up.weight.requires_grad for up in net.upscore.values()] == learned
