"""`minifcn bench`: the engine beside the textbook's way and PyTorch, each in its own process."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from minifcn.bench import chart, contenders, suites
from minifcn.bench.contenders import CPU, TORCH
from minifcn.bench.duel import QUICK, Arena, Plan
from minifcn.bench.process import Failed
from minifcn.bench.row import AT_LEAST, AT_MOST, Row
from minifcn.cli.console import standard_output
from minifcn.cli.finish import save_figure, save_text
from minifcn.errors import InputError

INTERRUPTED = 130


def bench(arguments: argparse.Namespace) -> int:
    """Measure, print a line for each case as it is done, then the table; write as it goes."""
    console = standard_output()
    plan = QUICK if arguments.quick else Plan()
    if arguments.rounds is not None:
        if arguments.rounds < 1:
            raise InputError(f"--rounds is {arguments.rounds}; give 1 or more")
        plan = replace(plan, rounds=arguments.rounds)
    wanted = arguments.suites or suites.SUITES
    chosen = [suite for suite in suites.SUITES + suites.BY_NAME if suite in wanted]
    out = Path(arguments.out)
    torch = contenders.torch_is_installed()
    if not torch:
        console.print(
            "PyTorch is not installed, so minifcn is compared with the textbook's way alone; "
            "for more: pip install torch",
            soft_wrap=True,
        )
    start, rows, code = time.perf_counter(), [], 0
    with console.status("starting") as status, Arena(plan, tell=status.update) as arena:
        try:
            about = machine(arena, torch)
            console.print(_about(about), soft_wrap=True)
            for suite in chosen:
                try:
                    for row in suites.rows(suite, arena, torch, arguments.quick):
                        rows.append(row)
                        console.print(_line(row), soft_wrap=True)
                        save(out / "bench.json", about, rows, arena.failed)
                except Failed as failure:
                    arena.failed[f"the suite {suite}"] = str(failure)
                arena.close()  # the next suite starts what it needs, in memory that is free
        except KeyboardInterrupt:
            code = INTERRUPTED
        failed = dict(arena.failed)
    if not rows:
        return code
    save_figure(chart.draw(rows, _about(about)), out / "bench.png")
    console.print(table(rows, about["multiply_adds"]["all"]))
    for name, reason in failed.items():
        console.print(f"{name} could not be measured: {reason}", soft_wrap=True, markup=False)
    if any(row.best_torch == TORCH[-1].name for row in rows):
        console.print(
            f"{TORCH[-1].name}: channels_last, and glibc told to keep freed memory", soft_wrap=True
        )
    asked = [row for row in rows if row.kept is not None]
    console.print(
        f"{sum(bool(row.kept) for row in asked)} of {len(asked)} bars kept; "
        f"{time.perf_counter() - start:.0f} s; written: {out / 'bench.json'}, {out / 'bench.png'}"
        + (" (interrupted: only what was measured until then)" if code else ""),
        soft_wrap=True,
    )
    return code


def machine(arena: Arena, torch: bool) -> dict[str, Any]:
    """The processor, what it can do at all, the threads that run on it, and versions."""
    from importlib.metadata import PackageNotFoundError, version

    arena.tell("measuring the multiply-add rate")
    own = arena.process(CPU)
    about: dict[str, Any] = {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": {"minifcn": own.ask({"ask": "threads"}, 60)["threads"]},
        "multiply_adds": own.ask({"ask": "multiply_adds"}, 120),
        "system": platform.platform(),
        "versions": {"python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
    }
    if torch:
        try:
            answer = arena.process(TORCH[0]).ask({"ask": "threads"}, 120)
            about["threads"]["torch"] = answer["threads"]
        except Failed as reason:  # installed, but broken: every row will say so
            arena.failed |= {c.name: str(reason) for c in (*TORCH, contenders.COMPILED)}
    for name in ("minifcn", "numpy", "numba", "torch"):
        try:
            about["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    return about


def save(path: Path, about: dict[str, Any], rows: list[Row], failed: dict[str, str]) -> None:
    """Everything measured so far as JSON, beside and renamed."""
    content = {**about, "failed": failed, "rows": [row.as_json() for row in rows]}
    save_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", path)


def table(rows: list[Row], peak: float) -> Table:
    """The ratio first, then what it is made of; ``peak``: GFLOP/s that all threads could do.

    "ratio" is that of the medians, "at best" that of the smallest times.
    """
    result = Table(title="minifcn beside its best rival", title_justify="left", box=SIMPLE_HEAD)
    result.padding = (0, 1, 0, 0)
    for name, justify in (
        ("ratio", "right"),
        ("bar", "right"),
        ("", "left"),
        ("at best", "right"),
        ("what", "left"),
        ("unit", "left"),
        ("minifcn", "right"),
        ("rival", "right"),
        ("which", "left"),
        ("of peak", "right"),
    ):
        result.add_column(name, justify=justify, no_wrap=name != "what")  # type: ignore[arg-type]
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        mine, other = (CPU.name, row.rival)
        if row.kind == AT_LEAST:
            mine, other = "2 threads", "1 thread"
        result.add_row(
            Text(_value(row), "bold"),
            "" if row.bar is None else f"{row.bar:g}",
            _verdict(row),
            "" if row.at_best is None else f"{row.at_best:.2f}",
            Text(row.name),
            row.unit,
            _figure(row, mine),
            _figure(row, other),
            (other or "").removeprefix("torch "),
            "" if row.gflops is None else f"{row.gflops / peak:.0%}",
            end_section=after is not None and after.suite != row.suite,
        )
    return result


def _line(row: Row) -> Text:
    figures = ", ".join(f"{name} {_figure(row, name)}" for name in row.figures)
    text = Text.assemble(
        (f"{_value(row):>7}", "bold"), f"  {row.name}, {row.unit}: {figures}  ", _verdict(row)
    )
    for note in row.notes:
        text.append(f"\n         {note}", style="dim")
    return text


def _value(row: Row) -> str:
    if row.value is None:
        return "–"
    return f"{row.value:.2f}" + {AT_MOST: f" {row.unit}", AT_LEAST: "×"}.get(row.kind, "")


def _verdict(row: Row) -> Text:
    if row.kept is None:
        return Text("")
    return Text("kept", "green") if row.kept else Text("missed", "red")


def _figure(row: Row, name: str | None) -> str:
    value = None if name is None else row.figures.get(name)
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _about(about: dict[str, Any]) -> str:
    rates, threads = about["multiply_adds"], about["threads"]
    counts = ", ".join(f"{name} {count}" for name, count in threads.items())
    return (
        f"{about['cpu']}, {about['cores']} cores (threads: {counts}); fused multiply-adds "
        f"{rates['one']:.0f} GFLOP/s on one thread, {rates['all']:.0f} on all"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
