"""A recorded session as one stretch of sound and a row of pictures."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.calibration_file import Calibration, read_calibration
from soundpost.device.array.geometry_files import ArrayDescription, read_array
from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError
from soundpost.device.session.lost_parts import LostPart, read_lost
from soundpost.device.session.session_json import (
    ARRAY_FILE,
    CALIBRATION_FILE,
    ClockAnchor,
    SessionDescription,
    read_description,
)
from soundpost.device.session.session_tables import FrameTable, Gap, read_frames, read_gaps

if TYPE_CHECKING:
    import soundfile

AUDIO_FOLDER: Final = "audio"
VIDEO_FILE: Final = "video.mkv"


class SessionFrame(NamedTuple):
    """A picture of a session.

    number : row of the frame table
    sample : position on the timeline of the sound
    picture : (height, width, 3) uint8 RGB
    """

    number: int
    sample: float
    picture: NDArray[np.uint8]


class Session:
    """A recorded session; see open_session.

    Attributes
    ----------
    folder : where it lies
    description : all that session.json says
    array : geometry and channel order, None where it is not known
    calibration : path of calibration.json, None without one
    gaps : where there is no sound, in order
    lost : where some channels lack sound that others have
    frame_table : when each frame was taken; empty without a camera
    """

    def __init__(
        self,
        folder: Path,
        description: SessionDescription,
        array: ArrayDescription | None,
        calibration: Path | None,
        gaps: tuple[Gap, ...],
        frame_table: FrameTable,
        lost: tuple[LostPart, ...] = (),
    ) -> None:
        assert description.n_samples is not None
        self.folder = folder
        self.description = description
        self.array = array
        self.calibration = calibration
        self.gaps = gaps
        self.lost = lost
        self.frame_table = frame_table
        self.device = description.device
        self.rate_hz = description.rate_hz
        self.n_channels = description.n_channels
        self.n_samples = description.n_samples
        self.temperature_c = description.temperature_c
        self.notes = description.notes
        self._open: tuple[int, soundfile.SoundFile] | None = None

    @functools.cached_property
    def known(self) -> Calibration | None:
        """The calibration it was recorded with, read once; InputError for one of another array."""
        if self.calibration is None:
            return None
        geometry = None if self.array is None else self.array.geometry
        return read_calibration(self.calibration, geometry)

    @property
    def duration_s(self) -> float:
        """Length of the timeline."""
        return self.n_samples / self.rate_hz

    @property
    def clock(self) -> tuple[ClockAnchor, ...]:
        """When some of the samples were heard."""
        return self.description.clock

    def read(self, first: int, n_samples: int) -> FloatArray:
        """Sound of all channels, (n_samples, n_channels) float32; gaps are zeros.

        Raises InputError where the session does not reach so far, or a file is damaged; ValueError
        for a negative position.
        """
        if first < 0 or n_samples < 0:
            raise ValueError(f"read({first}, {n_samples}): expected 0 or more")
        if first + n_samples > self.n_samples:
            raise InputError(
                f"{self.folder}: samples {first} to {first + n_samples} were asked for; expected "
                f"at most {self.n_samples}, which is all that it has"
            )
        samples = np.zeros((n_samples, self.n_channels), np.float32)
        length = self.description.segment_samples
        position = first
        while position < first + n_samples:
            number = position // length
            end = min((number + 1) * length, first + n_samples)
            part = samples[position - first : end - first]
            if not _within(self.gaps, position, end):
                self._read_segment(number, position - number * length, part)
            position = end
        # A segment may end before a gap, and what a repair found damaged is not to be heard.
        for gap in self.gaps:
            low = max(gap.first_sample, first)
            high = min(gap.first_sample + gap.length, first + n_samples)
            if low < high:
                samples[low - first : high - first] = 0.0
        return samples

    def blocks(
        self, n_samples: int, first: int = 0, last: int | None = None
    ) -> Iterator[FloatArray]:
        """The sound from first to last (exclusive) in blocks, the last of them shorter."""
        last = self.n_samples if last is None else last
        for position in range(first, last, n_samples):
            yield self.read(position, min(n_samples, last - position))

    def _read_segment(self, number: int, start: int, into: FloatArray) -> None:
        import soundfile

        path = segment_path(self.folder, number)
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = (number, _open_segment(path, self.description))
        file = self._open[1]
        try:
            file.seek(min(start, file.frames))
            file.read(out=into[: max(0, min(len(into), file.frames - start))])
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path}: damaged: {error.error_string}; copy it again") from error

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[SessionFrame]:
        """Pictures from frame number first to last (exclusive), in order.

        Raises InputError where video.mkv cannot be read or has fewer frames than the table says.
        """
        last = self.frame_table.n_frames if last is None else min(last, self.frame_table.n_frames)
        if first >= last:
            return
        from soundpost.device.session.video_file import read_pictures

        pictures = read_pictures(self.folder / VIDEO_FILE, first, last)
        for number, picture in enumerate(pictures, first):
            yield SessionFrame(number, float(self.frame_table.samples[number]), picture)

    def utc(self, sample: float) -> datetime:
        """When a sample was heard by the system clock of then.

        Between two anchors on the line through them, beyond the last at the nominal rate. Raises
        InputError without an anchor.
        """
        if not self.clock:
            raise InputError(f"{self.folder}: has no clock anchor; its time is not known")
        places = [anchor.sample for anchor in self.clock]
        after = int(np.searchsorted(places, sample, side="right"))
        near = self.clock[max(0, after - 1)]
        sample_s = 1 / self.rate_hz
        if 0 < after < len(places):
            later = self.clock[after]
            sample_s = (later.utc - near.utc).total_seconds() / (later.sample - near.sample)
        return near.utc + timedelta(seconds=(sample - near.sample) * sample_s)

    def close(self) -> None:
        """Close what is open; it opens again when it is read."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def segment_path(folder: Path, number: int) -> Path:
    """File of a segment, counted from 0."""
    return folder / AUDIO_FOLDER / f"{number:06d}.wav"


