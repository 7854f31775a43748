"""What `soundpost images --live` knows and shows: maps, levels, pictures of now."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np

from soundpost.device.array.geometry import ImageGrid, direction_in_words
from soundpost.device.array.live_images import LiveMap, below_greatest_db
from soundpost.device.audio import AudioBlock
from soundpost.device.capture import BlockSource
from soundpost.device.gaps import GapLog
from soundpost.device.session.calibrated_array import CalibratedArray
from soundpost.device.session.camera_feed import CameraFeed
from soundpost.device.session.level_meters import LevelMeters
from soundpost.device.session.live_camera import LatestPicture
from soundpost.device.session.live_mapper import LiveMapper
from soundpost.device.session.live_state import map_levels
from soundpost.device.session.map_screen import map_rows
from soundpost.device.session.record_screen import quiet_levels
from soundpost.device.terminal import Row, Span, clip_row, duration

# As often as there is a new map.
_EVERY_MS: Final = 83


class LiveView:
    """Takes the blocks of a source, and answers who looks.

    pictures, camera : None without a camera
    """

    def __init__(
        self,
        source: BlockSource,
        array: CalibratedArray,
        grid: ImageGrid,
        pictures: LatestPicture | None = None,
        camera: CameraFeed | None = None,
    ) -> None:
        self._source = source
        self._directions = grid.directions()
        self._pictures = pictures
        self._camera = camera
        self._mapper = LiveMapper(array)
        self._meters = LevelMeters(source.rate_hz, source.n_channels)
        self._page_meters = self._meters.reader()
        self._lock = threading.Lock()
        self._gaps: GapLog | None = None
        self._n_samples = 0

    def take(self, block: AudioBlock) -> None:
        """The next block of the source."""
        with self._lock:
            if self._gaps is None:
                self._gaps = GapLog(block.first_sample, keep=1)
            self._gaps.add(block)
            self._n_samples += len(block.samples)
        self._meters.push(block.samples)
        self._mapper.offer(block)

    def latest(self) -> LiveMap | None:
        """The last map, None before the first."""
        return self._mapper.latest()

    def picture(self) -> Any:
        """The last picture, av.VideoFrame or None."""
        return None if self._pictures is None else self._pictures.latest

    def loudest(self, found: LiveMap) -> str:
        """Where the loudest pixel lies, and its energy."""
        where = direction_in_words(self._directions[int(found.energy.argmax())])
        return f"{where}, {10 * np.log10(max(float(found.energy.max()), 1e-30)):.1f} dB"

    def facts(self) -> list[tuple[str, bool]]:
        """What there is to say, each with whether it is bad."""
        with self._lock:
            n_samples = self._n_samples
            n_gaps = 0 if self._gaps is None else self._gaps.count
        facts = [
            (duration(n_samples / self._source.rate_hz), False),
            (f"{self._mapper.maps_per_second:.1f} maps a second", False),
            (f"{n_gaps} gaps", n_gaps > 0),
        ]
        found = self.latest()
        if found is not None:
            facts.append((f"loudest {self.loudest(found)}", False))
        if self._mapper.error is not None:
            facts.append((f"no more maps: {self._mapper.error}", True))
        for fault in (self._source.fault, None if self._camera is None else self._camera.fault):
            if fault is not None:
                facts.append((fault, True))
        return facts

    def state(self) -> dict[str, Any]:
        """What /state.json of the page says."""
        levels = self._page_meters.look()
        return {
            "title": "Listening",
            "every_ms": _EVERY_MS,
            "device": self._source.name,
            "facts": self.facts(),
            "rms": [round(float(level), 1) for level in levels.rms],
            "held": [round(float(level), 1) for level in levels.held],
            "quiet": quiet_levels(levels),
            "frames": 0 if self._pictures is None else self._pictures.written,
            "map_db": map_levels(self._mapper),
        }

    def rows(self, columns: int, lines: int, *, range_db: float, colours: str | None) -> list[Row]:
        """The same for a terminal."""
        facts: list[Row] = [
            clip_row([Span(text, "red" if bad else "")], columns) for text, bad in self.facts()
        ]
        head: Row = clip_row([span for row in facts[:3] for span in (*row, Span("  "))], columns)
        found = self.latest()
        rest = facts[3:]
        room = max(1, lines - 1 - len(rest))
        if found is None:
            return [head, [Span("no map yet")], *rest][:lines]
        drawn = map_rows(
            below_greatest_db(found.energy), columns, room, range_db=range_db, colours=colours
        )
        return [head, *drawn, *rest][:lines]

    def close(self) -> None:
        """Make no more maps."""
        self._mapper.close()
