"""`minifcn compare`: several trained models on the same labelled pictures, class by class."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from minifcn import device, study
from minifcn.cli import tables
from minifcn.cli.console import standard_output
from minifcn.cli.evaluate import labelled
from minifcn.cli.finish import save_figure
from minifcn.cli.place import place
from minifcn.errors import InputError
from minifcn.metrics import ConfusionMatrix
from minifcn.training import Checkpoint, Segmenter
from minifcn.training import evaluate as score
from minifcn.training.recipes import evenly
from minifcn.training.segmenter import checkpoint_file


def compare(arguments: argparse.Namespace) -> int:
    """Print a table with a column for each model; draw some pictures when asked."""
    console = standard_output()
    target = None if arguments.out is None else Path(arguments.out)
    if target is not None and target.suffix != ".png":
        raise InputError(f"--out is {target}; give a name that ends in .png")
    if arguments.pictures < 1:
        raise InputError(f"--pictures is {arguments.pictures}; give 1 or more")
    paths = [checkpoint_file(Path(given)) for given in arguments.checkpoints]
    checkpoints = [Checkpoint.load(path) for path in paths]
    segmenters = _named(
        [Segmenter.from_checkpoint(c, path) for c, path in zip(checkpoints, paths, strict=True)],
        paths,
    )
    dataset = labelled(arguments, checkpoints[0], paths[0])
    here = place(arguments.device, console)
    matrices: dict[str, ConfusionMatrix] = {}
    shown = [dataset[i] for i in evenly(len(dataset), arguments.pictures)]
    labels: dict[str, list[np.ndarray]] = {}
    notes: dict[str, list[str]] = {}
    with device.use(here):
        for name, segmenter in segmenters.items():
            if segmenter.classes != dataset.classes:
                raise InputError(
                    f"{name} knows {len(segmenter.classes)} classes and the data have "
                    f"{len(dataset.classes)}, or others; compare models of the same classes"
                )
            segmenter.model.to(here)
            segmenter.views = arguments.views
            matrices[name] = score(segmenter, dataset).matrix
            labels[name] = [segmenter.label(sample.image[None])[0][0] for sample in shown]
            notes[name] = []
            for sample, answer in zip(shown, labels[name], strict=True):
                one = ConfusionMatrix(len(dataset.classes))
                one.update(sample.label, answer, dataset.void)
                notes[name].append(f": {one.mean_iou:.2f}")
    title = f"{len(dataset)} {arguments.split} pictures"
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
    heads = [str(s.model.config.get("trunk", "")) + s.model.config["head"] for s in segmenters]
    folders = [path.absolute().parent.name for path in paths]
    names = heads if len(set(heads)) == len(heads) else folders
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"{paths[0]} and another are the same model; give each model once")
    return dict(zip(names, segmenters, strict=True))
