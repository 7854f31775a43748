"""Pascals per unit from an acoustic calibrator: a tone of 94 or 114 dB at 1 kHz (IEC 60942).

The tone is fitted by least squares in pieces of 0.25 s (IEEE 1057, four parameters): its level, how
steady that is, and what is left beside it. Only a single, steady, unclipped tone near 1 kHz counts:
anything else was not the calibrator, or it did not sit tight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from soundpost.device.array.geometry import Floats
from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError
from soundpost.device.microphone import CALIBRATION_DB_SPL, MICROPHONE_SCHEMA

LEVELS_DB = (94.0, 114.0)
TONE_HZ = 1_000.0
REFERENCE_PA = 20e-6
# IEC 60942 allows class 2 calibrators 0.75 dB; their own uncertainty is mostly far smaller.
CALIBRATOR_DB = 0.3
# Of the frequency: a class 2 calibrator keeps 1.7 %, a cheap one less well.
_OFF_TONE = 0.03
_PIECE_S = 0.25
_LEAST_PIECES = 4
_LEAST_SNR_DB = 20.0
_MOST_UNSTEADY_DB = 0.3
# A sine is above 0.999 of its peak for 2.8 % of the time.
_NEAR_PEAK, _MOST_NEAR_PEAK = 1 - 1e-3, 0.06
_SEARCHED_HZ = (100.0, 8_000.0)


@dataclass(frozen=True)
class Level:
    """What a calibrator's tone says.

    pa_per_unit : pascals that a sample of 1.0 stands for
    uncertainty_db : standard uncertainty, the calibrator's own included
    frequency_hz : of the tone
    tone_dbfs : its level; a full-scale sine is 0 dBFS
    unsteady_db : standard deviation of its level over time
    snr_db : of the tone over all that is beside it
    pieces_db : its level over time, in dBFS, one value for each 0.25 s
    """

    pa_per_unit: float
    uncertainty_db: float
    frequency_hz: float
    tone_dbfs: float
    unsteady_db: float
    snr_db: float
    pieces_db: tuple[float, ...]

    @property
    def sensitivity_dbfs(self) -> float:
        """What the channel reads at 94 dB SPL, as a microphone profile says it."""
        full_scale_pa = self.pa_per_unit / math.sqrt(2)
        return CALIBRATION_DB_SPL - 20 * math.log10(full_scale_pa / REFERENCE_PA)


def profile_text(name: str, level: Level, response: Sequence[tuple[float, float]] = ()) -> str:
    """A microphone profile as device/microphone.py reads it."""
    lines = [
        f"schema = {json.dumps(MICROPHONE_SCHEMA)}",
        f"name = {json.dumps(name, ensure_ascii=False)}",
        f"sensitivity_dbfs = {level.sensitivity_dbfs:.3f}",
    ]
    if response:
        points = ", ".join(f"[{frequency_hz!r}, {db!r}]" for frequency_hz, db in response)
        lines.append(f"response = [{points}]")
    return "\n".join(lines) + "\n"


def measure_level(
    samples: FloatArray,
    rate_hz: int,
    level_db_spl: float,
    *,
    calibrator_db: float = CALIBRATOR_DB,
) -> Level:
    """The level of one channel on which a calibrator stands.

    Parameters
    ----------
    samples : (n_samples,) full scale ±1.0
    level_db_spl : of the calibrator, 94 or 114 dB re 20 µPa
    calibrator_db : its own standard uncertainty

    Raises InputError where the tone is absent, not at 1 kHz, unsteady, clipped or not alone.
    """
    piece = round(_PIECE_S * rate_hz)
    n_pieces = len(samples) // piece
    if n_pieces < _LEAST_PIECES:
        raise InputError(
            f"{len(samples) / rate_hz:.2f} s of tone; expected at least "
            f"{_LEAST_PIECES * _PIECE_S:g} s, better 10"
        )
    if not np.isfinite(samples).all():
        raise InputError("the recording has samples that are not numbers; record it again")
    peak = float(np.abs(samples).max())
    if peak == 0:
        raise InputError(
            "the channel is silent to the last bit; check which one the calibrator is on"
        )
    values = samples.astype(np.float64)
    frequency_hz = _strongest_hz(values, rate_hz)
    if abs(frequency_hz / TONE_HZ - 1) > _OFF_TONE:
        raise InputError(
            f"the strongest tone is at {frequency_hz:.0f} Hz, expected {TONE_HZ:.0f}: is the "
            "calibrator on, set to 1 kHz and on this channel's microphone?"
        )
    if peak >= 1 - 2**-15 or np.mean(np.abs(values) >= peak * _NEAR_PEAK) > _MOST_NEAR_PEAK:
        raise InputError(
            f"the tone is clipped at {20 * np.log10(peak):.1f} dBFS: turn the gain down or use "
            "94 in place of 114 dB, and record again"
        )
    cut = values[: n_pieces * piece].reshape(n_pieces, piece)
    amplitudes, frequency_hz, left = _fitted(cut, frequency_hz, rate_hz)
    power = np.square(amplitudes) / 2
    snr_db = float(10 * np.log10(power.mean() / max(left, 1e-30)))
    if snr_db < _LEAST_SNR_DB:
        raise InputError(
            f"the tone is {snr_db:.0f} dB above what is beside it, expected {_LEAST_SNR_DB:g}: "
            "seat the calibrator tightly, and keep the room quiet"
        )
    pieces_db = 20 * np.log10(amplitudes)
    unsteady_db = float(pieces_db.std(ddof=1))
    if unsteady_db > _MOST_UNSTEADY_DB:
        raise InputError(
            f"the tone's level wanders by {unsteady_db:.2f} dB, expected {_MOST_UNSTEADY_DB:g} at "
            "most: seat the calibrator tightly, wait until it has settled, and check its battery"
        )
    rms = float(np.sqrt(power.mean()))
    pressure_pa = REFERENCE_PA * 10 ** (level_db_spl / 20)
    return Level(
        pressure_pa / rms,
        float(np.hypot(calibrator_db, unsteady_db / np.sqrt(n_pieces))),
        frequency_hz,
        float(20 * np.log10(rms * np.sqrt(2))),
        unsteady_db,
        snr_db,
        tuple(pieces_db.tolist()),
    )


def find_channel(samples: FloatArray, rate_hz: int) -> int:
    """The channel of (n_samples, n_channels) on which the calibrator stands: the loudest at 1 kHz.

    Raises InputError where no channel is much louder than the next, so that it must be named.
    """
    spectra = np.abs(fft.rfft(samples.astype(np.float64), axis=0)) ** 2
    frequencies = fft.rfftfreq(len(samples), 1 / rate_hz)
    near = np.abs(frequencies / TONE_HZ - 1) <= _OFF_TONE
    power = spectra[near].sum(axis=0)
    order = np.argsort(power)[::-1]
    if len(order) > 1 and power[order[0]] < 4 * power[order[1]]:
        raise InputError(
            f"channels {order[0]} and {order[1]} hear the tone about as loud; name the one with "
            "the calibrator: --channel"
        )
    return int(order[0])


def _strongest_hz(values: Floats, rate_hz: int) -> float:
    # A window, so that mean and hum do not spill over what is looked for.
    window = np.hanning(len(values))
    spectrum = np.abs(fft.rfft(values * window))
    frequencies = fft.rfftfreq(len(values), 1 / rate_hz)
    spectrum[(frequencies < _SEARCHED_HZ[0]) | (frequencies > _SEARCHED_HZ[1])] = 0
    return float(frequencies[spectrum.argmax()])


def _fitted(cut: Floats, frequency_hz: float, rate_hz: int) -> tuple[Floats, float, float]:
    """Amplitude of the tone in each piece, its frequency, and mean square of what is left."""
    length = cut.shape[1]
    times_s = np.arange(length) / rate_hz
    for _ in range(6):
        phase = 2 * np.pi * frequency_hz * times_s
        basis = np.stack([np.cos(phase), np.sin(phase), np.ones(length)], axis=1)
        found = np.linalg.lstsq(basis, cut.T, rcond=None)[0]
        # What is left along the change that another frequency would make.
        slope = times_s[:, None] * (
            -np.sin(phase)[:, None] * found[0] + np.cos(phase)[:, None] * found[1]
        )
        slope = slope - basis @ np.linalg.lstsq(basis, slope, rcond=None)[0]
        rest = cut.T - basis @ found
        step_hz = float((slope * rest).sum() / max((slope**2).sum(), 1e-30)) / (2 * np.pi)
        frequency_hz += step_hz
    amplitudes: Floats = np.hypot(found[0], found[1])
    return amplitudes, frequency_hz, float(np.square(rest).mean())
