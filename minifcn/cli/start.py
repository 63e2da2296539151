"""What a net starts from, if not from chance: others' weights, or a coarser net of its own kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minifcn.data.normalisation import Normalisation
from minifcn.errors import InputError, one_line
from minifcn.training import Segmenter, Settings, Trainer
from minifcn.training.weight_files import read_normalisation, read_weights


class TrunkWeights:
    """A file of weights for the trunk, under torchvision's names (`--weights`)."""

    def __init__(self, path: str):
        self.path = path
        self.arrays = read_weights(Path(path))
        self.seen = read_normalisation(Path(path))

    def load(self, trainer: Trainer) -> str:
        """Fill the trainer's nets; what to say of it."""
        settings = trainer.settings
        # Caffe's weights expect blue first, but not once they have been through minifcn.
        blue_first = settings.normalise == "caffe" and self.seen is None
        try:
            trainer.start_from(self.arrays, blue_first)
        except InputError as error:
            raise InputError(f"{self.path}: {error}; --trunk is {settings.trunk} now") from error
        order = "blue first, turned round" if blue_first else "red first"
        said = "" if self.seen is None else f" (its header says: {self.seen.name}, red first)"
        return (
            f"starts from {self.path}, {order}; pictures normalised by: {settings.normalise}{said}"
        )


class CoarserNet:
    """The best net of a run with a coarser head (`--from`)."""

    def __init__(self, path: str, classes: tuple[str, ...]):
        self.path = path
        self.segmenter = Segmenter.load(Path(path))
        self.seen = Normalisation(self.segmenter.mean, self.segmenter.std)
        theirs = self.segmenter.classes
        if classes != theirs:
            raise InputError(
                f"{path} knows {len(theirs)} classes ({_some(theirs)}), and the data have "
                f"{len(classes)} ({_some(classes)}); start from a run on the same classes"
            )

    def load(self, trainer: Trainer) -> str:
        """Fill the trainer's nets; what to say of it."""
        try:
            new = trainer.hand_on(self.segmenter.model.state_dict())
        except InputError as error:
            raise InputError(f"--from {self.path}: {one_line(error)}") from error
        parts = sorted({".".join(name.split(".")[:2]) for name in new})
        return f"starts from {self.path}; new in {trainer.settings.net}: {', '.join(parts)}"


def first_weights(settings: Settings, classes: tuple[str, ...]) -> TrunkWeights | CoarserNet | None:
    """What the settings name, read and ready; None for a net that starts from chance.

    Raises InputError for a file that cannot be used, and a run on other classes than the data's.
    """
    if settings.start is not None:
        return CoarserNet(settings.start, classes)
    return TrunkWeights(settings.weights) if settings.weights is not None else None


def seen_before(settings: Settings, first: TrunkWeights | CoarserNet | None) -> Settings:
    """The settings with the normalisation that the first weights were trained with, if known."""
    if first is None or first.seen is None:
        return settings
    mean, std = first.seen.mean or (), first.seen.std or ()
    return replace(settings, normalise=first.seen.name, mean=mean, std=std)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
