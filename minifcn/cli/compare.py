"""`minifcn compare`: several trained models on the same labelled pictures, class by class."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from minifcn import device, study
from minifcn.cli import tables
from minifcn.cli.console import standard_output
from minifcn.cli.evaluate import labelled, same_classes
from minifcn.cli.finish import save_figure
from minifcn.cli.place import place
from minifcn.errors import InputError
from minifcn.metrics import ConfusionMatrix
from minifcn.training import Checkpoint, Segmenter
from minifcn.training import evaluate as score
from minifcn.training.recipes import evenly
from minifcn.training.segmenter import checkpoint_file
from minifcn.training.views import described

PICTURES = 4
"""Drawn, if no other number is asked for."""


def compare(arguments: argparse.Namespace) -> int:
    """Print a table with a column for each model; draw some pictures when asked."""
    console = standard_output()
    target = None if arguments.out is None else Path(arguments.out)
    if target is not None and target.suffix != ".png":
        raise InputError(f"--out is {target}; give a name that ends in .png")
    if arguments.pictures is not None and target is None:
        raise InputError("--pictures says how many to draw, and nothing is drawn; add --out")
    paths = [checkpoint_file(Path(given)) for given in arguments.checkpoints]
    checkpoints = [Checkpoint.load(path) for path in paths]
    segmenters = _named(
        [Segmenter.from_checkpoint(c, path) for c, path in zip(checkpoints, paths, strict=True)],
        paths,
    )
    split, dataset = labelled(arguments, checkpoints[0], paths[0])
    for path, segmenter in zip(paths, segmenters.values(), strict=True):
        same_classes(path, segmenter, dataset)
    here = place(arguments.device, console)
    matrices: dict[str, ConfusionMatrix] = {}
    drawn = 0 if target is None else arguments.pictures or PICTURES
    shown = [dataset[i] for i in evenly(len(dataset), drawn)]
    labels: dict[str, list[np.ndarray]] = {}
    notes: dict[str, list[str]] = {}
    with device.use(here):
        for name, segmenter in segmenters.items():
            segmenter.model.to(here)
            segmenter.views = arguments.views
            matrices[name] = score(segmenter, dataset).matrix
            labels[name] = [segmenter.label(sample.image[None])[0][0] for sample in shown]
            notes[name] = []
            for sample, answer in zip(shown, labels[name], strict=True):
                one = ConfusionMatrix(len(dataset.classes))
                one.update(sample.label, answer, dataset.void)
                void = np.isnan(one.mean_iou)
                notes[name].append("" if void else f": {one.mean_iou:.2f}")
    title = f"{len(dataset)} {split} pictures{described(arguments.views)}"
    console.print(tables.side_by_side(matrices, dataset.classes, title))
    if target is not None:
        means = ", ".join(f"{name} {m.mean_iou:.3f}" for name, m in matrices.items())
        figure = study.draw_side_by_side(
            shown, labels, notes, dataset.palette, dataset.classes, f"{title}: mean IoU {means}"
        )
        save_figure(figure, target)
    return 0


def _named(segmenters: list[Segmenter], paths: list[Path]) -> dict[str, Segmenter]:
    """By the net's name where those differ, else by the run's folder; each must be another."""
    configs = [s.model.config for s in segmenters]
    heads = [f"{c['trunk']}-{c['head']}" if "trunk" in c else c["head"] for c in configs]
    folders = [path.absolute().parent.name for path in paths]
    names = heads if len(set(heads)) == len(heads) else folders
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"{paths[0]} and another are the same model; give each model once")
    return dict(zip(names, segmenters, strict=True))
