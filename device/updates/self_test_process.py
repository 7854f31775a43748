"""The process that tries a fetched model: low priority, bounded memory, bounded time.

It runs the golden vector, then a minute of synthesised sound, and compares the model's pace with
that of the model that is heard with now. Time is that of the processor, so that a busy machine
condemns nobody.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import os
import resource
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soundpost.device.bundle import (
    AnyInterpreter,
    Bundle,
    check_bundle,
    read_bundle,
    score_features,
    windows,
)
from soundpost.device.errors import SoundpostError
from soundpost.device.features import FloatArray, log_mel
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import sigmoid
from soundpost.device.soundscape import soundscape
from soundpost.device.updates.comparison import LEAST_SPREAD, NEGLIGIBLE_SHARE
from soundpost.device.updates.self_test import SelfTestResult

_LOGGER = logging.getLogger(__name__)

_CPU_S = 180
# Of timing, and how long each takes at least.
_ROUNDS = 7
_ROUND_S = 0.05
# Address space is cheap, and runtimes reserve much more than they use: this bound is for a model
# that would take the machine down, the settings' for what it really uses.
_RESERVED = 4
_RESERVED_MB = 512
_PR_SET_PDEATHSIG = 1


def try_bundle(
    path: Path,
    latency_share: float,
    slowdown: float,
    memory_mb: float,
    reference: Path | None,
    runtime: str,
    threads: int,
) -> SelfTestResult:
    """What the process does, without its bounds; raises SoundpostError."""
    bundle = read_bundle(path)
    before_mb = _memory_mb("VmRSS")
    interpreter = bundle.load_interpreter(runtime, threads)
    features = log_mel(_sound(bundle), bundle.manifest.front_end)
    scores = sigmoid(score_features(features, bundle.manifest, interpreter))
    used_mb = max(0.0, _memory_mb("VmHWM") - before_mb)
    n_wrong = int((~np.isfinite(scores).all(axis=1)).sum())
    if n_wrong:
        return SelfTestResult(
            False, f"self-test: {n_wrong} of {len(scores)} windows have scores that are no numbers"
        )
    # Of few labels, the golden vector may be all that there is to hear.
    heard = np.concatenate([scores, sigmoid(bundle.golden.logits)])
    if float(np.ptp(heard, axis=0).max()) < LEAST_SPREAD:
        return SelfTestResult(
            False, "self-test: its scores are the same for silence, noise and alarms"
        )
    check_bundle(bundle, interpreter)
    if used_mb > memory_mb:
        return SelfTestResult(
            False,
            f"self-test: takes {used_mb:.0f} MB of memory: expected at most {memory_mb:g}",
            memory_mb=used_mb,
        )
    pace = [_Pace(bundle, interpreter)]
    if reference is not None:
        try:
            other = read_bundle(reference)
            pace.append(_Pace(other, other.load_interpreter(runtime, threads)))
        except SoundpostError as error:
            _LOGGER.warning("not compared with the present model: %s", error)
    _measure(pace)
    share = pace[0].share
    figures: dict[str, Any] = {
        "window_ms": 1000 * pace[0].window_s,
        "share": share,
        "memory_mb": used_mb,
    }
    if share > latency_share:
        return SelfTestResult(
            False,
            f"self-test: a window takes {1000 * pace[0].window_s:.0f} ms, {share:.0%} of the time "
            f"between two: expected at most {latency_share:.0%}",
            **figures,
        )
    if len(pace) > 1:
        slower = share / pace[1].share
        figures["slower"] = slower
        if slower > slowdown and share > NEGLIGIBLE_SHARE:
            return SelfTestResult(
                False,
                f"self-test: computes {slower:.1f} times as long as the present model: expected at "
                f"most {slowdown:g} times",
                **figures,
            )
    return SelfTestResult(
        True,
        f"golden vector reproduced, {1000 * pace[0].window_s:.1f} ms a window, {used_mb:.0f} MB",
        **figures,
    )


class _Pace:
    """Processor time of one window after the other."""

    def __init__(self, bundle: Bundle, interpreter: AnyInterpreter) -> None:
        manifest = bundle.manifest
        rate_hz = manifest.front_end.sample_rate_hz
        self._front_end, self._hop = manifest.front_end, manifest.hop_samples
        self._hop_s = manifest.hop_samples / rate_hz
        self._sound = _sound(bundle)
        self._patches = windows(log_mel(self._sound, self._front_end), manifest)
        self._interpreter = interpreter
        self._state = (
            interpreter.initial_state() if isinstance(interpreter, FrameInterpreter) else None
        )
        self._number = 0
        self._rounds_s: list[float] = []

    def measure(self) -> None:
        """One round: as many windows as it takes to see them on a clock of coarse ticks."""
        before, began_s = self._number, time.process_time()
        while (spent_s := time.process_time() - began_s) < _ROUND_S:
            self._window()
        self._rounds_s.append(spent_s / (self._number - before))

    def _window(self) -> None:
        at = (self._number * self._hop) % (len(self._sound) - self._hop)
        patch = self._patches[self._number % len(self._patches)]
        self._number += 1
        log_mel(self._sound[at : at + self._hop], self._front_end)
        if isinstance(self._interpreter, FrameInterpreter):
            assert self._state is not None
            self._state = self._interpreter.run(patch, self._state).state
        else:
            self._interpreter.run(patch)

    @property
    def window_s(self) -> float:
        """Median of the rounds."""
        return statistics.median(self._rounds_s)

    @property
    def share(self) -> float:
        """Of one core."""
        return self.window_s / self._hop_s


def _measure(paces: Sequence[_Pace]) -> None:
    """In turn, so that a processor that throttles slows all of them."""
    for _ in range(_ROUNDS):
        for pace in paces:
            pace.measure()


def _sound(bundle: Bundle) -> FloatArray:
    """(n_samples,) float32: alarms and knocks, noise from faint to loud, silence."""
    rate_hz = bundle.manifest.front_end.sample_rate_hz
    rng = np.random.default_rng(0)
    n_samples = 6 * rate_hz
    noise = rng.standard_normal(n_samples) * np.geomspace(1e-4, 0.3, n_samples)
    parts = [soundscape(0, rate_hz)[0], noise, np.zeros(3 * rate_hz)]
    sound = np.concatenate(parts).astype(np.float32)
    # A model may hear windows longer than all of it.
    lacking = bundle.manifest.window_samples + bundle.manifest.hop_samples - len(sound)
    return np.pad(sound, (0, max(0, lacking)))


def _memory_mb(field: str) -> float:
    """A figure of proc_pid_status(5), in MB: getrusage(2) would tell of the parent's memory too."""
    for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
        name, _, amount = line.partition(":")
        if name == field:
            return int(amount.split()[0]) * 1024 / 1e6
    return 0.0


def _bound(memory_mb: float, parent: int) -> None:
    """Low priority, little memory, no core file, and no life without the parent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    room_mb = _memory_mb("VmSize") + _RESERVED * memory_mb + _RESERVED_MB
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: _CPU_S,
        resource.RLIMIT_AS: int(room_mb * 1e6),
    }
    # A service's sandbox may forbid these: it has bounds of its own.
    with contextlib.suppress(OSError):
        os.nice(10)
    for which, most in bounds.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (most, most))


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--latency-share", type=float, required=True)
    parser.add_argument("--slowdown", type=float, required=True)
    parser.add_argument("--memory-mb", type=float, required=True)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = vars(parser.parse_args())
    _bound(given["memory_mb"], given.pop("parent"))
    try:
        result = try_bundle(**given)
    except (SoundpostError, ValueError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        result = SelfTestResult(False, f"self-test: {reason}")
    # What a runtime prints stands before it.
    print(f"\n{json.dumps(result.__dict__)}", flush=True)
    # A runtime's clean-up is not what is tested.
    os._exit(0)


if __name__ == "__main__":
    _main()
