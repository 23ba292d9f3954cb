"""Signals that end a run: finish the batch first."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Within its block the first SIGINT (Ctrl-C) or SIGTERM sets ``requested``.

    A second SIGINT interrupts at once. Outside the main thread signals are left as they are.
    """

    def __init__(self) -> None:
        self.requested = False
        self._kept: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._kept[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
