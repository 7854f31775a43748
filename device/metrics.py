"""Figures of the running sensor for Prometheus, on a port of its own.

Counted in the threads of the sources, put into words only when somebody asks. The library is
imported where the settings ask for a port, and nowhere else: it takes 4 MB.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from soundpost.device import __version__
from soundpost.device.audio import AudioBlock
from soundpost.device.board import Board
from soundpost.device.errors import UsageError
from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.level_record import LevelRecord
from soundpost.device.observer import Observer
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.settings import MetricsSettings

logger = logging.getLogger(__name__)

# Seconds of compute for one window: from a workstation to a board that is too slow (0.25 s a hop).
BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_LEVELS: Final = ("laeq", "lceq", "lafmax", "lasmax", "l10", "l50", "l90")
# Prometheus asks with one connection; more than a few at once is a fault or an attack.
MAX_CONNECTIONS: Final = 8
MAX_SECONDS: Final = 5.0


class Queue(Protocol):
    """What is asked of the publisher."""

    @property
    def queued(self) -> int:
        """Events that wait."""
        ...

    @property
    def dropped(self) -> int:
        """Events given up."""
        ...

    @property
    def state(self) -> str:
        """State of the connection."""
        ...


class _Source:
    """Counts of one source; written by its thread alone."""

    def __init__(self) -> None:
        self.samples = 0
        self.rate_hz = 0
        self.streams = 0
        self.windows = 0
        self.failed = 0
        self.model: tuple[str, str] | None = None
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.compute_s = 0.0
        self.events: Counter[str] = Counter()
        self.health: Health | None = None
        self.level: LevelRecord | None = None


class Metrics(Observer):
    """Counts what it is told, and collects it for Prometheus.

    device : its id
    queue : the publisher

    Attributes
    ----------
    names : tells which sources there are; others, that a reload has taken away, are left out
    """

    def __init__(self, device: str, queue: Queue) -> None:
        self.names: Callable[[], Collection[str]] | None = None
        self._device = device
        self._queue = queue
        self._sources: defaultdict[str, _Source] = defaultdict(_Source)
        self._board = Board()

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        """Count a stream."""
        counts = self._sources[source]
        counts.streams += 1
        counts.rate_hz = rate_hz

    def tuned(self, source: str, plan: SourcePlan) -> None:
        """Keep which model it hears with."""
        manifest = plan.bundle.manifest
        self._sources[source].model = manifest.name, manifest.version

    def heard(self, source: str, block: AudioBlock) -> None:
        """Count samples."""
        self._sources[source].samples += len(block.samples)

    def scored(self, source: str, window: ScoredWindow) -> None:
        """Count a window and what it cost; the end of a stream is none."""
        if len(window.scores):
            counts = self._sources[source]
            counts.windows += 1
            counts.failed += window.failure is not None
            counts.compute_s += window.seconds
            counts.buckets[bisect_left(BUCKETS_S, window.seconds)] += 1

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        """Count an event once, at its start."""
        if event.phase == "start":
            self._sources[event.source].events[event.label] += 1

    def measured(self, level: LevelRecord) -> None:
        """Keep the latest levels."""
        self._sources[level.source].level = level

    def health(self, health: Health) -> None:
        """Keep the latest health."""
        self._sources[health.source].health = health

    def _known(self) -> list[tuple[str, _Source]]:
        # A copy: a source's thread may add its own meanwhile.
        known = self._sources.copy()
        names = known if self.names is None else self.names()
        return [(name, counts) for name, counts in known.items() if name in names]

    def collect(self) -> Iterator[Metric]:
        """All families as they are now."""
        build = GaugeMetricFamily(
            "soundpost_info", "Version of this sensor.", labels=("device", "version")
        )
        build.add_metric((self._device, __version__), 1)
        yield build
        yield from self._of_sources()
        yield self._compute_times()
        yield self._events()
        yield self._levels()
        queue = self._queue
        yield GaugeMetricFamily(
            "soundpost_broker_connected", "1 while connected.", int(queue.state == "connected")
        )
        yield GaugeMetricFamily(
            "soundpost_queue_messages", "Messages that wait for the broker.", queue.queued
        )
        yield CounterMetricFamily(
            "soundpost_queue_dropped", "Messages given up for room or age.", queue.dropped
        )
        temperature_c = self._board.temperature_c
        if temperature_c is not None:
            yield GaugeMetricFamily(
                "soundpost_temperature_celsius", "Of the processor.", temperature_c
            )

    def _of_sources(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "soundpost_source_up", "1 while it listens; by its last health.", labels=("source",)
        )
        rate = GaugeMetricFamily("soundpost_source_rate_hertz", "Capture rate.", labels=("source",))
        model = GaugeMetricFamily(
            "soundpost_source_model_info",
            "Model that it hears with.",
            labels=("source", "name", "version"),
        )
        counters = {
            name: CounterMetricFamily(f"soundpost_source_{name}", about, labels=("source",))
            for name, about in {
                "samples": "Samples heard, of each channel.",
                "streams": "How often it was opened.",
                "windows": "Windows scored.",
                "failed_windows": "Windows for which the model gave no usable scores.",
                "gaps": "Breaks in its sound.",
                "lost_seconds": "Sound that was lost.",
                "overflows": "Capture overruns.",
            }.items()
        }
        for name, counts in self._known():
            labels, health = (name,), counts.health
            up.add_metric(labels, int(health is not None and health.state in ("ok", "degraded")))
            if counts.rate_hz:
                rate.add_metric(labels, counts.rate_hz)
            counters["samples"].add_metric(labels, counts.samples)
            counters["streams"].add_metric(labels, counts.streams)
            counters["windows"].add_metric(labels, counts.windows)
            counters["failed_windows"].add_metric(labels, counts.failed)
            if counts.model is not None:
                model.add_metric((name, *counts.model), 1)
            counters["gaps"].add_metric(labels, health.gaps if health else 0)
            counters["lost_seconds"].add_metric(labels, health.lost_s if health else 0)
            counters["overflows"].add_metric(labels, health.overflows if health else 0)
        yield from (up, rate, model, *counters.values())
        yield self._clips()

    def _clips(self) -> Metric:
        family = CounterMetricFamily(
            "soundpost_clips",
            "Clips of events, by what became of them.",
            labels=("source", "outcome"),
        )
        for name, counts in self._known():
            for outcome, count in (counts.health.clips or {} if counts.health else {}).items():
                family.add_metric((name, outcome), count)
        return family

    def _compute_times(self) -> Metric:
        family = HistogramMetricFamily(
            "soundpost_window_seconds",
            "Compute time of a window: features, model, detector.",
            labels=("source",),
        )
        for name, counts in self._known():
            total, buckets = 0, []
            edges = [*map(str, BUCKETS_S), "+Inf"]
            for edge, count in zip(edges, list(counts.buckets), strict=True):
                total += count
                buckets.append((edge, total))
            family.add_metric((name,), buckets, counts.compute_s)
        return family

    def _events(self) -> Metric:
        family = CounterMetricFamily(
            "soundpost_events", "Events that began.", labels=("source", "label")
        )
        for name, counts in self._known():
            for label, count in counts.events.copy().items():
                family.add_metric((name, label), count)
        return family

    def _levels(self) -> Metric:
        family = GaugeMetricFamily(
            "soundpost_level_db",
            "Levels of the last interval: dB SPL where calibrated, else dBFS.",
            labels=("source", "level", "calibrated"),
        )
        for name, counts in self._known():
            record = counts.level
            for level in _LEVELS if record is not None else ():
                value = getattr(record, f"{level}_db")
                if value is not None:
                    assert record is not None
                    family.add_metric((name, level, str(record.calibrated).lower()), value)
        return family


# --- the port -----------------------------------------------------------------------------------


class MetricsServer:
    """Answers GET /metrics until closed.

    Raises UsageError where the address cannot be listened on.
    """

    def __init__(self, settings: MetricsSettings, metrics: Metrics) -> None:
        assert settings.port is not None
        registry = CollectorRegistry()
        registry.register(metrics)
        ProcessCollector(registry=registry)
        try:
            self._server = _Server((settings.host, settings.port), registry)
        except OSError as error:
            raise UsageError(
                f"[metrics] cannot listen on {settings.host}:{settings.port}: "
                f"{error.strerror or error}; choose another port"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    @property
    def port(self) -> int:
        """TCP port."""
        return int(self._server.server_address[1])

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """At most MAX_CONNECTIONS at once, each at most MAX_SECONDS long."""

    daemon_threads = True
    # Answers of a client that is gone are not waited for at the end.
    block_on_close = False
    # More wait in the kernel for a moment than are answered at once.
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.registry = registry
        self._open: dict[socket.socket, float] = {}
        self._gate = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._gate:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open[request] = time.monotonic()
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._gate:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: end what takes too long, such as a client that sends byte by byte."""
        now_s = time.monotonic()
        with self._gate:
            for request, began_s in self._open.items():
                if now_s - began_s > MAX_SECONDS:
                    try:
                        request.shutdown(socket.SHUT_RDWR)
                    except OSError as error:
                        logger.debug("connection was closed already: %s", error)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("%s went away", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = f"soundpost/{__version__}"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="the figures are at /metrics")
            return
        content = generate_latest(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
