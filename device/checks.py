"""What `soundpost doctor` looks at: each check says how things are and what to do about them."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import numpy as np

from soundpost.device.audio import check_channel, select_channel
from soundpost.device.board import Board
from soundpost.device.broker_probe import probe_broker
from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.capture import open_source
from soundpost.device.clock import clock_synchronised
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.errors import CaptureError, SoundpostError
from soundpost.device.files import nearest_folder
from soundpost.device.findings import Finding, State
from soundpost.device.interpreter import available_runtimes
from soundpost.device.microphone import load_profile
from soundpost.device.plan import planned_classes
from soundpost.device.settings import Settings, SourceSettings
from soundpost.device.speech import load_detector
from soundpost.device.tls import certificate_dates
from soundpost.device.update_check import check_updates

# How long a source is heard, and how long a driver may take for that before it counts as hanging.
_LISTEN_S: Final = 1.0
_PATIENCE_S: Final = 20.0
# Below, a microphone is dead or its mixer closed: the noise of a quiet room in 16 bits is above.
_SILENT_DBFS: Final = -95.0
_CLIPPED: Final = 0.999
# Beside the outbox: its log, and room for the system to go on.
_RESERVE_MB: Final = 100.0
# A Raspberry Pi slows down at 80 to 85 °C, a Jetson near 97 °C.
_WARM_C: Final = 75.0
_HOT_C: Final = 82.0
_LITTLE_MEMORY_MB: Final = 100.0
# Time to renew a certificate without haste.
_RENEW_DAYS: Final = 30


def check_all(
    settings: Settings, board: Board | None = None, state: Path | None = None
) -> Iterator[Finding]:
    """Every check of a sensor with these settings, as it is made.

    state : the folder in which alone the service may write, where they are its settings
    """
    running = sensor_runs(settings.outbox.path)
    yield from check_models(settings)
    for source in settings.sources:
        yield check_source(source, running)
    yield check_clock()
    yield from check_disk(settings.outbox, state)
    yield from check_certificates(settings)
    yield from probe_broker(settings, running)
    yield from check_clips(settings, state)
    yield from check_updates(settings)
    yield from check_board(board or Board())


def check_models(settings: Settings) -> Iterator[Finding]:
    """Every bundle on this machine's runtime, against the golden vector that it carries."""
    runtimes = ", ".join(available_runtimes())
    model = settings.model
    users: dict[Path, list[str]] = {}
    for source in settings.sources:
        path = source.bundle or model.bundle or starter_bundle_path()
        users.setdefault(path, []).append(source.name)
    labels: set[str] = set()
    for path in sorted(users):
        try:
            bundle, interpreter, check = open_bundle(path, model.runtime, model.threads)
            labels.update(bundle.manifest.labels)
            for name in users[path]:
                planned_classes(settings, name, bundle)
        except SoundpostError as error:
            remedy = f"runtimes here: {runtimes or 'none: pip install soundpost[device]'}"
            yield Finding("model", "fault", str(error), remedy)
            continue
        manifest = bundle.manifest
        yield Finding(
            "model",
            "ok",
            f"{manifest.name} {manifest.version}: {len(manifest.labels)} labels; reproduces its "
            f"golden vector with {interpreter.runtime} to {check.score_error:.2g}",
        )
    if labels:
        try:
            settings.check_class_labels(labels)
        except SoundpostError as error:
            yield Finding("settings", "fault", str(error), "correct the name, or delete the table")
    for source in settings.sources:
        if source.profile is not None:
            try:
                load_profile(source.profile)
            except SoundpostError as error:
                yield Finding("profile", "fault", str(error), "mend the file, or leave it out")


# --- sound --------------------------------------------------------------------------------------


