"""Where the commands print."""

from __future__ import annotations

from rich.console import Console

PLAIN_WIDTH = 110
"""Columns where the output goes to a file or a pipe, which have no width of their own."""


def standard_output() -> Console:
    """A console on standard output as it is now."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
