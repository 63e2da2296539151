"""`minifcn simulate`: a CUDA kernel on the CPU, checked, with its memory traffic by source line."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from functools import cache

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from minifcn import launch
from minifcn.cli.console import standard_output
from minifcn.errors import InputError
from minifcn.simulator import Report
from minifcn.study import simulated

SOURCE_WIDTH = 60
NOTE = (
    "Executed on the CPU: what is counted is exact, what it costs on a GPU is not shown. Moved: "
    "32 bytes for each sector that a block touches, what it touches again comes from its cache. "
    "Least: each byte needed is read once, each result written once."
)


def simulate(arguments: argparse.Namespace) -> int:
    """Run a kernel's demonstration; 0 if nothing was at fault, else 1."""
    console = standard_output()
    here = simulated.demonstrations()
    if arguments.kernel is None:
        console.print(_list(here))
        return 0
    chosen = next((one for one in here if one.name == arguments.kernel), None)
    if chosen is None:
        names = ", ".join(one.name for one in here)
        raise InputError(f"{arguments.kernel!r} is no kernel to simulate; choose one of {names}")
    reports = simulated.simulate(chosen, arguments.size)
    for report in reports:
        console.print(by_line(report))
    console.print(totals(reports, chosen.operations(arguments.size)))
    console.print(Text(NOTE, style="dim"))
    faults = [fault for report in reports for fault in report.faults]
    for fault in faults:
        console.print(Text(fault, style="bold red"))
    console.print("no fault found" if not faults else f"{len(faults)} different faults")
    return 1 if faults else 0


def by_line(report: Report) -> Table:
    """A row for each line that touches memory."""
    grid, block = ("×".join(map(str, three)) for three in (report.grid, report.block))
    title = Text(f"{report.kernel}, {grid} blocks of {block} threads")
    rows = _table(title, ("line", "", "requests", "bytes", "sectors", "used of 32", "conflicts"))
    for line in report.lines:
        shared = line.space == "shared"
        where = Text(f"{line.file}:{line.line}", style="bold")
        text = textwrap.shorten(source(line.file, line.line), SOURCE_WIDTH, placeholder=" …")
        rows.add_row(
            Text.assemble(where, "\n", text),
            Text(f"{line.space} {line.kind}"),
            f"{line.requests:,}",
            f"{line.bytes:,}",
            "" if shared else f"{line.sectors:,}",
            "" if shared else f"{line.bytes_a_sector:.1f}",
            f"{line.conflicts:,}" if shared else "",
        )
    return rows


def totals(reports: Sequence[Report], operations: int) -> Table:
    """A row for each kernel, and for all of them."""
    columns = ("kernel", "moved", "least", "moved ÷ least", "used of 32", "conflicts")
    rows = _table(Text("totals"), columns)
    for report in reports:
        rows.add_row(
            Text(report.kernel),
            f"{report.moved:,}",
            f"{report.least:,}",
            f"{report.moved / max(report.least, 1):.2f}",
            f"{report.bytes_a_sector:.1f}",
            f"{report.conflicts:,}",
        )
    moved, least = (sum(getattr(r, name) for r in reports) for name in ("moved", "least"))
    used = sum(line.used for r in reports for line in r.lines if line.space == "global")
    sectors = max(sum(r.sectors for r in reports), 1)
    rows.add_section()
    rows.add_row(
        Text("all", style="bold"),
        f"{moved:,}",
        f"{least:,}",
        f"{moved / max(least, 1):.2f}",
        f"{used / sectors:.1f}",
        f"{sum(r.conflicts for r in reports):,}",
    )
    rows.caption = f"arithmetic intensity: {operations / max(moved, 1):.2f} operations a byte moved"
    rows.caption_justify = "left"
    return rows


@cache
def source(file: str, line: int) -> str:
    """A line of a kernel's file, without its indentation."""
    path = launch.FOLDER / file
    lines = path.read_text().splitlines() if path.exists() else []
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _list(here: Sequence[simulated.Demonstration]) -> Table:
    rows = Table(title="kernels to simulate", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("name", "source", "what"):
        rows.add_column(heading)
    for one in here:
        rows.add_row(one.name, f"kernels/{one.file}", Text(one.what))
    return rows


def _table(title: Text, columns: Sequence[str]) -> Table:
    rows = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in columns:
        left = heading in ("line", "", "kernel")
        rows.add_column(heading, justify="left" if left else "right", no_wrap=heading != "line")
    return rows
