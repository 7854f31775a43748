"""What is to be recorded, and how it is getting on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.session.level_meters import Levels

# Less is no disk to record on: other programs of the machine need some.
KEEP_FREE_BYTES: Final = 500_000_000


@dataclass(frozen=True)
class RecordSettings:
    """What is recorded, beside sound and pictures.

    device : name of this sensor
    source, camera : URLs, as they are to be written down
    array : geometry and channels, None where it is not known
    calibration : content of calibration.json, None without one
    temperature_c : of the air, None where it is not known
    notes : free text
    seconds : length, None for no end
    keep_free_bytes : of the disk: recording ends before less is left
    """

    device: str
    source: str
    camera: str | None = None
    array: ArrayDescription | None = None
    calibration: bytes | None = None
    temperature_c: float | None = None
    notes: str = ""
    seconds: float | None = None
    keep_free_bytes: int = KEEP_FREE_BYTES


@dataclass(frozen=True)
class RecordStatus:
    """How a recording is getting on.

    n_samples : on disk
    lost : samples that are missing so far, whoever lost them
    n_gaps : how often
    waiting : how full the queue before the disk is, 0 to 1
    free_bytes : left on the disk
    bytes_s : that sound and pictures need in a second
    levels : of each channel
    frames, frames_dropped : pictures so far
    camera_fps : pictures in the last seconds, per second
    camera_fault : why there are none, None while there are
    """

    n_samples: int
    rate_hz: int
    lost: int
    n_gaps: int
    waiting: float
    free_bytes: int
    bytes_s: float
    levels: Levels
    frames: int
    frames_dropped: int
    camera_fps: float
    camera_fault: str | None
