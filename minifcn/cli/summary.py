"""`minifcn summary`: the layers of a trained model, or of one by name, as a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minifcn import models, study
from minifcn.cli import memory
from minifcn.cli.console import standard_output
from minifcn.errors import InputError, ShapeError, one_line
from minifcn.study import Layer, Summary
from minifcn.training import Segmenter

HEADS = ("fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn2s")
ON_TRUNKS = tuple(f"{trunk}-{head}" for trunk in models.TRUNKS for head in HEADS)
VOC_CLASSES = 21


def summary(arguments: argparse.Namespace) -> int:
    """Print a line for each layer and the sums."""
    for option in ("batch", "gradient_checkpointing"):
        if getattr(arguments, option) is not None and not arguments.train:
            raise InputError(f"--{option.replace('_', '-')} goes with --train; add that")
    model = _model(arguments)
    wanted = model.config["in_channels"]
    if arguments.input[0] != wanted:
        raise InputError(
            f"--input is {_times(arguments.input)}, and {arguments.model} takes {wanted} channels; "
            f"write {_times((wanted, *arguments.input[1:]))}"
        )
    console = standard_output()
    if arguments.train:
        return _plan(arguments, model, console)
    console.print(table(study.summary(model, arguments.input), arguments.model))
    return 0


def _plan(arguments: argparse.Namespace, model: models.FCN, console: Console) -> int:
    """Print what a training step will take, layer by layer, and whether that is there."""
    batch = 1 if arguments.batch is None else arguments.batch
    model.trunk.gradient_checkpointing = bool(arguments.gradient_checkpointing)
    try:
        plan = study.memory_plan(model, arguments.input, batch)
    except MemoryError:
        raise InputError(
            f"a training step on {_times((batch, *arguments.input))} takes more memory "
            "than this system gives; choose a smaller --input or --batch"
        ) from None
    except ShapeError as error:  # one value a channel has no variance to normalise by
        raise InputError(
            f"there is no training step on {_times((batch, *arguments.input))} "
            f"({one_line(error).split(';')[0]}); choose a larger --input or --batch"
        ) from error
    console.print(memory.plan_table(plan, arguments.model))
    console.print(memory.sum_up(plan, study.free_memory()), soft_wrap=True)
    console.print(
        f"With SGD and momentum, beside what Python and its libraries take. At the highest "
        f"{memory.amount(plan.highest)} are in use; the rest lies between arrays.",
        soft_wrap=True,
    )
    return 0


def table(result: Summary, title: str) -> Table:
    """A row for each layer, the sums last."""
    heading = Text(f"{title}, input {_times(result.input)}, one picture")
    rows = Table(title=heading, title_justify="left", box=SIMPLE_HEAD, show_footer=True)
    rows.pad_edge = False
    rows.add_column("layer", footer="all", no_wrap=True)
    rows.add_column("kind", no_wrap=True)
    rows.add_column("output", justify="right", no_wrap=True)
    for name, footer in (
        ("parameters", f"{result.parameters:,}"),
        ("multiply-adds", f"{result.multiplications:,}"),
        ("memory", _mib(result.memory)),
    ):
        rows.add_column(name, justify="right", footer=footer, no_wrap=True)
    rows.add_column("algorithm")
    for layer in result.layers:
        rows.add_row(*_cells(layer))
    return rows


def _cells(layer: Layer) -> list[Text]:
    cells = [
        layer.name,
        layer.kind,
        _times(layer.output),
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.multiplications:,}" if layer.multiplications else "",
        _mib(layer.memory),
        layer.algorithm,
    ]
    return [Text(cell) for cell in cells]


def _model(arguments: argparse.Namespace) -> models.FCN:
    """The model of that name with random weights, or the one in a checkpoint."""
    name = arguments.model
    if name not in HEADS + ON_TRUNKS:
        path = Path(name)
        if not path.exists():
            raise InputError(
                f"{name} is neither a model ({', '.join(HEADS)}, or one of them on a trunk, "
                f"{', '.join(models.TRUNKS)}, such as vgg16-fcn8s) nor a run's folder or "
                "checkpoint; give one of them"
            )
        for option in ("widths", "classes", "padding"):
            if getattr(arguments, option) is not None:
                raise InputError(
                    f"{name} is a trained model, which has its own {option}; leave --{option} out"
                )
        return Segmenter.load(path).model
    trunk, _, head = name.rpartition("-")
    settings: dict[str, Any] = {"head": head, "generator": np.random.default_rng(0)}
    if arguments.widths is not None:
        settings["widths"] = arguments.widths
    if arguments.padding is not None:
        if trunk in models.RESNET_BLOCKS:
            raise InputError(f"--padding is for VGG, and the trunk is {trunk}; leave it out")
        settings["padding"] = arguments.padding
    classes = VOC_CLASSES if arguments.classes is None else arguments.classes
    if trunk:
        return models.fcn_on(trunk, classes, **settings)
    return models.FCN(classes, **settings)


def _times(lengths: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in lengths)


def _mib(number: int) -> str:
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 / 10 else f"{number / 2**10:.1f} KiB"
