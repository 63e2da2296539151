"""The contenders of one case in turns: each works for a moment, round after round.

What a shared machine does to one of them in a bad second it does to its neighbours in the turn as
well, and the medians over the rounds pass over it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from minifcn.bench.cases import Case
from minifcn.bench.contenders import Contender
from minifcn.bench.process import Failed, Process

PAUSE = 0.03
"""Seconds between turns: threads that have just worked wait awake for a while for more."""


@dataclass(frozen=True)
class Plan:
    """How long to look: ``rounds`` of up to ``repetitions``, none begun after ``seconds``.

    ``slow_limit``: seconds that a slow contender has for a case, which it computes once or twice.
    """

    rounds: int = 5
    repetitions: int = 8
    seconds: float = 0.3
    slow_limit: float = 5.0


QUICK = Plan(rounds=2, repetitions=4, seconds=0.2, slow_limit=3.0)


@dataclass
class Arena:
    """The contenders' processes, started when first needed and kept, to be used in a `with` block.

    ``tell`` is called with what is going on.
    """

    plan: Plan
    tell: Callable[[str], object] = lambda text: None
    failed: dict[str, str] = field(default_factory=dict)
    """Contenders that could do nothing at all, and why."""
    where: str = ""
    """Which case of how many, for what is told."""
    _processes: dict[str, Process] = field(default_factory=dict)
    _succeeded: set[str] = field(default_factory=set)

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def process(self, contender: Contender) -> Process:
        """The contender's process; a new one if the last was ended."""
        process = self._processes.get(contender.name)
        if process is None or not process.alive:
            if process is not None:
                process.close()
            process = self._processes[contender.name] = Process(contender)
        return process

    def duel(
        self, case: Case, contenders: Iterable[Contender]
    ) -> tuple[dict[str, list[float]], list[str]]:
        """The seconds of each contender's repetitions, and a note for each that could not."""
        contenders = [c for c in contenders if c.takes(case) and c.name not in self.failed]
        times: dict[str, list[float]] = {c.name: [] for c in contenders}
        notes: list[str] = []
        for number in range(1, self.plan.rounds + 1):
            for contender in list(contenders):
                if contender.slow and number > 1:
                    continue
                turn = f"{contender.name}, round {number} of {self.plan.rounds}"
                self.tell(f"{self.where} {case.name}: {turn}")
                time.sleep(PAUSE)
                try:
                    times[contender.name] += self._turn(case, contender)
                    self._succeeded.add(contender.name)
                except Failed as reason:
                    contenders.remove(contender)
                    notes.append(f"{contender.name}: {reason}")
                    if contender.name not in self._succeeded and not contender.slow:
                        self.failed[contender.name] = str(reason)
        return {name: seconds for name, seconds in times.items() if seconds}, notes

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def _turn(self, case: Case, contender: Contender) -> list[float]:
        process, plan = self.process(contender), self.plan
        if contender.slow:
            return process.time(case, 2, 0.5, warm=False, limit=plan.slow_limit)
        return process.time(case, plan.repetitions, plan.seconds)
