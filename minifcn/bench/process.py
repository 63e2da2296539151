"""Starts a worker and asks it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import minifcn
from minifcn.bench.cases import Case, to_json
from minifcn.bench.contenders import Contender

# The first two bend NumPy's BLAS to a processor that it was not built for. With the third, Python
# compiles a checkout's source in every process anew; an installed package's is compiled once.
NOT_INHERITED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")


def inherited() -> dict[str, str]:
    """This process's environment, for a contender's."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


class Failed(Exception):
    """A contender could not compute a case; the text says why, in one line."""


class Process:
    """A running worker, to be used in a `with` block or closed.

    It is in a session of its own, so that Ctrl-C reaches the one that started it alone.
    """

    def __init__(self, contender: Contender, environment: Mapping[str, str] | None = None) -> None:
        self.contender = contender
        variables = inherited()
        # This minifcn, wherever it was found, and -P: nothing from the folder we are in.
        here = str(Path(minifcn.__file__).parents[1])
        path = os.pathsep.join(p for p in (here, variables.get("PYTHONPATH", "")) if p)
        variables |= {"PYTHONPATH": path, **contender.environment, **(environment or {})}
        self._complaints = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "minifcn.bench.worker", contender.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            env=variables,
            start_new_session=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """The worker's answer.

        Raises Failed if it answers with an error, dies, or takes more than ``limit`` seconds (then
        it is ended).
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Timer(limit, self._kill)
        late.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            in_time = late.is_alive()
            late.cancel()
        if not line:
            code = self._process.wait()
            raise Failed(self._last_words(code) if in_time else f"took over {limit:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def time(
        self,
        case: Case,
        repetitions: int,
        seconds: float,
        *,
        warm: bool = True,
        limit: float = 600,
    ) -> list[float]:
        """Seconds of some repetitions of the case; see `worker` for the settings."""
        request = {"case": to_json(case), "repetitions": repetitions, "seconds": seconds}
        answer = self.ask({**request, "warm": warm}, limit)
        return [float(t) for t in answer["seconds"]]

    def close(self) -> None:
        """End the worker, whatever it is doing, and what it may have started itself."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # what could not be told to a dead worker
                pass

    def _kill(self) -> None:
        if self.alive:  # torch.compile has helpers, which are in the worker's group
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except OSError:  # it ended by itself just now
                pass

    def _last_words(self, code: int) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().strip().splitlines()
        return f"its process ended with code {code}" + (f" ({lines[-1][:120]})" if lines else "")
