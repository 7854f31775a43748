"""Which microphones of an array are dead, noisy, clipped, inverted or on each other's channel.

From recordings of one source at places that are known. A microphone is known by when it hears the
source: a channel that carries another microphone hears it when that one should. From one place two
microphones may hear it at the same time, and no recording tells their swap; several places do.

Poor evidence is refused, with what to do about it: a wrong calibration is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.calibration.array_evidence import (
    DEAD_LEVEL,
    SILENT_RMS,
    audible_columns,
    check_places,
    check_sound,
    check_takes,
    snr_of,
)
from soundpost.calibration.array_response import (
    Fit,
    Take,
    Transfer,
    arrivals_s,
    fit_microphones,
    measure_transfer,
)
from soundpost.calibration.channel_order import (
    arrival_spreads,
    assign_columns,
    carrying_columns,
    pairs_alike,
)
from soundpost.device.array.calibration_sections import ResponseSection
from soundpost.device.array.geometry import ArrayGeometry, Floats
from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError

_DEAD_GAIN = 0.1
# Noise of one over that of the others, at equal gain, and over what an image would not notice.
_NOISY = 10 ** (8 / 10)
_HARMLESS_SNR = 10 ** (30 / 10)
# Samples at one limit, to this part of it, and those within a hundredth below: a sine has nine
# times as many below, noise next to none at its peak.
_FLAT, _BELOW = 1e-4, 1e-2
_FLAT_SHARE, _LEAST_FLAT = 1e-4, 10
_LEAST_PEAK = 1e-3
# What microphones themselves may be late by, beside the delay that another place makes.
_OWN_DELAY_S = 2e-4


@dataclass(frozen=True)
class Finding:
    """What is wrong with one microphone, and why that is known.

    kind : "dead", "noisy", "clipped", "inverted" or "swapped"
    """

    microphone: int
    kind: str
    why: str


@dataclass(frozen=True, eq=False)
class ArrayHealth:
    """What a few recordings say about an array's microphones.

    carries : (n_mics,) column of the recording in which each microphone is found
    states : (n_mics,) "good", "dead", "noisy" or "clipped"
    fit : gains, delays and signs, in the order of the microphones; 1, 0 and plus for the dead
    transfers : of each recording, in that order, without the dead
    living : (n_living,) microphones that are in them
    findings : what is wrong, by microphone
    alike : pairs that all places hear at the same time: a swap of these would not be seen
    snr_db : of the typical microphone
    turn_deg : largest angle between where a source is said to be and where it is heard
    """

    carries: NDArray[np.intp]
    states: tuple[str, ...]
    fit: Fit
    transfers: tuple[Transfer, ...]
    living: NDArray[np.intp]
    findings: tuple[Finding, ...]
    alike: tuple[tuple[int, int], ...]
    snr_db: float
    turn_deg: float


def examine(
    takes: Sequence[Take],
    geometry: ArrayGeometry,
    sound_m_s: float,
    response: ResponseSection | None = None,
) -> ArrayHealth:
    """Examine an array by one or more recordings of a source at known places.

    response : what microphones are known to add, which is no part of their gain

    Raises InputError where the evidence is poor, and says what to do.
    """
    positions, n_mics = geometry.positions_m, geometry.n_mics
    check_takes(takes, n_mics)
    levels = np.sqrt(np.mean([_mean_square(take.samples) for take in takes], axis=0))
    columns = audible_columns(levels)
    limited = np.any([clipped_columns(take.samples) for take in takes], axis=0)
    aperture_s = float(np.linalg.norm(np.ptp(positions, axis=0))) / sound_m_s
    heard = [replace(take, samples=take.samples[:, columns]) for take in takes]
    transfers = [measure_transfer(take, positions[columns], sound_m_s) for take in heard]
    leading = ~limited[columns]
    if leading.sum() < 3:
        raise InputError(
            f"{int(limited.sum())} of {n_mics} channels are clipped; turn the source or the gain "
            "down, and record again"
        )
    fits = [fit_microphones([of], leading, aperture_s + _OWN_DELAY_S) for of in transfers]
    snr_db = check_sound(transfers, fits, leading)
    sounding = np.median([fit.gain for fit in fits], axis=0) > _DEAD_GAIN
    late_s = np.stack([fit.delay_s for fit in fits])
    turn_deg = check_places(takes, positions[columns], late_s, leading & sounding, sound_m_s)
    arrivals = np.stack([arrivals_s(positions, take.place_m, sound_m_s) for take in takes])
    some = columns[sounding]
    spreads = arrival_spreads(late_s[:, sounding])
    of_column = assign_columns(arrivals, arrivals[:, some] + late_s[:, sounding], some, spreads)
    carries = carrying_columns(of_column, n_mics)

    # Again, each column turned back by the delays of the microphone that it carries.
    living = np.array(sorted(of_column.values()))
    heard = [replace(take, samples=take.samples[:, carries[living]]) for take in takes]
    transfers = [measure_transfer(take, positions[living], sound_m_s) for take in heard]
    if response is not None:
        transfers = [
            of.without(response.response_db(of.frequencies_hz, n_mics)[:, living])
            for of in transfers
        ]
    leading = ~limited[carries[living]]
    fit = fit_microphones(transfers, leading, _OWN_DELAY_S)
    noisy = _noisy(transfers, fit, leading)
    leading &= ~noisy
    if leading.sum() < 2:
        raise InputError("hardly a microphone is without noise or clipping; record again, quieter")
    fit = fit_microphones(transfers, leading, _OWN_DELAY_S)
    states = np.full(n_mics, "dead", object)
    states[living] = "good"
    states[living[noisy]] = "noisy"
    states[living[limited[carries[living]]]] = "clipped"
    for mic in set(range(n_mics)) - set(living.tolist()):
        column = carries[mic]
        if levels[column] > 2 * np.median(levels[columns]):
            states[mic] = "noisy"
    return ArrayHealth(
        carries,
        tuple(states.tolist()),
        _filled(fit, living, n_mics),
        tuple(transfers),
        living,
        _findings(states, carries, living, fit, transfers, levels),
        pairs_alike(arrivals, living, spreads),
        snr_db,
        turn_deg,
    )


def plain_findings(recordings: Sequence[FloatArray], channels: Sequence[int]) -> list[str]:
    """What is plainly wrong with channels of any recording, whatever it is of, a line for each.

    recordings : (n_samples, n_mics) each
    channels : (n_mics,) what the columns are called
    """
    levels = np.sqrt(np.mean([_mean_square(of) for of in recordings], axis=0))
    clipped = np.any([clipped_columns(of) for of in recordings], axis=0)
    typical = float(np.median(levels))
    lines = []
    for channel, level, limited in zip(channels, levels, clipped, strict=True):
        if level < SILENT_RMS:
            lines.append(f"channel {channel} is dead: silent to the last bit")
        elif level < typical * DEAD_LEVEL:
            below_db = 20 * np.log10(typical / level)
            lines.append(f"channel {channel} is dead: {below_db:.0f} dB below the others")
        elif limited:
            lines.append(f"channel {channel} is clipped: its samples stay at a limit")
    return lines


# -------------------------------------------------------------------------- what is named


def clipped_columns(samples: FloatArray) -> NDArray[np.bool_]:
    """Columns, (n_columns,), whose samples stay at a limit: sound passes its peaks at once."""
    clipped = np.zeros(samples.shape[1], bool)
    for index, column in enumerate(samples.T):
        for side in (column, -column):
            limit = float(side.max())
            if limit < _LEAST_PEAK:
                continue
            at_limit = np.count_nonzero(side >= limit * (1 - _FLAT))
            below = np.count_nonzero(side >= limit * (1 - _BELOW)) - at_limit
            enough = max(_LEAST_FLAT, _FLAT_SHARE * len(side))
            clipped[index] |= at_limit >= enough and at_limit > 2 * below
    return clipped


def _noisy(
    transfers: Sequence[Transfer], fit: Fit, leading: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    noise = np.sum([of.noise.sum(axis=0) for of in transfers], axis=0)
    noise = noise / np.maximum(fit.gain, 1e-9) ** 2
    much = noise > _NOISY * np.median(noise[leading])
    noisy: NDArray[np.bool_] = much & (snr_of(transfers) < _HARMLESS_SNR) & leading
    return noisy


def _mean_square(samples: FloatArray) -> Floats:
    mean: Floats = np.square(samples, dtype=np.float64).mean(axis=0)
    return mean


def _filled(fit: Fit, living: NDArray[np.intp], n_mics: int) -> Fit:
    """The same for all microphones, with what changes nothing for those that are not living."""

    def spread(values: NDArray[Any], rest: float) -> NDArray[Any]:
        whole = np.full(n_mics, rest, values.dtype)
        whole[living] = values
        return whole

    return Fit(
        spread(fit.gain, 1.0),
        spread(fit.delay_s, 0.0),
        spread(fit.inverted, False),
        spread(fit.gain_error, 0.0),
        spread(fit.delay_error_s, 0.0),
        spread(fit.misfit, 0.0),
        fit.deviation,
    )


def _findings(
    states: NDArray[Any],
    carries: NDArray[np.intp],
    living: NDArray[np.intp],
    fit: Fit,
    transfers: Sequence[Transfer],
    levels: Floats,
) -> tuple[Finding, ...]:
    snr_db = 10 * np.log10(snr_of(transfers))
    typical_db = float(np.median(snr_db))
    levels_db = 20 * np.log10(np.maximum(levels, 1e-12))
    others_db = float(np.median(levels_db))
    at = {int(mic): index for index, mic in enumerate(living)}
    found = []
    for mic, state in enumerate(states):
        column = int(carries[mic])
        level = f"{levels_db[column]:.0f} dBFS beside {others_db:.0f} of the others"
        if mic not in at:
            silent = levels[column] < SILENT_RMS
            why = "silent to the last bit" if silent else f"does not hear the source: {level}"
            found.append(Finding(mic, state, why))
            continue
        index = at[mic]
        if state == "noisy":
            why = f"SNR {snr_db[index]:.0f} dB beside {typical_db:.0f} of the others"
            found.append(Finding(mic, "noisy", why))
        if state == "clipped":
            found.append(Finding(mic, "clipped", f"samples stay at a limit, at {level}"))
        if fit.inverted[index]:
            why = f"gain -{fit.gain[index]:.2f}, misfit {fit.misfit[index]:.0%}"
            found.append(Finding(mic, "inverted", why))
        if column != mic:
            why = f"its sound comes on the channel of microphone {column}"
            found.append(Finding(mic, "swapped", why))
    return tuple(found)