def check_source(source: SourceSettings, running: bool | None = False) -> Finding:
    """Open a source and hear it for a second.

    running : a sensor runs, which may hold it; None: unknown
    """
    area = f"source {source.name}"
    found: list[Finding] = []

    def hear() -> None:
        try:
            found.append(_hear(area, source))
        except CaptureError as error:
            if running is not False:
                remedy = "the sensor that runs may hold it: to check it too, stop the sensor first"
                found.append(Finding(area, "warning", str(error), remedy))
            else:
                remedy = "plug it in, or give its name in `soundpost devices`"
                found.append(Finding(area, "fault", str(error), remedy))
        except SoundpostError as error:
            found.append(Finding(area, "fault", str(error), "see `soundpost devices`"))

    # In a thread of its own: a driver can hang where no time limit reaches it.
    thread = threading.Thread(target=hear, name=area, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if found:
        return found[0]
    if thread.is_alive():
        text = f"{source.url} does not answer for {_PATIENCE_S:g} s: its driver hangs"
        return Finding(area, "fault", text, "unplug it and plug it in again, or restart")
    return Finding(area, "fault", f"{source.url}: a fault in soundpost", "please report the log")


def _hear(area: str, settings: SourceSettings) -> Finding:
    options = dict(settings.options)
    if settings.url.startswith("file:"):
        options["realtime"] = False
    with open_source(settings.url, **options) as source:
        check_channel(settings.channel, source.n_channels, source.name)
        parts, n_samples = [], 0
        began_s = time.monotonic()
        for block in source.blocks():
            parts.append(select_channel(block.samples, settings.channel))
            n_samples += len(block.samples)
            if n_samples >= _LISTEN_S * source.rate_hz or time.monotonic() - began_s > _PATIENCE_S:
                break
        what = f"{source.name}: {source.rate_hz} Hz, {source.n_channels} channels"
        overflows = source.overflows
    if not n_samples:
        return Finding(area, "fault", f"{what}, no samples", "give a source that holds sound")
    sound = np.concatenate(parts)
    peak = float(np.abs(sound).max())
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    level_dbfs = 10 * math.log10(power) if power > 0 else -math.inf
    said = f"{what}, {level_dbfs:.0f} dBFS" if power > 0 else f"{what}, digital zeros only"
    if peak == 0 or level_dbfs < _SILENT_DBFS:
        remedy = "a muted or dead microphone, or the wrong channel: see `alsamixer`, or speak"
        return Finding(area, "warning", said, remedy)
    if peak >= _CLIPPED:
        remedy = "it clips: turn its gain down in `alsamixer`, where this was no loud moment"
        return Finding(area, "warning", f"{said}, peak at full scale", remedy)
    if overflows:
        remedy = "the machine was too busy to listen: raise latency_s of the source"
        return Finding(area, "warning", f"{said}, {overflows} overflows in a second", remedy)
    return Finding(area, "ok", said)


# --- clock and disk -----------------------------------------------------------------------------


def check_clock(
    synchronised: Callable[[], bool] = clock_synchronised,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> Finding:
    """Whether the kernel knows the time; the time zone does not matter."""
    time_utc = f"{now():%Y-%m-%d %H:%M:%S} UTC"
    if synchronised():
        return Finding("clock", "ok", f"{time_utc}, synchronised")
    return Finding(
        "clock",
        "warning",
        f"{time_utc}, not synchronised: alerts say so, and are dated anew once it is",
        "sudo timedatectl set-ntp true; `timedatectl timesync-status` says more",
    )


def _writable(path: Path) -> tuple[Path, float]:
    """The nearest folder above a path that is there, and its free megabytes; it was written to.

    Raises OSError where it cannot be.
    """
    # The sensor makes the rest.
    there = nearest_folder(path)
    free_mb = shutil.disk_usage(there).free / 1e6
    with tempfile.TemporaryFile(dir=there) as file:
        file.write(b"\0" * 4096)
        file.flush()
        os.fsync(file.fileno())
    return there, free_mb


def _refused(error: OSError, key: str, otherwise: str) -> str:
    """What to do about a folder that this user may not, or nobody can write to."""
    if isinstance(error, PermissionError):
        return f"run this as the sensor's user or with sudo, or set {key}"
    return f"{otherwise}: mend it, or set {key}"


def _beyond(area: str, path: Path, key: str, state: Path | None) -> Iterator[Finding]:
    """Told of a path that root can write to, and the service cannot."""
    if state is not None and not path.is_relative_to(state):
        text = f"{path}: the service may write below {state} alone"
        remedy = (
            f"take {key} out, or let it with ReadWritePaths= in `sudo systemctl edit soundpost`"
        )
        yield Finding(area, "warning", text, remedy)


def check_disk(settings: OutboxSettings, state: Path | None = None) -> Iterator[Finding]:
    """Room and permission where alerts wait, and the alerts that wait there.

    state : see check_all
    """
    path = settings.path
    try:
        there, free_mb = _writable(path)
    except OSError as error:
        text = f"{path.parent}: cannot be written: {error.strerror or error}"
        remedy = _refused(error, "outbox.path", "alerts would wait in memory only")
        yield Finding("disk", "fault", text, remedy)
        return
    yield from _beyond("disk", path, "outbox.path", state)
    need_mb = settings.max_size_mb + _RESERVE_MB
    text = f"{there}: {free_mb:,.0f} MB free, alerts may take {settings.max_size_mb:g} MB"
    short = free_mb < need_mb
    remedy = f"free at least {need_mb - free_mb:,.0f} MB" if short else ""
    yield Finding("disk", "warning" if short else "ok", text, remedy)
    if path.exists():
        yield _check_outbox(path)


def check_certificates(settings: Settings, now: datetime | None = None) -> Iterator[Finding]:
    """How long the certificates of the settings are valid: ours, and the first of the CA file."""
    tls = settings.mqtt.tls if settings.mqtt is not None else None
    now = now or datetime.now(timezone.utc)
    for path in (tls.ca_file, tls.cert_file) if tls is not None else ():
        if path is None:
            continue
        try:
            first, last = certificate_dates(path)
        except SoundpostError as error:
            yield Finding("certificate", "fault", str(error), "put one in PEM there")
            continue
        if now < first:
            text = f"{path}: is valid from {first:%Y-%m-%d} on"
            yield Finding("certificate", "fault", text, "set this machine's clock, or renew it")
        elif now > last:
            yield Finding("certificate", "fault", f"{path}: expired on {last:%Y-%m-%d}", "renew it")
        else:
            left = (last - now).days
            soon = left < _RENEW_DAYS
            text = f"{path}: valid until {last:%Y-%m-%d}, {left} days"
            remedy = "renew it" if soon else ""
            yield Finding("certificate", "warning" if soon else "ok", text, remedy)


def check_clips(settings: Settings, state: Path | None = None) -> Iterator[Finding]:
    """Whether clips and hard examples can be kept: the speech detector runs, there is room.

    state : see check_all
    """
    for name, wanted in (("clips", settings.clips), ("feedback", settings.feedback)):
        if wanted.enabled:
            limits = wanted.max_size_mb, wanted.min_free_mb
            yield from _check_kept_sound(name, wanted.folder, *limits, state)


def _check_kept_sound(
    name: str, folder: Path, max_size_mb: float, min_free_mb: float, state: Path | None
) -> Iterator[Finding]:
    try:
        load_detector()
    except SoundpostError as error:
        yield Finding(name, "fault", str(error), "no sound is kept without it")
        return
    try:
        _, free_mb = _writable(folder / "clip")
    except OSError as error:
        text = f"{folder}: cannot be written: {error.strerror or error}"
        remedy = _refused(error, f"{name}.folder", f"no {name} would be kept")
        yield Finding(name, "fault", text, remedy)
        return
    yield from _beyond(name, folder, f"{name}.folder", state)
    need_mb = max_size_mb + min_free_mb
    short = free_mb < need_mb
    text = f"{folder}: {free_mb:,.0f} MB free, {name} may take {max_size_mb:g} MB"
    remedy = (
        f"free at least {need_mb - free_mb:,.0f} MB, or set {name}.max_size_mb" if short else ""
    )
    yield Finding(name, "warning" if short else "ok", text, remedy)


def _check_outbox(path: Path) -> Finding:
    """Read a copy: the file may be a running sensor's, and belongs to its user."""
    try:
        if sensor_runs(path):
            return Finding("outbox", "ok", f"{path}: in use by a running sensor")
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name, path.name)
            for suffix in ("", "-wal"):
                original = path.with_name(path.name + suffix)
                if original.exists():
                    shutil.copyfile(original, copy.with_name(copy.name + suffix))
            connection = sqlite3.connect(copy)
            try:
                (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                (waiting,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
            finally:
                connection.close()
    except (OSError, sqlite3.Error) as error:
        return Finding("outbox", "fault", f"{path}: cannot be read: {error}", _DAMAGED)
    if said != "ok":
        return Finding("outbox", "fault", f"{path}: damaged: {said}", _DAMAGED)
    return Finding("outbox", "ok", f"{path}: in order, {waiting} messages wait")


_DAMAGED: Final = "the sensor moves it aside at its next start and sends what can be read of it"


def sensor_runs(outbox: Path) -> bool | None:
    """Whether a sensor holds the lock of this outbox; None where this user may not look."""
    try:
        with outbox.with_name(f"{outbox.name}.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except PermissionError:
        return None
    except OSError:
        return False
    return False


# --- the board ----------------------------------------------------------------------------------


def check_board(board: Board) -> Iterator[Finding]:
    """Heat, supply, clock governor and memory, as far as the machine tells."""
    temperature_c = board.temperature_c
    if temperature_c is not None:
        text = f"{temperature_c:.0f} °C"
        if temperature_c >= _WARM_C:
            state: State = "fault" if temperature_c >= _HOT_C else "warning"
            yield Finding("temperature", state, text, "more air, a heat sink, or less sun")
        else:
            yield Finding("temperature", "ok", text)
    throttling = board.throttling
    if throttling is not None:
        yield _supply(throttling.under_voltage, throttling.under_voltage_before)
        if throttling.throttled or throttling.throttled_before:
            when = "now" if throttling.throttled else "at some time since the start"
            yield Finding(
                "speed", "warning", f"the processor is slowed down: {when}", "see to cooling"
            )
    governors = board.governors
    if governors:
        text = f"governor {', '.join(sorted(governors))}"
        slow = "powersave" in governors and not board.scales_in_powersave
        remedy = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("speed", "warning" if slow else "ok", text, remedy if slow else "")
    available_mb = board.memory_available_mb
    if available_mb is not None:
        little = available_mb < _LITTLE_MEMORY_MB
        remedy = "a sensor takes some 65 MB for one source: end other programs" if little else ""
        text = f"{available_mb:,.0f} MB available"
        yield Finding("memory", "warning" if little else "ok", text, remedy)


def _supply(now: bool, before: bool) -> Finding:
    remedy = "use the board's own supply and a short cable; a USB microphone takes power too"
    if now:
        return Finding("supply", "fault", "the voltage is too low now", remedy)
    if before:
        return Finding("supply", "warning", "the voltage was too low since the start", remedy)
    return Finding("supply", "ok", "the voltage is in order")
