"""Scores have the picture's own size and lie over its pixels, for every size and every head."""

from __future__ import annotations

import numpy as np
import pytest

from minifcn import nn
from minifcn.geometry import coordinate_map, output_size
from minifcn.models import FCN
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

HEADS = ["fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn2s"]


def narrow(head: str, seed: int = 0, width: int = 2, **settings: object) -> FCN:
    """An FCN with ``width`` channels everywhere, in evaluation, whose scores are not zero."""
    generator = np.random.default_rng(seed)
    net = FCN(
        2,
        head=head,
        widths=(width,) * 5,
        convs=(1,) * 5,
        fc_channels=width,
        generator=generator,
        **settings,  # type: ignore[arg-type]
    ).eval()
    for score in net.score.values():
        nn.init.kaiming_normal_(score.weight, generator)
    return net


def sizes_on_the_way(net: FCN, n: int) -> list[tuple[int, int]]:
    """(size after upsampling, size wanted) at each step of the decoder, from the layers alone."""
    pools = []
    size = n
    for stage in net.trunk.children():
        size = output_size(nn.windows(stage), size)
        pools.append(size)
    size = output_size(nn.windows(nn.Sequential(net.fc6, net.fc7)), size)
    steps = []
    for name, upscore in net.upscore.items():
        wanted = pools[int(name[4:]) - 1] if name.startswith("pool") else n
        steps.append((output_size(nn.windows(upscore), size), wanted))
        size = wanted
    return steps


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fc_kernel", [1, 7])
def test_every_size_to_700_has_scores_for_all_its_pixels(head: str, fc_kernel: int) -> None:
    net = narrow(head, fc_kernel=fc_kernel)
    stride = int(head[3:-1])
    for n in range(1, 701):
        steps = sizes_on_the_way(net, n)
        assert steps[-1][1] == n
        for have, wanted in steps[:-1]:
            assert wanted <= have <= wanted + 1
        have, wanted = steps[-1]
        assert wanted <= have < wanted + stride


@pytest.mark.parametrize("head", HEADS)
def test_every_upsampled_score_lies_over_its_skip(head: str) -> None:
    net = narrow(head, fc_kernel=5)
    pools = {f"pool{i}": there for i, there in enumerate(net.trunk.coordinate_maps(), 1)}
    here = coordinate_map(nn.windows(nn.Sequential(net.fc6, net.fc7)), pools["pool5"])
    for name, upscore in net.upscore.items():
        here = coordinate_map(nn.windows(upscore), here)
        scale, shift = (pools[name].scale, pools[name].shift) if name in pools else (1, 0)
        assert (here.scale, here.shift) == (scale, shift)


def symmetric(net: FCN) -> FCN:
    """The same net with every kernel averaged with its mirror image."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            with no_grad():
                parameter.copy_((parameter.data + parameter.data[..., ::-1, ::-1]) / 2)
    return net


def mirror_error(net: FCN) -> float:
    x = np.random.default_rng(1).standard_normal((1, 3, 64, 96))
    with no_grad():
        straight = net(Tensor(x)).data
        turned = net(Tensor(x[..., ::-1, ::-1].copy())).data[..., ::-1, ::-1]
    assert np.abs(straight).max() > 1e-3
    return float(np.abs(straight - turned).max() / np.abs(straight).max())


@pytest.mark.parametrize("head", HEADS)
def test_a_mirrored_picture_has_mirrored_scores(head: str) -> None:
    """With symmetric kernels only a misaligned crop could tell left from right."""
    assert mirror_error(symmetric(narrow(head, width=6, dtype=np.float64))) < 1e-12


@pytest.mark.parametrize("head", HEADS)
def test_the_mirror_test_catches_a_crop_that_is_off_by_one(head: str) -> None:
    net = symmetric(narrow(head, width=6, dtype=np.float64))
    last = list(net.upscore.values())[-1]
    last.padding = (last.padding[0] - 1, last.padding[1] - 1)  # type: ignore[attr-defined]
    assert mirror_error(net) > 1e-3


def check_size(net: FCN, height: int, width: int) -> None:
    x = np.full((1, 3, height, width), 0.5, np.float32)
    with no_grad():
        scores = net(Tensor(x))
    assert scores.shape == (1, 2, height, width)
    assert np.isfinite(scores.data).all()


@pytest.mark.parametrize("head", HEADS)
def test_small_sizes(head: str) -> None:
    net = narrow(head)
    for height in range(1, 65):
        for width in {65 - height, 1 + 7 * height % 64}:
            check_size(net, height, width)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_all_small_sizes(head: str) -> None:
    net = narrow(head)
    for height in range(1, 65):
        for width in range(1, 65):
            check_size(net, height, width)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(360, 480), (375, 500), (180, 240), (100, 130)])
def test_sizes_of_common_sets(head: str, size: tuple[int, int]) -> None:
    check_size(narrow(head), *size)


@pytest.mark.parametrize("stages", [1, 2, 3, 6])
def test_the_rule_holds_for_any_number_of_stages(stages: int) -> None:
    for i in range(1, stages + 1):
        net = FCN(
            2,
            head=f"fcn{2**i}s",
            widths=(2,) * stages,
            convs=(1,) * stages,
            fc_channels=2,
            generator=np.random.default_rng(0),
        ).eval()
        assert len(net.score) == len(net.upscore) == stages - i + 1
        for height, width in [(1, 1), (5, 67), (33, 31)]:
            check_size(net, height, width)
