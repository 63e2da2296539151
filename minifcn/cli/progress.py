"""How a run shows itself: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from minifcn.cli.compiling import CompileWatch
from minifcn.training import Evaluation, Step

LINE_EVERY = 5.0
"""Seconds between plain lines."""


class Speed:
    """Pictures a second and time left, from the steps since compiling was over."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._since = time.perf_counter()
        self._steps = 0
        self._pictures = 0
        self._compiled = 0.0

    def update(self, step: Step, compiled: float) -> None:
        """Count a step; `compiled`: seconds of compiling so far, which are left out."""
        self.done = step.number
        if compiled > self._compiled:  # a step that compiled says nothing about speed
            self._compiled = compiled
            self._since, self._steps, self._pictures = time.perf_counter(), 0, 0
            return
        self._steps += 1
        self._pictures += step.pictures

    @property
    def pictures_per_second(self) -> float:
        """Validation pauses included: it is what the time left follows from."""
        return self._pictures / max(time.perf_counter() - self._since, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None before the first step that counts."""
        if self._steps == 0:
            return None
        return (self.total - self.done) * (time.perf_counter() - self._since) / self._steps


class TrainingProgress:
    """The observer of a run (see `minifcn.training.Observer`), to be used in a `with` block."""

    def __init__(self, console: Console, total: int, done: int = 0) -> None:
        self.console = console
        self.total = total
        self.speed = Speed(total)
        self.watch = CompileWatch()
        self._told = 0
        self._last_line = time.perf_counter()
        self._live = console.is_terminal
        self._bar = Progress(
            _State(self.watch),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            console=console,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=total, completed=done, state="starting")

    def __enter__(self) -> TrainingProgress:
        self.watch.__enter__()
        if self._live:
            self._bar.start()
        else:
            self.watch.on_first = lambda: self._print("compiling kernels for this processor, once")
        return self

    def __exit__(self, *failure: object) -> None:
        self._bar.stop()
        self.watch.__exit__(*failure)
        if self.watch.count > self._told:
            self._print(self.watch.summary())

    def on_step(self, step: Step) -> None:
        """Move the bar, or print a line when the last one is old enough."""
        self.speed.update(step, self.watch.seconds)
        self._tell_compiled(step.number)
        left = self.speed.seconds_left
        speed = f"{self.speed.pictures_per_second:.0f}"
        if self._live:  # short words, so that 80 columns leave room for the bar
            state = f"loss {step.loss:.3f}  acc {step.pixel_accuracy:.3f}  mIoU {step.mean_iou:.3f}"
            state += "" if left is None else f"  {speed} img/s  {_duration(left)} left"
            self._bar.update(self._task, completed=step.number, state=state)
        elif time.perf_counter() - self._last_line >= LINE_EVERY or step.number == self.total:
            self._last_line = time.perf_counter()
            line = (
                f"step {step.number}/{self.total}  loss {step.loss:.3f}  "
                f"accuracy {step.pixel_accuracy:.3f}  mean IoU {step.mean_iou:.3f}"
            )
            line += "" if left is None else f"  {speed} images/s  {_duration(left)} left"
            self._print(line)

    def on_validation(self, step: int, evaluation: Evaluation, best: bool) -> None:
        """Print the scores above the bar."""
        matrix = evaluation.matrix
        self._print(
            f"validation at step {step}: pixel accuracy {matrix.pixel_accuracy:.3f}, "
            f"mean IoU {matrix.mean_iou:.3f}{', the best so far' if best else ''}"
        )

    def _tell_compiled(self, step: int) -> None:
        """After two steps most kernels are there: say so. What validation adds is told last."""
        if self._told == 0 and step >= 2 and self.watch.count and not self.watch.current:
            self._told = self.watch.count
            self._print(self.watch.summary())

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)


class _State(ProgressColumn):
    """The state of the training, or the kernel that Numba is compiling now."""

    def __init__(self, watch: CompileWatch) -> None:
        super().__init__(Column(no_wrap=True))
        self.watch = watch

    def render(self, task: Task) -> Text:
        """The live text; rich asks for it ten times a second."""
        if self.watch.current:
            return Text(f"compiling kernel {self.watch.count + 1}: {self.watch.current}", "cyan")
        return Text(task.fields["state"])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
