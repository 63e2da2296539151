"""A coarser net's weights in a finer one: what is handed on, what starts anew, what is refused."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import models
from minifcn.errors import InputError
from minifcn.models.stages import hand_on

SMALL = {"widths": (3, 4, 4, 5, 6), "convs": (1, 1, 1, 1, 1), "fc_channels": 5}
RESNET = {"trunk": "resnet18", "widths": (4, 4, 4, 6)}


def net(head: str, seed: int, **settings) -> models.FCN:
    """With every parameter drawn at random, scores and interpolations too."""
    rng = np.random.default_rng(seed)
    family = models.ResNetFCN if "trunk" in settings else models.FCN
    made = family(3, head=head, generator=rng, **settings)
    for parameter in made.parameters():
        parameter.data[...] = rng.normal(size=parameter.shape)
    return made


@pytest.mark.parametrize("settings", [SMALL, RESNET])
def test_all_but_the_new_skip_and_the_last_interpolation_is_handed_on(settings):
    coarse, fine = net("fcn32s", 0, **settings), net("fcn16s", 1, **settings)
    skip = "layer3" if "trunk" in settings else "pool4"
    before, given = fine.state_dict(), coarse.state_dict()
    before = {name: array.copy() for name, array in before.items()}
    new = hand_on(given, fine)
    assert set(new) == {
        f"score.{skip}.weight",
        f"score.{skip}.bias",
        f"upscore.{skip}.weight",
        "upscore.input_x16.weight",
    }
    for name, array in fine.state_dict().items():
        np.testing.assert_array_equal(array, (before if name in new else given)[name])


def test_a_fresh_finer_head_starts_from_the_coarser_ones_predictions():
    """The new scores are zero, so what differs is one bilinear interpolation made in two steps."""
    rng = np.random.default_rng(2)
    coarse = models.FCN(3, head="fcn32s", generator=rng, dtype=np.float64, **SMALL)
    for parameter in coarse.score.parameters():
        parameter.data[...] = rng.normal(size=parameter.shape)
    fine = models.FCN(3, head="fcn16s", generator=rng, dtype=np.float64, **SMALL)
    hand_on(coarse.state_dict(), fine)
    x = mf.Tensor(rng.normal(size=(1, 3, 70, 128)))
    coarse.eval(), fine.eval()
    with mf.no_grad():
        score = coarse.score["fc7"](coarse.features(x)["fc7"]).numpy()
        one, two = coarse(x).numpy(), fine(x).numpy()
    assert score.shape[2:] == (3, 4)
    np.testing.assert_allclose(one, enlarged(score, 32)[..., :70, :128], atol=1e-12)
    at_16 = enlarged(score, 2)[..., :5, :8]
    np.testing.assert_allclose(two, enlarged(at_16, 16)[..., :70, :128], atol=1e-12)


def enlarged(score: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear, by its definition: each pixel of the unit roofs about it, which fade at the rim."""

    def roofs(size: int) -> np.ndarray:
        at = (np.arange(size * factor) + 0.5) / factor - 0.5
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)))

    return roofs(score.shape[2]) @ score @ roofs(score.shape[3]).T


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        (("fcn8s", SMALL), ("fcn16s", SMALL), "has score.pool3.weight and 2 more, unlike fcn16s"),
        (("fcn32s", SMALL), ("fcn16s", {**SMALL, "fc_channels": 7}), "shapes in fc6.conv.weight"),
        (("fcn32s", SMALL), ("fcn16s", RESNET), "has trunk.stage1.conv1.weight and"),
        (("fcn32s", SMALL), ("fcn16s", {**SMALL, "convs": (2, 1, 1, 1, 1)}), "lacks trunk.stage1"),
    ],
)
def test_another_net_is_refused_and_nothing_is_written(source, target, says):
    coarse, fine = net(source[0], 0, **source[1]), net(target[0], 1, **target[1])
    before = {name: array.copy() for name, array in fine.state_dict().items()}
    with pytest.raises(InputError, match=says):
        hand_on(coarse.state_dict(), fine)
    for name, array in fine.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
