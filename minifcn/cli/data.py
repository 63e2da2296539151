"""`minifcn data`: what a folder of labelled pictures holds, and what `train` says of it first."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from minifcn import study
from minifcn.cli import tables
from minifcn.cli.console import standard_output
from minifcn.cli.finish import save_figure, to_beat
from minifcn.cli.watched import watched
from minifcn.data import oracle, plain
from minifcn.data.counts import PixelCounts, count, labels, showing_all
from minifcn.data.folder import PairedFiles
from minifcn.data.pictures import read_names
from minifcn.data.recognise import recognise
from minifcn.errors import InputError
from minifcn.metrics import ConfusionMatrix
from minifcn.study.pictures import has_background
from minifcn.training.class_weights import median_frequency_weights
from minifcn.training.recipes import evenly
from minifcn.training.settings import Settings
from minifcn.training.splits import Splits, open_splits, resized

SHOWN = 6
"""Pictures on the sheet."""
CHEAP = 1000
"""Pictures whose baselines are worth the wait."""


def data(arguments: argparse.Namespace) -> int:
    """Print the splits, classes, ceilings and baselines; draw some pictures where asked to."""
    console = standard_output()
    target = None if arguments.out is None else Path(arguments.out)
    if target is not None and target.suffix != ".png":
        raise InputError(f"--out is {target}; give a name that ends in .png")
    folder = arguments.folder
    settings = Settings(
        layout=arguments.layout or ("nuclei" if folder is None else recognise(folder)),
        folder=folder,
        classes=None if arguments.classes is None else read_names(arguments.classes),
        class_weights="balanced",
    )
    splits = open_splits(settings)
    say_data(console, splits, settings)
    counts = show_classes(console, splits, settings)
    ceilings = measure_ceilings(console, splits.train, settings, most=len(splits.train))
    console.print(tables.ceilings(ceilings.matrices, splits.train.classes, ceilings.title))
    show_baselines(console, splits, settings.layout)
    if target is not None:
        train = splits.train
        few = train.pick(showing_all(counts, SHOWN))
        name = "nuclei" if folder is None else Path(folder).resolve().name
        title = f"{name}: {len(few)} of {len(train)} pictures to train"
        sheet = study.draw_labelled(
            [few[i] for i in range(len(few))], train.palette, train.classes, title
        )
        save_figure(sheet, target)
        _say(console, f"wrote {target}")
    return 0


def say_data(console: Console, splits: Splits, settings: Settings) -> None:
    """Where the pictures lie, in which layout, how many there are for what, and why so."""
    where = "the nuclei that come with minifcn"
    if settings.folder is not None:
        where = f"{settings.folder} (layout {settings.layout})"
    names = splits.train.classes
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    test = "no test split" if splits.test_is_val else f"{len(splits.test)} to test"
    _say(
        console,
        f"{where}: {len(splits.train)} pictures to train, {len(splits.val)} to validate, {test}; "
        f"{len(names)} classes: {shown}",
    )
    if settings.layout != "folder" or settings.folder is None:
        return
    if plain.how_split(Path(settings.folder)) == "place":
        every = settings.test_every or plain.TEST_EVERY
        _say(
            console,
            f"split by place, for want of lists or folders: in the order of the names every "
            f"{every}th picture from the first on is for test, every {every}th from number "
            f"{every // 2 + 1} on for validation",
        )


def show_classes(console: Console, splits: Splits, settings: Settings) -> PixelCounts:
    """Count the pixels of each class in all labels, show them, and warn of what cannot be learned.

    Returns those of the training labels, at the size at which they are trained on.

    Raises:
        InputError: a label cannot be read, or holds an index that is no class.
    """
    train = _count(console, splits.train, settings, "train")
    others = {"val": _count(console, splits.val, settings, "val")}
    if not splits.test_is_val:
        others["test"] = _count(console, splits.test, settings, "test")
    weights = median_frequency_weights(train) if settings.class_weights == "balanced" else None
    names = splits.train.classes
    palette, visible = splits.train.palette, console.is_terminal
    console.print(tables.classes(train, others, names, palette, weights, visible))
    for k in np.flatnonzero(train.pixels == 0):
        seen = [f"{o.pictures[k]} of {split}" for split, o in others.items() if o.pictures[k]]
        where = f", but in {' and '.join(seen)}" if seen else " nor anywhere else"
        _say(
            console,
            f"warning: {names[k]} (index {k}) is in no training label{where}: it cannot be learned",
        )
    empty = int((train.each.sum(1) == 0).sum())
    if empty:
        _say(console, f"warning: {empty} training labels are void all over: they teach nothing")
    return train


@dataclass(frozen=True)
class Ceilings:
    """What the labels themselves score at each stride; on `labels` of `of` training labels."""

    matrices: dict[int, ConfusionMatrix]
    labels: int
    of: int

    @property
    def title(self) -> str:
        """On how many labels they were measured."""
        share = f"all {self.of}" if self.labels == self.of else f"{self.labels} of the {self.of}"
        return f"the ceilings on {share} training labels"

    def to_choose_by(self, classes: tuple[str, ...]) -> dict[int, float]:
        """Mean IoU without background, which is easy, and would hide the others."""
        things = slice(1 if has_background(classes) else 0, None)
        return {s: tables.known_mean(m.iou()[things]) for s, m in self.matrices.items()}


def measure_ceilings(
    console: Console, train: PairedFiles, settings: Settings, most: int
) -> Ceilings:
    """The ceiling of each stride on at most `most` labels, at the size they are trained on."""
    few = resized(train.pick(evenly(len(train), most)), settings.resize)
    read = watched(labels(few), len(few), "ceilings", console)
    matrices = oracle.ceilings_of(read, len(train.classes), train.void)
    return Ceilings(matrices, len(few), len(train))


def show_baselines(console: Console, splits: Splits, layout: str) -> None:
    """What needs no network, where that takes seconds."""
    pictures = len(splits.train) + len(splits.test)
    if pictures > CHEAP:
        _say(console, f"no baselines: {pictures} pictures are more than {CHEAP}")
        return
    which = "validation" if splits.test_is_val else "test"
    title = f"to beat on the {len(splits.test)} {which} pictures"
    classes = splits.train.classes
    console.print(tables.compared(to_beat(splits, layout), classes, title, last_is_ours=False))


def _count(console: Console, part: PairedFiles, settings: Settings, split: str) -> PixelCounts:
    sized = resized(part, settings.resize)
    read = watched(labels(sized), len(sized), f"counting the labels of {split}", console)
    return count(read, len(part.classes), part.void)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
