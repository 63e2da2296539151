"""`minifcn train`: from nothing, or from where a run was broken off, to a scored model."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from minifcn import device
from minifcn.cli import tables
from minifcn.cli.console import standard_output
from minifcn.cli.data import measure_ceilings, say_data, show_classes
from minifcn.cli.finish import finish
from minifcn.cli.interrupt import StopRequest
from minifcn.cli.memory import say_memory
from minifcn.cli.place import place
from minifcn.cli.progress import TrainingProgress
from minifcn.cli.start import first_weights, seen_before
from minifcn.data.pictures import read_names
from minifcn.data.recognise import recognise
from minifcn.errors import InputError, ShapeError, one_line
from minifcn.models import RESNET_BLOCKS
from minifcn.training import Checkpoint, Run, Settings, Trainer
from minifcn.training.recipes import (
    CEILING_SHARE,
    coarsest_sufficient,
    next_stage,
    settings_for,
)
from minifcn.training.run import load_settings
from minifcn.training.segmenter import checkpoint_file
from minifcn.training.splits import Splits, open_splits

INTERRUPTED = 130
ORACLE_PICTURES = 60
"""Labels that the ceilings are measured on: more tell nothing new and cost time."""

NOT_SETTINGS = {"command", "data", "name", "out", "resume", "classes"}


def train(arguments: argparse.Namespace) -> int:
    """Train, score and draw; 0 when finished, 130 when asked to stop."""
    console = standard_output()
    given = vars(arguments)
    if "resume" in given:
        run, splits = _resumed(given, console)
    else:
        run, splits = _new(given, console)
    with device.use(run.trainer.device):
        try:
            if not run.finished:
                say_memory(run.trainer, splits.train, console)
            if not run.finished and not _fit(run, console):
                return INTERRUPTED
        except ShapeError as error:  # one value a channel has no variance to normalise by
            raise InputError(
                f"these pictures are too small to train on ({one_line(error).split(';')[0]}); "
                "give a larger --batch-size, --crop or --resize"
            ) from error
        finish(run, splits, console)
    return 0


def _fit(run: Run, console: Console) -> bool:
    steps = run.trainer.settings.steps
    with (
        StopRequest() as stop,
        TrainingProgress(console, steps, run.trainer.step_number) as progress,
    ):
        done = run.fit(progress, stop)
    if not done:
        _say(
            console,
            f"stopped after step {run.trainer.step_number} of {steps}; the state is saved. "
            f"Go on with: minifcn train --resume {run.folder}",
        )
    return done


def _new(given: dict[str, Any], console: Console) -> tuple[Run, Splits]:
    settings = _settings(given)
    place(settings.device, console)
    splits = open_splits(settings)
    say_data(console, splits, settings)
    first = first_weights(settings, splits.train.classes)  # refused before long work, if at all
    counts = show_classes(console, splits, settings)
    if "normalise" not in given:
        settings = seen_before(settings, first)
    ceilings = measure_ceilings(console, splits.train, settings, ORACLE_PICTURES)
    if settings.trunk in RESNET_BLOCKS:  # whose stem has no output at stride 2
        del ceilings.matrices[2]
    sufficient = coarsest_sufficient(ceilings.to_choose_by(splits.train.classes))
    asked = "head" in given or settings.start is not None or settings.recipe != "none"
    if not asked:
        settings = replace(settings, head=f"fcn{sufficient}s")
    trainer = Trainer(settings, splits.train, counts)
    if first is not None:
        _say(console, first.load(trainer))
    stride = int(settings.head.removeprefix("fcn").removesuffix("s"))
    console.print(tables.ceilings(ceilings.matrices, splits.train.classes, ceilings.title, stride))
    if asked:
        _say(console, f"{settings.net}, as asked for")
    else:
        _say(
            console,
            f"{settings.net}: the coarsest head whose ceiling is at least "
            f"{100 * CEILING_SHARE:.0f} % of the best",
        )
    folder = _folder(given, settings)
    run = Run(folder, trainer, splits.val, splits.describe())
    _say_run(console, run)
    return run, splits


def _resumed(given: dict[str, Any], console: Console) -> tuple[Run, Splits]:
    extra = sorted(set(given) - {"command", "resume", "data", "device"})
    if extra:
        option = "--from" if extra[0] == "start" else "--" + extra[0].replace("_", "-")
        raise InputError(
            f"{option} cannot be given together with --resume, which takes all settings from the "
            "run; leave it out, or start a new run"
        )
    folder = Path(given["resume"])
    if folder.is_file():
        folder = folder.parent
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, so there is nothing to resume; give the folder of a run, such "
            "as runs/nuclei-fcn2s"
        )
    checkpoint = Checkpoint.load(path)
    settings = load_settings(checkpoint, path, exactly=True)
    if "data" in given:
        settings = replace(settings, folder=_absolute(given["data"]))
    settings = replace(settings, device=given.get("device", settings.device))
    place(settings.device, console)
    splits = open_splits(settings)
    say_data(console, splits, settings)
    run = Run(folder, Trainer(settings, splits.train), splits.val, splits.describe())
    run.resume(checkpoint)
    _say(console, f"resuming {folder} after step {run.trainer.step_number} of {settings.steps}")
    _say_run(console, run)
    return run, splits


def _settings(given: dict[str, Any]) -> Settings:
    changes = {name: value for name, value in given.items() if name not in NOT_SETTINGS}
    if "data" in given:
        changes["folder"] = _absolute(given["data"])
    if "classes" in given:
        changes["classes"] = read_names(given["classes"])
    if "start" in given:
        if "weights" in given:
            raise InputError("--weights and --from are both given; start from one of them")
        run = Path(given["start"])
        before = load_settings(Checkpoint.load(checkpoint_file(run)), run)
        if "data" in given and "layout" not in given:
            changes["layout"] = recognise(given["data"])
        return next_stage(before, {**changes, "start": _absolute(given["start"])})
    if "weights" in given:
        changes["weights"] = _absolute(given["weights"])
    layout = changes.pop("layout", None)
    if layout is None:
        layout = recognise(given["data"]) if "data" in given else "nuclei"
    return settings_for(layout, changes)


def _absolute(folder: str) -> str:
    # A run may be resumed from another working directory.
    return str(Path(folder).resolve())


def _folder(given: dict[str, Any], settings: Settings) -> Path:
    """A folder of its own for the run; no earlier run is ever written over."""
    out = Path(given.get("out", "runs"))
    if "name" in given:
        folder = out / given["name"]
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder} exists and is not empty; choose another --name, or go on with that run "
                f"by --resume {folder}"
            )
        return folder
    data = "nuclei" if settings.folder is None else Path(settings.folder).name
    folder = out / f"{data}-{settings.net}"
    number = 2
    while folder.exists():
        folder = out / f"{data}-{settings.net}-{number}"
        number += 1
    return folder


def _say_run(console: Console, run: Run) -> None:
    settings = run.trainer.settings
    weights = sum(p.numel() for p in run.trainer.model.parameters())
    crop = "whole pictures" if settings.crop is None else f"{settings.crop[1]}×{settings.crop[0]}"
    _say(
        console,
        f"{settings.net} with {weights:,} weights; {settings.steps} steps of "
        f"{settings.batch_size} × {crop}; {settings.optimizer}, learning rate {settings.lr:g}; "
        f"on {run.trainer.device}; into {run.folder}",
    )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
