"""The stages of up-sampling: the model's own scores, each cell over the pixels it belongs to."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, study
from minifcn.geometry import CoordinateMap

PADDINGS = ["same", 100]


def net(head="fcn8s", padding="same", **more):
    settings = {"widths": (2,) * 5, "convs": (1,) * 5, "fc_channels": 2, "padding": padding}
    settings |= {"batch_norm": False, "generator": np.random.default_rng(0), **more}
    built = models.FCN(2, head=head, **settings)
    for score in built.score.values():
        mf.nn.init.kaiming_normal_(score.weight, np.random.default_rng(1))
    return built


def picture(height, width):
    return mf.randn(1, 3, height, width, generator=np.random.default_rng(2))


@pytest.mark.parametrize("head", ["fcn32s", "fcn8s", "fcn2s"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_names_strides_and_the_last_stage(head, padding):
    model, x = net(head, padding), picture(40, 67)
    stages = study.upsampling_stages(model, x)
    stride = int(head[3:-1])
    skips = [s for s in (16, 8, 4, 2) if s >= stride]
    assert [stage.stride for stage in stages] == [32, *skips, 1]
    names = ["fc7", *(f"pool{s.bit_length() - 1}" for s in skips), f"input_x{stride}"]
    assert [stage.name for stage in stages] == names
    assert model.training  # as before
    with mf.no_grad():
        wanted = model.eval()(x).numpy()[0]
    np.testing.assert_array_equal(stages[-1].scores, wanted)
    np.testing.assert_array_equal(stages[-1].enlarged(40, 67), wanted)


def naive_enlarged(stage, height, width):
    """Each pixel takes the cell whose centre is nearest, which is never half a cell away."""
    result = np.empty((len(stage.scores), height, width))
    for y, x in np.ndindex(height, width):
        place = []
        for p, cells in zip((y, x), stage.scores.shape[1:], strict=True):
            away = [abs(stage.position.position(i) - p) for i in range(cells)]
            place.append(int(np.argmin(away)))
            assert min(away) < Fraction(stage.stride, 2) or stage.stride == 1
        result[:, y, x] = stage.scores[:, place[0], place[1]]
    return result


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(1, 1), (35, 29)])
def test_every_pixel_lies_in_the_nearest_cell(padding, size):
    for stage in study.upsampling_stages(net(padding=padding), picture(*size)):
        np.testing.assert_array_equal(stage.enlarged(*size), naive_enlarged(stage, *size))


@pytest.mark.parametrize("padding", PADDINGS)
def test_no_pixel_is_without_a_cell(padding):
    """The first pixel's is there, and the last one's."""
    model = net("fcn2s", padding)
    for n in [*range(1, 36), 63, 64, 65, 97, 128, 199]:
        for stage in study.upsampling_stages(model, picture(1, n)):
            cells = (np.arange(n) - stage.first) // stage.stride
            assert 0 <= cells.min() and cells.max() < stage.scores.shape[2], (n, stage.name)


def test_a_resnets_stages():
    model = models.fcn_on(
        "resnet18", 3, head="fcn8s", widths=(2,) * 4, generator=np.random.default_rng(0)
    )
    stages = study.upsampling_stages(model, picture(33, 64))
    assert [stage.name for stage in stages] == ["layer4", "layer3", "layer2", "input_x8"]
    assert [stage.first for stage in stages] == [0] * 4
    assert [stage.scores.shape for stage in stages] == [
        (3, 2, 2),
        (3, 3, 4),
        (3, 5, 8),
        (3, 33, 64),
    ]


def brightest(stage, height, width):
    """Middle of the pixels with the highest score of class 1."""
    scores = stage.enlarged(height, width)[1]
    return np.argwhere(scores == scores.max()).mean(axis=0)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_bright_spot_is_where_it_is(padding):
    """All weights alike: what is bright in the picture is bright in each stage, there."""
    model = net(padding=padding)
    with mf.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4 and parameter.shape[1] > 1:
                parameter.fill_(1 / parameter[0].numel())
        for score in model.score.values():
            score.weight[0].fill_(0.0)
    x = np.zeros((1, 3, 224, 256), np.float32)
    x[:, :, 104:120, 136:152] = 1
    middle = np.array([111.5, 143.5])
    stages = study.upsampling_stages(model, mf.Tensor(x))
    for stage in stages:
        limit = max(stage.stride, 4)
        assert np.abs(brightest(stage, 224, 256) - middle).max() <= limit, stage.name
        # The planted fault: a map that is off by two cells.
        there = stage.position
        moved = CoordinateMap(there.scale, there.shift + 2 * limit, there.extent)
        off = brightest(replace(stage, position=moved), 224, 256)
        assert np.abs(off - middle).max() > limit


def test_where_all_is_background_the_likeliest_thing_is_shown():
    scores = np.zeros((4, 8, 8))
    scores[0], scores[2] = 3, 1
    here = CoordinateMap(Fraction(1), Fraction(0), Fraction(0))
    stages = [study.UpsamplingStage("input_x8", scores, here)]
    palette = np.arange(12, dtype=np.uint8).reshape(4, 3)
    image = np.zeros((8, 8, 3), np.uint8)
    for thing, pixels in (("b", 0), ("c", 1)):  # one pixel found outweighs all that is likely
        scores[3, 0, :pixels] = 9
        figure = study.draw_upsampling(image, stages, palette, ("background", "a", "b", "c"))
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert f"probability of {thing}" in titles


@pytest.mark.parametrize("size", [(40, 67), (1, 1), (90, 20)])
def test_the_drawing_holds_every_stage(size):
    stages = study.upsampling_stages(net(), picture(*size))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    palette = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)
    figure = study.draw_upsampling(image, stages, palette, ("background", "thing"), "title")
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 2 * (len(stages) + 1)
    classes, heat = drawn[1:5], drawn[6:10]
    for axes, below, stage in zip(classes, heat, stages, strict=True):
        scores = stage.enlarged(*size)
        labels = (scores[1] > scores[0]).astype(int)
        np.testing.assert_array_equal(axes.images[0].get_array(), palette[labels])
        wanted = 1 / (1 + np.exp(scores[0] - scores[1]))
        np.testing.assert_allclose(below.images[0].get_array(), wanted, rtol=1e-5)
        assert "probability of thing" in below.get_title(loc="left")
    assert [axes.get_title(loc="left").split(":")[0] for axes in classes] == [
        "fc7", "pool4", "pool3", "enlarged by 8",
    ]  # fmt: skip
