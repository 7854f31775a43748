"""This board's own figures: what a second of sound costs, memory, and how fast alerts are kept."""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import soundfile

from soundpost.device import __version__
from soundpost.device.audio import AudioBlock
from soundpost.device.board import Board
from soundpost.device.bundle import AnyInterpreter, Bundle, open_bundle
from soundpost.device.disk_outbox import DiskOutbox, OutboxSettings
from soundpost.device.errors import SoundpostError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.features import FloatArray, LogMelStream, log_mel
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.identifiers import uuid7
from soundpost.device.pipeline import Pipeline
from soundpost.device.soundscape import soundscape

_BLOCK_S: Final = 0.02
_PUTS: Final = 200
_LISTEN_S: Final = 10.0
_START_S: Final = 120.0


@dataclass(frozen=True)
class Figure:
    """One row: what, how much, in which unit."""

    name: str
    value: float
    unit: str

    @property
    def text(self) -> str:
        """Value and unit, in three digits."""
        value = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return f"{value} {self.unit}"


def bench(
    path: Path, runtime: str, threads: int, outbox_folder: Path, rounds: int = 60
) -> Iterator[Figure]:
    """Measure, a figure at a time; about half a minute on a board.

    path : of the bundle
    outbox_folder : on the disk whose speed counts
    """
    bundle, interpreter, _ = open_bundle(path, runtime, threads)
    rate_hz = bundle.manifest.front_end.sample_rate_hz
    sound = soundscape(0, rate_hz)[0]
    yield Figure(
        "front end, CPU per second of sound", _median_ms(_front_end(bundle, sound), rounds), "ms"
    )
    patch = log_mel(sound[: bundle.manifest.window_samples], bundle.manifest.front_end)
    window = _median_ms(_once(interpreter, patch), rounds)
    yield Figure(f"model, CPU per window ({interpreter.runtime})", window, "ms")
    whole = _median_ms(_second(bundle, interpreter, sound), rounds)
    yield Figure("front end, model and detector, CPU per second of sound", whole, "ms")
    yield from _outbox(outbox_folder)
    yield from _sensor(path, sound, rate_hz)


def table(figures: list[Figure], board: Board) -> str:
    """Markdown, ready for hardware.md."""
    system = _system_name()
    heading = (
        f"**{board.name}**, {os.cpu_count()} cores, {system}, Python "
        f"{platform.python_version()}, Soundpost {__version__}:"
    )
    rows = [f"| {figure.name} | {figure.text} |" for figure in figures]
    return "\n".join([heading, "", "| figure | measured |", "|---|---|", *rows])


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _median_ms(once: Callable[[], object], rounds: int) -> float:
    """Median CPU time: other programs' shares of a busy machine do not count."""
    once()
    spent_s = []
    for _ in range(rounds):
        began_s = time.process_time()
        once()
        spent_s.append(time.process_time() - began_s)
    return 1000 * statistics.median(spent_s)


def _front_end(bundle: Bundle, sound: FloatArray) -> Callable[[], object]:
    manifest = bundle.manifest
    rate_hz = manifest.front_end.sample_rate_hz
    stream = LogMelStream(manifest.front_end, manifest.hop_samples // manifest.front_end.hop_length)
    length = round(_BLOCK_S * rate_hz)
    blocks = [sound[at : at + length] for at in range(0, rate_hz, length)]

    def once() -> None:
        for block in blocks:
            stream.push(block)

    return once


def _once(interpreter: AnyInterpreter, patch: FloatArray) -> Callable[[], object]:
    """One window, or one chunk, through the model alone."""
    if isinstance(interpreter, FrameInterpreter):
        frames, state = interpreter, interpreter.initial_state()
        return lambda: frames.run(patch, state)
    windows = interpreter
    return lambda: windows.run(patch)


def _second(bundle: Bundle, interpreter: AnyInterpreter, sound: FloatArray) -> Callable[[], object]:
    """The next second through everything that a source does with it."""
    rate_hz = bundle.manifest.front_end.sample_rate_hz
    pipeline = Pipeline(bundle, interpreter, rate_hz)
    length = round(_BLOCK_S * rate_hz)
    position = 0

    def once() -> None:
        nonlocal position
        for _ in range(rate_hz // length):
            at = position % (len(sound) - length)
            block = AudioBlock(sound[at : at + length, None], position, rate_hz, None)
            position += length
            for _window in pipeline.push(block):
                pass

    return once


def _outbox(folder: Path) -> Iterator[Figure]:
    """Alerts that are on the disk, one after the other."""
    events = [example_event(number) for number in range(_PUTS)]
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".soundpost-bench-") as name,
        DiskOutbox(OutboxSettings(Path(name, "outbox.sqlite3"))) as outbox,
    ):
        began_s = time.perf_counter()
        for event in events:
            outbox.put(event)
        spent_s = time.perf_counter() - began_s
    yield Figure("alerts kept on disk, each flushed", _PUTS / spent_s, "per second")


def example_event(number: int) -> SoundEvent:
    """One of many: a knock that has just begun, heard by the starter."""
    return SoundEvent(
        id=uuid7(),
        device="bench",
        source="mic0",
        label="door_wood_knock",
        phase="start",
        score=0.9,
        threshold=0.5,
        onset=datetime.now(timezone.utc),
        offset=None,
        time_synced=True,
        stream=uuid7(),
        sample=number,
        rate_hz=16_000,
        model=ModelRef("starter", "1.0.0", "0" * 64),
    )


def _sensor(bundle: Path, sound: FloatArray, rate_hz: int) -> Iterator[Figure]:
    """Memory and CPU of a whole sensor that hears a file, its own broker included."""
    with tempfile.TemporaryDirectory() as name:
        wav = Path(name, "soundscape.wav")
        soundfile.write(wav, sound, rate_hz)
        overrides = {
            "source.mic0.url": f"file:{wav}",
            "source.mic0.loop": "true",
            "broker.port": "0",
            "outbox.path": f"{name}/outbox.sqlite3",
        }
        sets = [f"--set={key}={value}" for key, value in overrides.items()]
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "soundpost.device", "run", f"--bundle={bundle}", *sets],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield from _watch(process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=_START_S)


def _watch(process: subprocess.Popen[str]) -> Iterator[Figure]:
    assert process.stdout is not None
    # The first line comes once it listens.
    for line in process.stdout:
        if "listening to" in line:
            break
    else:
        raise SoundpostError(
            "the sensor that was to be measured did not start; try `soundpost run`"
        )
    began_s, used_s = time.monotonic(), _cpu_s(process.pid)
    time.sleep(_LISTEN_S)
    share = (_cpu_s(process.pid) - used_s) / (time.monotonic() - began_s)
    yield Figure("whole sensor with one source, of one core", 100 * share, "%")
    memory = _memory_mb(process.pid)
    yield Figure("whole sensor, memory (PSS)", memory["Pss"], "MB")
    yield Figure("whole sensor, memory (RSS)", memory["Rss"], "MB")


def _cpu_s(pid: int) -> float:
    # Fields 14 and 15 of proc_pid_stat(5), behind a name that may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def _memory_mb(pid: int) -> dict[str, float]:
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, amount, _unit = line.split()
        found[name.rstrip(":")] = int(amount) * 1024 / 1e6
    return found
