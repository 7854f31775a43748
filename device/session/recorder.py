"""Records a session: sound from a source, pictures from a camera, and what they have in common.

The folder is a valid session at any instant but for its end, which session.json does not know while
it is recorded: `session check --repair` finds it in the files. What a full disk needs to end
properly is set aside when the recording begins.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from soundpost.device.array.geometry_files import write_array
from soundpost.device.audio import AudioBlock
from soundpost.device.capture import BlockSource
from soundpost.device.clock import clock_synchronised
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.device.identifiers import uuid7
from soundpost.device.session.audio_writer import AudioWriter
from soundpost.device.session.camera import Camera
from soundpost.device.session.camera_feed import CameraFeed
from soundpost.device.session.clock_anchors import clock_anchor, fitted_anchors
from soundpost.device.session.clock_line import ClockLine
from soundpost.device.session.level_meters import LevelMeters, MeterReader
from soundpost.device.session.record_settings import RecordSettings, RecordStatus
from soundpost.device.session.session_folder import SessionFolder
from soundpost.device.session.session_json import (
    ARRAY_FILE,
    CALIBRATION_FILE,
    CameraGap,
    ClockAnchor,
    SessionDescription,
    VideoDescription,
    write_description,
)
from soundpost.device.session.source_feed import SourceFeed
from soundpost.device.session.video_writer import VideoWriter
from soundpost.device.session.wav_segments import segment_length

STOPPED: Final = "asked to stop"
_LOOK_AT_DISK_S = 0.5
_SETTLING_S = 1.0
# Pictures a second are counted over so long.
_RATE_S = 3.0


class Recorder:
    """Records from `start` to `finish`; between the two `tick` is to be called some times a second.

    folder : to make; it must not exist, be empty, or hold what a start without sound has left
    source : opened
    camera : opened, or None
    open_again : opens the camera once more, after it went away

    Attributes
    ----------
    end : why the recording ended, None while it goes on
    video : VideoWriter, None without a camera
    meters : how loud it is
    kept : whether there is a session; one that ends before its first sample leaves nothing

    Raises InputError where the folder cannot be used, or the array has other channels.
    """

    def __init__(
        self,
        folder: Path,
        source: BlockSource,
        settings: RecordSettings,
        camera: Camera | None = None,
        open_again: Callable[[], Camera] | None = None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self._source = source
        self._camera = camera
        self._open_again = open_again
        array = settings.array
        if array is not None and max(array.channels) >= source.n_channels:
            raise InputError(
                f"source {source.name}: {source.n_channels} channels; expected at least "
                f"{max(array.channels) + 1}, on which array {array.geometry.name!r} has its "
                "microphones"
            )
        self._sound = ClockLine()
        self._description: SessionDescription | None = None
        self._looked_at_disk_s = 0.0
        self._free_bytes = 0
        self._ended = threading.Event()
        self._rates: list[tuple[float, int]] = []
        self._well = True
        self.end: str | None = None
        self.kept = True
        self.video: VideoWriter | None = None
        self.meters = LevelMeters(source.rate_hz, source.n_channels)
        self._heard: Callable[[AudioBlock], None] = lambda _: None
        self._feed: CameraFeed | None = None
        self._audio: AudioWriter | None = None

    def start(self) -> None:
        """Make the folder and begin; where that fails, nothing is left of it."""
        self._held = SessionFolder(self.folder)
        try:
            self._start()
        except BaseException:
            if self._feed is not None:
                self._feed.close()
            if self.video is not None:
                self.video.finish()
            if self._audio is not None:
                self._audio.finish()
            self._held.discard()
            raise

    def _start(self) -> None:
        source, settings = self._source, self.settings
        length = segment_length(source.rate_hz, source.n_channels)
        array, calibration = settings.array, settings.calibration
        if array is not None:
            write_array(self.folder / ARRAY_FILE, array)
        if calibration is not None:
            write_atomically(self.folder / CALIBRATION_FILE, calibration)
        self._audio = AudioWriter(self.folder, source.rate_hz, source.n_channels, length)
        self._listener = SourceFeed(
            *(source, self._audio, self._sound, self.meters),
            *(settings.seconds, self._stop, self._heard),
        )
        video = None
        if self._camera is not None:
            self.video = VideoWriter(self.folder, *self._camera.size, self._sound, source.rate_hz)
            video = VideoDescription(
                settings.camera or self._camera.name,
                self.video.width,
                self.video.height,
                self.video.codec,
            )
        self._description = SessionDescription(
            id=uuid7(),
            device=settings.device,
            created=datetime.now(timezone.utc),
            source=settings.source,
            rate_hz=source.rate_hz,
            n_channels=source.n_channels,
            segment_samples=length,
            array_sha256=None if array is None else array.geometry.hash(),
            calibration_sha256=(
                None if calibration is None else hashlib.sha256(calibration).hexdigest()
            ),
            video=video,
            time_synced=clock_synchronised(),
            temperature_c=settings.temperature_c,
            notes=settings.notes,
        )
        write_description(self.folder, self._description)
        if self._camera is not None and self.video is not None:
            assert self._open_again is not None
            self._feed = CameraFeed(self._camera, self._open_again, self.video)
            if self._camera.paced:
                # Pictures from the first sample on: a program's first ones are old.
                feed, writer = self._feed, self.video
                writer.wait_for(
                    lambda: writer.settled or feed.fault is not None,
                    self._camera.settling_s + _SETTLING_S,
                )
        self._listener.start()

    def _stop(self, reason: str, well: bool = False) -> None:
        if not self._ended.is_set():
            self.end, self._well = reason, well
            self._ended.set()

    def observe(self, heard: Callable[[AudioBlock], None]) -> None:
        """Have a function called with each block that is recorded; before `start`, not to wait."""
        self._heard = heard

    def wait(self, seconds: float) -> bool:
        """Wait for the end at most so long; whether it has come."""
        return self._ended.wait(seconds)

    @property
    def failure(self) -> Exception | None:
        """What the source ended with, None where it did not fail."""
        return self._listener.failure

    @property
    def ended_well(self) -> bool:
        """Whether it ended as it was meant to, and not for want of room or of a source."""
        return self._well

    def stop(self, reason: str = STOPPED) -> None:
        """Let it end; to be followed by `finish`."""
        self._stop(reason, well=True)

    def tick(self) -> None:
        """Look after disk, camera and clock."""
        now_s = time.monotonic()
        if now_s - self._looked_at_disk_s >= _LOOK_AT_DISK_S:
            self._looked_at_disk_s = now_s
            self._free_bytes = shutil.disk_usage(self.folder).free
            if self._free_bytes < self.settings.keep_free_bytes:
                self._stop(
                    f"the disk has {self._free_bytes / 1e6:.0f} MB left, of which "
                    f"{self.settings.keep_free_bytes / 1e6:.0f} MB are to stay free"
                )
        if self._audio is not None and self._audio.error is not None:
            self._stop(_no_more_sound(self._audio.error))
        if self.video is not None:
            kept = [rate for rate in self._rates if now_s - rate[0] < _RATE_S]
            self._rates = [*kept, (now_s, self.video.written)]
        if self._feed is not None:
            self._feed.watch()
        if not self._ended.is_set():
            try:
                self._update_description()
            except InputError as error:
                self._stop(str(error))

    def _update_description(self) -> None:
        """Add an anchor to session.json with each segment, and what became of the camera."""
        assert self._description is not None
        known = self._description
        position = self._listener.position
        anchors = known.clock
        due = anchors[-1].sample + known.segment_samples if anchors else 1
        if self._sound and position >= due:
            anchors = (*anchors, self._anchor(position if anchors else 0))
        description = dataclasses.replace(known, clock=anchors, video=self._video())
        if description != known:
            write_description(self.folder, description)
            self._description = description

    def _anchor(self, sample: int) -> ClockAnchor:
        return clock_anchor(self._sound.now(), sample, self._source.rate_hz)

    def _video(self) -> VideoDescription | None:
        assert self._description is not None
        video = self._description.video
        if video is None or self.video is None or self._feed is None:
            return video
        gaps = self._feed.gaps()
        if self.video.error is not None:
            # From here on there are none, whatever became of the camera.
            last = round(self.video.last_sample)
            cause = f"pictures cannot be written: {_reason(self.video.error)}"
            gaps = (
                *(gap for gap in gaps if gap.first_sample < last and gap.length is not None),
                CameraGap(last, None, cause),
            )
        return dataclasses.replace(video, gaps=gaps, dropped=self.video.dropped)

    def status(self, meters: MeterReader) -> RecordStatus:
        """How it is getting on, for a viewer who has such a reader of `meters`."""
        assert self._audio is not None
        video = self.video
        rates = self._rates or [(0.0, 0)]
        (first_s, first), (last_s, last) = rates[0], rates[-1]
        gaps = list(self._audio.gaps)
        return RecordStatus(
            n_samples=self._audio.position,
            rate_hz=self._source.rate_hz,
            lost=sum(gap.length for gap in gaps),
            n_gaps=len(gaps),
            waiting=self._audio.waiting,
            free_bytes=self._free_bytes or shutil.disk_usage(self.folder).free,
            bytes_s=3.0 * self._source.rate_hz * self._source.n_channels,
            levels=meters.look(),
            frames=0 if video is None else video.written,
            frames_dropped=0 if video is None else video.dropped,
            camera_fps=(last - first) / (last_s - first_s) if last_s > first_s else 0.0,
            camera_fault=None if self._feed is None else self._feed.fault,
        )

    def finish(self) -> SessionDescription:
        """End: all that came is written, and session.json says how it ended."""
        assert self._description is not None
        assert self._audio is not None
        self.stop()
        self._listener.close()
        if self.video is not None and self._feed is not None:
            self.video.end_sample = self._listener.position
            if self._well and self._camera is not None and not self._camera.paced:
                # The film that belongs to it was perhaps not read as fast.
                feed, video = self._feed, self.video
                video.wait_for(lambda: feed.ended or video.past_end)
            self._feed.close()
        self._audio.finish()
        self._held.free_reserve()
        if self.video is not None:
            self.video.finish()
        if self._audio.error is not None:
            self.end, self._well = _no_more_sound(self._audio.error), False
        elif self.video is not None and self.video.error is not None:
            reason = _reason(self.video.error)
            self.end = f"{self.end}; pictures could not be written: {reason}"
            self._well = False
        description = dataclasses.replace(
            self._description, clock=self._final_anchors(), video=self._video()
        ).closed(self._audio.position, self.end or "")
        self.kept = self._audio.position > 0
        if not self.kept:
            self._held.discard()
            return description
        write_description(self.folder, description)
        self._held.close()
        return description

    def _final_anchors(self) -> tuple[ClockAnchor, ...]:
        assert self._description is not None
        assert self._audio is not None
        if not self._sound:
            return ()
        last = self._audio.position
        anchors = [anchor for anchor in self._description.clock if anchor.sample < last]
        if not anchors:
            anchors.append(self._anchor(0))
        if last > anchors[-1].sample:
            anchors.append(self._anchor(last))
        if not self._listener.paced:
            return tuple(anchors[:1])
        return fitted_anchors(anchors, self._sound.fitted(), self._source.rate_hz)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _no_more_sound(error: Exception) -> str:
    return f"the disk takes no more sound: {_reason(error)}"
