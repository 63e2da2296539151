"""FCN: the first step, training, freezing, handing weights on, saving, determinism, the forward."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from minifcn import functional as F
from minifcn import models, nn
from minifcn.errors import InputError, ShapeError
from minifcn.models import FCN
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

HEADS = ["fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn2s"]
SMALL: dict[str, Any] = {"widths": (4, 4, 6, 6, 8), "convs": (1, 2, 1, 1, 1), "fc_channels": 8}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def small(head: str = "fcn8s", seed: int = 0, **settings: Any) -> FCN:
    return FCN(3, head=head, generator=rng(seed), **{**SMALL, **settings})


def picture(n: int = 2, height: int = 37, width: int = 45, seed: int = 1) -> Tensor:
    return Tensor(rng(seed).standard_normal((n, 3, height, width)).astype(np.float32))


def step(net: FCN, x: Tensor, labels: np.ndarray, rate: float = 0.1) -> float:
    net.zero_grad()
    loss = F.cross_entropy(net(x), labels)
    loss.backward()
    with no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-rate)
    return loss.item()


def excited(net: FCN, seed: int = 5) -> FCN:
    """The net with score layers that are not zero and running statistics that are not trivial."""
    generator = rng(seed)
    for score in net.score.values():
        nn.init.kaiming_normal_(score.weight, generator)
        with no_grad():
            score.bias.copy_(generator.standard_normal(score.bias.shape))
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer += generator.uniform(0, 0.5, buffer.shape).astype(np.float32)
    return net


# -- counts ----------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_paper_by_hand() -> None:
    k, (a, b), f = 3, (2, 5), 7
    net = FCN(
        k, widths=(a, b), convs=(1, 2), head="fcn2s", fc_channels=f, fc_kernel=3, batch_norm=False,
        generator=rng(),
    )  # fmt: skip
    trunk = (3 * a * 9 + a) + (a * b * 9 + b) + (b * b * 9 + b)
    fc = (b * f * 9 + f) + (f * f + f)
    scores = (f * k + k) + (a * k + k)
    upscores = k * 16 + k * 16
    assert models.parameter_count(net) == trunk + fc + scores + upscores


def test_upsampling_is_depthwise() -> None:
    for name, upscore in small("fcn8s").upscore.items():
        size = 16 if name == "input_x8" else 4
        assert upscore.weight.shape == (3, 1, size, size)


def test_helpers_choose_their_heads() -> None:
    for head in HEADS:
        net = getattr(models, head)(3, generator=rng(), **SMALL)
        assert net.config["head"] == head
        assert list(net.upscore)[-1] == f"input_x{head[3:-1]}"


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_scores_start_at_zero_and_the_first_step_moves_the_score_layers_alone(head: str) -> None:
    net = small(head, dropout=0.0)
    before = net.state_dict()
    x, labels = picture(), rng().integers(0, 3, (2, 37, 45))
    assert step(net, x, labels) == pytest.approx(np.log(3))
    for name, parameter in net.named_parameters():
        moved = np.any(parameter.data != before[name])
        assert moved == name.startswith("score."), name
    step(net, x, labels)
    for name, parameter in net.named_parameters():
        assert np.any(parameter.data != before[name]), name


@pytest.mark.parametrize(
    ("head", "batch_norm", "limit"),
    [("fcn32s", True, 0.6), ("fcn2s", True, 0.1), ("fcn2s", False, 0.1)],
)
def test_zero_scores_train(head: str, batch_norm: bool, limit: float) -> None:
    """Bright blocks and dark blocks: learned in a few steps, by a stride of 32 with soft edges."""
    labels = rng(3).integers(0, 2, (4, 2, 2)).repeat(32, 1).repeat(32, 2)
    x = np.repeat((labels[:, None] - 0.5) * 2, 3, 1).astype(np.float32)
    net = small(head, dropout=0.0, batch_norm=batch_norm)
    losses = [step(net, Tensor(x), labels, rate=0.5) for _ in range(15)]
    assert losses[0] == pytest.approx(np.log(3))
    assert losses[-1] < limit, losses


@pytest.mark.parametrize("head", ["fcn32s", "fcn8s"])
def test_frozen_upsampling_stays_bilinear_and_gets_no_gradient(head: str) -> None:
    net = excited(small(head, upsample="frozen"))
    step(net, picture(), rng().integers(0, 3, (2, 37, 45)))
    for upscore in net.upscore.values():
        assert upscore.weight.grad is None
        wanted = nn.init.bilinear_filter(upscore.weight.shape[2]).astype(np.float32)
        for channel in upscore.weight.data:
            np.testing.assert_array_equal(channel[0], wanted)
    assert net.fc6[0].weight.grad is not None  # type: ignore[attr-defined]


def test_dropout_is_there_and_can_be_repeated() -> None:
    net = excited(small())
    x = picture()
    one, two = net(x).data, net(x).data
    assert np.any(one != two)
    runs = []
    for _ in range(2):
        nn.reseed_dropout(net, 1, 2)
        runs.append(net(x).data)
    np.testing.assert_array_equal(*runs)
    net.eval()
    np.testing.assert_array_equal(net(x).data, net(x).data)


# -- state -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [True, False])
def test_config_and_state_rebuild_the_net_bit_by_bit(batch_norm: bool) -> None:
    net = excited(small("fcn4s", batch_norm=batch_norm, upsample="frozen"))
    config = json.loads(json.dumps(net.config))
    twin = FCN.from_config(config, rng(99))
    assert twin.config == net.config
    twin.load_state_dict(net.state_dict())
    x = picture()
    np.testing.assert_array_equal(net.eval()(x).data, twin.eval()(x).data)
    assert not twin.upscore["pool4"].weight.requires_grad  # type: ignore[attr-defined]


def test_one_seed_one_net() -> None:
    net, twin = small(seed=4), FCN.from_config(small(seed=5).config, rng(4))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])
    x = picture()
    excited(net), excited(twin)
    np.testing.assert_array_equal(net(x).data, twin(x).data)  # the dropout masks agree too


def test_a_coarser_net_hands_its_weights_on() -> None:
    nets = [excited(small(head, seed)) for seed, head in enumerate(HEADS)]
    for coarse, fine in zip(nets, nets[1:], strict=False):
        missing, unexpected = fine.load_state_dict(coarse.state_dict(), strict=False)
        f = int(fine.config["head"][3:-1])
        skip = f"pool{f.bit_length() - 1}"
        assert unexpected == [f"upscore.input_x{2 * f}.weight"]
        assert missing == [
            f"score.{skip}.weight",
            f"score.{skip}.bias",
            f"upscore.{skip}.weight",
            f"upscore.input_x{f}.weight",
        ]


def test_a_fresh_skip_leaves_the_scores_nearly_as_they_were() -> None:
    """A new skip's score is zero, so the finer net starts as the coarser, interpolated in steps."""
    coarse = excited(small("fcn32s")).eval()
    fine = small("fcn16s", seed=7).eval()
    fine.load_state_dict(coarse.state_dict(), strict=False)
    x = picture(height=128, width=160)
    a, b = coarse(x).data, fine(x).data
    inside = np.s_[:, :, 32:-32, 32:-32]
    assert np.abs(a[inside] - b[inside]).max() < 0.1 * np.ptp(a)


