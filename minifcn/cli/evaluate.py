"""`minifcn evaluate`: the scores of a trained model on labelled pictures, class by class."""

from __future__ import annotations

import argparse
from pathlib import Path

from minifcn import device, study
from minifcn.cli import tables
from minifcn.cli.console import standard_output
from minifcn.cli.finish import save_figure, save_text
from minifcn.cli.place import place
from minifcn.data import voc
from minifcn.data.folder import PairedFiles
from minifcn.data.pictures import read_names
from minifcn.data.recognise import recognise
from minifcn.errors import InputError
from minifcn.training import Checkpoint, Segmenter
from minifcn.training import evaluate as score
from minifcn.training.run import load_settings
from minifcn.training.segmenter import checkpoint_file
from minifcn.training.splits import final_split, open_split
from minifcn.training.views import described


def evaluate(arguments: argparse.Namespace) -> int:
    """Print the table; write the confusion matrix when asked."""
    console = standard_output()
    target = None if arguments.confusion is None else Path(arguments.confusion)
    if target is not None and target.suffix not in (".csv", ".png"):
        raise InputError(
            f"--confusion is {target}; give a name that ends in .csv (counts) or .png (picture)"
        )
    path = checkpoint_file(Path(arguments.checkpoint))
    checkpoint = Checkpoint.load(path)
    segmenter = Segmenter.from_checkpoint(checkpoint, path)
    segmenter.views = arguments.views
    split, dataset = labelled(arguments, checkpoint, path)
    same_classes(path, segmenter, dataset)
    here = place(arguments.device, console)
    segmenter.model.to(here)
    with device.use(here):
        matrix = score(segmenter, dataset).matrix
    title = f"{path.absolute().parent.name}: {len(dataset)} {split} pictures"
    title += described(arguments.views)
    console.print(tables.per_class(matrix, segmenter.classes, title))
    if target is None:
        return 0
    if target.suffix == ".csv":
        save_text(study.confusion_csv(matrix.counts, segmenter.classes), target)
    else:
        save_figure(study.draw_confusion(matrix.counts, segmenter.classes, title), target)
    return 0


def labelled(
    arguments: argparse.Namespace, checkpoint: Checkpoint, path: Path
) -> tuple[str, PairedFiles]:
    """The data given, or else those that the model was trained on; first, which split of them.

    Where none is asked for it is the one that training ends with.
    """
    given = None if arguments.classes is None else read_names(arguments.classes)
    if arguments.data is not None:
        layout = arguments.layout or recognise(arguments.data)
        named_there = {"folder": Path(arguments.data)}
        if layout == "voc":
            named_there["voc"] = voc.find_root(Path(arguments.data))
        if layout in named_there and not (named_there[layout] / "classes.txt").is_file():
            # Without names, and masks may lack the last classes: the model knows them.
            given = given or tuple(str(name) for name in checkpoint.about["classes"])
        split = arguments.split or final_split(layout, arguments.data)
        return split, open_split(split, layout, arguments.data, given)
    settings = load_settings(checkpoint, path)
    layout, folder = arguments.layout or settings.layout, settings.folder
    split = arguments.split or final_split(layout, folder)
    classes = given or settings.classes
    return split, open_split(split, layout, folder, classes, settings.test_every)


def same_classes(path: Path, segmenter: Segmenter, dataset: PairedFiles) -> None:
    """Refuse, with an InputError, data whose classes are not the model's, in their order."""
    if dataset.classes != segmenter.classes:
        raise InputError(
            f"{path} knows the classes {_names(segmenter.classes)}, and the data have "
            f"{_names(dataset.classes)}; give data with the model's classes, in their order"
        )


def _names(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:4]) + (f" and {len(classes) - 4} more" if len(classes) > 4 else "")
