"""What `soundpost images` was asked for, as the images of a session that it makes."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Sequence

from soundpost.device.array.acoustic_image import ImageSettings
from soundpost.device.array.camera_sections import CameraSection
from soundpost.device.array.geometry import ImageGrid
from soundpost.device.array.image_file import KINDS
from soundpost.device.array.mfcc import MelSettings
from soundpost.device.errors import InputError, UsageError
from soundpost.device.session.calibrated_array import calibrated_array
from soundpost.device.session.session_images import SessionImages
from soundpost.device.session.session_reader import Session

# About the rate for which the published filters were laid out.
_PUBLISHED_RATES_HZ = (11_520, 14_080)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds of images from "mfcc,energy", in the order of KINDS; UsageError for another word."""
    words = {word.strip().replace("-", "_") for word in text.split(",")}
    for word in sorted(words - set(KINDS)):
        raise UsageError(
            f"--kind {word}: expected some of {', '.join(KINDS)}, with commas between them"
        )
    return tuple(kind for kind in KINDS if kind in words)


def parse_grid(text: str) -> tuple[int, int]:
    """Rows and columns from "36x48"; UsageError for anything else."""
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if found is None:
        raise UsageError(f"--grid {text}: expected rows and columns, such as 36x48")
    return int(found[1]), int(found[2])


def image_settings(arguments: argparse.Namespace, temperature_c: float | None) -> ImageSettings:
    """Settings from options; the temperature is the session's unless one is given."""
    if arguments.temperature is not None:
        temperature_c = arguments.temperature
    rate_hz = arguments.rate
    low, high = _PUBLISHED_RATES_HZ
    settings = ImageSettings(
        sample_rate_hz=rate_hz,
        snapshot_length=arguments.length,
        temperature_c=20.0 if temperature_c is None else temperature_c,
        band_low_hz=arguments.band[0],
        band_high_hz=arguments.band[1],
        remove_diagonal=arguments.remove_diagonal,
        mel=MelSettings(layout="published" if low <= rate_hz <= high else "frequency"),
    )
    return settings


def image_grid(arguments: argparse.Namespace, grid: ImageGrid) -> ImageGrid:
    """The array's pixels with what the options change."""
    changes: dict[str, object] = {}
    if arguments.grid is not None:
        changes["rows"], changes["columns"] = parse_grid(arguments.grid)
    if arguments.view is not None:
        changes["half_width_deg"], changes["half_height_deg"] = arguments.view
    if arguments.surface is not None:
        changes["surface"] = arguments.surface
    if arguments.near is not None:
        changes["distance_m"] = arguments.near
    return dataclasses.replace(grid, **changes)  # type: ignore[arg-type]  # checked by ImageGrid


def build_images(
    session: Session, arguments: argparse.Namespace
) -> tuple[SessionImages, CameraSection | None]:
    """The images that options ask for, and what is known of the camera.

    Raises InputError for a session without an array, UsageError for what cannot be.
    """
    array = session.array
    if array is None:
        raise InputError(
            f"{session.folder}: has no array.json, so that nobody knows where its microphones "
            "are; record with --array"
        )
    settings = image_settings(arguments, session.temperature_c)
    calibration = session.known
    grid = image_grid(arguments, array.image)
    found = calibrated_array(array, calibration, grid, settings, arguments.dead)
    first, last = _part(session, arguments.begin, arguments.end)
    # Without pictures there is nothing that the camera's map belongs to.
    seen = calibration is not None and session.frame_table.n_frames
    camera = calibration.camera if calibration is not None and seen else None
    return SessionImages(session, found.imager, found.channels, first, last), camera


def _part(session: Session, begin_s: float | None, end_s: float | None) -> tuple[int, int]:
    begin_s = 0.0 if begin_s is None else begin_s
    end_s = session.duration_s if end_s is None else end_s
    if not 0 <= begin_s < end_s < math.inf or begin_s >= session.duration_s:
        raise UsageError(
            f"--from {begin_s:g} --to {end_s:g}: expected times that rise, within the session's "
            f"{session.duration_s:.3f} s"
        )
    return round(begin_s * session.rate_hz), round(end_s * session.rate_hz)


def dead_numbers(texts: Sequence[str]) -> list[int]:
    """Numbers from "79,105" given once or more; UsageError for anything else."""
    numbers = []
    for text in texts:
        for part in text.split(","):
            if not part.strip().isdecimal():
                raise UsageError(f"--dead {text}: expected numbers from 0, such as 79,105")
            numbers.append(int(part))
    return numbers
