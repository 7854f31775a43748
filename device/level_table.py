"""Sound levels of a file as a table or as JSON lines: `soundpost replay FILE --levels`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from soundpost.device.audio import Channel, check_channel, select_channel
from soundpost.device.errors import InputError
from soundpost.device.file_source import open_file
from soundpost.device.levels import LevelMeter, Levels
from soundpost.device.microphone import MicrophoneProfile, load_profile
from soundpost.device.weighting import FILTER_S

_COLUMNS = {
    "LAeq": "laeq_db",
    "LCeq": "lceq_db",
    "LAFmax": "lafmax_db",
    "LASmax": "lasmax_db",
    "L10": "l10_db",
    "L50": "l50_db",
    "L90": "l90_db",
    "dBFS": "rms_dbfs",
    "peak": "peak_dbfs",
}


def print_levels(
    path: str,
    channel: Channel,
    *,
    interval_s: float,
    profile: Path | None,
    bands: bool,
    as_json: bool,
) -> None:
    """Print the levels of a file, a line for each interval.

    Raises InputError where the file or the profile cannot be used, or the file is too short.
    """
    microphone = MicrophoneProfile() if profile is None else load_profile(profile)
    found = n_samples = 0
    with open_file(path, realtime=False, block_s=0.5) as source:
        check_channel(channel, source.n_channels, path)
        meter = LevelMeter(source.rate_hz, interval_s, microphone, bands=bands)

        def intervals() -> Iterator[Levels]:
            nonlocal n_samples
            for block in source.blocks():
                n_samples += len(block.samples)
                yield from meter.push(select_channel(block.samples, channel), block.first_sample)
            yield from meter.finish()

        for levels in intervals():
            if not found and not as_json:
                print(_head(meter))
            found += 1
            print(_json(levels, meter) if as_json else _row(levels, meter), flush=True)
    if not found:
        seconds = n_samples / source.rate_hz
        raise InputError(
            f"{path}: {seconds:.2f} s of sound: expected more than {FILTER_S:g} s, in which the "
            "filters of levels settle; give a longer recording"
        )


def _head(meter: LevelMeter) -> str:
    unit = "dB SPL" if meter.profile.calibrated else "dBFS, not calibrated"
    limit_hz = meter.upper_limit_hz
    limit = "" if limit_hz is None else f", up to {limit_hz:g} Hz"
    names = "".join(f"{name:>8}" for name in _COLUMNS)
    return f"levels in {unit}{limit}; dBFS and peak re full scale\n{'from':>10}  {'to':>8}  {names}"


def _row(levels: Levels, meter: LevelMeter) -> str:
    start_s = levels.first_sample / meter.rate_hz
    end_s = start_s + levels.n_samples / meter.rate_hz
    values = (getattr(levels, name) for name in _COLUMNS.values())
    cells = "".join("       -" if value is None else f"{value:8.1f}" for value in values)
    row = f"{start_s:8.1f} s{end_s:8.1f} s  {cells}"
    if levels.bands_db:
        pairs = (f"{name} Hz {level_db:.1f}" for name, level_db in levels.bands_db.items())
        row += "\n" + "  bands: " + ", ".join(pairs)
    return row


def _json(levels: Levels, meter: LevelMeter) -> str:
    values = asdict(levels)
    start_s = values.pop("first_sample") / meter.rate_hz
    interval_s = values.pop("n_samples") / meter.rate_hz
    bands_db = values.pop("bands_db")
    for name in _COLUMNS.values():
        values[name] = None if values[name] is None else round(values[name], 2)
    return json.dumps(
        {
            "start_s": round(start_s, 3),
            "interval_s": round(interval_s, 3),
            "measured_s": round(values.pop("measured_s"), 3),
            "gaps": values.pop("gaps"),
            "calibrated": meter.profile.calibrated,
            "upper_limit_hz": meter.upper_limit_hz,
            **values,
            "bands_db": bands_db and {name: round(level, 2) for name, level in bands_db.items()},
        }
    )
