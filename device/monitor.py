"""What the sensor hears, live, for those who watch on the machine itself (`soundpost top`).

One JSON line (`soundpost.monitor/1`) every half second to each watcher. No sound leaves the sensor
by it: scores, levels and states only. While nobody watches, the sources leave their latest results
here, and nothing is computed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np

from soundpost.device import __version__
from soundpost.device.audio import AudioBlock, select_channel
from soundpost.device.board import processor_time_s
from soundpost.device.clock import clock_synchronised
from soundpost.device.errors import SoundpostError
from soundpost.device.events import SoundEvent
from soundpost.device.features import FloatArray
from soundpost.device.health import Health
from soundpost.device.identifiers import format_time
from soundpost.device.level_record import LevelRecord
from soundpost.device.levels import level_dbfs
from soundpost.device.monitor_socket import (
    MONITOR_SCHEMA,
    MonitorServer,
    runtime_folder,
    socket_path,
)
from soundpost.device.observer import Observer
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.records import dump

logger = logging.getLogger(__name__)

# More labels than a screen has lines; a model may have hundreds.
_MAX_SCORES: Final = 50


@dataclass
class _Source:
    """The latest of one source; written by its thread, read by the server's.

    plan : as it was for the last line, None before the first
    power_sum, n_samples, peak : of the sound since the last line, while somebody watches
    """

    plan: SourcePlan | None = None
    opened: tuple[str, int, int] | None = None
    window: ScoredWindow | None = None
    windows: int = 0
    peaks: FloatArray | None = None
    level: LevelRecord | None = None
    health: Health | None = None
    open_events: dict[str, tuple[SoundEvent, float]] = field(default_factory=dict)
    power_sum: float = 0.0
    n_samples: int = 0
    peak: float = 0.0


class Monitor(Observer):
    """Serves what a daemon hears on a Unix socket.

    device_id : of the sensor; two daemons of one id cannot both serve
    publisher : asked for the state of the connection and what waits
    folder : `runtime_folder()` unless told
    """

    def __init__(
        self,
        device_id: str,
        publisher: Publisher,
        *,
        folder: Path | None = None,
    ) -> None:
        self._device = device_id
        self._publisher = publisher
        self._folder = runtime_folder() if folder is None else folder
        # For the group only where systemd made the folder and chose its group.
        shared = folder is None and bool(os.environ.get("RUNTIME_DIRECTORY"))
        self._mode = 0o660 if shared else 0o600
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}
        self._plans: Callable[[], Mapping[str, SourcePlan]] = dict
        self._watched = False
        self._began_s = time.monotonic()
        self._cpu = (time.monotonic(), processor_time_s())
        self._server: MonitorServer | None = None

    def start(self, plans: Callable[[], Mapping[str, SourcePlan]]) -> Monitor:
        """Begin to serve; where the socket cannot be made, the log says why, and that is all.

        plans : the sources as they are now, asked for each line: a reload may change them
        """
        self._plans = plans
        path = socket_path(self._folder, self._device)
        try:
            self._server = MonitorServer(path, self._mode, self._watch, self._line)
        except OSError as error:
            reason = error.strerror or error
            logger.warning("soundpost top cannot watch this sensor: %s: %s", path, reason)
        return self

    def close(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _known(self, source: str) -> _Source:
        # One step: the source's thread and the server's may ask first at the same time.
        return self._sources.get(source) or self._sources.setdefault(source, _Source())

    # Called in the sources' threads.

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        """Note the stream that runs."""
        self._known(source).opened = (stream, rate_hz, n_channels)

    def heard(self, source: str, block: AudioBlock) -> None:
        """Measure how loud it is, while somebody watches."""
        if not self._watched:
            return
        known = self._known(source)
        if known.plan is None:
            return
        samples = select_channel(block.samples, known.plan.channel)
        power, peak = float(np.dot(samples, samples)), float(np.max(np.abs(samples), initial=0.0))
        with self._lock:
            known.power_sum += power
            known.n_samples += len(samples)
            known.peak = max(known.peak, peak)

    def scored(self, source: str, window: ScoredWindow) -> None:
        """Keep the latest window; the greatest scores too, while somebody watches."""
        known = self._known(source)
        if not len(window.scores):
            return
        known.window = window
        known.windows += 1
        if self._watched:
            with self._lock:
                peaks = known.peaks
                if peaks is None or len(peaks) != len(window.scores):
                    known.peaks = window.scores
                else:
                    known.peaks = np.maximum(peaks, window.scores)

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        """Keep the events that are open."""
        with self._lock:
            known = self._known(event.source).open_events
            if event.phase == "end":
                known.pop(event.id, None)
            else:
                began_s = known[event.id][1] if event.id in known else decided_s
                known[event.id] = (event, began_s)

    def measured(self, level: LevelRecord) -> None:
        """Keep the levels of the last interval."""
        self._known(level.source).level = level

    def health(self, health: Health) -> None:
        """Keep the last record."""
        self._known(health.source).health = health

    def lost(self, source: str, error: SoundpostError) -> None:
        """What it scored last is not what sounds now."""
        with self._lock:
            known = self._known(source)
            known.window, known.opened, known.peaks = None, None, None
            known.open_events.clear()

    # Called in the server's thread.

    def _watch(self, watched: bool) -> None:
        with self._lock:
            self._watched = watched
            self._cpu = (time.monotonic(), processor_time_s())
            for known in tuple(self._sources.values()):
                known.power_sum, known.n_samples, known.peak, known.peaks = 0.0, 0, 0.0, None

    def _line(self) -> bytes:
        """What is known now as a JSON line."""
        now_s, used_s = time.monotonic(), processor_time_s()
        span_s = now_s - self._cpu[0]
        cpu = 100 * max(0.0, used_s - self._cpu[1]) / span_s if span_s > 0.1 else None
        if cpu is not None:
            self._cpu = (now_s, used_s)
        # Not under our lock: whoever changes the plans waits for sources, which may wait for it.
        plans = self._plans()
        with self._lock:
            sources = [
                self._of_source(self._known(name), plan, now_s) for name, plan in plans.items()
            ]
            healths = [self._known(name).health for name in plans]
        temperatures = [health.temperature_c for health in healths if health is not None]
        record = {
            "schema": MONITOR_SCHEMA,
            "device": self._device,
            "version": __version__,
            "time": format_time(datetime.now(timezone.utc)),
            "time_synced": clock_synchronised(),
            "uptime_s": round(now_s - self._began_s, 1),
            "cpu_percent": None if cpu is None else round(cpu, 1),
            "temperature_c": temperatures[0] if temperatures else None,
            "broker": {
                "state": self._publisher.state,
                "reason": self._publisher.reason,
                "queue": self._publisher.queued,
                "dropped": self._publisher.dropped,
                "fault": self._publisher.fault,
            },
            "sources": sources,
        }
        return f"{dump(record)}\n".encode()

    def _of_source(self, known: _Source, plan: SourcePlan, now_s: float) -> dict[str, Any]:
        known.plan = plan
        health, window = known.health, known.window
        manifest = plan.bundle.manifest
        record = {
            "source": plan.name,
            "url": plan.url,
            "state": None if health is None else health.state,
            "reason": None if health is None else health.reason,
            "gaps": 0 if health is None else health.gaps,
            "overflows": 0 if health is None else health.overflows,
            "rate_hz": None if known.opened is None else known.opened[1],
            "channels": None if known.opened is None else known.opened[2],
            "model": {"name": manifest.name, "version": manifest.version},
            **_loudness(known),
            "level": None if known.level is None else known.level.to_dict(),
            "windows": known.windows,
            "compute_ms": None if window is None else round(1000 * window.seconds, 2),
            "scores": [] if window is None else _scores(plan, known, window),
            "open": [
                {
                    "id": event.id,
                    "label": event.label,
                    "score": event.score,
                    "threshold": event.threshold,
                    "onset": format_time(event.onset),
                    "time_synced": event.time_synced,
                    "since_s": round(now_s - began_s, 1),
                }
                for event, began_s in known.open_events.values()
            ],
        }
        known.power_sum, known.n_samples, known.peak, known.peaks = 0.0, 0, 0.0, None
        return record


def _scores(plan: SourcePlan, known: _Source, window: ScoredWindow) -> list[dict[str, Any]]:
    """The greatest since the last line, first; the thresholds are of smoothed scores."""
    shown = window.scores if known.peaks is None else known.peaks
    if len(shown) != len(plan.classes):
        # Of the bundle that was used before a reload.
        return []
    order = np.argsort(-shown, kind="stable")[:_MAX_SCORES]
    return [
        {
            "label": plan.classes[place].label,
            "score": round(float(shown[place]), 3),
            "onset": plan.classes[place].onset,
            "release": plan.classes[place].release,
        }
        for place in map(int, order)
    ]


def _loudness(known: _Source) -> dict[str, float | None]:
    if not known.n_samples:
        return {"rms_dbfs": None, "peak_dbfs": None}
    return {
        "rms_dbfs": round(level_dbfs(known.power_sum / known.n_samples), 1),
        # As in a level record: a sine that reaches full scale reads 0 in both.
        "peak_dbfs": round(level_dbfs(known.peak**2 / 2), 1),
    }