def lost_ms(session: Session) -> float:
    """Milliseconds that each channel lacks on average while others have them."""
    samples = sum(part.length * part.n_channels for part in session.lost)
    return 1e3 * samples / session.n_channels / session.rate_hz


def open_session(folder: Path | str) -> Session:
    """Open a session that was closed, and check that all of it is there.

    Every segment must be as long as the timeline says, but for what gaps.csv states. One reader
    serves one thread.

    Raises InputError where it is no session, is still recorded or was interrupted, has another
    schema, lacks a segment or a part of one, or holds another array or calibration than it was
    recorded with.
    """
    folder = Path(folder)
    description = read_description(folder)
    if description.n_samples is None:
        raise InputError(
            f"{folder}: is still being recorded, or was interrupted: wait for its end, or run "
            f"soundpost session check {folder} --repair"
        )
    gaps = read_gaps(folder)
    if gaps and gaps[-1].first_sample + gaps[-1].length > description.n_samples:
        raise InputError(
            f"{folder}: gaps.csv reaches to sample {gaps[-1].first_sample + gaps[-1].length}; "
            f"expected at most {description.n_samples}; run soundpost session check {folder}"
        )
    length = description.segment_samples
    for number in range(-(-description.n_samples // length)):
        first = number * length
        check_segment(folder, description, gaps, number, min(length, description.n_samples - first))
    table = read_frames(folder) if description.video is not None else FrameTable(*np.empty((3, 0)))
    array = read_session_array(folder, description)
    lost = read_lost(folder, description.n_samples, description.n_channels)
    calibration = _calibration(folder, description)
    return Session(folder, description, array, calibration, gaps, table, lost)


def check_segment(
    folder: Path,
    description: SessionDescription,
    gaps: tuple[Gap, ...],
    number: int,
    expected: int,
) -> None:
    """Raise InputError where a segment is missing or shorter, and no gap says so."""
    path = segment_path(folder, number)
    first = number * description.segment_samples
    found = 0
    if path.exists():
        with _open_segment(path, description) as file:
            found = file.frames
    elif not _within(gaps, first, first + expected):
        raise InputError(
            f"{path}: is missing: expected samples {first} to {first + expected} in it; copy it "
            f"again, or make it a stated gap: soundpost session check {folder} --repair"
        )
    if found < expected and not _within(gaps, first + found, first + expected):
        raise InputError(
            f"{path}: truncated: holds {found} of {expected} samples; copy it again, or make the "
            f"rest a stated gap: soundpost session check {folder} --repair"
        )


def _within(gaps: tuple[Gap, ...], first: int, last: int) -> bool:
    """Whether gaps cover all from first to last (exclusive)."""
    position = first
    for gap in gaps:
        if gap.first_sample <= position < gap.first_sample + gap.length:
            position = gap.first_sample + gap.length
    return position >= last


def _open_segment(path: Path, description: SessionDescription) -> soundfile.SoundFile:
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise InputError(
            f"{path}: cannot be read: {reason.rstrip('.')}; copy it again, or make it a stated "
            f"gap: soundpost session check {path.parents[1]} --repair"
        ) from error
    found = (file.samplerate, file.channels)
    if found != (description.rate_hz, description.n_channels):
        file.close()
        raise InputError(
            f"{path}: {found[1]} channels at {found[0]} Hz; expected {description.n_channels} at "
            f"{description.rate_hz} Hz as session.json says: it is of another session"
        )
    return file


def read_session_array(folder: Path, description: SessionDescription) -> ArrayDescription | None:
    """The array of a session, None without one; InputError where it is not the recorded one."""
    if description.array_sha256 is None:
        return None
    path = folder / ARRAY_FILE
    array = read_array(path)
    if array.geometry.hash() != description.array_sha256:
        raise InputError(
            f"{path}: its positions have the hash {array.geometry.hash()[:12]}…; expected "
            f"{description.array_sha256[:12]}…, with which the session was recorded: put that "
            "file back"
        )
    if max(array.channels) >= description.n_channels:
        raise InputError(
            f"{path}: a microphone is on channel {max(array.channels)}; expected 0 to "
            f"{description.n_channels - 1}, which the session has"
        )
    return array


def _calibration(folder: Path, description: SessionDescription) -> Path | None:
    if description.calibration_sha256 is None:
        return None
    path = folder / CALIBRATION_FILE
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; session.json names it: put it back"
        ) from error
    if found != description.calibration_sha256:
        raise InputError(
            f"{path}: has the hash {found[:12]}…; expected {description.calibration_sha256[:12]}…, "
            "with which the session was recorded: put that file back"
        )
    return path
