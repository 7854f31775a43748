"""What a calibration does to a recording: which channels to take, how to weigh them, whom to skip.

    applied = apply_calibration(array, calibration, settings)
    imager = AcousticImager(
        applied.geometry, array.image, settings, gains=applied.gains, dead=applied.dead
    )
    images = imager.images(cut_snapshots(recording[:, applied.channels]))

A microphone of gain g, delay d and sign s gives s g X(f) exp(-2j pi f d) for the spectrum X that it
should give; it is multiplied by what undoes this.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.acoustic_image import ImageSettings
from soundpost.device.array.calibration_file import Calibration, same_positions
from soundpost.device.array.geometry import ArrayGeometry, Floats
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError

logger = logging.getLogger(__name__)

# A noisy or clipped microphone costs an image more than it gives, unless nearly all are so.
NOT_USED = ("dead", "noisy", "clipped")


@dataclass(frozen=True, eq=False)
class AppliedCalibration:
    """What AcousticImager takes.

    geometry : positions as measured
    channels : (n_mics,) channel of the stream of each microphone
    gains : (n_bins, n_mics) complex128, what each microphone's spectrum is multiplied by
    dead : microphones to leave out
    """

    geometry: ArrayGeometry
    channels: tuple[int, ...]
    gains: NDArray[np.complex128]
    dead: tuple[int, ...]


def apply_calibration(
    array: ArrayDescription,
    calibration: Calibration,
    settings: ImageSettings,
    *,
    in_pascals: bool = False,
    left_out: Collection[str] = NOT_USED,
) -> AppliedCalibration:
    """Fold order, gains, delays, polarity, response and dead microphones into one set of weights.

    in_pascals : spectra in Pa, in place of parts of full scale
    left_out : states of the microphones that are not used

    Raises InputError for a calibration of another array, and without a level where pascals are
    asked for.
    """
    geometry = calibration.geometry(array)
    if not same_positions(calibration, array):
        logger.warning(
            "%s: its delays were found with other positions than it has now; run soundpost "
            "calibrate array again",
            array.geometry.name,
        )
    frequencies_hz = np.arange(settings.n_bins) * settings.bin_hz
    gains = corrections(array, calibration, frequencies_hz)
    if in_pascals:
        gains *= typical_pa_per_unit(array, calibration)
    microphones = calibration.microphones
    if microphones is None:
        return AppliedCalibration(geometry, array.channels, gains, ())
    dead = microphones.named(*left_out)
    return AppliedCalibration(geometry, microphones.channels, gains, dead)


def microphone_channels(
    array: ArrayDescription, calibration: Calibration | None
) -> tuple[int, ...]:
    """Channel of each microphone, as calibrated or else as array.json says."""
    microphones = None if calibration is None else calibration.microphones
    return tuple(array.channels if microphones is None else microphones.channels)


def corrections(
    array: ArrayDescription, calibration: Calibration, frequencies_hz: Floats
) -> NDArray[np.complex128]:
    """What the spectra of microphones are multiplied by so that all are alike and flat.

    frequencies_hz : (n_bins,)

    Returns (n_bins, n_mics). Raises InputError for a calibration of another array.
    """
    calibration.check_belongs(array.geometry)
    table = np.ones((len(frequencies_hz), array.geometry.n_mics), np.complex128)
    microphones = calibration.microphones
    if microphones is not None:
        signs = np.where(microphones.inverted, -1.0, 1.0)
        turns = np.multiply.outer(frequencies_hz, np.array(microphones.delay_s))
        table *= signs / np.array(microphones.gain) * np.exp(2j * np.pi * turns)
    if calibration.response is not None:
        response_db = calibration.response.response_db(frequencies_hz, table.shape[1])
        table *= 10 ** (-response_db / 20)
    return table


def typical_pa_per_unit(array: ArrayDescription, calibration: Calibration) -> float:
    """Pascals that a sample of 1.0 stands for once the gains are undone.

    Raises InputError where no level has been measured, or on a channel that is no microphone's.
    """
    level = calibration.level
    if level is None:
        raise InputError(
            "calibration: has no level, and pascals were asked for; measure it with a calibrator: "
            "soundpost calibrate level"
        )
    microphones = calibration.microphones
    channels = array.channels if microphones is None else microphones.channels
    if level.channel not in channels:
        raise InputError(
            f"calibration: its level is of channel {level.channel}, which is no microphone of "
            f"{array.geometry.name[:60]!r}; measure it on one of the array's"
        )
    if microphones is None:
        return level.pa_per_unit
    return level.pa_per_unit * microphones.gain[channels.index(level.channel)]
