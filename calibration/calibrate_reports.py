"""The page of each calibration: what was found, the plots that show it, and what to mind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soundpost.calibration.array_health import ArrayHealth
from soundpost.calibration.camera_map import CameraFit
from soundpost.calibration.camera_pairs import Pairs
from soundpost.calibration.event_times import EventTimes
from soundpost.calibration.level import Level
from soundpost.calibration.positions import Positions
from soundpost.calibration.report import Report, Table
from soundpost.calibration.svg_plot import COLOURS, Plot
from soundpost.calibration.sync import Sync
from soundpost.device.array.calibration_sections import ResponseSection
from soundpost.device.array.camera_map import camera_pixels
from soundpost.device.array.geometry import Floats

_WRONG = COLOURS[1]
_MOST_LINES = 64


def level_report(level: Level, channel: int, level_db_spl: float) -> Report:
    """Of `calibrate level`."""
    plot = Plot("Level of the tone over time", "seconds", "dBFS", least_y=0.2)
    times_s = (np.arange(len(level.pieces_db)) + 0.5) * 0.25
    plot.line(times_s, level.pieces_db)
    plot.points(times_s, level.pieces_db)
    return Report(
        f"Level of channel {channel}",
        (
            f"{level.pa_per_unit:.4g} Pa per unit ± {level.uncertainty_db:.2f} dB: a tone of "
            f"{level_db_spl:g} dB SPL at {level.frequency_hz:.1f} Hz reads {level.tone_dbfs:.2f} "
            "dBFS.",
            f"The tone is {level.snr_db:.0f} dB above the rest and steady to "
            f"{level.unsteady_db:.3f} dB.",
        ),
        (plot,),
    )


def response_report(
    section: ResponseSection, n_mics: int, lines: tuple[str, ...], warnings: tuple[str, ...]
) -> Report:
    """Of `calibrate response`."""
    plot = Plot("What microphones add", "Hz", "dB re 1 kHz", log_x=True, least_y=1.0)
    hertz = np.geomspace(20, 20_000, 241)
    table = section.response_db(hertz, n_mics)
    for mic in list(section.by_microphone)[:_MOST_LINES]:
        plot.line(hertz, table[:, mic], COLOURS[0])
    others = sorted(set(range(n_mics)) - set(section.by_microphone))
    if others:
        plot.line(hertz, table[:, others[0]], COLOURS[1], "all others")
    return Report("Responses of the microphones", lines, (plot,), warnings=warnings)


def array_report(
    health: ArrayHealth, positions_m: Floats, channels: tuple[int, ...], warnings: tuple[str, ...]
) -> Report:
    """Of `calibrate array`."""
    named = sorted({of.microphone for of in health.findings})
    n_mics = len(health.states)
    fine = np.setdiff1d(np.arange(n_mics), named)
    place = Plot("The array, as the camera looks", "x in m", "y in m", equal=True)
    for mics, colour, name in ((fine, COLOURS[0], "as it should be"), (named, _WRONG, "named")):
        of = np.array(mics, int)
        labels = [f"microphone {mic}, channel {channels[mic]}" for mic in mics]
        place.points(
            positions_m[of, 0], positions_m[of, 1], colour, name if len(of) else "", labels
        )
    gains = Plot("Gain", "microphone", "dB")
    delays = Plot("Delay", "microphone", "µs")
    living = health.living
    rest = np.intersect1d(living, named)
    for mics, colour in ((np.setdiff1d(living, named), COLOURS[0]), (rest, _WRONG)):
        labels = [f"microphone {mic}" for mic in mics]
        gains.points(mics, 20 * np.log10(health.fit.gain[mics]), colour, "", labels)
        delays.points(mics, health.fit.delay_s[mics] * 1e6, colour, "", labels)
    magnitude = Plot("What gain and delay leave: magnitude", "Hz", "dB", log_x=True)
    phase = Plot("What gain and delay leave: phase", "Hz", "degrees", log_x=True)
    snr = Plot("SNR of each microphone", "Hz", "dB", log_x=True)
    transfer, deviation = health.transfers[0], health.fit.deviation[0]
    for index, mic in enumerate(living[:_MOST_LINES]):
        colour = _WRONG if mic in named else COLOURS[0]
        hertz = transfer.frequencies_hz
        left = np.where(transfer.snr()[:, index] > 1, deviation[:, index], np.nan)
        magnitude.line(hertz, 20 * np.log10(np.maximum(np.abs(left), 1e-6)), colour)
        phase.line(hertz, np.degrees(np.angle(left)), colour)
        snr.line(hertz, 10 * np.log10(np.maximum(transfer.snr()[:, index], 1e-6)), colour)
    rows = tuple(
        (str(of.microphone), str(channels[of.microphone]), of.kind, of.why)
        for of in health.findings
    )
    tables = (Table(("microphone", "channel", "what", "why"), rows),) if rows else ()
    return Report(
        "Microphones of the array",
        (
            f"{len(fine)} of {n_mics} microphones are as they should be. SNR {health.snr_db:.0f} "
            f"dB; gains known to {np.median(health.fit.gain_error[living]):.2%}, delays to "
            f"{np.median(health.fit.delay_error_s[living]) * 1e6:.2f} µs.",
        ),
        (place, gains, delays, magnitude, phase, snr),
        tables,
        warnings,
    )


def positions_report(
    found: Positions, times: EventTimes, drawn_m: Floats, living: NDArray[np.int64]
) -> Report:
    """Of `calibrate positions`; living : number of each microphone that was measured."""
    front = Plot("Microphones, drawn and measured", "x in m", "y in m", equal=True)
    front.points(drawn_m[:, 0], drawn_m[:, 1], "#999999", "drawn")
    labels = [
        f"microphone {mic}: {moved * 1e3:.1f} mm"
        for mic, moved in zip(living, found.moved_m, strict=True)
    ]
    front.points(found.positions_m[:, 0], found.positions_m[:, 1], COLOURS[0], "measured", labels)
    moved = Plot("Distance from the drawing", "microphone", "mm")
    moved.points(np.asarray(living), found.moved_m * 1e3, COLOURS[0], "", labels)
    sources = Plot("Sources, from above", "x in m", "z in m", equal=True)
    numbers = [f"event {number}" for number in range(1, len(found.sources_m) + 1)]
    sources.points(found.sources_m[:, 0], found.sources_m[:, 2], COLOURS[1], "sources", numbers)
    sources.points(found.positions_m[:, 0], found.positions_m[:, 2], COLOURS[0], "microphones")
    left = Plot("Times that the positions leave unexplained", "event", "µs")
    for mic in range(len(drawn_m)):
        left.points(np.arange(1, len(found.residuals_s) + 1), found.residuals_s[:, mic] * 1e6)
    rows = tuple(
        (
            str(number),
            f"{times.spans_s[number - 1, 0]:.2f}",
            ", ".join(f"{value:.2f}" for value in place),
            f"{np.sqrt(np.mean(np.square(residual))) * 1e6:.2f}",
        )
        for number, (place, residual) in enumerate(
            zip(found.sources_m, found.residuals_s, strict=True), 1
        )
    )
    return Report(
        "Positions of the microphones",
        (
            f"{len(rows)} events; {found.residual_s * 1e6:.2f} µs of the times are left "
            f"unexplained. Standard errors {_rms(found.errors_m) * 1e3:.2f} mm, by axis "
            + ", ".join(f"{of * 1e3:.2f}" for of in np.sqrt((found.errors_m**2).mean(axis=0)))
            + f"; condition {found.condition:.0f}.",
            f"Microphones are {_rms(found.moved_m[:, None]) * 1e3:.1f} mm from the drawing, "
            f"{found.moved_m.max() * 1e3:.1f} at most.",
        ),
        (front, moved, sources, left),
        (Table(("event", "at, s", "source x, y, z in m", "left, µs"), rows),),
    )


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values).sum(axis=1))))


def camera_report(fit: CameraFit, pairs: Pairs) -> Report:
    """Of `calibrate camera`."""
    section = fit.section
    picture = Plot(
        "The picture: light, and where the map has the sound", "column", "rows above the bottom"
    )
    rows = section.height_px - pairs.pixels[:, 1]
    mapped = camera_pixels(section, pairs.directions)
    labels = [f"{time_s:.1f} s" for time_s in pairs.times_s]
    picture.points(pairs.pixels[:, 0], rows, COLOURS[4], "light", labels)
    picture.points(mapped[:, 0], section.height_px - mapped[:, 1], COLOURS[0], "sound", labels)
    frame_x = [0, section.width_px, section.width_px, 0, 0]
    picture.line(frame_x, [0, 0, section.height_px, section.height_px, 0], "#999999")
    picture.equal = True
    left = Plot("Light minus map", "columns", "rows", equal=True)
    for chosen, colour, name in ((fit.used, COLOURS[0], "used"), (~fit.used, _WRONG, "left out")):
        if chosen.any():
            left.points(fit.residuals_px[chosen, 0], fit.residuals_px[chosen, 1], colour, name)
    return Report(
        "Map from directions to pixels",
        (
            f"{int(fit.used.sum())} of {len(fit.used)} places of the target fit within "
            f"{fit.rms_px:.2f} pixels RMS of {section.width_px} x {section.height_px}; "
            f"{pairs.unheard} more were seen and not heard.",
            f"Lens term {section.radial:+.3f}.",
        ),
        (picture, left),
    )


def sync_report(sync: Sync) -> Report:
    """Of `calibrate sync`."""
    plot = Plot("Click minus flash", "seconds", "ms")
    plot.points(sync.flashes_s, sync.differences_s * 1e3)
    ends = [float(sync.flashes_s.min()), float(sync.flashes_s.max())]
    plot.line(ends, [sync.audio_late_s * 1e3] * 2, _WRONG, "mean")
    return Report(
        "Between audio and video",
        (
            f"The audio is {sync.audio_late_s * 1e3:+.1f} ± {sync.uncertainty_s * 1e3:.1f} ms "
            f"late, from {len(sync.flashes_s)} flashes with a click; they scatter by "
            f"{sync.spread_s * 1e3:.1f} ms.",
        ),
        (plot,),
    )
