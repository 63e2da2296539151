"""The published recipes: their numbers, how they reach a run, and what each setting does."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

import minifcn as mf
from minifcn.cli.main import main
from minifcn.errors import InputError
from minifcn.training import Checkpoint, Trainer
from minifcn.training.descent import optimizer_of
from minifcn.training.recipes import next_stage, settings_for
from minifcn.training.splits import open_splits
from tests.little import little_settings, voc_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return voc_folder(tmp_path_factory.mktemp("voc"))


# -- the numbers -----------------------------------------------------------------------------------

SAME = {
    "optimizer": "sgd",
    "schedule": "constant",
    "warmup": 0,
    "weight_decay": 5e-4,
    "bias_lr": 2.0,
    "bias_decay": False,
    "crop": None,
    "augment": False,
    "dropout": 0.5,
    "average": 0.0,
}


@pytest.mark.parametrize(
    ("recipe", "given", "wanted"),
    [
        ("heavy", {}, {"head": "fcn32s", "lr": 1e-10}),
        ("heavy", {"head": "fcn16s"}, {"lr": 1e-12}),
        ("heavy", {"head": "fcn8s"}, {"lr": 1e-14}),
        ("heavy", {"head": "fcn8s", "at_once": True}, {"lr": 1e-10}),
        (
            "heavy",
            {},
            {"batch_size": 1, "momentum": 0.99, "loss_reduction": "batch", "upsample": "frozen"},
        ),
        ("batch20", {}, {"head": "fcn32s", "lr": 1e-4, "batch_size": 20, "momentum": 0.9}),
        ("batch20", {"head": "fcn16s"}, {"lr": 1e-6, "upsample": "last-frozen"}),
        ("batch20", {"head": "fcn8s"}, {"lr": 1e-8, "loss_reduction": "image"}),
    ],
)
def test_the_published_numbers(recipe, given, wanted):
    settings = settings_for("voc", {"recipe": recipe, **given})
    found = settings.as_dict()
    assert {name: found[name] for name in (*SAME, *wanted)} == {**SAME, **wanted}


@pytest.mark.parametrize("layout", ["voc", "nuclei"])
@pytest.mark.parametrize("recipe", ["heavy", "batch20"])
def test_what_is_given_stands_in_the_recipes_place(layout, recipe):
    own = {
        "steps": 7, "batch_size": 3, "crop": (48, 48), "augment": True, "optimizer": "adam",
        "lr": 0.5, "weight_decay": 0.1, "bias_lr": 1.0, "bias_decay": True, "schedule": "poly",
        "warmup": 3, "class_weights": "balanced", "loss_reduction": "mean", "iou_loss": 1.0,
        "average": 0.9, "dropout": 0.1, "upsample": "learned", "head": "fcn2s", "eval_every": 5,
    }  # fmt: skip
    plain = settings_for(layout, {"recipe": recipe}).as_dict()
    for name, value in own.items():
        more = {"lr": 1e-3} if name == "head" else {}
        found = settings_for(layout, {"recipe": recipe, name: value, **more}).as_dict()
        assert found[name] == value
        assert {n for n in found if found[n] != plain[n]} == {name, *more}


def test_the_next_stage_takes_the_recipes_next_rate():
    first = settings_for("voc", {"recipe": "heavy", "trunk": "vgg16", "padding": 100})
    second = next_stage(first, {})
    assert (second.head, second.lr, second.padding) == ("fcn16s", 1e-12, 100)
    third = next_stage(second, {})
    assert (third.head, third.lr, third.momentum) == ("fcn8s", 1e-14, 0.99)
    with pytest.raises(InputError, match="heavy has no learning rate for fcn4s"):
        next_stage(third, {})
    assert next_stage(third, {"lr": 1e-15}).lr == 1e-15
    own = settings_for("voc", {"recipe": "heavy", "lr": 1e-7})
    assert next_stage(own, {}).lr == 1e-7
    changed = next_stage(own, {"recipe": "batch20"})
    assert (changed.lr, changed.batch_size, changed.recipe) == (1e-6, 20, "batch20")
    together = settings_for("voc", {"head": "fcn16s", "at_once": True})
    assert next_stage(together, {"recipe": "heavy"}).lr == 1e-10


def test_skips_stay_scaled_as_they_were_learned():
    staged = settings_for("voc", {"head": "fcn16s"})
    for before, given in ((staged, True), (replace(staged, at_once=True), False)):
        with pytest.raises(InputError, match="leave --at-once out"):
            next_stage(before, {"at_once": given})
        assert next_stage(before, {"at_once": before.at_once}).at_once == before.at_once
    first = settings_for("voc", {"head": "fcn32s"})  # no skips yet
    assert next_stage(first, {"head": "fcn8s", "at_once": True}).at_once


def test_the_next_stage_warms_up_for_a_tenth_at_most():
    long = settings_for("voc", {"steps": 2000})
    assert (long.warmup, next_stage(long, {}).warmup) == (50, 50)
    assert next_stage(long, {"steps": 100}).warmup == 10
    assert next_stage(long, {"steps": 100, "warmup": 30}).warmup == 30


def test_data_of_another_layout_bring_their_own_classes_and_split():
    own = {"head": "fcn32s", "test_every": 8, "even_kinds": 0.5}
    nuclei = settings_for("nuclei", own)
    same, other = next_stage(nuclei, {}), next_stage(nuclei, {"layout": "camvid", "folder": "c"})
    assert (same.test_every, same.even_kinds) == (8, 0.5)
    assert (other.test_every, other.even_kinds) == (None, 0.0)
    voc = settings_for("voc", {"head": "fcn32s", "classes": ("a", "b")})
    assert next_stage(voc, {"folder": "moved"}).classes == ("a", "b")
    assert next_stage(voc, {"layout": "folder"}).classes is None


@pytest.mark.parametrize(
    ("trunk", "given", "says"),
    [
        ("resnet18", {"dropout": 0.4}, "leave --dropout out"),
        ("resnet18", {"trunk": "vgg16"}, "do not fit vgg16; leave --trunk out"),
        ("vgg", {"momentum": 0.5}, "leave out --momentum"),
        ("vgg", {"augment": False, "scale": 2.0}, "add --augment on"),
    ],
)
def test_the_next_stage_refuses_what_would_do_nothing(trunk, given, says):
    before = settings_for("voc", {"trunk": trunk, "head": "fcn32s"})
    with pytest.raises(InputError, match=says):
        next_stage(before, given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"recipe": "heavy", "head": "fcn4s"}, "no learning rate for fcn4s, only for fcn32s"),
        ({"recipe": "batch20", "head": "fcn8s", "at_once": True}, "for fcn8s at once"),
        ({"recipe": "heavy", "optimizer": "adam", "momentum": 0.5}, "adam has its own"),
        ({"momentum": 0.5}, "or add --optimizer sgd"),
        ({"recipe": "heavy", "scale": 2.0}, "scale is 2.0, and pictures are not varied"),
        ({"trunk": "resnet18", "dropout": 0.1}, "leave --dropout out"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum is 1.0"),
        ({"bias_lr": -1.0}, "bias_lr is -1.0"),
        ({"padding": 99}, "padding is 99; choose same or 100"),
        ({"upsample": "no"}, "upsample is 'no'; choose one of learned, last-frozen"),
        ({"loss_reduction": "sum"}, "loss_reduction is 'sum'; choose one of mean, image, batch"),
        ({"trunk": "resnet18", "padding": 100}, "resnet18 knows neither"),
        ({"trunk": "resnet18", "at_once": True, "head": "fcn8s"}, "resnet18 knows neither"),
    ],
)
def test_what_cannot_be_is_named(given, says):
    with pytest.raises(InputError, match=says):
        settings_for("voc", given)


# -- what they do ----------------------------------------------------------------------------------


def test_losses_of_the_first_step_by_hand(data):
    """All scores are zero: each of the 31 columns that are not void costs ln 3."""
    for reduction, pixels in (("mean", 1), ("image", 1), ("batch", 32 * 31)):
        settings = little_settings(
            folder=str(data), crop=None, augment=False, loss_reduction=reduction
        )
        trainer = Trainer(settings, open_splits(settings).train)
        assert next(trainer.steps()).loss == pytest.approx(pixels * np.log(3), rel=1e-5)


def naive_loss(scores, labels, reduction):
    """Pixel by pixel; a picture's own mean, or all pixels' mean, or their sum ÷ pictures."""
    each = []
    for picture, truth in zip(scores, labels, strict=True):
        costs = []
        for i, j in np.ndindex(*truth.shape):
            if truth[i, j] != 255:
                exponentials = np.exp(picture[:, i, j])
                costs.append(-np.log(exponentials[truth[i, j]] / exponentials.sum()))
        each.append(costs)
    flat = [cost for costs in each for cost in costs]
    return {
        "mean": np.mean(flat),
        "image": np.mean([np.mean(costs) for costs in each]),
        "batch": sum(flat) / len(each),
    }[reduction]


@pytest.mark.parametrize("reduction", ["mean", "image", "batch"])
def test_the_loss_that_is_trained_on_is_the_naive_one(data, reduction):
    """Pictures with different shares of void, scores that are not zero; losses all three apart."""
    settings = little_settings(folder=str(data), loss_reduction=reduction, augment=False)
    trainer = Trainer(settings, open_splits(settings).train)
    batch = next(trainer.loader.batches())
    batch.labels[0, 5:] = 255
    generator = np.random.default_rng(0)
    for score in trainer.model.score.values():
        mf.nn.init.normal_(score.weight, generator, std=3.0)
    trainer.model.train()
    trainer.loader.batches = lambda start: iter([batch])
    mf.nn.reseed_dropout(trainer.model, 1, 2)
    with mf.no_grad():
        scores = trainer.model(mf.Tensor(batch.images)).numpy()
    wanted = {r: naive_loss(scores, batch.labels, r) for r in ("mean", "image", "batch")}
    assert len({round(float(v), 3) for v in wanted.values()}) == 3
    mf.nn.reseed_dropout(trainer.model, 1, 2)
    assert next(trainer.steps()).loss == pytest.approx(wanted[reduction], rel=1e-4)


def test_biases_have_a_rate_and_a_decay_of_their_own():
    """One step by hand: p - lr·factor·(g + λp), and λ 0 for biases."""
    settings = little_settings(
        optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.5, bias_lr=2.0, bias_decay=False
    )
    layer = mf.nn.Conv2d(1, 1, 1, generator=np.random.default_rng(0), dtype=np.float64)
    with mf.no_grad():
        layer.weight.fill_(3.0)
        layer.bias.fill_(4.0)
    for parameter in (layer.weight, layer.bias):
        parameter.grad = mf.ones(*parameter.shape, dtype=np.float64)
    optimizer_of(settings, layer).step()
    assert layer.weight.item() == pytest.approx(3 - 0.1 * (1 + 0.5 * 3))
    assert layer.bias.item() == pytest.approx(4 - 0.2 * 1)


LITTLE = {"optimizer": "sgd", "lr": 0.01, "crop": (32, 31), "augment": False, "steps": 2}


def trained(data, **changes):
    settings = little_settings(folder=str(data), **{**LITTLE, **changes})
    trainer = Trainer(settings, open_splits(settings).train)
    for _ in trainer.steps():
        pass
    return trainer.model.state_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.5},
        {"bias_lr": 2.0},
        {"bias_decay": False},
        {"loss_reduction": "batch"},
        {"loss_reduction": "image"},  # a crop of 31 columns has some void, or none
        {"upsample": "frozen"},
        {"upsample": "last-frozen"},
        {"at_once": True},
        {"padding": 100},
        {},
    ],
)
def test_every_setting_has_its_effect(data, changes):
    plain, other = trained(data), trained(data, **changes)
    same = set(other) == set(plain) and all(np.array_equal(other[n], plain[n]) for n in plain)
    assert same == (not changes)


def test_every_option_reaches_its_setting(data, tmp_path):
    options = (
        "--head fcn16s --widths 4,4,4,4,4 --batch-size 2 --crop 32 --steps 1 --optimizer sgd "
        "--momentum 0.25 --bias-lr 3 --bias-decay off --loss-reduction image "
        "--upsample last-frozen --at-once on --padding 100"
    )
    where = ["--out", str(tmp_path), "--name", "a", "--data", str(data)]
    assert main(["train", *where, *options.split()]) == 0
    found = Checkpoint.load(tmp_path / "a" / "best.safetensors").about["settings"]
    wanted = {
        "momentum": 0.25, "bias_lr": 3.0, "bias_decay": False, "loss_reduction": "image",
        "upsample": "last-frozen", "at_once": True, "padding": 100, "recipe": "none",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("size", [26, 27])
def test_one_cell_behind_padding_100(size):
    """The rule of settings and the net itself: one window of fc6 has no variance."""
    net = mf.models.FCN(
        2, widths=(2,) * 5, fc_channels=2, padding=100, generator=np.random.default_rng(0)
    )
    for make in (
        lambda: net(mf.zeros(1, 3, size, 1)),
        lambda: little_settings(padding=100, batch_size=1, crop=(size, 1)),
    ):
        with nullcontext() if size == 27 else pytest.raises((InputError, mf.ShapeError)):
            make()


def test_a_recipe_reaches_the_run_and_its_resumption(data, tmp_path, capsys):
    options = "--widths 4,4,4,4,4 --recipe heavy --padding 100 --steps 4 --eval-every 2".split()
    where = ["--out", str(tmp_path), "--name", "a"]
    assert main(["train", "--data", str(data), *options, *where]) == 0
    said = capsys.readouterr().out
    assert "4 steps of 1 × whole pictures; sgd, learning rate 1e-10" in said
    assert main(["train", "--from", str(tmp_path / "a"), *where[:2], "--name", "b"]) == 0
    assert "4 steps of 1 × whole pictures; sgd, learning rate 1e-12" in capsys.readouterr().out
    about = [Checkpoint.load(tmp_path / n / "best.safetensors").about for n in "ab"]
    assert [a["model"]["padding"] for a in about] == [100, 100]
    assert [a["model"]["head"] for a in about] == ["fcn32s", "fcn16s"]
    assert [a["model"]["upsample"] for a in about] == ["frozen"] * 2
    assert main(["train", "--resume", str(tmp_path / "b")]) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--recipe light", "invalid choice: 'light'"),
        ("--recipe heavy --head fcn2s", "no learning rate for fcn2s"),
        ("--at-once on --head fcn32s", "fcn32s has none; leave it out"),
        ("--padding 5", "'5' is neither same nor 100"),
        ("--momentum 0.5", "leave out --momentum"),
        ("--widths 4,4,4,4,4 --recipe heavy --out runs", "too small to train on (batch_norm_relu"),
        ("--trunk resnet18 --padding 100", "resnet18 knows neither"),
    ],
)
def test_bad_options_are_one_sentence(data, tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", str(data), *options.split()]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))
