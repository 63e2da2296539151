"""Ctrl-C as a wish to stop after this step, not a blow in the middle of it."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Inside the `with` block, the first Ctrl-C (or SIGTERM) sets `asked`; a second one raises.

    A step that is cut in the middle leaves weights half updated; one that is finished can be
    saved. Who asks twice gets KeyboardInterrupt at once, and keeps the last checkpoint.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # others may set no handler
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.asked
