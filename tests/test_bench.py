"""The benchmark's parts: cases, contenders, processes, turns, verdicts."""

import os
import sys
import time
import types

import numpy as np
import pytest

from minifcn import device
from minifcn.bench import (
    cases,
    chart,
    contender_minifcn,
    contender_textbook,
    contenders,
    peak,
    suites,
    worker,
)
from minifcn.bench.cases import Convolution, Operation, TrainingStep
from minifcn.bench.contenders import CPU, TEXTBOOK, Contender
from minifcn.bench.duel import Arena, Plan
from minifcn.bench.process import Failed, Process
from minifcn.bench.row import AT_LEAST, AT_MOST, Row
from minifcn.bench.worker import Worker
from tests import naive

EVERY = [*cases.LAYERS, *cases.STEPS, cases.PREDICTION]


@pytest.fixture(autouse=True)
def keep_the_device():
    with device.use(device.current()):
        yield


# -- cases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_a_case_survives_the_way_to_the_worker(case):
    assert cases.from_json(cases.to_json(case)) == case


def test_names_are_distinct():
    assert len({case.name for case in EVERY}) == len(EVERY)


def test_operations_are_counted_as_a_direct_convolution():
    by_hand = {
        "3×3 128 at 112²": 3 * 2 * 4 * 112 * 112 * 128 * 128 * 9,
        "3×3 RGB to 64 at 224²": 2 * 2 * 4 * 224 * 224 * 3 * 64 * 9,  # no input gradient
        "3×3 128 at 56², stride 2": 3 * 2 * 4 * 28 * 28 * 128 * 128 * 9,
        "3×3 128 at 56², 4 groups": 3 * 2 * 4 * 56 * 56 * 128 * 32 * 9,
        "transposed k16 s8 at 28²": 3 * 2 * 4 * 28 * 28 * 21 * 21 * 256,
    }
    found = {case.name: case.flops for case in cases.LAYERS if case.name in by_hand}
    assert found == by_hand


def test_transposed_convolutions_enlarge_by_their_stride():
    for case in cases.LAYERS:
        if isinstance(case, Convolution) and case.transposed:
            assert case.out == case.size * case.stride


def test_the_same_numbers_every_time():
    case = cases.LAYERS[0]
    first, second = case.arrays(), case.arrays()
    assert all(np.array_equal(first[name], second[name]) for name in first)


# -- contenders ------------------------------------------------------------------------------------

