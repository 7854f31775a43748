"""A session in the layout of the published acoustic-image set (array/published_files.py)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.acoustic_image import ImageSettings
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.array.published_files import (
    IMAGE_SHAPE,
    RATE_HZ,
    SAMPLES_PER_FRAME,
    SETTINGS_FILE,
    SETTINGS_SCHEMA,
    block_bytes,
    block_name,
    image_bytes,
    image_name,
    picture_bytes,
    picture_name,
)
from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.device.session.calibrated_array import (
    CalibratedArray,
    calibrated_array,
    heard_frames,
)
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_reader import Session
from soundpost.device.session.session_tables import Gap

_BLOCK_S: Final = 1.0
_BATCH: Final = 12
_DEFAULT_TEMPERATURE_C: Final = 20.0


def export_published(
    session: Session,
    folder: Path,
    take: tuple[int, int, int],
    progress: Callable[[int], object],
) -> tuple[Path, int]:
    """Write a recording of the set: an acoustic image, its sound and a picture, 12 a second.

    folder : of the set, which may hold others
    take : location, subject and action, numbers from 1

    The picture of a frame is the one taken nearest to its middle. The recording is there as a whole
    or not at all. actions.json is written where the set has none: name the actions in it.

    Returns the recording's folder and its number of frames. Raises InputError without an array, for
    a grid that is not 36 x 48, where some of the sound is missing, or where it cannot be written.
    """
    array = session.array
    if array is None:
        raise InputError(f"{session.folder}: has no array.json; expected one: record with --array")
    if (array.image.rows, array.image.columns) != IMAGE_SHAPE[:2]:
        raise InputError(
            f"{session.folder}: the image of array.json has {array.image.rows} x "
            f"{array.image.columns} pixels; expected 36 x 48, as the published ones"
        )
    missing: tuple[Gap | LostPart, ...] = (*session.gaps, *session.lost)
    for gap in missing:
        raise InputError(
            f"{session.folder}: no sound from {gap.first_sample / session.rate_hz:.3f} s on for "
            f"{gap.length / session.rate_hz:.3f} s; expected no gap: cut a part without one with "
            "soundpost session trim"
        )
    location, subject, action = take
    path = folder / f"Location_{location:02d}" / f"Subject_{subject:02d}" / f"Action_{action:02d}"
    if path.exists():
        raise InputError(f"{path}: is there already; delete it, or give another --take")
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    kinds = ["MFCC_Image", "audio", *(["video"] if session.frame_table.n_frames else [])]
    try:
        for kind in kinds:
            (aside / kind).mkdir(parents=True)
        found = _calibrated(session, array)
        number = _write_frames(session, found, aside, progress)
        if not number:
            raise InputError(f"{session.folder}: shorter than a frame; expected 0.1 s or more")
        aside.rename(path)
        settings = folder / SETTINGS_FILE
        if not settings.exists():
            write_atomically(settings, _settings(take, array.geometry.n_mics, found.dead).encode())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror}; free some space, then run the same "
            "command again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path, number


def _settings(take: tuple[int, int, int], n_microphones: int, dead: tuple[int, ...]) -> str:
    location, _, action = take
    table = {
        "schema": SETTINGS_SCHEMA,
        "name": "recorded with soundpost",
        "actions": {str(action): f"action {action}"},
        "locations": {str(location): f"location {location}"},
        "n_microphones": n_microphones,
        "broken_microphones": list(dead),
    }
    return json.dumps(table, indent=1) + "\n"


def _calibrated(session: Session, array: ArrayDescription) -> CalibratedArray:
    temperature_c = session.temperature_c
    settings = ImageSettings(
        sample_rate_hz=RATE_HZ,
        snapshot_length=SAMPLES_PER_FRAME,
        temperature_c=_DEFAULT_TEMPERATURE_C if temperature_c is None else temperature_c,
    )
    return calibrated_array(array, session.known, array.image, settings)


def _write_frames(
    session: Session, found: CalibratedArray, folder: Path, progress: Callable[[int], object]
) -> int:
    pictures = _nearest_pictures(session)
    number = 0
    for sound in _frames(session, list(found.channels), progress):
        images = found.imager.mfcc(np.ascontiguousarray(sound.transpose(0, 2, 1)))
        for image, samples in zip(images, sound, strict=True):
            number += 1
            (folder / "MFCC_Image" / image_name(number)).write_bytes(image_bytes(image))
            (folder / "audio" / block_name(number)).write_bytes(block_bytes(samples))
            picture = next(pictures, None)
            if picture is not None:
                (folder / "video" / picture_name(number)).write_bytes(picture_bytes(picture))
    return number


def _frames(
    session: Session, channels: list[int], progress: Callable[[int], object]
) -> Iterator[FloatArray]:
    """Sound at 12,288 Hz, some frames at a time, (n_frames, 1024, n_mics)."""
    import soxr

    stream = soxr.ResampleStream(
        session.rate_hz, RATE_HZ, len(channels), dtype="float32", quality="HQ"
    )
    parts: list[FloatArray] = []
    wanted = _BATCH * SAMPLES_PER_FRAME
    done = 0
    while True:
        length = min(round(_BLOCK_S * session.rate_hz), session.n_samples - done)
        block = np.ascontiguousarray(session.read(done, length)[:, channels])
        done += length
        progress(length)
        last = done >= session.n_samples
        parts.append(stream.resample_chunk(block, last=last).reshape(-1, len(channels)))
        if sum(map(len, parts)) >= wanted or last:
            sound = np.concatenate(parts)
            n_frames = len(sound) // SAMPLES_PER_FRAME
            cut = sound[: n_frames * SAMPLES_PER_FRAME]
            parts = [sound[len(cut) :]]
            if n_frames:
                yield cut.reshape(n_frames, SAMPLES_PER_FRAME, len(channels))
        if last:
            return


def _nearest_pictures(session: Session) -> Iterator[NDArray[np.uint8]]:
    """For each frame of the set the picture taken nearest to its middle; none without a camera."""
    table = heard_frames(session)
    if not table.n_frames:
        return
    frames = session.frames()
    shown = next(frames)
    number = 0
    while True:
        middle = (number + 0.5) * SAMPLES_PER_FRAME / RATE_HZ * session.rate_hz
        wanted = table.nearest(middle)
        while shown.number < wanted:
            shown = next(frames)
        yield shown.picture
        number += 1
