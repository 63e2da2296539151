"""The VGG trunk: published sizes, stages, names."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from minifcn import models, nn
from minifcn.errors import InputError
from minifcn.geometry import receptive_interval
from minifcn.models import VGG
from minifcn.recording import no_grad
from minifcn.tensor import Tensor


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_vgg16_has_the_published_number_of_parameters() -> None:
    trunk = VGG(
        widths=models.VGG16_WIDTHS, convs=models.VGG16_CONVS, batch_norm=False, generator=rng()
    )
    assert models.parameter_count(trunk) == 14_714_688
    fields = [there.receptive_field for there in trunk.coordinate_maps()]
    assert fields == [6, 16, 44, 100, 212]
    assert [there.scale for there in trunk.coordinate_maps()] == [2, 4, 8, 16, 32]


def test_pools_lie_over_the_middle_of_their_pixels() -> None:
    trunk = VGG(widths=(2, 2, 2), convs=(1, 2, 3), generator=rng())
    shifts = [there.shift for there in trunk.coordinate_maps()]
    assert shifts == [Fraction(1, 2), Fraction(3, 2), Fraction(7, 2)]


def test_stages_and_names() -> None:
    trunk = VGG(1, widths=(2, 4, 3), convs=(1, 2, 1), generator=rng())
    features = trunk(Tensor(rng().standard_normal((2, 1, 13, 6)).astype(np.float32)))
    assert [f.shape for f in features] == [(2, 2, 7, 3), (2, 4, 4, 2), (2, 3, 2, 1)]
    assert [name for name, _ in trunk.named_parameters()][:7] == [
        "stage1.conv1.weight",
        "stage1.norm1.weight",
        "stage1.norm1.bias",
        "stage2.conv1.weight",
        "stage2.norm1.weight",
        "stage2.norm1.bias",
        "stage2.conv2.weight",
    ]
    assert not any(name.endswith("conv1.bias") for name in trunk.state_dict())
    plain = VGG(1, widths=(2, 4), convs=(1, 1), batch_norm=False, generator=rng())
    assert list(plain.state_dict()) == [
        f"stage{i}.conv1.{what}" for i in (1, 2) for what in ("weight", "bias")
    ]


@pytest.mark.parametrize("unit", [0, 2, 3])
def test_a_stage_sees_the_pixels_that_geometry_says(unit: int) -> None:
    """Change each pixel in turn: the unit moves exactly for those in its receptive interval."""
    trunk = VGG(1, widths=(1, 1), convs=(2, 1), batch_norm=False, generator=rng(), dtype=np.float64)
    for parameter in trunk.parameters():  # positive everywhere, so that no ReLU or max hides a path
        with no_grad():
            parameter.fill_(0.1)
    windows = [w for stage in trunk.children() for w in nn.windows(stage)]
    interval = receptive_interval(windows, unit)
    assert interval is not None
    size = 15
    base = np.zeros((1, 1, 1, size))
    with no_grad():
        before = trunk(Tensor(base))[-1].data[0, 0, 0, unit]
        moved = []
        for j in range(size):
            base[0, 0, 0, j] = 1e3
            moved.append(trunk(Tensor(base))[-1].data[0, 0, 0, unit] != before)
            base[0, 0, 0, j] = 0
    assert moved == [interval[0] <= j <= interval[1] for j in range(size)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"widths": (2, 2), "convs": (1,)}, r"widths is \(2, 2\) and convs is \(1,\)"),
        ({"widths": (), "convs": ()}, r"widths is \(\)"),
        ({"widths": (2, 2), "convs": (1, 0)}, r"convs is \(1, 0\)"),
        ({"widths": (2, 0), "convs": (1, 1)}, "out_channels is 0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        VGG(generator=rng(), **settings)
