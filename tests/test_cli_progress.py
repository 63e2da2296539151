"""The live bar and the plain lines: what they show, and the speed they tell."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from minifcn.cli import progress as module
from minifcn.cli.progress import Speed, TrainingProgress
from minifcn.metrics import ConfusionMatrix
from minifcn.training import Evaluation, Step


class Clock:
    """Stands in for the `time` of the module, and goes only when told."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def a_step(number, pictures=8):
    return Step(number, 0.5, 0.001, 0.875, 0.75, pictures)


def an_evaluation():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    return Evaluation(matrix)


def test_speed_leaves_compiling_out(clock):
    speed = Speed(10)
    clock.now += 30
    speed.update(a_step(1), compiled=29.0)
    assert speed.seconds_left is None
    for number in (2, 3):
        clock.now += 0.5
        speed.update(a_step(number), compiled=29.0)
    assert speed.pictures_per_second == pytest.approx(16)
    assert speed.seconds_left == pytest.approx(3.5)


def run(console, clock, steps=9):
    with TrainingProgress(console, steps) as progress:
        for number in range(1, steps + 1):
            clock.now += 2.0
            progress.on_step(a_step(number))
        progress.on_validation(steps, an_evaluation(), best=True)
    return console.file.getvalue()


def test_plain_lines_every_few_seconds_and_the_last(clock):
    said = run(Console(file=io.StringIO(), width=110), clock)
    assert re.findall(r"step (\d+)/9", said) == ["3", "6", "9"]
    assert "loss 0.500  accuracy 0.875  mean IoU 0.750  4 images/s  0:12 left" in said
    assert "validation at step 9: pixel accuracy 0.750, mean IoU 0.583, the best so far" in said
    assert "\x1b" not in said


def test_the_live_bar_fits_into_80_columns(clock):
    said = run(Console(file=io.StringIO(), width=80, force_terminal=True), clock)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    last = [line for line in re.split(r"[\r\n]+", text) if "9/9" in line][-1]
    assert "loss 0.500  acc 0.875  mIoU 0.750  4 img/s  0:00 left" in last and "━━━" in last
    assert len(last) <= 80
    assert "validation at step 9" in text
