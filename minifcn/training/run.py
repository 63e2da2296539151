"""A run in its folder: train, log, validate, save, and go on after a break."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from minifcn.data.sample import Dataset
from minifcn.errors import InputError, ShapeError, one_line
from minifcn.training.checkpoint import Checkpoint
from minifcn.training.evaluate import Evaluation, evaluate
from minifcn.training.log import Log
from minifcn.training.settings import Settings
from minifcn.training.trainer import NotFiniteError, Step, Trainer

COLUMNS = (
    "step",
    "lr",
    "loss",
    "pixel_accuracy",
    "mean_iou",
    "val_pixel_accuracy",
    "val_mean_iou",
)


class Observer(Protocol):
    """Who wants to know how the run goes on. The run itself prints nothing."""

    def on_step(self, step: Step) -> None:
        """One more step is done."""

    def on_validation(self, step: int, evaluation: Evaluation, best: bool) -> None:
        """The model was scored on the validation pictures; `best`: better than ever before."""


class Run:
    """One run and its folder.

    Files: `checkpoint.safetensors` is the latest state, to resume from; `best.safetensors` the
    model with the highest mean IoU on the validation pictures; `log.csv` a row for each step.
    """

    def __init__(self, folder: Path, trainer: Trainer, val: Dataset, data: dict[str, Any]):
        self.folder = folder
        self.trainer = trainer
        self.val = val
        self.data = data
        self.best: dict[str, Any] | None = None
        self.saved_step = 0

    @property
    def latest_path(self) -> Path:
        """Where the latest state lies."""
        return self.folder / "checkpoint.safetensors"

    @property
    def best_path(self) -> Path:
        """Where the best model lies."""
        return self.folder / "best.safetensors"

    @property
    def log_path(self) -> Path:
        """Where the log lies."""
        return self.folder / "log.csv"

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.trainer.step_number >= self.trainer.settings.steps

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go to the state of a checkpoint that this run wrote.

        Raises InputError when the data have changed since, or the checkpoint does not fit.
        """
        path = self.latest_path
        before = checkpoint.about.get("data")
        for name, now in self.data.items():
            then = before.get(name) if isinstance(before, dict) else None
            if then != now:
                count = then.get("pictures") if isinstance(then, dict) else "unknown"
                raise InputError(
                    f"{path} was trained on a {name} split of {count} pictures, and the data now "
                    f"hold {now['pictures']} (or others); bring back the data as they were, or "
                    "start a new run"
                )
        try:
            self.trainer.restore(checkpoint)
        except (InputError, ShapeError) as error:
            raise InputError(
                f"{path} does not fit this run ({one_line(error)}); resume the folder that wrote it"
            ) from error
        self.best = checkpoint.about.get("best")
        self.saved_step = self.trainer.step_number

    def fit(self, observer: Observer, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the last step; True when it is reached, False when `stop()` said so.

        Either way the state is saved. Raises InputError when the loss is no number any more or
        the disk refuses: then the last good checkpoint is as it was.
        """
        if self.saved_step == 0:
            self._save()  # a disk that refuses is better known now than after an hour
        with Log(self.log_path, COLUMNS, keep=self.trainer.step_number) as log:
            try:
                for step in self.trainer.steps():
                    self._after(step, log, observer)
                    if stop():
                        if self.saved_step != step.number:
                            self._save()
                        break
            except NotFiniteError as error:
                raise InputError(self._explain(error)) from error
        return self.finished

    def _after(self, step: Step, log: Log, observer: Observer) -> None:
        """Report and log a step; validate and save when it is time."""
        settings = self.trainer.settings
        row: dict[str, float | int] = {
            "step": step.number,
            "lr": step.lr,
            "loss": step.loss,
            "pixel_accuracy": step.pixel_accuracy,
            "mean_iou": step.mean_iou,
        }
        observer.on_step(step)
        due = step.number % settings.eval_every == 0 or step.number == settings.steps
        if due:
            evaluation = evaluate(self.trainer.segmenter, self.val, settings.batch_size)
            matrix = evaluation.matrix
            row["val_pixel_accuracy"] = matrix.pixel_accuracy
            row["val_mean_iou"] = matrix.mean_iou
            better = self._is_best(matrix.mean_iou)
            if better:
                self.best = {"step": step.number, "val_mean_iou": matrix.mean_iou}
        log.add(row)
        if due:
            # The best model first: if the next write fails, the older state finds it again.
            if better:
                checkpoint = self._checkpoint()
                Checkpoint(checkpoint.model, checkpoint.about).save(self.best_path)
                del checkpoint  # a copy of all arrays, before the next one is made
            self._save()
            observer.on_validation(step.number, evaluation, better)

    def _is_best(self, score: float) -> bool:
        if self.best is None or math.isnan(self.best["val_mean_iou"]):
            return True
        # To three digits, as it is shown: what differs less is chance, and the later weights are
        # the average of more steps. (A score that is not a number is never the better one.)
        return round(score, 3) >= round(self.best["val_mean_iou"], 3)

    def _checkpoint(self) -> Checkpoint:
        return self.trainer.checkpoint({"data": self.data, "best": self.best})

    def _save(self) -> None:
        self._checkpoint().save(self.latest_path)
        self.saved_step = self.trainer.step_number

    def _explain(self, error: NotFiniteError) -> str:
        settings = self.trainer.settings
        longer = f", a longer --warmup (now {settings.warmup})" if settings.warmup < 200 else ""
        return (
            f"{error.what} at step {error.step}, so training stopped; the last good checkpoint, of "
            f"step {self.saved_step}, is {self.latest_path}; try a lower --lr (now {settings.lr:g})"
            f"{longer} or another --seed"
        )


def load_settings(checkpoint: Checkpoint, path: Path, exactly: bool = False) -> Settings:
    """The settings in a checkpoint; those that it is too old to have are as by default.

    Raises InputError when it has none, or some that this version does not know; if ``exactly`` the
    same run is wanted, also when it lacks some.
    """
    values = checkpoint.about.get("settings")
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no training settings; resume a run of `minifcn train`")
    try:
        return Settings.from_dict(values, exactly)
    except (InputError, TypeError) as error:
        raise InputError(f"{path} cannot be gone on with: {error}") from error
