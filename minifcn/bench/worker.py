"""One contender in a process of its own: `python -m minifcn.bench.worker NAME`.

It reads a request a line from standard input and answers each with a line on standard output, both
JSON, until its input ends:

    {"case": {...}, "repetitions": 8, "seconds": 0.4, "warm": true}   → {"seconds": [...]}
    {"ask": "threads"}                                                → {"threads": 2}
    {"ask": "peak"}                                                   → {"mib": 338.2}
    {"ask": "multiply_adds"}                                          → {"one": ..., "all": ...}

A case is made when it is first asked for and kept until another one is. ``seconds`` is when to stop
repeating. With ``warm`` the case is computed before the clock starts, so that caches and buffers
are filled and the system has spread the threads over the processors: once the first time, then over
and over for WARM seconds in every turn, but not where it takes LONG.
What goes wrong is answered as {"error": one line}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

from minifcn.bench.cases import from_json
from minifcn.bench.contenders import ALL, Contender
from minifcn.errors import one_line

LONG = 0.2
"""Seconds: what takes longer fills the caches afresh each time anyway."""

WARM = 0.05
"""Seconds: threads that slept may wake on one processor, and stay there for some ten milliseconds.

A step of half a millisecond then takes six, which says nothing about training: there they are
awake.
"""


class Worker:
    """Answers requests for one contender."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.held: Any = None
        self.run: Any = None
        self.last = 0.0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        if request.get("ask") == "peak":
            return {"mib": peak_mib()}
        if request.get("ask") == "multiply_adds":
            from minifcn.bench.peak import gflops

            return {"one": gflops(1), "all": gflops()}
        module = import_module(f"minifcn.bench.{self.contender.module}")
        if request.get("ask") == "threads":
            return {"threads": module.threads()}
        first = request["case"] != self.held
        if first:
            self.run = self.held = None  # gives the memory of the last case back
            self.run = module.make(from_json(request["case"]), self.contender.setting)
            self.held = request["case"]
        if request["warm"] and first:
            self.last = self.time(1, LONG)[0]
        if request["warm"] and self.last < LONG:
            self.time(sys.maxsize, WARM)
        seconds = self.time(request["repetitions"], request["seconds"])
        self.last = seconds[-1]
        return {"seconds": seconds}

    def time(self, repetitions: int, budget: float) -> list[float]:
        """Seconds of each repetition; no more are begun after ``budget`` seconds."""
        times: list[float] = []
        while len(times) < repetitions and sum(times) < budget:
            start = time.perf_counter()
            self.run()
            times.append(time.perf_counter() - start)
        return times


def peak_mib() -> float:
    """The largest resident set of this process so far: interpreter, libraries and all.

    From /proc where there is one: `getrusage` counts there what the process that started us held.
    """
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main(name: str) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    worker = Worker(ALL[name])
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # whatever it is, it is told and the next case has its chance
            worker.run = worker.held = None
            answer = {"error": f"{type(error).__name__}: {one_line(error)}"[:200]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
