"""What the live page is told of a recording."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.live_images import below_greatest_db, live_settings
from soundpost.device.session.calibrated_array import calibrated_array
from soundpost.device.session.live_mapper import LiveMapper
from soundpost.device.session.record_screen import quiet_channels, time_to_full
from soundpost.device.session.record_settings import RecordSettings
from soundpost.device.session.recorder import Recorder
from soundpost.device.terminal import duration

# Several pages, or one that asks too often, cost no more.
_EVERY_S: Final = 0.2


class LiveState:
    """Answers pages, in the threads that serve them, from now until `close`; before the start."""

    def __init__(self, recorder: Recorder, settings: RecordSettings, rate_hz: int) -> None:
        self._recorder = recorder
        self._settings = settings
        self._meters = recorder.meters.reader()
        self._lock = threading.Lock()
        self._told_s = float("-inf")
        self._told: dict[str, Any] = {}
        self._mapper: LiveMapper | None = None
        if settings.array is not None:
            calibration = (
                None
                if settings.calibration is None
                else Calibration.from_json(settings.calibration, "calibration.json")
            )
            array = calibrated_array(
                settings.array,
                calibration,
                settings.array.image,
                live_settings(rate_hz, settings.temperature_c),
            )
            # Four a second, as often as a page asks: the recorder has the first claim on the cores.
            self._mapper = LiveMapper(array, skip=2)
            recorder.observe(self._mapper.offer)

    def close(self) -> None:
        """Make no more maps."""
        if self._mapper is not None:
            self._mapper.close()

    def picture(self) -> Any:
        """The last picture, av.VideoFrame or None."""
        video = self._recorder.video
        return None if video is None else video.latest

    def state(self) -> dict[str, Any]:
        """What /state.json says."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._told_s >= _EVERY_S:
                self._told, self._told_s = self._state(), now_s
            return self._told

    def _state(self) -> dict[str, Any]:
        status, settings = self._recorder.status(self._meters), self._settings
        facts: list[tuple[str, bool]] = [
            (duration(status.n_samples / status.rate_hz), False),
            (f"{status.n_gaps} gaps, {status.lost / status.rate_hz:.3f} s", status.n_gaps > 0),
            (f"disk full in {duration(time_to_full(status, settings))}", False),
        ]
        if status.camera_fault is not None:
            facts.append((status.camera_fault, True))
        elif settings.camera is not None:
            facts.append((f"{status.camera_fps:.1f} pictures a second", False))
            facts.append((f"{status.frames_dropped} dropped", status.frames_dropped > 0))
        return {
            "title": "Recording",
            "every_ms": round(1e3 * _EVERY_S),
            "device": settings.device,
            "facts": facts,
            "rms": [round(float(level), 1) for level in status.levels.rms],
            "held": [round(float(level), 1) for level in status.levels.held],
            "quiet": quiet_channels(status),
            "frames": status.frames,
            "map_db": map_levels(self._mapper),
        }


def map_levels(mapper: LiveMapper | None) -> list[list[float]] | None:
    """The latest map in dB below its greatest, as JSON has it; None without one."""
    latest = None if mapper is None else mapper.latest()
    if latest is None:
        return None
    return [[round(float(level), 1) for level in row] for row in below_greatest_db(latest.energy)]
