"""A session for other programs: Acoular's HDF5, and mono clips to train with."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from soundpost.device.array.calibration_use import microphone_channels
from soundpost.device.array.geometry_files import write_acoular_xml
from soundpost.device.audio import StreamResampler, check_channel
from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.device.identifiers import format_time
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_reader import Session
from soundpost.device.session.session_tables import Gap
from soundpost.device.session.wav_segments import pack_24_bit, wav_header

Progress = Callable[[int], object]

_BLOCK_S: Final = 1.0
# A chunk of Acoular's usual 128 samples is read as a part of one of these.
_CHUNK_SAMPLES: Final = 4_096
CLIPS_FILE: Final = "clips.csv"


def export_acoular(session: Session, path: Path, progress: Progress) -> list[Path]:
    """Write Acoular's HDF5: `time_data` (n_samples, n_mics) float32, attribute `sample_freq`.

    Columns are in the order of the array's microphones, whose positions are written beside it as
    the `<MicArray>` XML that Acoular reads: both as calibrated, so that the factors of `soundpost
    calibrate export` are theirs. Gaps are zeros.

    Returns the files. Raises InputError where they cannot be written.
    """
    import h5py

    array, calibration = session.array, session.known
    channels = list(range(session.n_channels))
    if array is not None:
        channels = list(microphone_channels(array, calibration))
    aside = path.with_name(f".{path.name}.part")
    try:
        with h5py.File(aside, "w") as file:
            shape = (session.n_samples, len(channels))
            chunks = (min(_CHUNK_SAMPLES, max(1, session.n_samples)), len(channels))
            data = file.create_dataset("time_data", shape, np.float32, chunks=chunks)
            data.attrs["sample_freq"] = float(session.rate_hz)
            place = 0
            for block in session.blocks(round(_BLOCK_S * session.rate_hz)):
                data[place : place + len(block)] = block[:, channels]
                place += len(block)
                progress(len(block))
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}; free some space, then run the "
            "same command again"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    if array is None:
        return [path]
    xml = path.with_suffix(".xml")
    write_acoular_xml(xml, array.geometry if calibration is None else calibration.geometry(array))
    return [path, xml]


def export_clips(
    session: Session,
    folder: Path,
    progress: Progress,
    *,
    channel: int = 0,
    seconds: float = 10.0,
    rate_hz: int | None = None,
) -> int:
    """Write one channel as 24-bit mono clips of so many seconds, and clips.csv, which tells when.

    A stretch in which the channel lacks anything makes no clip, nor does a rest shorter than one.

    rate_hz : of the clips; by default the session's

    Returns the number of clips. Raises InputError for a channel that is not there, or where nothing
    can be written; UsageError for another length.
    """
    check_channel(channel, session.n_channels, str(session.folder))
    if not 0.1 <= seconds <= 3_600:
        raise UsageError(f"--seconds {seconds:g}: expected 0.1 to 3600")
    rate_hz = rate_hz or session.rate_hz
    length = round(seconds * session.rate_hz)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made: {error.strerror}; give a folder for the clips"
        ) from error
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["file", "first_sample", "n_samples", "utc"])
    count = 0
    lacking: list[Gap | LostPart] = [*session.gaps]
    lacking += [part for part in session.lost if part.concerns(channel)]
    for first in range(0, session.n_samples - length + 1, length):
        progress(length)
        if any(
            gap.first_sample < first + length and first < gap.first_sample + gap.length
            for gap in lacking
        ):
            continue
        resampler = StreamResampler(session.rate_hz, rate_hz)
        samples = np.ascontiguousarray(session.read(first, length)[:, channel])
        clip = np.concatenate([resampler.push(samples), resampler.flush()])
        name = f"{session.description.id}-{first:010d}-{channel}.wav"
        content = wav_header(rate_hz, 1, len(clip)) + pack_24_bit(clip).tobytes()
        write_atomically(folder / name, content)
        utc = format_time(session.utc(first)) if session.clock else ""
        rows.writerow([name, first, length, utc])
        count += 1
    write_atomically(folder / CLIPS_FILE, table.getvalue().encode())
    return count
