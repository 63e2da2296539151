"""A bar for work of unknown length, shown only where it takes long enough to be missed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 2.0
"""Seconds without a sign of life."""
LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""

Item = TypeVar("Item")


def watched(items: Iterable[Item], total: int, what: str, console: Console) -> Iterator[Item]:
    """The items, one by one; after two seconds a bar (elsewhere a line) says how far they are."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        expand=True,
    )
    task = bar.add_task(what, total=total)
    shown, last = False, time.perf_counter()
    try:
        for number, item in enumerate(items):
            yield item
            waited = time.perf_counter() - last
            if console.is_terminal:
                bar.update(task, completed=number + 1)
                if not shown and waited > PATIENCE:
                    shown = True
                    bar.start()
            elif waited > LINE_EVERY:
                last = time.perf_counter()
                console.print(f"{what}: {number + 1} of {total}", markup=False, soft_wrap=True)
    finally:
        if shown:
            bar.stop()