SMALL = [
    Convolution("plain", 3, 4, 7, 3, padding=1, batch=2),
    Convolution("strided", 2, 3, 9, 3, padding=1, stride=2, batch=2),
    Convolution("dilated", 2, 3, 9, 3, padding=2, dilation=2, batch=2),
    Convolution("of a picture", 3, 4, 6, 5, padding=2, batch=1, input_gradient=False),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_the_textbook_computes_a_convolution(case):
    a = case.arrays()
    y, *gradients = contender_textbook.make(case, "")()
    expected = naive.conv2d(
        a["x"].astype(float), a["weight"].astype(float), a["bias"].astype(float),
        stride=case.stride, padding=case.padding, dilation=case.dilation,
    )  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    own, *others = contender_minifcn.make(case, "cpu")()
    np.testing.assert_allclose(own.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert len(gradients) == len(others) == 2 + case.input_gradient
    for textbook, engine in zip(gradients, others, strict=True):
        np.testing.assert_allclose(textbook, engine.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("what", ["relu", "max_pool", "cross_entropy", "batch_norm", "interpolate"])
def test_both_devices_compute_the_operations(what):
    case = Operation(what, what, (2, 3, 4, 4))
    fast = contender_minifcn.make(case, "cpu")()
    plain = contender_minifcn.make(case, "reference")()
    assert len(fast) == len(plain) == (4 if what == "batch_norm" else 2)
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


def test_the_training_step_learns():
    step = contender_minifcn.make(TrainingStep("small", 4, 32, batch=1), "cpu")
    first = step()[0]
    for _ in range(20):
        last = step()[0]
    assert last < first


def test_who_takes_what():
    grouped = Convolution("grouped", 4, 4, 8, 3, groups=4)
    dense = Convolution("dense", 4, 4, 8, 3)
    assert TEXTBOOK.takes(dense) and not TEXTBOOK.takes(grouped)
    assert not TEXTBOOK.takes(cases.STEPS[0])
    assert not contenders.COMPILED.takes(dense) and contenders.COMPILED.takes(cases.STEPS[0])
    assert all(CPU.takes(case) for case in EVERY)
    assert [contenders.REFERENCE.takes(case) for case in cases.STEPS[:2]] == [True, False]


def test_the_peak_is_a_rate_of_this_processor():
    # between a slow core without vectors, and 16 lanes × 2 units × 2 operations × 8 GHz
    assert 1 < peak.gflops(1, seconds=0.05) < 512


# -- processes -------------------------------------------------------------------------------------

TINY = Convolution("tiny", 3, 4, 7, 3, batch=1)


def test_a_worker_times_a_case_and_knows_its_memory():
    with Process(TEXTBOOK) as process:
        times = process.time(TINY, repetitions=3, seconds=60)
        assert len(times) == 3 and all(0 < t < 10 for t in times)
        assert 10 < process.ask({"ask": "peak"}, 60)["mib"] < 1000
    assert not process.alive


def test_a_worker_says_what_went_wrong_and_goes_on():
    with Process(TEXTBOOK) as process:
        impossible = Convolution("too large a window", 3, 4, 2, 5)
        with pytest.raises(Failed, match="ShapeError: a window that spans 5"):
            process.time(impossible, 1, 1)
        assert process.time(TINY, 1, 1)


def test_a_worker_that_takes_too_long_is_ended():
    with Process(TEXTBOOK) as process:
        large = Convolution("large", 128, 128, 256, 3, padding=1, batch=64)
        start = time.perf_counter()
        with pytest.raises(Failed, match="took over 1 s"):
            process.time(large, 1, 1, limit=1)
        assert time.perf_counter() - start < 10
        assert not process.alive


def test_a_worker_that_dies_leaves_its_last_words():
    with Process(Contender("nobody", "")) as process, pytest.raises(Failed, match="code 1.*nobody"):
        process.time(TINY, 1, 1)


def test_settings_that_slow_one_contender_are_not_inherited(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with Process(TEXTBOOK, {"MINIFCN_TEST": "1"}) as process:
        process.ask({"ask": "threads"}, 60)
        if not os.path.exists("/proc/self/environ"):
            pytest.skip("no /proc here")
        with open(f"/proc/{process._process.pid}/environ") as file:
            variables = file.read()
    assert "OPENBLAS_CORETYPE" not in variables and "PYTHONDONTWRITE" not in variables
    assert "MINIFCN_TEST=1" in variables


def test_repetitions_end_with_the_budget():
    worker = Worker(TEXTBOOK)
    worker.run = lambda: time.sleep(0.02)
    assert len(worker.time(100, 0.05)) == 3
    assert len(worker.time(2, 60)) == 2


@pytest.mark.parametrize("seconds, calls", [(0.06, [5, 4]), (worker.LONG + 0.01, [2, 1])])
def test_short_cases_are_warmed_more(monkeypatch, seconds, calls):
    """Once at first, then until WARM seconds are full: two of 0.06 s for 0.1."""
    monkeypatch.setattr(worker, "WARM", 0.1)
    done = []

    def run():
        time.sleep(seconds)
        done.append(1)

    fake = types.SimpleNamespace(make=lambda case, setting: run)
    monkeypatch.setitem(sys.modules, "minifcn.bench.fake", fake)
    held = Worker(Contender("fake", "fake"))
    request = {"case": cases.to_json(TINY), "repetitions": 2, "seconds": worker.LONG, "warm": True}
    for expected in calls:  # the first time, and the next
        done.clear()
        timed = held.answer(request)["seconds"]
        assert len(done) == expected and len(timed) == (1 if seconds > worker.LONG else 2)


def test_peak_memory_grows_with_what_is_held():
    with Process(TEXTBOOK) as process:
        before = process.ask({"ask": "peak"}, 60)["mib"]
        # input and gradient of 4 · 16 · 512² float32, 64 MiB each, and the output
        process.time(Convolution("large", 16, 16, 512, 1, batch=4, input_gradient=False), 1, 1)
        assert process.ask({"ask": "peak"}, 60)["mib"] > before + 3 * 60


# -- turns -----------------------------------------------------------------------------------------


class Scripted(Arena):
    """An arena whose contenders take the times of a script."""

    def __init__(self, plan, script):
        super().__init__(plan)
        self.script, self.turns = script, []

    def _turn(self, case, contender):
        self.turns.append(contender.name)
        times = self.script[contender.name]
        if isinstance(times, str):
            raise Failed(times)
        return [times.pop(0)]


def test_contenders_take_turns():
    a, b, slow = Contender("a", "x"), Contender("b", "x"), Contender("c", "x", slow=True)
    arena = Scripted(Plan(rounds=3), {"a": [1.0, 9.0, 2.0], "b": [5.0, 4.0, 3.0], "c": [7.0]})
    times, notes = arena.duel(TINY, [a, b, slow])
    assert arena.turns == ["a", "b", "c", "a", "b", "a", "b"]
    assert times == {"a": [1.0, 9.0, 2.0], "b": [5.0, 4.0, 3.0], "c": [7.0]} and notes == []


def test_who_fails_at_once_is_not_asked_again():
    good, bad = Contender("good", "x"), Contender("bad", "x")
    arena = Scripted(Plan(rounds=2), {"good": [1.0, 1.0, 1.0, 1.0], "bad": "no compiler"})
    times, notes = arena.duel(TINY, [good, bad])
    assert times == {"good": [1.0, 1.0]} and notes == ["bad: no compiler"]
    arena.duel(TINY, [good, bad])
    assert arena.turns.count("bad") == 1 and arena.failed == {"bad": "no compiler"}


# -- verdicts --------------------------------------------------------------------------------------


def test_the_ratio_is_to_pytorch_at_its_best():
    figures = {"minifcn": 4.0, "torch": 20.0, "torch tuned": 10.0, "textbook": 5.0}
    row = Row("layers", "x", "ms", figures, bar=0.4, flops=8_000_000)
    assert row.value == 0.4 and row.kept is True and row.rival == "torch tuned"
    assert row.gflops == pytest.approx(2.0)  # 8 million operations in 4 ms
    assert Row("layers", "x", "ms", figures, bar=0.39).kept is False
    assert Row("layers", "x", "ms", figures).kept is None


def test_at_best_is_the_ratio_of_the_smallest():
    figures = {"minifcn": 4.0, "torch": 8.0, "torch tuned": 9.0}
    least = {"minifcn": 3.0, "torch": 7.0, "torch tuned": 6.0}
    assert Row("layers", "x", "ms", figures, least=least).at_best == 0.5
    alone = Row("layers", "x", "ms", {"minifcn": 4.0, "textbook": 8.0}, least={"minifcn": 2.0})
    assert alone.at_best is None


def test_without_pytorch_the_textbook_is_the_rival_and_no_bar_is_judged():
    row = Row("layers", "x", "ms", {"minifcn": 4.0, "textbook": 8.0}, bar=0.4)
    assert row.value == 0.5 and row.kept is None and row.rival == "textbook"


def test_limits_and_speed_ups():
    assert Row("startup", "x", "s", {"minifcn": 0.4}, 0.5, AT_MOST).kept is True
    assert Row("startup", "x", "s", {"minifcn": 0.6}, 0.5, AT_MOST).kept is False
    figures = {"1 thread": 19.0, "2 threads": 10.0}
    row = Row("threads", "x", "ms", figures, 1.8, AT_LEAST)
    assert row.value == pytest.approx(1.9) and row.kept is True
    assert Row("threads", "x", "ms", {}, 1.8, AT_LEAST).kept is None


def test_the_chart_has_a_bar_for_each_ratio():
    rows = [
        Row("layers", "one", "ms", {"minifcn": 4.0, "torch": 8.0}, bar=0.4),
        Row("memory", "two", "MiB", {"minifcn": 9.0, "torch": 3.0}),
        Row("startup", "three", "s", {"minifcn": 0.4}, 0.5, AT_MOST),
    ]
    (axes,) = chart.draw(rows, "a machine").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["one", "two"]
    lengths = [bar.get_width() for bar in axes.patches if bar.get_width()]
    assert lengths == [0.5, 2.0]  # the second is cut, and its number is not
    assert "3.00" in [text.get_text() for text in axes.texts]


def test_every_suite_with_ratios_has_its_colour_in_the_chart():
    without = {"startup", "threads"}  # seconds and a speed-up: in the table alone
    assert set(chart.COLOURS) == set(chart.TITLES) == {*suites.SUITES, *suites.BY_NAME} - without
