"""Ctrl-C that waits while a program sets itself up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
