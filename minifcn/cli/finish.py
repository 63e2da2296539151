"""The end of a run: the best model scored on the test pictures, and the pictures of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from minifcn import study
from minifcn.cli import tables
from minifcn.data import baselines, otsu
from minifcn.metrics import ConfusionMatrix
from minifcn.training import Evaluation, Run, Segmenter, evaluate
from minifcn.training.files import write_atomically
from minifcn.training.log import read_columns
from minifcn.training.splits import Splits
from minifcn.training.views import described

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minifcn.data.sample import Dataset

SHOWN = 2
"""Best and worst pictures on the sheet, of each."""


def finish(run: Run, splits: Splits, console: Console) -> None:
    """Score, print and draw, all from the files of the run, so that it can be done again."""
    segmenter = Segmenter.load(run.best_path)
    segmenter.model.to(run.trainer.device)
    segmenter.views = views = run.trainer.settings.views
    layout, net = run.trainer.settings.layout, run.trainer.settings.net
    result = evaluate(segmenter, splits.test, run.trainer.settings.batch_size)
    rows = to_beat(splits, layout)
    rows[f"{net} (step {run.best['step']}{described(views)})" if run.best else net] = result.matrix
    which = "validation" if splits.test_is_val else "test"
    title = f"{len(splits.test)} {which} pictures"
    console.print(tables.compared(rows, segmenter.classes, title))
    if len(segmenter.classes) > 3:
        console.print(tables.per_class(result.matrix, segmenter.classes, f"{net}, {title}"))
    if splits.test_is_val:
        console.print("There is no test split: these pictures also chose the model, so they "
                      "flatter it.", soft_wrap=True)  # fmt: skip
    _write(run, segmenter, splits.test, result, rows, f"{run.folder.name}: {title}")
    console.print(
        f"In {run.folder}: best.safetensors (the model), checkpoint.safetensors (to resume), "
        "log.csv, curves.png, confusion.png, confusion.csv, examples.png, scores.json",
        markup=False,
        soft_wrap=True,
    )
    console.print(
        f"Label pictures with: minifcn predict {run.folder} PICTURE -o FOLDER",
        markup=False,
        soft_wrap=True,
    )


def to_beat(splits: Splits, layout: str) -> dict[str, ConfusionMatrix]:
    """What needs no network, on the test pictures: the best guess, by place, by brightness."""
    majority = baselines.Majority(splits.train)
    name = splits.train.classes[majority.label]
    rows = {f"every pixel {name}": baselines.score(splits.test, majority)}
    if layout == "nuclei":
        rows["Otsu's threshold"] = baselines.score(splits.test, lambda s: otsu.segment(s.image))
    else:
        prior = baselines.LocationPrior(splits.train)
        rows["most frequent class at each place"] = baselines.score(splits.test, prior)
    return rows


def _write(
    run: Run,
    segmenter: Segmenter,
    test: Dataset,
    result: Evaluation,
    rows: dict[str, ConfusionMatrix],
    title: str,
) -> None:
    folder, classes = run.folder, segmenter.classes
    counts = result.matrix.counts
    save_text(study.confusion_csv(counts, classes), folder / "confusion.csv")
    save_figure(study.draw_confusion(counts, classes, title), folder / "confusion.png")
    save_figure(study.draw_curves(read_columns(run.log_path), folder.name), folder / "curves.png")
    examples = chosen_examples(segmenter, test, result)
    if examples:
        sheet = study.draw_panel(examples, segmenter.palette, classes, title)
        save_figure(sheet, folder / "examples.png")
    scores = {
        method: {
            "pixel_accuracy": _json(matrix.pixel_accuracy),
            "mean_iou": _json(matrix.mean_iou),
            "iou": {name: _json(v) for name, v in zip(classes, matrix.iou(), strict=True)},
        }
        for method, matrix in rows.items()
    }
    save_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n", folder / "scores.json")


def chosen_examples(
    segmenter: Segmenter, test: Dataset, result: Evaluation, shown: int = SHOWN
) -> list[study.Example]:
    """The best and the worst test pictures by their own mean IoU, never one twice."""
    ranking = result.ranking()
    shown = min(shown, len(ranking) // 2) or len(ranking)
    worst = [i for i in ranking[::-1][:shown] if i not in ranking[:shown]]
    examples = []
    for word, numbers in (("best", ranking[:shown]), ("worst", worst)):
        for i in numbers:
            sample = test[i]
            labels, confidence = segmenter.label(sample.image[None])
            examples.append(
                study.Example(
                    sample.name,
                    f"{word}: mean IoU {result.scores[i]:.3f}",
                    sample.image,
                    sample.label,
                    labels[0],
                    confidence[0],
                )
            )
    return examples


def save_figure(figure: Figure, path: Path) -> None:
    """Write a chart as PNG, beside and renamed."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))


def save_text(text: str, path: Path) -> None:
    """Write text as UTF-8, beside and renamed."""
    write_atomically(path, lambda file: file.write(text.encode()))


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
