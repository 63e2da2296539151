"""How training pictures are varied."""

from __future__ import annotations

from minifcn.data.transforms import (
    ColourJitter,
    Compose,
    RandomCrop,
    RandomFlip,
    RandomRotate90,
    RandomScale,
    Transform,
)
from minifcn.training.settings import Settings


def augmentation(settings: Settings) -> Compose:
    """The changes that each training picture goes through, in order.

    A microscope has no up and no left, so its pictures may be turned and mirrored at will; a
    photograph may only be mirrored left to right. Colours vary last, on the crop alone, because
    fewer pixels cost less.
    """
    steps: list[Transform] = []
    if settings.augment and settings.layout == "nuclei":
        steps = [_scale(settings), RandomFlip(0.5, 0.5), RandomRotate90()]
    elif settings.augment:
        steps = [_scale(settings), RandomFlip(0.5)]
    if settings.crop is not None:
        steps.append(RandomCrop(settings.crop))
    if settings.augment:
        steps.append(ColourJitter(0.3, 0.3, 0.3))
    return Compose(*steps)


def _scale(settings: Settings) -> RandomScale:
    return RandomScale(1 / settings.scale, settings.scale)
