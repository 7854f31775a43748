"""A session's array and camera as calibrated: applied once, for all who look or export."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_use import apply_calibration
from soundpost.device.array.geometry import ImageGrid
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.session.session_reader import Session
from soundpost.device.session.session_tables import FrameTable


@dataclass(frozen=True)
class CalibratedArray:
    """What makes images of a stream.

    channels : of the stream, of each microphone
    dead : microphones that are left out
    """

    imager: AcousticImager
    channels: tuple[int, ...]
    dead: tuple[int, ...]


def calibrated_array(
    array: ArrayDescription,
    calibration: Calibration | None,
    grid: ImageGrid,
    settings: ImageSettings,
    dead: Collection[int] = (),
) -> CalibratedArray:
    """The array with its gains, delays, polarities, places, order and faults, as far as measured.

    dead : microphones to leave out beside those that the calibration names

    Raises InputError for a calibration of another array, or where nothing is left to hear with.
    """
    if calibration is None:
        left_out = tuple(sorted(dead))
        imager = AcousticImager(array.geometry, grid, settings, dead=left_out)
        return CalibratedArray(imager, tuple(array.channels), left_out)
    applied = apply_calibration(array, calibration, settings)
    left_out = tuple(sorted({*dead, *applied.dead}))
    imager = AcousticImager(applied.geometry, grid, settings, gains=applied.gains, dead=left_out)
    return CalibratedArray(imager, tuple(applied.channels), left_out)


def heard_frames(session: Session) -> FrameTable:
    """The session's frames, each at the sample that is heard when it is seen.

    The recorder dates frames by their clock; what a camera always needs from light to stamp is
    measured by `soundpost calibrate sync`, and added here.
    """
    table, calibration = session.frame_table, session.known
    if calibration is None or calibration.sync is None:
        return table
    return table._replace(samples=table.samples + calibration.sync.audio_late_s * session.rate_hz)
