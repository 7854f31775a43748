"""What `soundpost calibrate array` and `positions` do, from files to a section.

Sound is that of files or of recorded sessions; gaps are cut out, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from soundpost.calibration import array_health, calibrate_reports, positions
from soundpost.calibration.array_response import Take
from soundpost.calibration.calibrate_outcome import MEASURE_AGAIN, Outcome, now
from soundpost.calibration.event_times import EventTimes, find_events, measure_times
from soundpost.calibration.recordings import (
    Recording,
    air_temperature_c,
    check_array,
    check_channels,
    pick_channels,
    read_recording,
)
from soundpost.device.array.beamforming import speed_of_sound_m_s
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import (
    Evidence,
    MicrophoneSection,
    PositionSection,
)
from soundpost.device.array.calibration_use import microphone_channels
from soundpost.device.array.geometry import Floats
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError

_MAX_ALIKE = 6
# A channel that lacks more than this part of a recording is taken for one that is dead.
_MOST_LACKING = 0.5


def run_array(
    takes: Sequence[tuple[Path, Floats]],
    array: ArrayDescription,
    calibration: Calibration,
    temperature_c: float | None,
) -> Outcome:
    """Gains, delays, signs, states and order of the microphones.

    temperature_c : of the air; None: as the sessions say
    """
    geometry, response = calibration.geometry(array), calibration.response
    recordings, read = [], []
    warnings: list[str] = []
    for path, place_m in takes:
        recording = read_recording(path)
        check_array(recording, array)
        check_channels(recording.samples, array.channels, str(path))
        used, told = _whole_part(recording, array.channels)
        warnings += told
        picked = pick_channels(used.samples, array.channels, str(path))
        recordings.append(recording)
        read.append(Take(picked, used.rate_hz, place_m))
    temperature_c = air_temperature_c(temperature_c, recordings)
    try:
        health = array_health.examine(
            read,
            geometry,
            speed_of_sound_m_s(temperature_c),
            response,
        )
    except InputError as error:
        plain = array_health.plain_findings([of.samples for of in read], array.channels)
        raise InputError("; ".join([*plain, str(error)])) from error
    channels = tuple(array.channels[column] for column in health.carries)
    fit, living = health.fit, health.living
    evidence = Evidence(
        now(),
        f"source at {len(takes)} known places",
        temperature_c,
        {
            "snr_db": health.snr_db,
            "turn_deg": health.turn_deg,
            "gain_error": float(np.median(fit.gain_error[living])),
            "delay_error_s": float(np.median(fit.delay_error_s[living])),
            "misfit": float(np.median(fit.misfit[living])),
        },
    )
    section = MicrophoneSection(
        evidence,
        tuple(fit.gain.tolist()),
        tuple(fit.delay_s.tolist()),
        tuple(fit.inverted.tolist()),
        health.states,
        channels,
        geometry.hash(),
    )
    if health.alike:
        pairs = ", ".join(f"{a} and {b}" for a, b in health.alike[:_MAX_ALIKE])
        more = len(health.alike) - _MAX_ALIKE
        warnings.append(
            f"a swap of microphones {pairs}{f' and of {more} more pairs' if more > 0 else ''} "
            "would not be heard from these places; add a --take from another side"
        )
    fine = len(health.states) - len({of.microphone for of in health.findings})
    lines = [f"{fine} of {len(health.states)} microphones are as they should be"]
    lines += [
        f"microphone {of.microphone} (channel {channels[of.microphone]}) is {of.kind}: {of.why}"
        for of in health.findings
    ]
    mind = tuple(warnings)
    report = calibrate_reports.array_report(health, geometry.positions_m, channels, mind)
    return Outcome(calibration.with_section(section), section, tuple(lines), report, mind)


def _whole_part(
    recording: Recording, channels: tuple[int, ...]
) -> tuple[Recording, tuple[str, ...]]:
    """The longest part without a gap; channels that hardly ever have sound are silent in it."""
    n_samples = len(recording.samples)
    absent = []
    for channel in channels:
        present = sum(last - first for first, last in recording.stretches([channel]))
        if present < (1 - _MOST_LACKING) * n_samples:
            absent.append(channel)
    if len(absent) == len(channels):
        raise InputError(f"{recording.path}: most of its sound is missing; record it again")
    used, told = recording.longest_whole([of for of in channels if of not in absent])
    if not absent:
        return used, told
    samples = used.samples.copy()
    samples[:, absent] = 0.0
    line = (
        f"{recording.path}: channels {', '.join(map(str, absent[:_MAX_ALIKE]))}"
        f"{' …' if len(absent) > _MAX_ALIKE else ''} lack most of their sound and are taken for "
        "dead"
    )
    return replace(used, samples=samples), (*told, line)


def run_positions(
    paths: Sequence[Path],
    array: ArrayDescription,
    calibration: Calibration,
    temperature_c: float | None,
    spread_m: float,
) -> Outcome:
    """Positions of the microphones from chirps or clicks.

    temperature_c : of the air; None: as the sessions say
    """
    drawn_m = array.geometry.positions_m
    channels = microphone_channels(array, calibration)
    living = np.arange(len(drawn_m))
    if calibration.microphones is not None:
        living = np.setdiff1d(living, calibration.microphones.named("dead", "noisy", "clipped"))
    recordings = [read_recording(path) for path in paths]
    temperature_c = air_temperature_c(temperature_c, recordings)
    sound_m_s = speed_of_sound_m_s(temperature_c)
    widest_s = 1.2 * float(np.linalg.norm(np.ptp(drawn_m, axis=0))) / sound_m_s + 1e-3
    parts = []
    mind: list[str] = []
    for recording in recordings:
        check_array(recording, array)
        check_channels(recording.samples, channels, str(recording.path))
        some = [channels[mic] for mic in living]
        part, told = _events(recording, some, widest_s)
        parts.append(part)
        mind += told
    times = replace(
        parts[0],
        times_s=np.concatenate([of.times_s for of in parts]),
        errors_s=np.concatenate([of.errors_s for of in parts]),
        spans_s=np.concatenate([of.spans_s for of in parts]),
    )
    found = positions.find_positions(times, drawn_m[living], sound_m_s, spread_m=spread_m)
    placed_m = drawn_m.copy()
    placed_m[living] = found.positions_m
    by_axis = np.sqrt(np.square(found.errors_m).mean(axis=0))
    evidence = Evidence(
        now(),
        f"{len(times.times_s)} chirps or clicks at unknown places; laid on the drawing by the "
        "rigid motion that fits best",
        temperature_c,
        {
            "residual_s": found.residual_s,
            "error_x_m": float(by_axis[0]),
            "error_y_m": float(by_axis[1]),
            "error_z_m": float(by_axis[2]),
            "condition": found.condition,
        },
    )
    section = PositionSection(evidence, placed_m)
    if calibration.microphones is not None:
        mind.append(MEASURE_AGAIN.format("positions before"))
    report = calibrate_reports.positions_report(found, times, drawn_m[living], living)
    report = report.with_warnings(tuple(mind))
    changed = calibration.with_section(section)
    return Outcome(changed, section, report.lines, report, tuple(mind))


def _events(
    recording: Recording, channels: Sequence[int], widest_s: float
) -> tuple[EventTimes, tuple[str, ...]]:
    """When microphones hear the events that lie wholly where no sound is missing."""
    joined, rate_hz, path = recording.joined(channels), recording.rate_hz, recording.path
    dead = array_health.plain_findings([joined.samples], channels)
    if dead:
        raise InputError(f"{path}: {'; '.join(dead)}: run soundpost calibrate array first")
    events = find_events(joined.samples, rate_hz)
    whole = [span for span in events if joined.is_whole(*span)]
    times = measure_times(joined.samples, rate_hz, whole, widest_s)
    places = [[joined.place(sample) / rate_hz for sample in span] for span in whole]
    times = replace(times, spans_s=np.array(places, np.float64).reshape(-1, 2))
    lacking_s = (len(recording.samples) - len(joined.samples)) / rate_hz
    if not lacking_s:
        return times, ()
    return times, (
        f"{path}: lacks {lacking_s:.3f} s of sound; {len(events) - len(whole)} of {len(events)} "
        "events are cut by a gap and left out",
    )
