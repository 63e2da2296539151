"""Random changes of a sample that leave its meaning alone. Each is (sample, generator) -> sample.

Images are resampled bilinearly and labels by the nearest pixel. Pixels from outside the picture get
the picture's mean colour and the label 255, void. A sample is never changed in place.

    transform = Compose(RandomScale(0.7, 1.4), RandomCrop(192), RandomFlip(), ColourJitter(0.3))
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minifcn.data.sample import VOID, Sample
from minifcn.errors import InputError

Transform = Callable[[Sample, np.random.Generator], Sample]


class Compose:
    """One transform after the other; with none, the sample as it is."""

    def __init__(self, *transforms: Transform) -> None:
        self.transforms = transforms

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Apply them in order."""
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample


@dataclass(frozen=True)
class Resize:
    """Every picture at one size, width × height; its proportions are not kept."""

    width: int
    height: int

    def __post_init__(self) -> None:
        """Refuse an empty picture."""
        _at_least("Resize width", self.width, 1)
        _at_least("Resize height", self.height, 1)

    def __call__(self, sample: Sample, generator: np.random.Generator | None = None) -> Sample:
        """Draws nothing."""
        return _resized(sample, self.width, self.height)

    def label(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A label alone at that size, by the nearest pixel."""
        return _nearest(label, self.width, self.height)


@dataclass(frozen=True)
class RandomScale:
    """Width and height times one factor between `low` and `high`.

    The factor's logarithm is uniform: halving is as likely as doubling.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an empty or senseless range."""
        if not 0 < self.low <= self.high < math.inf:
            raise InputError(
                f"RandomScale goes from {self.low} to {self.high} where 0 < low ≤ high is wanted; "
                "give for instance 0.7 and 1.4"
            )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Draws the factor."""
        factor = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        height, width = sample.label.shape
        return _resized(sample, max(1, round(width * factor)), max(1, round(height * factor)))


class RandomCrop:
    """A window of `size` (both sides, or (height, width)) somewhere in the picture.

    Where the window is larger than the picture, the picture lies somewhere in the window.
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.height, self.width = (size, size) if isinstance(size, int) else size
        _at_least("RandomCrop height", self.height, 1)
        _at_least("RandomCrop width", self.width, 1)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Draws the top, then the left."""
        spare_h, spare_w = (
            sample.label.shape[0] - self.height,
            sample.label.shape[1] - self.width,
        )
        top = int(generator.integers(min(0, spare_h), max(0, spare_h) + 1))
        left = int(generator.integers(min(0, spare_w), max(0, spare_w) + 1))
        rows, columns = (
            slice(max(0, top), top + self.height),
            slice(max(0, left), left + self.width),
        )
        image, label = sample.image[rows, columns], sample.label[rows, columns]
        if label.shape != (self.height, self.width):
            above, before = max(0, -top), max(0, -left)
            inside = (
                slice(above, above + label.shape[0]),
                slice(before, before + label.shape[1]),
            )
            padded = np.empty((self.height, self.width, 3), np.uint8)
            padded[...] = np.rint(sample.image.mean((0, 1)))
            padded[inside] = image
            void = np.full((self.height, self.width), VOID, np.uint8)
            void[inside] = label
            image, label = padded, void
        return replace(sample, image=image, label=label)


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right, top and bottom, each with its own probability."""

    horizontal: float = 0.5
    vertical: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _probability("RandomFlip horizontal", self.horizontal)
        _probability("RandomFlip vertical", self.vertical)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Draws the horizontal, then the vertical."""
        image, label = sample.image, sample.label
        if generator.random() < self.horizontal:
            image, label = image[:, ::-1], label[:, ::-1]
        if generator.random() < self.vertical:
            image, label = image[::-1], label[::-1]
        return replace(sample, image=image, label=label)


class RandomRotate90:
    """Turn by 0, 90, 180 or 270 degrees, equally likely; width and height may change places."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Draws the number of quarter turns."""
        turns = int(generator.integers(4))
        return replace(
            sample, image=np.rot90(sample.image, turns), label=np.rot90(sample.label, turns)
        )


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast and saturation times factors drawn from 1 - x to 1 + x.

    Contrast stretches about the picture's mean grey, saturation about each pixel's grey.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        """Refuse factors that could be negative."""
        for name in ("brightness", "contrast", "saturation"):
            _probability(f"ColourJitter {name}", getattr(self, name))

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Draws the three factors, in the order of the name's parts."""
        bright, contrast, colour = (
            np.float32(generator.uniform(1 - x, 1 + x))
            for x in (self.brightness, self.contrast, self.saturation)
        )
        image = sample.image * bright
        grey = _grey(image)
        # Both stretches are linear, so they make one pass: about the grey, then about its mean.
        image = (image - grey) * (colour * contrast) + (grey - grey.mean()) * contrast + grey.mean()
        return replace(sample, image=np.rint(image.clip(0, 255)).astype(np.uint8))


@dataclass(frozen=True)
class RandomInvert:
    """Turn the picture into its negative with probability p: dark objects become bright."""

    p: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _probability("RandomInvert p", self.p)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Draws whether to."""
        return replace(sample, image=~sample.image) if generator.random() < self.p else sample


def _grey(image: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return (image * weights).sum(-1, keepdims=True, dtype=np.float32)


def _resized(sample: Sample, width: int, height: int) -> Sample:
    if sample.label.shape == (height, width):
        return sample
    size = (width, height)
    image = Image.fromarray(np.ascontiguousarray(sample.image))
    image = image.resize(size, Image.Resampling.BILINEAR)
    return replace(sample, image=np.asarray(image), label=_nearest(sample.label, width, height))


def _nearest(label: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(np.ascontiguousarray(label))
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value} where at least {least} is wanted; give a larger one")


def _probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value} where 0 to 1 is wanted; give a number between them")
