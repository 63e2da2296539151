"""What `minifcn bench` can be asked for: each suite yields a Row for each case, as it is done."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import minifcn
from minifcn.bench import cases
from minifcn.bench.cases import Case, Convolution, Prediction, TrainingStep
from minifcn.bench.contenders import COMPILED, CPU, REFERENCE, TEXTBOOK, TORCH, Contender
from minifcn.bench.duel import Arena
from minifcn.bench.process import Failed, Process, inherited
from minifcn.bench.row import AT_LEAST, AT_MOST, Row

SUITES = ("layers", "step", "predict", "memory", "startup", "threads")
BY_NAME = ("full",)
"""Those that take long, and are measured when they are asked for by name alone."""

IMPORT_BAR, COLD_BAR, WARM_BAR = 0.5, 20.0, 1.5
"""Seconds: `import minifcn`; the first step of a process with nothing compiled; with all of it."""
SPEED_UP_BAR = 1.8
"""Times as fast on two threads as on one."""


def rows(suite: str, arena: Arena, torch: bool, quick: bool) -> Iterator[Row]:
    """The rows of a suite of SUITES or BY_NAME; ``torch``: PyTorch takes part; ``quick``: fewer."""
    if suite == "layers":
        chosen = _chosen(cases.LAYERS, quick)
        everyone = (CPU, *_torch(torch), TEXTBOOK, *(() if quick else (REFERENCE,)))
        yield from _timed(suite, arena, chosen, everyone)
    elif suite == "step":
        more = () if quick else (*((COMPILED,) if torch else ()), REFERENCE)
        everyone = (CPU, *_torch(torch), *more)
        yield from _timed(suite, arena, _chosen(cases.STEPS, quick), everyone)
    elif suite == "predict":
        best = TORCH[-1:] if quick else TORCH  # each of them fills 134 M weights first
        yield from _timed(suite, arena, [cases.PREDICTION], (CPU, *(best if torch else ())))
    elif suite == "memory":
        steps = [case for case in cases.STEPS if case.memory_bar is not None]
        everything = [*_chosen(steps, quick), *([] if quick else [cases.PREDICTION])]
        yield from memory(arena, everything, (CPU, *_torch(torch)))
    elif suite == "full":
        yield from _timed(suite, arena, cases.FULL_STEPS, (CPU, *_torch(torch)))
        yield from memory(arena, cases.FULL_STEPS, (CPU, *_torch(torch)))
    elif suite == "startup":
        yield from startup(arena, torch)
    else:
        yield from threads(arena)


def _torch(torch: bool) -> tuple[Contender, ...]:
    return TORCH if torch else ()


def _chosen(among: Sequence[Case], quick: bool) -> list[Case]:
    return [case for case in among if case.quick or not quick]


def _timed(
    suite: str, arena: Arena, chosen: Sequence[Case], contenders: Sequence[Contender]
) -> Iterator[Row]:
    """The contenders' times in ms."""
    for number, case in enumerate(chosen, 1):
        arena.where = f"{suite} {number}/{len(chosen)}"
        times, notes = arena.duel(case, contenders)
        flops = case.flops if isinstance(case, Convolution) else None
        figures = {name: 1000 * statistics.median(t) for name, t in times.items()}
        least = {name: 1000 * min(t) for name, t in times.items()}
        yield Row(suite, case.name, "ms", figures, case.bar, flops=flops, least=least, notes=notes)


def memory(arena: Arena, chosen: Sequence[Case], contenders: Sequence[Contender]) -> Iterator[Row]:
    """The largest resident set, in MiB, of a fresh process that computes the case three times."""
    for case in chosen:
        assert isinstance(case, TrainingStep | Prediction)
        figures, notes = {}, []
        for contender in (CPU, *contenders):  # the first one compiles, if need be; not counted
            arena.tell(f"{case.name}: memory of {contender.name}")
            try:
                with Process(contender) as process:
                    process.time(case, 3, 60, warm=False)
                    figures[contender.name] = process.ask({"ask": "peak"}, 10)["mib"]
            except Failed as reason:
                notes.append(f"{contender.name}: {reason}")
        yield Row("memory", case.name, "MiB", figures, case.memory_bar, notes=notes)


def startup(arena: Arena, torch: bool) -> Iterator[Row]:
    """Seconds from the start of a process: until it has imported, until its first step is done."""
    turns = arena.plan.rounds
    imports: dict[str, list[float]] = {n: [] for n in ("minifcn", "torch")[: 2 if torch else 1]}
    for _ in range(turns):
        for name, times in imports.items():
            arena.tell(f"import {name}")
            times.append(_seconds_to_import(name))
    figures = {name: statistics.median(times) for name, times in imports.items()}
    yield Row("startup", "import", "s", figures, IMPORT_BAR, AT_MOST)

    case = cases.STEPS[0]
    with tempfile.TemporaryDirectory() as folder:
        empty = {"NUMBA_CACHE_DIR": folder}
        arena.tell("first step, nothing compiled")
        cold = {CPU.name: _seconds_to_first_step(CPU, case, empty)}
        yield Row("startup", "first step, nothing compiled", "s", cold, COLD_BAR, AT_MOST)
        contenders = (CPU, TORCH[0]) if torch else (CPU,)
        taken: dict[str, list[float]] = {c.name: [] for c in contenders}
        for _ in range(turns):
            for contender in contenders:
                arena.tell(f"first step of {contender.name}")
                taken[contender.name].append(_seconds_to_first_step(contender, case, empty))
    warm = {name: statistics.median(times) for name, times in taken.items()}
    yield Row("startup", "first step, compiled before", "s", warm, WARM_BAR, AT_MOST)


def _seconds_to_import(name: str) -> float:
    here = str(Path(minifcn.__file__).parents[1])
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-c", f"import {name}"],
        env={**inherited(), "PYTHONPATH": here},
        check=True,
    )
    return time.perf_counter() - start


def _seconds_to_first_step(contender: Contender, case: Case, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    with Process(contender, environment) as process:
        process.time(case, 1, 1, warm=False)
        return time.perf_counter() - start


def threads(arena: Arena) -> Iterator[Row]:
    """Minifcn on one thread and on two, in turns."""
    layer = next(case for case in cases.CONVOLUTIONS if case.name == "3×3 128 at 112²")
    settings = {"1 thread": "1", "2 threads": "2"}
    if (os.cpu_count() or 1) < 2:
        note = "this machine has one core"
        yield Row("threads", "two threads", "ms", {}, SPEED_UP_BAR, AT_LEAST, notes=[note])
        return
    with (
        Process(CPU, {"NUMBA_NUM_THREADS": "1"}) as one,
        Process(CPU, {"NUMBA_NUM_THREADS": "2"}) as two,
    ):
        processes = dict(zip(settings, (one, two), strict=True))
        for case in (cases.STEPS[0], layer):
            times: dict[str, list[float]] = {name: [] for name in settings}
            for _ in range(arena.plan.rounds):
                for name, process in processes.items():
                    arena.tell(f"{case.name}: {name}")
                    plan = arena.plan
                    times[name] += process.time(case, plan.repetitions, plan.seconds)
            figures = {name: 1000 * statistics.median(t) for name, t in times.items()}
            yield Row("threads", case.name, "ms", figures, SPEED_UP_BAR, AT_LEAST)
