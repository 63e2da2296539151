"""The settings that a run starts from. To tune training, change them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minifcn.errors import InputError
from minifcn.models import RESNET_BLOCKS, TRUNKS
from minifcn.training.published import RATES, learning_rate, net_name, published
from minifcn.training.settings import Settings

NUCLEI = Settings(
    layout="nuclei",
    head="fcn2s",
    widths=(16, 32, 64, 128, 128),
    dropout=0.2,  # a short run forgets little by heart
    steps=600,
    batch_size=8,
    crop=(128, 128),
    scale=1.4,
    normalise="picture",  # dim fluorescence and bright stain lie far apart
    lr=5e-3,
    schedule="cosine",
    warmup=20,
    eval_every=100,
)
"""The nuclei that come with the package, and folders laid out as they are: two minutes."""

VOC = Settings(
    layout="voc",
    head="fcn8s",
    widths=(16, 32, 64, 128, 128),
    steps=2000,
    batch_size=8,
    crop=(128, 128),
    normalise="dataset",
    lr=3e-3,
    warmup=50,
    eval_every=250,
)
"""A folder of photographs in PASCAL VOC's layout."""

CEILING_SHARE = 0.97
"""How much of the best ceiling a head must reach, see `coarsest_sufficient`."""


def settings_for(layout: str, given: Mapping[str, Any]) -> Settings:
    """The layout's recipe with the given settings in place of its own.

    A published recipe, if one is given, takes the layout's place in all that it speaks of. A
    warm-up that was not asked for takes at most a tenth of the steps. A trunk by name brings its
    own widths; weights from a file bring the normalisation that torchvision trained them with.
    Raises InputError for a setting that nothing in the run has a use for.
    """
    recipe = NUCLEI if layout == "nuclei" else VOC
    asked = given
    if "recipe" in given:
        given = published(given["recipe"], given)
    own: dict[str, Any] = {}
    if given.get("trunk", recipe.trunk) in TRUNKS:
        own["widths"] = ()
    if given.get("weights") is not None:
        own["normalise"] = "imagenet"
    settings = replace(recipe, **{**own, **given, "layout": layout})
    return _without_idle(_warmed_up(settings, given), asked)


def next_stage(before: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings of the run before, of a coarser head, with the given ones in their place.

    Its weights take the place of any file that it started from itself. The head is by default the
    next finer one; if the learning rate was a published recipe's, so is the new one. Data of
    another layout bring their own classes and split. Raises InputError where there is no finer
    head, for another trunk, for skips scaled otherwise than they were learned, and for a setting
    that nothing in the run has a use for.
    """
    if given.get("trunk", before.trunk) != before.trunk:
        raise InputError(
            f"the run to start from has the trunk {before.trunk}, whose weights do not fit "
            f"{given['trunk']}; leave --trunk out"
        )
    stride = int(before.head.removeprefix("fcn").removesuffix("s"))
    if stride < 32 and given.get("at_once", before.at_once) != before.at_once:
        raise InputError(
            f"the run to start from has skips learned with at_once {before.at_once}, and scaled "
            "otherwise they would give other scores; leave --at-once out"
        )
    finest = 4 if before.trunk in RESNET_BLOCKS else 2
    if "head" not in given and stride <= finest:
        raise InputError(
            f"the run to start from is an {before.net}, the finest head there is; give --head "
            f"{before.head} to train it further, or start from a run with a coarser head"
        )
    chosen = {"head": f"fcn{stride // 2}s", **given, "weights": None}
    if given.get("layout", before.layout) != before.layout:
        chosen = {"classes": None, "test_every": None, "even_kinds": 0.0, **chosen}
    if "recipe" in given:
        chosen = published(given["recipe"], {"at_once": before.at_once, **chosen})
    elif "lr" not in given:
        rates = RATES.get(before.recipe, {})
        if before.lr == rates.get(net_name(before.head, before.at_once)):
            net = net_name(chosen["head"], given.get("at_once", before.at_once))
            chosen["lr"] = learning_rate(before.recipe, net)
    return _without_idle(_warmed_up(replace(before, **chosen), chosen), given)


def _warmed_up(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """A warm-up that was not asked for takes at most a tenth of the steps."""
    if "warmup" in given:
        return settings
    return replace(settings, warmup=min(settings.warmup, settings.steps // 10))


def _without_idle(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Refuse a given setting that no one would use."""
    if "dropout" in given and settings.trunk in RESNET_BLOCKS:
        raise InputError(
            f"dropout is {settings.dropout}, and {settings.trunk} has no fc6 and fc7 to drop from; "
            "leave --dropout out"
        )
    if "scale" in given and not settings.augment:
        raise InputError(
            f"scale is {settings.scale}, and pictures are not varied; leave out --scale, or add "
            "--augment on"
        )
    if "momentum" in given and settings.optimizer != "sgd":
        raise InputError(
            f"momentum is {settings.momentum}, and {settings.optimizer} has its own; leave out "
            "--momentum, or add --optimizer sgd"
        )
    return settings


def coarsest_sufficient(ceilings: Mapping[int, float]) -> int:
    """The coarsest stride whose ceiling is still 97 % of the best one's.

    `ceilings`: stride → IoU of the labels reduced by it and enlarged again. A finer head
    costs time at every step, and gains little where the labels are coarse.
    """
    best = max(ceilings.values())
    return max(stride for stride, score in ceilings.items() if score >= CEILING_SHARE * best)


def evenly(count: int, most: int) -> Sequence[int]:
    """At most `most` numbers below `count`, evenly spread."""
    return [i * count // most for i in range(most)] if count > most else range(count)
