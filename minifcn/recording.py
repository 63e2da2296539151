"""Whether operations are being recorded for a later `backward`: on, off, and for a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_grad_enabled = True


def is_grad_enabled() -> bool:
    """Whether operations are being recorded."""
    return _grad_enabled


@contextmanager
def set_grad_enabled(enabled: bool) -> Iterator[None]:
    """Record operations, or not, inside the block."""
    global _grad_enabled
    before, _grad_enabled = _grad_enabled, enabled
    try:
        yield
    finally:
        _grad_enabled = before


def no_grad() -> Any:
    """Inside the block nothing is recorded: for prediction, and for changing parameters."""
    return set_grad_enabled(False)


def enable_grad() -> Any:
    """Inside the block operations are recorded again, within an outer `no_grad`."""
    return set_grad_enabled(True)
