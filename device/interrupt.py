"""Ctrl-C that waits while a program sets itself up, or asks it to come to an end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_holding = 0
_waiting = False


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _waiting
    if _holding:
        _waiting = True
    else:
        raise KeyboardInterrupt


def handle_interrupts(*numbers: signal.Signals) -> None:
    """Let these signals raise KeyboardInterrupt; one that is ignored (nohup) stays so."""
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of the block, not within it.

    For imports and the loading of a model, some tenths of a second: an extension module that is
    interrupted while it is set up makes an ImportError of it or ends the process, and a destructor
    or the import system's own callbacks swallow it. For the main thread.
    """
    global _holding, _waiting
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    if _waiting and not _holding:
        _waiting = False
        raise KeyboardInterrupt


class StopRequests:
    """Signals that ask a program to end, from `with` on to its end, rather than interrupt it.

    asked : whether one has come
    urgent : a second one raises KeyboardInterrupt, for work that may hang; to be set to False once
        there is something that must be ended properly

    One that is ignored (nohup) stays so. For the main thread.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._before: dict[signal.Signals, Any] = {}
        self.asked = False
        self.urgent = True

    def check(self) -> None:
        """Raise KeyboardInterrupt where one has come."""
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        # No threading.Event: its lock may be held by what this interrupts.
        if self.asked and self.urgent:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> StopRequests:
        for number in self._numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
