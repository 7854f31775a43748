"""Sound, pictures and acoustic images of a clip, whatever its data set keeps them in.

Most sets have files, of which a clip is all or a part. The acoustic-image set has a file per frame:
its sound is that of one microphone (the first that is not broken, for the papers name none), and a
picture is that of the frame which is shown at its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import soxr

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.datasets.acoustic_actions import ActionRecording, ActionSet, read_actions
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND, RATE_HZ
from soundpost.train.datasets.catalogue import MediaClip, MediaSet, Medium
from soundpost.train.datasets.kinds import read_set
from soundpost.train.datasets.media import (
    Frames,
    frame_times_s,
    read_audio,
    read_frames_per_second,
)
from soundpost.train.datasets.segments import Folders


class ClipMedia(Protocol):
    """How the clips of a set are read; each raises InputError where a file cannot be used."""

    def sound(self, clip: MediaClip, rate_hz: int) -> FloatArray:
        """(n_samples,) float32, full scale ±1.0: all of the clip."""
        ...

    def pictures(self, clip: MediaClip, per_second: float) -> Frames:
        """(n, height, width, 3) uint8 RGB, the first at the clip's start."""
        ...

    def images(self, clip: MediaClip) -> FloatArray:
        """(n_frames, 36, 48, 12) float32, twelve acoustic images a second: all of the clip."""
        ...


class FileMedia:
    """Clips that are files, or parts of them."""

    def sound(self, clip: MediaClip, rate_hz: int) -> FloatArray:
        """See ClipMedia."""
        if clip.audio is None:
            raise lacks(clip, "audio")
        return read_audio(clip.audio, rate_hz, clip.start_s, clip.end_s)

    def pictures(self, clip: MediaClip, per_second: float) -> Frames:
        """See ClipMedia."""
        if clip.video is None:
            raise lacks(clip, "video")
        return read_frames_per_second(clip.video, per_second, clip.start_s, clip.end_s)

    def images(self, clip: MediaClip) -> FloatArray:
        """See ClipMedia; no such set has any."""
        raise lacks(clip, "images")


@dataclass(frozen=True)
class ActionMedia:
    """Recordings of the acoustic-image set, and parts of them, such as the takes of a world.

    A part's id is its recording's, with `#` and its seconds behind.
    """

    actions: ActionSet

    def sound(self, clip: MediaClip, rate_hz: int) -> FloatArray:
        """See ClipMedia."""
        microphone = self.actions.settings.good_microphones()[:1]
        recording, first, n = self._part(clip)
        samples = recording.load_audio(first, n, microphone, self.actions.settings)
        return np.asarray(soxr.resample(samples[:, 0], RATE_HZ, rate_hz), np.float32)

    def pictures(self, clip: MediaClip, per_second: float) -> Frames:
        """See ClipMedia."""
        recording, first, n = self._part(clip)
        seconds = max(n / FRAMES_PER_SECOND, 1 / per_second)
        times_s = frame_times_s(0.0, seconds, per_second)
        shown = [first + min(int(t * FRAMES_PER_SECOND), n - 1) for t in times_s]
        return np.concatenate([recording.load_pictures(number, 1) for number in shown])

    def images(self, clip: MediaClip) -> FloatArray:
        """See ClipMedia."""
        recording, first, n = self._part(clip)
        return recording.load_images(first, n)

    def _part(self, clip: MediaClip) -> tuple[ActionRecording, int, int]:
        """A clip's recording, its first frame there and the number of its frames."""
        recording = self._by_id[clip.id.partition("#")[0]]
        first = round((clip.start_s or 0.0) * FRAMES_PER_SECOND)
        end = recording.n_frames
        if clip.end_s is not None:
            end = min(end, round(clip.end_s * FRAMES_PER_SECOND))
        return recording, first, end - first

    @cached_property
    def _by_id(self) -> dict[str, ActionRecording]:
        return {recording.id: recording for recording in self.actions.recordings}


def lacks(clip: MediaClip, medium: Medium) -> InputError:
    """The error of a clip without a medium."""
    what = "acoustic images" if medium == "images" else f"{medium} file"
    return InputError(
        f"{clip.source or clip.id}: clip {clip.id} has no {what}; add it, or leave the clip "
        "out (soundpost dataset check lists all such)"
    )


@dataclass(frozen=True)
class ReadSet:
    """A set's clips, how they are read, and lines on what is wrong with its tables."""

    clips: MediaSet
    media: ClipMedia
    problems: tuple[str, ...] = ()


def read_media_set(kind: str, folders: Folders, *, refuse: bool = True) -> ReadSet:
    """The clips of a folder in a published layout.

    kind : of soundpost.train.datasets.kinds
    refuse : raise InputError where something is wrong with the tables

    Raises UsageError and InputError as `read_set` does.
    """
    listing = read_set(kind, folders)
    clips = listing.without_problems() if refuse else listing.media
    media: ClipMedia = FileMedia()
    if kind in ("actions", "world"):
        media = ActionMedia(read_actions(folders.tables)[0])
    return ReadSet(clips, media, tuple(problem.line() for problem in listing.problems))
