"""A program that is run for each alert, without a shell, beside the reception of more.

It gets the values in its environment (SOUNDPOST_LABEL and so on), and the event as JSON on its
standard input.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from soundpost.device.errors import UsageError
from soundpost.device.events import SoundEvent
from soundpost.device.identifiers import format_time

logger = logging.getLogger(__name__)

# Alerts that wait for a free place, at most: a program that is slower than the alerts must not
# fill the memory.
MAX_WAITING: Final = 1_000
_MERCY_S: Final = 2.0


def environment_of(event: SoundEvent) -> dict[str, str]:
    """SOUNDPOST_* variables of an event; empty where it has no such value."""
    values = {
        "id": event.id,
        "device": event.device,
        "source": event.source,
        "label": event.label,
        "phase": event.phase,
        "score": event.score,
        "threshold": event.threshold,
        "onset": format_time(event.onset),
        "offset": None if event.offset is None else format_time(event.offset),
        "duration_s": event.duration_s,
        "level_dba": event.level_dba,
        "time_synced": "true" if event.time_synced else "false",
        "queued_s": event.queued_s,
        "clip": event.clip,
    }
    return {
        f"SOUNDPOST_{name.upper()}": "" if value is None else str(value).replace("\0", "")
        for name, value in values.items()
    }


class AlertProgram:
    """Runs a program for each alert, some at once, each within a time limit.

    command : program and arguments as a shell would split them; no shell runs it
    jobs : at once, at most
    limit_s : a run that takes longer is ended, with what it started
    output : file descriptor for what it prints; None: nowhere
    on_fault : told in one line of a run that failed; called in a thread of its own

    A context manager: on leaving it, what still waits is run and a summary goes to standard error.

    Attributes
    ----------
    runs, failed, dropped : runs that ended, those of them that failed, and alerts for which there
        was no room in the queue

    Raises UsageError where the program does not exist.
    """

    def __init__(
        self,
        command: str,
        *,
        jobs: int = 4,
        limit_s: float = 30.0,
        output: int | None = None,
        on_fault: Callable[[str], None],
    ) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--exec {command!r}: {error}: close the quotes") from error
        if not self._command:
            raise UsageError("--exec is empty: give a program and its arguments")
        if shutil.which(self._command[0]) is None:
            raise UsageError(
                f"--exec: there is no program {self._command[0]!r}; give its path, or "
                f"sh -c '...' for what only a shell understands"
            )
        self.runs = self.failed = self.dropped = 0
        self._limit_s = limit_s
        self._output = subprocess.DEVNULL if output is None else output
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ending = False
        self._last_fault: str | None = None
        self._waiting: queue.Queue[SoundEvent | None] = queue.Queue(MAX_WAITING)
        self._threads = [
            threading.Thread(target=self._work, name=f"exec-{number}", daemon=True)
            for number in range(jobs)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, event: SoundEvent) -> None:
        """Run the program for an event as soon as there is a free place; returns at once."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            with self._lock:
                self.dropped += 1
                first = self.dropped == 1
            if first:
                self._on_fault(
                    f"{MAX_WAITING} alerts wait for it: it is not run for those that come now"
                )

    def __enter__(self) -> AlertProgram:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        """Run it for what still waits, within the limit of one run; an error or Ctrl-C ends it."""
        self.close(finish=kind is None)
        print(self.summary(), file=sys.stderr, flush=True)

    def close(self, *, finish: bool) -> None:
        """End; finish: first run it for what still waits, within the limit of one run."""
        deadline_s = time.monotonic() + (self._limit_s + _MERCY_S if finish else 0.0)
        for _ in self._threads if finish else ():
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=max(0.0, deadline_s - time.monotonic()))
        for thread in self._threads if finish else ():
            thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._lock:
            self._ending = True
            for process in self._running:
                _signal(process, signal.SIGTERM)
        with contextlib.suppress(queue.Empty):
            # Threads that wait for an alert are woken; those that are busy look at `_ending`.
            while True:
                self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put(None)
        deadline_s = time.monotonic() + 2 * _MERCY_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def summary(self) -> str:
        """One line: how often it ran, and what failed."""
        told = f"exec: {self.runs} run, {self.failed} failed"
        if self._last_fault is not None:
            told += f" (the last: {self._last_fault})"
        return told + (f", {self.dropped} left out" if self.dropped else "")

    def _work(self) -> None:
        while not self._ending:
            event = self._waiting.get()
            if event is None:
                return
            try:
                fault = self._run(event)
            except Exception as error:  # A fault of ours must not take a place from later alerts.
                logger.exception("--exec met a fault in soundpost")
                fault = f"fault in soundpost: {error!r}"
            with self._lock:
                self.runs += 1
                self.failed += fault is not None
                if fault is not None:
                    self._last_fault = f"{event.label} {event.phase}: {fault}"
                silent = fault is None or self._ending
            if not silent:
                self._on_fault(f"{event.label} {event.phase}: {fault}")

    def _run(self, event: SoundEvent) -> str | None:
        """Run it once; what went wrong, None if nothing did."""
        try:
            # A group of its own: what it starts ends with it, and Ctrl-C is not for it.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                env={**os.environ, **environment_of(event)},
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be run: {error.strerror or error}"
        with self._lock:
            self._running.add(process)
            if self._ending:
                _signal(process, signal.SIGTERM)
        try:
            return self._finish(process, event)
        finally:
            with self._lock:
                self._running.discard(process)

    def _finish(self, process: subprocess.Popen[bytes], event: SoundEvent) -> str | None:
        try:
            process.communicate(f"{event.to_json()}\n".encode(), timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_MERCY_S)
            _signal(process, signal.SIGKILL)
            process.communicate()
            return f"ended after {self._limit_s:g} s, its time limit"
        if process.returncode == 0:
            return None
        if process.returncode < 0:
            return f"ended by signal {-process.returncode}"
        return f"ended with code {process.returncode}"


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a program and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
