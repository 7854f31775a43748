"""Sound as calibration reads it: from a file or a recorded session, whole and of bounded size.

A session may lack sound: gaps on all channels, and lost parts on some. What is measured is taken
from where the channels in question lack nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.audio import AudioFile, FloatArray
from soundpost.device.errors import InputError
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_reader import open_session

# A minute of 128 channels at 48 kHz is 1.5 GB; calibration takes seconds.
_MAX_VALUES = 400_000_000
_USUAL_TEMPERATURE_C = 20.0


@dataclass(frozen=True, eq=False)
class Recording:
    """All channels of a file or a session.

    samples : (n_samples, n_channels) float32, zeros where they are missing
    missing : what is missing, on which channels
    temperature_c : of the air, None where the recording does not say
    array_sha256 : of the array that it was recorded with, None where that is not known
    """

    path: Path
    samples: FloatArray
    rate_hz: int
    missing: tuple[LostPart, ...] = ()
    temperature_c: float | None = None
    array_sha256: str | None = None

    def lacks(self, first: int, last: int, channels: Collection[int]) -> bool:
        """Whether any of the channels lacks anything from first to last (exclusive)."""
        return any(
            part.first_sample < last and first < part.first_sample + part.length
            for part in self._concerning(channels)
        )

    def stretches(self, channels: Collection[int]) -> list[tuple[int, int]]:
        """First sample and past-the-last of each part in which no channel lacks anything."""
        found, position = [], 0
        for part in sorted(self._concerning(channels), key=lambda part: part.first_sample):
            if part.first_sample > position:
                found.append((position, part.first_sample))
            position = max(position, part.first_sample + part.length)
        if position < len(self.samples):
            found.append((position, len(self.samples)))
        return found

    def longest_whole(self, channels: Collection[int]) -> tuple[Recording, tuple[str, ...]]:
        """The longest part in which no channel lacks anything, and a line where it is not all.

        Raises InputError where there is none.
        """
        stretches = self.stretches(channels)
        if not stretches:
            raise InputError(f"{self.path}: all of its sound is missing; record it again")
        first, last = max(stretches, key=lambda of: of[1] - of[0])
        if last - first == len(self.samples):
            return self, ()
        lacking_s = (len(self.samples) - sum(b - a for a, b in stretches)) / self.rate_hz
        line = (
            f"{self.path}: lacks {lacking_s:.3f} s of sound; used is its longest part without a "
            f"gap, from {first / self.rate_hz:.3f} to {last / self.rate_hz:.3f} s"
        )
        return replace(self, samples=self.samples[first:last], missing=()), (line,)

    def joined(self, channels: Sequence[int]) -> JoinedSound:
        """These channels without what any of them lacks."""
        stretches = self.stretches(channels)
        if stretches == [(0, len(self.samples))]:
            return JoinedSound(self.samples[:, list(channels)])
        parts = [self.samples[first:last, list(channels)] for first, last in stretches]
        lengths = np.cumsum([0, *(last - first for first, last in stretches)])
        firsts = np.array([first for first, _ in stretches], int)
        # Sound that begins or ends in a gap is not whole either.
        seams = [int(at) for at in lengths[1:-1]]
        if stretches and stretches[0][0] > 0:
            seams.insert(0, 0)
        if stretches and stretches[-1][1] < len(self.samples):
            seams.append(int(lengths[-1]))
        empty = np.zeros((0, len(channels)), np.float32)
        return JoinedSound(np.concatenate([empty, *parts]), tuple(seams), lengths[:-1], firsts)

    def _concerning(self, channels: Collection[int]) -> list[LostPart]:
        return [part for part in self.missing if any(map(part.concerns, channels))]


@dataclass(frozen=True, eq=False)
class JoinedSound:
    """Some channels of a recording with its gaps cut out.

    samples : (n_samples, n_channels)
    seams : samples before which something was cut out
    starts, firsts : of each part, its first sample here and in the recording
    """

    samples: FloatArray
    seams: tuple[int, ...] = ()
    starts: NDArray[np.intp] = field(default_factory=lambda: np.zeros(1, int))
    firsts: NDArray[np.intp] = field(default_factory=lambda: np.zeros(1, int))

    def is_whole(self, first: int, last: int) -> bool:
        """Whether no seam lies from first to last (both inclusive)."""
        return not any(first <= seam <= last for seam in self.seams)

    def place(self, sample: float) -> float:
        """Where a sample lies in the recording."""
        part = int(np.searchsorted(self.starts, sample, side="right")) - 1
        return float(sample - self.starts[part] + self.firsts[part])


def read_recording(path: Path) -> Recording:
    """All channels of a sound file or a session's folder.

    Raises InputError where it cannot be read or is too long.
    """
    if path.is_dir():
        return _read_session(path)
    with AudioFile(path) as file:
        _check_size(path, file.n_samples, file.n_channels, file.rate_hz, "cut it")
        samples = np.concatenate(list(file.blocks(file.rate_hz)))
        return Recording(path, samples, file.rate_hz)


def _read_session(path: Path) -> Recording:
    with open_session(path) as session:
        n_channels = session.n_channels
        _check_size(path, session.n_samples, n_channels, session.rate_hz, "soundpost session trim")
        gaps = [LostPart(*gap[:2], 0, n_channels, gap.cause) for gap in session.gaps]
        return Recording(
            path,
            session.read(0, session.n_samples),
            session.rate_hz,
            (*gaps, *session.lost),
            session.temperature_c,
            session.description.array_sha256,
        )


def _check_size(path: Path, n_samples: int, n_channels: int, rate_hz: int, remedy: str) -> None:
    if n_samples * n_channels > _MAX_VALUES:
        seconds = _MAX_VALUES / n_channels / rate_hz
        raise InputError(
            f"{path}: {n_samples / rate_hz:.0f} s of {n_channels} channels; calibration takes at "
            f"most {seconds:.0f} s of so many: {remedy}"
        )


def check_array(recording: Recording, array: ArrayDescription) -> None:
    """Raise InputError for a session that was recorded with another array."""
    found, expected = recording.array_sha256, array.geometry.hash()
    if found not in (None, expected):
        raise InputError(
            f"{recording.path}: was recorded with the array {str(found)[:12]}…; expected "
            f"{expected[:12]}…, {array.geometry.name[:60]!r}: give the array.json of the session, "
            "or record with this one"
        )


def air_temperature_c(given: float | None, recordings: Sequence[Recording]) -> float:
    """What is given, else the mean of what sessions say, else 20 degrees Celsius."""
    if given is not None:
        return given
    told = [of.temperature_c for of in recordings if of.temperature_c is not None]
    return float(np.mean(told)) if told else _USUAL_TEMPERATURE_C


def pick_channels(samples: FloatArray, channels: Sequence[int], where: str) -> FloatArray:
    """The columns of an array's microphones; raises InputError where one is not there."""
    check_channels(samples, channels, where)
    picked: FloatArray = samples[:, list(channels)]
    return picked


def check_channels(samples: FloatArray, channels: Sequence[int], where: str) -> None:
    """Raise InputError where an array's microphone is on a channel that was not recorded."""
    if max(channels) >= samples.shape[1]:
        raise InputError(
            f"{where}: has {samples.shape[1]} channels, and the array's microphones are on "
            f"channels up to {max(channels)}; record all of them, or check array.json"
        )
