"""`soundpost run` as it is, and a ledger of the windows that it scores.

python updating_sensor.py LEDGER CLOCK run --config FILE

A line for each window: monotonic time at which it was scored, and its place in the stream's
samples. What waits for its time does so for less. The clock counts as synchronised, and is wrong by
as many seconds as the file CLOCK says: for what judges expiry, as nothing else asks for the date.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tuf.ngclient._internal import trusted_metadata_set

from soundpost.device import daemon
from soundpost.device.cli import main
from soundpost.device.observer import Observer, tell_all
from soundpost.device.updates import proof, trial, updater
from soundpost.device.updates.trusted_download import TrustedRepository

updater._RETRY_S = trial._RETRY_S = proof._RETRY_S = 0.5
updater._REQUEST_SPREAD_S = 0.0


class Ledger(Observer):
    """Written at once, for this process may be killed at any instant."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        self._write(f"opened {time.monotonic():.4f} {stream}\n")

    def scored(self, source: str, window: Any) -> None:
        self._write(f"scored {time.monotonic():.4f} {window.first_sample} {len(window.scores)}\n")

    def _write(self, line: str) -> None:
        os.write(self._file, line.encode())


ledger = Ledger(Path(sys.argv.pop(1)))
wrong_by = Path(sys.argv.pop(1))


def utc_s() -> float:
    """What the system clock would say."""
    return time.time() + float(wrong_by.read_text())


class WrongDate(datetime.datetime):
    """Its present is that of the system clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> WrongDate:
        return cls.fromtimestamp(utc_s(), tz)


TrustedRepository.__init__.__kwdefaults__ |= {  # type: ignore[misc]
    "utc_s": utc_s,
    "synchronised": lambda: True,
}
trusted_metadata_set.datetime = SimpleNamespace(  # type: ignore[attr-defined]
    datetime=WrongDate, timezone=datetime.timezone
)
daemon.tell_all = lambda observers: tell_all([*observers, ledger])
sys.exit(main())
