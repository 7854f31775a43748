"""Whether a fetched model does on this machine what its bundle says, tried in a process of its own.

A bad model may crash its runtime, hang or eat memory: there it takes nobody along. What the process
does is in `self_test_process.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soundpost.device.updates.update_settings import UpdateSettings

# By the clock, for a process that waits for nothing: a busy machine takes many times as long as the
# processor time that it may use.
TIMEOUT_S = 1_800.0
_POLL_S = 0.1


@dataclass(frozen=True)
class SelfTestResult:
    """How a self-test ended.

    reason : one line
    window_ms : processor time of a window, features included
    share : of one core that hearing with it takes
    slower : as many times as the reference takes; None: there was none
    memory_mb : that loading and running it added
    broken_off : the sensor ends; nothing is known
    """

    passed: bool
    reason: str
    window_ms: float | None = None
    share: float | None = None
    slower: float | None = None
    memory_mb: float | None = None
    broken_off: bool = False


def run_self_test(
    path: Path,
    limits: UpdateSettings,
    *,
    reference: Path | None = None,
    runtime: str = "auto",
    threads: int = 1,
    ending: Callable[[], bool] = lambda: False,
    timeout_s: float = TIMEOUT_S,
) -> SelfTestResult:
    """Try a bundle; every way in which it can end is a result.

    Parameters
    ----------
    limits : latency_share, slowdown and memory_mb count here
    reference : bundle of the model that is heard with now
    ending : asked a few times a second; True breaks the test off
    """
    command = [
        sys.executable,
        "-m",
        f"{__package__}.self_test_process",
        str(path),
        f"--parent={os.getpid()}",
    ]
    command += [f"--latency-share={limits.latency_share}", f"--slowdown={limits.slowdown}"]
    command += [f"--memory-mb={limits.memory_mb}", f"--runtime={runtime}", f"--threads={threads}"]
    if reference is not None:
        command.append(f"--reference={reference}")
    with tempfile.TemporaryFile() as out:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        except OSError as error:
            # Too little memory or too many processes at this moment: the next start tries again.
            return SelfTestResult(False, f"cannot be tried now ({error})", broken_off=True)
        try:
            until_s = time.monotonic() + timeout_s
            while process.poll() is None:
                if ending():
                    return SelfTestResult(False, "broken off", broken_off=True)
                if time.monotonic() > until_s:
                    return SelfTestResult(
                        False, f"self-test: did not end within {timeout_s:g} s; it hangs"
                    )
                time.sleep(_POLL_S)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        told = out.read(65_536).rpartition(b"\n{")[2]
    return _read(process.returncode, b"{" + told)


def _read(code: int, told: bytes) -> SelfTestResult:
    if code == 0:
        try:
            return SelfTestResult(**json.loads(told))
        except (ValueError, TypeError):
            pass
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return SelfTestResult(False, f"self-test: the model ends its process ({name})")
    return SelfTestResult(False, f"self-test: its process ends with {code} and says nothing")
