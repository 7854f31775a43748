"""What `soundpost calibrate level` and `response` do, from files to a section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from soundpost.calibration import calibrate_reports, level
from soundpost.calibration.calibrate_outcome import MEASURE_AGAIN, Outcome, now
from soundpost.calibration.recordings import check_array, read_recording
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import Evidence, LevelSection, ResponseSection
from soundpost.device.array.calibration_use import microphone_channels
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError
from soundpost.device.microphone import MicrophoneProfile


def run_level(
    path: Path,
    channel: int | None,
    level_db_spl: float,
    calibrator_db: float,
    array: ArrayDescription | None = None,
    calibration: Calibration | None = None,
) -> tuple[Outcome, level.Level]:
    """Find the calibrator's tone and measure it; the channel, if none is named, is the loudest.

    array, calibration : of an array, None for a sensor with one microphone
    """
    if array is not None and channel is not None:
        _check_microphone(channel, array, calibration)
    recording = read_recording(path)
    if array is not None:
        check_array(recording, array)
    n_channels = recording.samples.shape[1]
    if channel is not None and not 0 <= channel < n_channels:
        raise InputError(f"{path}: has channels 0 to {n_channels - 1}, no {channel}; choose one")
    used, warnings = recording.longest_whole(range(n_channels) if channel is None else [channel])
    samples = used.samples
    chosen = level.find_channel(samples, used.rate_hz) if channel is None else channel
    try:
        found = level.measure_level(
            samples[:, chosen], used.rate_hz, level_db_spl, calibrator_db=calibrator_db
        )
    except InputError as error:
        raise InputError(f"{path}, channel {chosen}: {error}") from error
    if array is not None:
        _check_microphone(chosen, array, calibration)
    evidence = Evidence(
        now(),
        f"calibrator, {level_db_spl:g} dB SPL",
        recording.temperature_c,
        {
            "frequency_hz": found.frequency_hz,
            "unsteady_db": found.unsteady_db,
            "snr_db": found.snr_db,
        },
    )
    section = LevelSection(evidence, found.pa_per_unit, found.uncertainty_db, chosen)
    report = calibrate_reports.level_report(found, chosen, level_db_spl).with_warnings(warnings)
    first = f"channel {chosen}: sensitivity {found.sensitivity_dbfs:.2f} dBFS at 94 dB SPL"
    changed = None if calibration is None else calibration.with_section(section)
    return Outcome(changed, section, (first, *report.lines), report, warnings), found


def _check_microphone(
    channel: int, array: ArrayDescription, calibration: Calibration | None
) -> None:
    channels = microphone_channels(array, calibration)
    if channel not in channels:
        raise InputError(
            f"channel {channel} is no microphone of {array.geometry.name[:60]!r}, which are on "
            f"channels {min(channels)} to {max(channels)}; put the calibrator on one of these, or "
            "name it: --channel"
        )


def run_response(
    common: MicrophoneProfile | None,
    single: Mapping[int, MicrophoneProfile],
    calibration: Calibration,
) -> Outcome:
    """The makers' responses: one for all microphones, and those of single ones.

    common : of all without one of their own; None: stays as it was
    single : by number of the microphone; others stay as they were
    """
    for name in (of for of in single if not 0 <= of < calibration.n_mics):
        raise InputError(
            f"microphone {name} is none of {calibration.array_name[:60]!r}; expected 0 to "
            f"{calibration.n_mics - 1}"
        )
    known = calibration.response
    points = () if known is None else known.points
    own = {} if known is None else dict(known.by_microphone)
    names = [f"{mic}: {of.name}" for mic, of in sorted(single.items())]
    if common is not None:
        points = common.response
        names.insert(0, f"all: {common.name}")
    own |= {mic: of.response for mic, of in single.items()}
    evidence = Evidence(now(), f"response files, {', '.join(names)}")
    section = ResponseSection(evidence, points, own)
    lines = (
        f"{'a response for all microphones' if points else 'no response for all microphones'}, "
        f"{len(own)} of {calibration.n_mics} with one of their own",
    )
    warnings = (
        () if calibration.microphones is None else (MEASURE_AGAIN.format("another response"),)
    )
    report = calibrate_reports.response_report(section, calibration.n_mics, lines, warnings)
    return Outcome(calibration.with_section(section), section, lines, report, warnings)
