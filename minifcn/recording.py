"""Whether operations are being recorded for a later `backward`: on, off, and for a block."""

from __future__ import annotations

from contextlib import ContextDecorator

_grad_enabled = True


def is_grad_enabled() -> bool:
    """Whether operations are being recorded."""
    return _grad_enabled


class set_grad_enabled(ContextDecorator):
    """Record operations, or not, inside the block or the function that it decorates."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._before: list[bool] = []  # of each block that has not ended: they may be nested

    def __enter__(self) -> None:
        global _grad_enabled
        self._before.append(_grad_enabled)
        _grad_enabled = self._enabled

    def __exit__(self, *failure: object) -> None:
        global _grad_enabled
        _grad_enabled = self._before.pop()


def no_grad() -> set_grad_enabled:
    """Inside the block nothing is recorded: for prediction, and for changing parameters."""
    return set_grad_enabled(False)


def enable_grad() -> set_grad_enabled:
    """Inside the block operations are recorded again, within an outer `no_grad`."""
    return set_grad_enabled(True)
