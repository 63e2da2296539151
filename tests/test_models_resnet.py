"""ResNets: sizes, where the scores lie, blocks, training, settings; the values are the oracle's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from minifcn import functional as F
from minifcn import models, nn
from minifcn.errors import InputError, ShapeError
from minifcn.geometry import IDENTITY, Window, cells, coordinate_map, crop_offset, output_size
from minifcn.models import ResNetFCN
from minifcn.models.resnet import BasicBlock
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8, "fcn4s": 4}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def narrow(head: str = "fcn32s", **settings: Any) -> ResNetFCN:
    """A ResNet FCN of few channels, in evaluation, whose scores are not zero."""
    generator = rng()
    settings = {"widths": (3, 4, 4, 5), **settings}
    net = ResNetFCN(2, head=head, generator=generator, **settings).eval()
    for score in net.score.values():
        nn.init.kaiming_normal_(score.weight, generator)
    return net


def strided(net: ResNetFCN) -> list[list[Window]]:
    """The windows on the main path: the stem with layer1, then each layer."""
    stages: list[list[Window]] = [[net.trunk.conv1.window(), net.trunk.maxpool.window()]]
    for i in range(1, 5):
        blocks = net.trunk.get_submodule(f"layer{i}").children()
        windows = [w for b in blocks for w in (b.conv1.window(), b.conv2.window())]  # type: ignore[attr-defined]
        stages = [stages[0] + windows] if i == 1 else [*stages, windows]
    return stages


# -- sizes -----------------------------------------------------------------------------------------


def uncovered(net: ResNetFCN, n: int) -> list[str]:
    """The steps of the decoder that end short of what they are added to, or cut to."""
    sizes, size = {}, n
    for i, windows in enumerate(strided(net), 1):
        sizes[f"layer{i}"] = size = output_size(windows, size)
    short = []
    for name, upscore in net.upscore.items():
        wanted = sizes.get(name, n)
        if output_size(nn.windows(upscore), size) < wanted:
            short.append(name)
        size = wanted
    return short


@pytest.mark.parametrize("head", STRIDES)
def test_every_size_to_700_has_scores_for_all_its_pixels(head: str) -> None:
    net = narrow(head)
    assert [n for n in range(1, 701) if uncovered(net, n)] == []


def test_the_size_test_catches_one_padding_too_many() -> None:
    net = narrow()
    net.upscore["input_x32"].padding = (17, 17)  # type: ignore[attr-defined]
    assert [n for n in range(1, 701) if uncovered(net, n)] == [
        n for n in range(1, 701) if n % 32 in (0, 31)
    ]


@pytest.mark.parametrize("head", STRIDES)
@pytest.mark.parametrize("size", [(1, 1), (1, 65), (2, 31), (32, 33), (64, 97), (101, 64)])
def test_scores_have_the_size_of_the_picture(head: str, size: tuple[int, int]) -> None:
    with no_grad():
        scores = narrow(head)(Tensor(np.ones((2, 3, *size), np.float32)))
    assert scores.shape == (2, 2, *size)
    assert np.isfinite(scores.data).all()


def test_the_trunk_halves_and_rounds_up() -> None:
    net = narrow(trunk="resnet34")
    with no_grad():
        features = net.features(Tensor(np.zeros((1, 3, 45, 70), np.float32)))
    assert {name: f.shape for name, f in features.items()} == {
        "layer1": (1, 3, 12, 18),
        "layer2": (1, 4, 6, 9),
        "layer3": (1, 4, 3, 5),
        "layer4": (1, 5, 2, 3),
    }


# -- where the scores lie --------------------------------------------------------------------------


@pytest.mark.parametrize("head", STRIDES)
def test_derived_padding_is_half_the_factor(head: str) -> None:
    paddings = {name: up.padding for name, up in narrow(head).upscore.items()}  # type: ignore[attr-defined]
    stride = STRIDES[head]
    assert paddings.pop(f"input_x{stride}") == (stride // 2, stride // 2)  # 16 for the plain one
    assert paddings == {f"layer{i}": (1, 1) for i in (3, 2, 1) if 2 ** (i + 1) >= stride}


@pytest.mark.parametrize("head", STRIDES)
def test_a_score_lies_over_the_middle_of_its_cell(head: str) -> None:
    """One unit of layer4 scores 1, all else 0: the centre of mass is where its cell's middle is."""
    net = narrow(head)
    for score in net.score.values():
        nn.init.zeros_(score.weight)
    score = net.score["layer4"]
    with no_grad():
        score.weight.fill_(1.0)
        features = {
            name: Tensor(np.zeros((1, c, 7 * 32 // s, 7 * 32 // s), np.float32))
            for name, c, s in (("layer1", 3, 4), ("layer2", 4, 8), ("layer3", 4, 16))
        }
        one = np.zeros((1, 5, 7, 7), np.float32)
        one[0, 0, 3, 2] = 1
        mass = net.decode(features | {"layer4": Tensor(one)}, 224, 224).data[0, 0]
    pixels = np.arange(224)
    centre = (mass.sum(1) @ pixels / mass.sum(), mass.sum(0) @ pixels / mass.sum())
    np.testing.assert_allclose(centre, (3 * 32 + 15.5, 2 * 32 + 15.5), rtol=1e-6)


def test_window_centres_would_ask_for_half_a_pixel() -> None:
    """Why the padding is derived from cells: a ResNet's windows lie over their first pixel."""
    net = narrow()
    here = coordinate_map(w for stage in strided(net) for w in stage)
    assert (here.scale, here.shift, here.receptive_field) == (32, 0, 435)
    kernel64 = Window(64, 32, transposed=True)
    with pytest.raises(ShapeError, match="63/2"):
        crop_offset(here.then(kernel64), IDENTITY)
    assert crop_offset(cells(32).then(kernel64), IDENTITY) == 16
    assert Window(64, 32, padding=31, transposed=True).output_size(1) < 32


# -- blocks and counts -----------------------------------------------------------------------------


def test_a_block_whose_residual_is_zero_passes_its_input_on() -> None:
    x = rng(1).standard_normal((2, 4, 5, 6)).astype(np.float32)
    block = BasicBlock(4, 4, generator=rng())
    nn.init.zeros_(block.bn2.weight)
    np.testing.assert_array_equal(block(Tensor(x)).data, np.maximum(x, 0))
    wider = BasicBlock(4, 6, 2, generator=rng())
    nn.init.zeros_(wider.bn2.weight)
    wanted = np.maximum(wider.downsample(Tensor(x)).data, 0)  # type: ignore[misc]
    np.testing.assert_array_equal(wider(Tensor(x)).data, wanted)
    assert block.downsample is None and wanted.shape == (2, 6, 3, 3)


def test_a_block_adds_its_residual() -> None:
    x = rng(1).standard_normal((2, 4, 5, 6))
    block = BasicBlock(4, 4, generator=rng(), dtype=np.float64).eval()
    h = np.maximum(naive_conv(x, block.conv1.weight.data) / np.sqrt(1 + 1e-5), 0)
    wanted = np.maximum(x + naive_conv(h, block.conv2.weight.data) / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(block(Tensor(x)).data, wanted, rtol=1e-12, atol=1e-12)


def naive_conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """3×3, padding 1, from the definition."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    return sum(  # type: ignore[return-value]
        np.einsum("nchw,kc->nkhw", padded[:, :, r : r + height, s : s + width], weight[:, :, r, s])
        for r in range(3)
        for s in range(3)
    )


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_689_512), ("resnet34", 21_797_672)])
def test_parameters_are_the_published_ones(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.init, "_drawn", lambda w, draw: w)  # zeros that no page is spent on
    assert models.parameter_count(getattr(models, name)(generator=rng())) == count


def test_the_classifier_takes_the_mean_of_layer4() -> None:
    net = models.resnet18(5, widths=(2, 3, 4, 6), generator=rng()).eval()
    x = Tensor(rng(1).standard_normal((2, 3, 70, 40)).astype(np.float32))
    mean = net.features(x)[-1].data.mean(axis=(2, 3))
    wanted = mean @ net.fc.weight.data.T + net.fc.bias.data
    np.testing.assert_allclose(net(x).data, wanted, rtol=1e-5, atol=1e-6)


# -- training and state ----------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["fcn32s", "fcn4s"])
def test_it_learns_bright_and_dark_blocks(head: str) -> None:
    labels = rng(3).integers(0, 2, (4, 2, 2)).repeat(32, 1).repeat(32, 2)
    x = np.repeat((labels[:, None] - 0.5) * 2, 3, 1).astype(np.float32)
    net = ResNetFCN(2, head=head, widths=(4, 4, 6, 8), generator=rng())
    losses = []
    for _ in range(15):
        net.zero_grad()
        loss = F.cross_entropy(net(Tensor(x)), labels)
        loss.backward()
        with no_grad():
            for parameter in net.parameters():
                parameter.add_(parameter.grad, alpha=-0.3)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(2))  # scores start at zero
    assert losses[-1] < 0.35, losses


def test_frozen_upsampling_gets_no_gradient() -> None:
    net = narrow("fcn8s", upsample="frozen").train()
    net(Tensor(rng().standard_normal((2, 3, 64, 64)).astype(np.float32))).sum().backward()
    assert all(up.weight.grad is None for up in net.upscore.values())  # type: ignore[attr-defined]
    assert net.trunk.conv1.weight.grad is not None


def test_config_and_state_rebuild_the_net_bit_by_bit() -> None:
    net = narrow("fcn8s", trunk="resnet34")
    twin = models.from_config(json.loads(json.dumps(net.config)), rng(9)).eval()
    assert type(twin) is ResNetFCN and twin.config == net.config
    twin.load_state_dict(net.state_dict())
    x = Tensor(rng(1).standard_normal((1, 3, 40, 50)).astype(np.float32))
    np.testing.assert_array_equal(net(x).data, twin(x).data)


def test_a_coarser_net_hands_its_weights_on() -> None:
    missing, unexpected = narrow("fcn16s").load_state_dict(
        narrow("fcn32s").state_dict(), strict=False
    )
    assert unexpected == ["upscore.input_x32.weight"]
    assert missing == [
        "score.layer3.weight",
        "score.layer3.bias",
        "upscore.layer3.weight",
        "upscore.input_x16.weight",
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"head": "fcn2s"}, "head is 'fcn2s'; choose one of fcn32s, fcn16s, fcn8s, fcn4s"),
        ({"trunk": "resnet50"}, "trunk is 'resnet50'; choose one of resnet18, resnet34"),
        ({"upsample": "nearest"}, "upsample is 'nearest'"),
        ({"widths": (4, 4, 4)}, r"widths is \(4, 4, 4\); give four numbers"),
        ({"widths": (4, 4, 0, 4)}, "give four numbers of 1 or more"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        narrow(**settings)


def test_other_misuse_is_named() -> None:
    with pytest.raises(InputError, match="num_classes is 0"):
        ResNetFCN(0, generator=rng())
    with pytest.raises(InputError, match="ResNetFCN: generator is 3"):
        ResNetFCN(2, generator=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="trunk is 'vgg11'; choose one of vgg16, vgg16_bn"):
        models.fcn_on("vgg11", 2, generator=rng())
    with pytest.raises(ShapeError, match="ResNetFCN: the input has the shape"):
        narrow()(Tensor(np.zeros((1, 4, 8, 8), np.float32)))