# -- looking inside --------------------------------------------------------------------------------


def test_features_by_name_and_hooks_on_every_part() -> None:
    net = small("fcn2s").eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in net.named_modules():
        if name and not isinstance(module, nn.ModuleDict):
            module.register_forward_hook(
                lambda m, i, o, name=name: seen.update({name: getattr(o, "shape", None)})
            )
    x = picture()
    features = net.features(x)
    assert {name: f.shape for name, f in features.items()} == {
        "pool1": (2, 4, 19, 23),
        "pool2": (2, 4, 10, 12),
        "pool3": (2, 6, 5, 6),
        "pool4": (2, 6, 3, 3),
        "pool5": (2, 8, 2, 2),
        "fc7": (2, 8, 2, 2),
    }
    scores = net(x)
    np.testing.assert_array_equal(scores.data, net.decode(features, 37, 45).data)
    wanted = {name for name, m in net.named_modules() if name and not isinstance(m, nn.ModuleDict)}
    assert set(seen) == wanted
    assert seen["trunk.stage3"] == (2, 6, 5, 6) and seen["score.pool1"] == (2, 3, 19, 23)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"head": "fcn64s"}, "head is 'fcn64s'; with a trunk of 5 stages choose one of fcn32s"),
        ({"head": "fcn1s"}, "head is 'fcn1s'"),
        ({"fc_kernel": 4}, "fc_kernel is 4"),
        (
            {"upsample": "nearest"},
            "upsample is 'nearest'; choose one of learned",
        ),
        ({"padding": 50}, "padding is 50; choose 'same' or 100"),
        ({"padding": 100, "fc_kernel": 9}, "choose 'same', or 5 stages or fewer"),
        ({"padding": 100, "fc_kernel": 1}, "choose 'same', or 5 stages or fewer"),
        ({"at_once": True, "head": "fcn32s"}, "fcn32s has none; leave it out"),
        ({"dropout": -0.1}, "p is -0.1"),
        ({"fc_channels": 0}, "out_channels is 0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        small(**settings)


def test_other_misuse_is_named() -> None:
    with pytest.raises(InputError, match="generator is None"):
        FCN(2, generator=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_classes"):
        FCN(0, generator=rng(), **SMALL)
    with pytest.raises(InputError, match="'depth'"):
        FCN.from_config({"num_classes": 2, "depth": 3}, rng())
    with pytest.raises(InputError, match="lack num_classes"):
        FCN.from_config({}, rng())
    for shape in [(3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8)]:
        with pytest.raises(ShapeError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
            small()(Tensor(np.zeros(shape, np.float32)))


def test_an_empty_batch_has_empty_scores() -> None:
    assert small().eval()(Tensor(np.zeros((0, 3, 9, 9), np.float32))).shape == (0, 3, 9, 9)


# -- the whole forward, once more ------------------------------------------------------------------


def torch_forward(net: FCN, x: np.ndarray) -> np.ndarray:
    """The paper's net in PyTorch, with uncropped upsampling and crops from the sizes' halves."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    state = {name: torch.tensor(array) for name, array in net.state_dict().items()}
    config = net.config

    def block(h: Any, conv: str, norm: str, padding: int) -> Any:
        h = f.conv2d(h, state[f"{conv}.weight"], state.get(f"{conv}.bias"), padding=padding)
        if config["batch_norm"]:
            names = ("running_mean", "running_var", "weight", "bias")
            h = f.batch_norm(h, *(state[f"{norm}.{name}"] for name in names))
        return f.relu(h)

    def up(h: Any, name: str, factor: int, size: Any) -> Any:
        weight = state[f"upscore.{name}.weight"]
        h = f.conv_transpose2d(h, weight, stride=factor, groups=config["num_classes"])
        first = factor // 2
        return h[:, :, first : first + size[0], first : first + size[1]]

    h = torch.tensor(x)
    pools = []
    for i, count in enumerate(config["convs"], 1):
        for j in range(1, count + 1):
            h = block(h, f"trunk.stage{i}.conv{j}", f"trunk.stage{i}.norm{j}", 1)
        h = f.max_pool2d(h, 2, ceil_mode=True)
        pools.append(h)
    h = block(h, "fc6.conv", "fc6.norm", config["fc_kernel"] // 2)
    h = block(h, "fc7.conv", "fc7.norm", 0)
    h = f.conv2d(h, state["score.fc7.weight"], state["score.fc7.bias"])
    stride = int(config["head"][3:-1])
    for i in range(4, stride.bit_length() - 2, -1):
        skip = f.conv2d(pools[i - 1], state[f"score.pool{i}.weight"], state[f"score.pool{i}.bias"])
        h = up(h, f"pool{i}", 2, skip.shape[2:]) + skip
    return up(h, f"input_x{stride}", stride, x.shape[2:]).numpy()


@pytest.mark.oracle
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(1, 1), (37, 45), (64, 50)])
def test_scores_agree_with_pytorch(head: str, batch_norm: bool, size: tuple[int, int]) -> None:
    net = excited(small(head, batch_norm=batch_norm, fc_kernel=5)).eval()
    x = picture(2, *size)
    wanted = torch_forward(net, x.data)
    with no_grad():
        scores = net(x).data
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
