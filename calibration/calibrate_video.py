"""What `soundpost calibrate camera` and `sync` do, from pictures and sound to a section."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soundpost.calibration import calibrate_reports, sync
from soundpost.calibration.calibrate_outcome import Outcome, now
from soundpost.calibration.camera_map import fit_camera
from soundpost.calibration.camera_pairs import Stay, find_stays, pair_up, spots_of
from soundpost.calibration.films import grey_frames
from soundpost.calibration.recordings import (
    Recording,
    air_temperature_c,
    check_array,
    check_channels,
    read_recording,
)
from soundpost.device.array.acoustic_image import ImageSettings
from soundpost.device.array.beamforming import speed_of_sound_m_s
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import Evidence
from soundpost.device.array.camera_sections import SyncSection
from soundpost.device.array.geometry import Floats
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.array.mfcc import MelSettings
from soundpost.device.errors import InputError
from soundpost.device.session.calibrated_array import calibrated_array

# Frames of a video are held in memory, as grey pictures.
_MAX_VIDEO_BYTES = 4_000_000_000
# Where sound sets in again after a gap, it does not rise by itself.
_SEAM_S = 0.05


def run_camera(
    video: Path,
    sound: Path,
    array: ArrayDescription,
    calibration: Calibration,
    temperature_c: float | None,
    *,
    quiet: bool = True,
) -> Outcome:
    """The map between directions and pixels.

    video, sound : files, or both the same session's folder
    """
    times_s, frames = [], []
    for time_s, frame in grey_frames(video, quiet=quiet):
        times_s.append(time_s)
        frames.append(frame)
        if len(frames) * frame.size > _MAX_VIDEO_BYTES:
            raise InputError(f"{video}: is too long to be held in memory; cut or shrink it")
    if not frames:
        raise InputError(f"{video}: has no frames; record it again")
    stays = find_stays(times_s, spots_of(frames))
    recording = read_recording(sound)
    check_array(recording, array)
    temperature_c = air_temperature_c(temperature_c, [recording])
    settings = ImageSettings(
        sample_rate_hz=recording.rate_hz,
        temperature_c=temperature_c,
        remove_diagonal=True,
        # Only energy is asked for: any rate will do.
        mel=MelSettings(layout="frequency"),
    )
    applied = calibrated_array(array, calibration, array.image, settings)
    check_channels(recording.samples, applied.channels, str(sound))
    late_s = 0.0 if calibration.sync is None else calibration.sync.audio_late_s
    whole = _whole_stays(stays, recording, applied.channels, late_s)
    picked = recording.samples[:, list(applied.channels)]
    pairs = pair_up(whole, picked, recording.rate_hz, late_s, applied.imager)
    height, width = frames[0].shape
    evidence = Evidence(
        now(),
        "light and buzzer held still at places all over the picture",
        temperature_c,
        {"unheard": float(pairs.unheard)},
    )
    try:
        fit = fit_camera(pairs.directions, pairs.pixels, (width, height), evidence)
    except InputError as error:
        raise InputError(
            f"{video}: {error} ({len(stays)} stays of a light were seen, "
            f"{pairs.unheard + len(stays) - len(whole)} of them not heard)"
        ) from error
    warnings: tuple[str, ...] = ()
    if len(whole) < len(stays):
        warnings = (f"{sound}: {len(stays) - len(whole)} stays are left out: sound is missing",)
    if calibration.sync is None:
        warnings = (
            *warnings,
            "audio and video were taken to be in step: run soundpost calibrate sync first",
        )
    report = calibrate_reports.camera_report(fit, pairs).with_warnings(warnings)
    changed = calibration.with_section(fit.section)
    return Outcome(changed, fit.section, report.lines, report, warnings)


def _whole_stays(
    stays: list[Stay], recording: Recording, channels: tuple[int, ...], late_s: float
) -> list[Stay]:
    """Those during which no microphone's sound is missing."""

    def place(time_s: float) -> int:
        return round((time_s + late_s) * recording.rate_hz)

    return [
        stay
        for stay in stays
        if not recording.lacks(place(stay.first_s), place(stay.last_s), channels)
    ]


def run_sync(
    video: Path,
    sound: Path,
    calibration: Calibration,
    temperature_c: float | None,
    distance_m: float,
    channel: int | None,
    *,
    quiet: bool = True,
) -> Outcome:
    """How late the audio is.

    video, sound : files, or both the same session's folder
    """
    times, bright = [], []
    for time_s, frame in grey_frames(video, quiet=quiet):
        times.append(time_s)
        bright.append(sync.frame_brightness(frame))
    recording = read_recording(sound)
    n_channels = recording.samples.shape[1]
    if channel is None:
        # The channel of middling loudness: neither dead nor noisy.
        power = np.square(recording.samples, dtype=np.float64).mean(axis=0)
        channel = int(np.argsort(power)[len(power) // 2])
    elif not 0 <= channel < n_channels:
        raise InputError(f"{sound}: has channels 0 to {n_channels - 1}, no {channel}")
    temperature_c = air_temperature_c(temperature_c, [recording])
    clicks_s, warnings = _clicks(recording, channel)
    times_s = np.array(times)
    frame_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.04
    found = sync.measure_sync(
        sync.find_flashes(np.array(bright), times_s),
        clicks_s,
        frame_s,
        distance_m=distance_m,
        sound_m_s=speed_of_sound_m_s(temperature_c),
    )
    evidence = Evidence(
        now(),
        f"{len(found.flashes_s)} flashes with a click at {distance_m:g} m",
        temperature_c,
        {"spread_s": found.spread_s, "pairs": float(len(found.flashes_s))},
    )
    section = SyncSection(evidence, found.audio_late_s, found.uncertainty_s)
    report = calibrate_reports.sync_report(found).with_warnings(warnings)
    return Outcome(calibration.with_section(section), section, report.lines, report, warnings)


def _clicks(recording: Recording, channel: int) -> tuple[Floats, tuple[str, ...]]:
    """Times of clicks on the recording's timeline, and a line where sound is missing."""
    joined, rate_hz = recording.joined([channel]), recording.rate_hz
    margin = round(_SEAM_S * rate_hz)
    found = (round(of * rate_hz) for of in sync.find_clicks(joined.samples[:, 0], rate_hz))
    whole = [joined.place(of) / rate_hz for of in found if joined.is_whole(of - margin, of)]
    if len(joined.samples) == len(recording.samples):
        return np.array(whole), ()
    lacking_s = (len(recording.samples) - len(joined.samples)) / rate_hz
    line = f"{recording.path}: lacks {lacking_s:.3f} s of sound on channel {channel}"
    return np.array(whole), (f"{line}; clicks in it are not heard",)
