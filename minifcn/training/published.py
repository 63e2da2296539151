"""The two published ways to train an FCN on VGG16, as settings.

**batch20**: Long, Shelhamer and Darrell (CVPR 2015). Section 4.3, "Optimization": SGD, minibatches
of 20 pictures, momentum 0.9, fixed learning rates "of 10⁻³, 10⁻⁴, and 5⁻⁵ for FCN-AlexNet,
FCN-VGG16, and FCN-GoogLeNet" (read: 5·10⁻⁵), weight decay "of 5⁻⁴ or 2⁻⁴" (read: 5·10⁻⁴ or 2·10⁻⁴;
their released nets have the first) "and doubled learning rate for biases". Section 4.2: for FCN-16s
"the learning rate is decreased by a factor of 100", and FCN-8s goes on "in this fashion": read as
100 once more. "Dense prediction": the last interpolation is fixed, the others are learned. In the
released net of this kind the 20 pictures pass one by one, the loss is the mean over each one's own
pixels, and their gradients are averaged: here "image".

**heavy**: Shelhamer, Long and Darrell (TPAMI 2017), section 4.2, and the nets released with it: one
picture a step, momentum 0.99, the loss *summed* over the pixels, learning rate 10⁻¹⁰ (32s), 10⁻¹²
(16s), 10⁻¹⁴ (8s), or 10⁻¹⁰ for FCN-8s at once; biases at twice that and without decay; all
interpolation fixed.

Why so small a rate? The gradient of a sum over M pixels is M times that of their mean. On a picture
of 500 × 500 pixels 10⁻¹⁰ with the sum is 250,000 · 10⁻¹⁰ = 2.5·10⁻⁵ with the mean. Momentum m lets
every gradient act 1 + m + m² + … = 1/(1 - m) times: 100 · 2.5·10⁻⁵ = 2.5·10⁻³ for heavy, and for
batch20 10 · 10⁻⁴ = 10⁻³. The two are nearly one rate, but heavy takes twenty steps while batch20
takes one.

Both: whole pictures, not varied, dropout 0.5, no class weights, a fixed rate. How pictures are
normalised is not among them: that belongs to the weights that training starts from (theirs:
``normalise="caffe"``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minifcn.errors import InputError

_BOTH = {
    "head": "fcn32s",
    "dropout": 0.5,
    "crop": None,
    "augment": False,
    "even_kinds": 0.0,
    "optimizer": "sgd",
    "schedule": "constant",
    "warmup": 0,
    "weight_decay": 5e-4,
    "bias_lr": 2.0,
    "bias_decay": False,
    "class_weights": "none",
    "iou_loss": 0.0,
    "average": 0.0,
    "steps": 100_000,
    "eval_every": 4000,
}

BATCH20: Mapping[str, Any] = _BOTH | {
    "batch_size": 20,
    "momentum": 0.9,
    "loss_reduction": "image",
    "upsample": "last-frozen",
}
BATCH20_LR = {"fcn32s": 1e-4, "fcn16s": 1e-6, "fcn8s": 1e-8}

HEAVY: Mapping[str, Any] = _BOTH | {
    "batch_size": 1,
    "momentum": 0.99,
    "loss_reduction": "batch",  # the sum, of one picture
    "upsample": "frozen",
}
HEAVY_LR = {"fcn32s": 1e-10, "fcn16s": 1e-12, "fcn8s": 1e-14, "fcn8s at once": 1e-10}


RATES: Mapping[str, Mapping[str, float]] = {"heavy": HEAVY_LR, "batch20": BATCH20_LR}


def published(recipe: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of "heavy" or "batch20" with the given ones in their place, and the rate.

    Raises InputError for a head to which the recipe gives no learning rate, if none is given.
    """
    settings = {**(HEAVY if recipe == "heavy" else BATCH20), **given}
    if "lr" not in given:
        settings["lr"] = learning_rate(recipe, net_name(settings["head"], given.get("at_once")))
    return settings


def net_name(head: str, at_once: bool | None) -> str:
    """What the rates are listed under, such as "fcn8s at once"."""
    return f"{head} at once" if at_once else head


def learning_rate(recipe: str, net: str) -> float:
    """The recipe's rate for a net; InputError where it has none."""
    rates = RATES[recipe]
    if net not in rates:
        raise InputError(
            f"the recipe {recipe} has no learning rate for {net}, only for {', '.join(rates)}; "
            "give another --head, or --lr"
        )
    return rates[net]
