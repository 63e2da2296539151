"""Settings, recipes, class weights: records and rules without a network."""

import json
from contextlib import nullcontext

import numpy as np
import pytest

import minifcn as mf
from minifcn import models
from minifcn.data.counts import count
from minifcn.errors import InputError, ShapeError
from minifcn.training.class_weights import median_frequency_weights
from minifcn.training.recipes import (
    NUCLEI,
    VOC,
    coarsest_sufficient,
    evenly,
    settings_for,
)
from minifcn.training.settings import Settings


def test_settings_survive_json():
    settings = Settings(classes=("a", "b"), crop=None, resize=(96, 128), lr=0.1 + 0.2)
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("steps", 0, "1 or more"),
        ("batch_size", -1, "1 or more"),
        ("seed", -1, "0 or more"),
        ("crop", (0, 3), "1 or more"),
        ("resize", (3,), "height and a width"),
        ("widths", (1, 2, 3), "five"),
        ("lr", 0.0, "above 0"),
        ("lr", float("nan"), "above 0"),
        ("weight_decay", -1.0, "0 or more"),
        ("average", 1.0, "below 1"),
        ("iou_loss", -0.5, "0 (none) or more"),
        ("scale", 0.5, "1 (none) or more"),
        ("dropout", 1.0, "less than 1"),
        ("even_kinds", 1.5, "0 to 1"),
        ("views", "both", "one, mirrored, turned"),
        ("optimizer", "lbfgs", "adam, sgd"),
        ("schedule", "step", "poly, cosine, constant"),
        ("class_weights", "yes", "none, balanced"),
        ("normalise", "no", "dataset, picture"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_the_mend(name, value, wanted):
    with pytest.raises(InputError) as caught:
        Settings(**{name: value})
    assert name in str(caught.value) and str(value) in str(caught.value)
    assert wanted in str(caught.value)


def test_even_kinds_are_for_nuclei():
    assert Settings(layout="nuclei", even_kinds=0.5).even_kinds == 0.5
    with pytest.raises(InputError, match="layout voc; leave out --even-kinds"):
        Settings(layout="voc", even_kinds=0.5)


def test_settings_of_another_version_are_refused():
    values = Settings().as_dict()
    for exactly in (True, False):
        with pytest.raises(InputError, match="patience"):
            Settings.from_dict({**values, "patience": 0.9}, exactly)
    del values["lr"]
    with pytest.raises(InputError, match="lr"):
        Settings.from_dict(values)
    # to evaluate, or to start from, an older run will do
    assert Settings.from_dict({**values, "seed": 5}, exactly=False) == Settings(seed=5)


def test_recipes_take_what_is_given_and_shorten_the_warm_up():
    assert settings_for("nuclei", {}) == NUCLEI
    short = settings_for("voc", {"steps": 30, "lr": 0.5})
    assert (short.layout, short.steps, short.lr, short.warmup) == ("voc", 30, 0.5, 3)
    assert settings_for("voc", {"steps": 30, "warmup": 25}).warmup == 25
    assert short.batch_size == VOC.batch_size


def test_coarsest_sufficient_head():
    # Ceilings measured on nuclei: 0.95 is less than 97 % of 0.99, 0.97 is not.
    assert coarsest_sufficient({2: 0.99, 4: 0.95, 8: 0.84}) == 2
    assert coarsest_sufficient({2: 0.99, 4: 0.97, 8: 0.84}) == 4
    assert coarsest_sufficient({2: 0.99, 32: 0.99}) == 32


def test_evenly():
    assert list(evenly(3, 5)) == [0, 1, 2]
    assert list(evenly(10, 5)) == [0, 2, 4, 6, 8]


def test_median_frequency_weights_by_hand():
    # Picture 1: 6 pixels of class 0, 2 of class 1. Picture 2: 8 of class 0. Void does not count.
    one = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [255, 255, 255, 255]], np.uint8)
    two = np.zeros((2, 4), np.uint8)
    # Frequencies: 14/16, 2/8; class 2 never occurs. Median of (0.875, 0.25) is 0.5625.
    weights = median_frequency_weights(count([one, two], 3))
    np.testing.assert_allclose(weights, [0.5625 / 0.875, 0.5625 / 0.25, 1.0], rtol=1e-6)
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(median_frequency_weights(count([], 2)), [1, 1])


@pytest.mark.parametrize(("trunk", "cell"), [("vgg", 32), ("resnet18", 32), ("vgg16_bn", 16)])
def test_one_cell_in_a_batch_has_no_variance(trunk, cell):
    widths = (4,) * (4 if trunk == "resnet18" else 5)
    with pytest.raises(InputError, match="give a larger crop or batch"):
        Settings(trunk=trunk, widths=widths, crop=(cell, 9), batch_size=1)
    Settings(trunk=trunk, widths=widths, crop=(cell + 1, 9), batch_size=1)
    Settings(trunk=trunk, widths=widths, crop=(cell, 9), batch_size=2)
    Settings(trunk="vgg16", widths=widths[:1] * 5, crop=(1, 1), batch_size=1)


@pytest.mark.parametrize("trunk", ["vgg16_bn", "resnet18", "vgg"])
@pytest.mark.parametrize("more", [0, 1])
def test_one_cell_is_where_normalisation_fails(trunk, more):
    """The rule against the nets: one picture of a cell's size fails, a larger passes."""
    made = {
        "widths": (2,) * (4 if trunk == "resnet18" else 5),
        "generator": np.random.default_rng(0),
    }
    made |= {} if trunk == "resnet18" else {"fc_channels": 2}
    net = models.FCN(2, **made) if trunk == "vgg" else models.fcn_on(trunk, 2, **made)
    cell = (16 if trunk == "vgg16_bn" else 32) + more
    with nullcontext() if more else pytest.raises(ShapeError):
        net(mf.zeros(1, 3, cell, 1))


def test_a_trunk_brings_its_widths_and_weights_their_normalisation():
    settings = settings_for("voc", {"trunk": "resnet18"})
    assert (settings.widths, settings.normalise) == ((64, 128, 256, 512), "dataset")
    assert settings.net == "resnet18-fcn8s" and NUCLEI.net == "fcn2s"
    settings = settings_for("nuclei", {"trunk": "vgg16", "weights": "w.safetensors"})
    assert settings.widths == (64, 128, 256, 512, 512) and settings.normalise == "imagenet"
    given = {"weights": "w", "normalise": "caffe", "widths": (2, 2, 2, 2), "trunk": "resnet34"}
    settings = settings_for("voc", given)
    assert (settings.widths, settings.normalise) == ((2, 2, 2, 2), "caffe")
    with pytest.raises(InputError, match="resnet18 has no fc6 and fc7"):
        settings_for("voc", {"trunk": "resnet18", "dropout": 0.5})


def test_a_trunk_has_widths_of_its_own_in_python_too():
    assert Settings().widths == (16, 32, 64, 128, 128)
    assert Settings(trunk="resnet18").widths == (64, 128, 256, 512)
    assert Settings(trunk="vgg16").widths == (64, 128, 256, 512, 512)


@pytest.mark.parametrize(
    ("mean", "std"), [((), ()), ((0, 0), (1, 1)), ((0,) * 3, (1, 1, 0)), ((0, 0, np.nan), (1,) * 3)]
)
def test_the_weights_own_normalisation_is_six_numbers(mean, std):
    assert Settings(normalise="weights", mean=(0, 0, 0), std=(1, 1, 1)).normalise == "weights"
    with pytest.raises(InputError, match="three numbers each, and std above 0"):
        Settings(normalise="weights", mean=mean, std=std)
