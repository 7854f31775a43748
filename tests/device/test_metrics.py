"""Figures for Prometheus, read back by its own client library's parser."""

from __future__ import annotations

import http.client
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import open_bundle, read_bundle
from soundpost.device.errors import UsageError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.health import Health
from soundpost.device.identifiers import uuid7
from soundpost.device.metrics import MAX_CONNECTIONS, Metrics, MetricsServer
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.settings import MetricsSettings

PATIENCE_S = 60.0
NOW = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Queue:
    queued: int = 3
    dropped: int = 2
    state: str = "connected"


def parse(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(metrics: Metrics) -> Samples:
    registry = CollectorRegistry()
    registry.register(metrics)
    return parse(generate_latest(registry).decode())


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def event(source: str, label: str, phase: str) -> SoundEvent:
    return SoundEvent(
        id=uuid7(),
        device="porch-pi",
        source=source,
        label=label,
        phase=phase,
        score=0.9,
        threshold=0.5,
        onset=NOW,
        offset=NOW if phase == "end" else None,
        time_synced=True,
        stream=uuid7(),
        sample=1,
        rate_hz=16_000,
        model=ModelRef("tiny", "1", "0" * 64),
    )


SOURCES = st.sampled_from(["mic0", "Küche"])
LABELS = st.sampled_from(["dog", 'a "quoted" \\ label', "water drops"])
TOLD = st.one_of(
    st.tuples(st.just("heard"), SOURCES, st.integers(0, 4_800)),
    st.tuples(st.just("scored"), SOURCES, st.floats(0, 3)),
    st.tuples(
        st.just("reported"), SOURCES, st.tuples(LABELS, st.sampled_from(["start", "update", "end"]))
    ),
    st.tuples(st.just("opened"), SOURCES, st.just(48_000)),
)


@given(st.lists(TOLD, max_size=60))
def test_what_was_told_is_what_is_read(told: list[tuple[str, str, object]]) -> None:
    """Oracle: sums over the list of what was told."""
    metrics = Metrics("porch-pi", Queue())
    for what, source, content in told:
        if what == "heard":
            metrics.heard(
                source,
                AudioBlock(np.zeros((content, 2), np.float32), 0, 48_000, None),
            )
        elif what == "scored":
            failure = "no numbers" if content > 2 else None
            window = ScoredWindow(0, np.zeros(3, np.float32), (), content, failure)
            metrics.scored(source, window)
        elif what == "opened":
            metrics.opened(source, uuid7(), 48_000, 2)
        else:
            label, phase = content
            metrics.reported(event(source, label, phase), 0.0)
    samples = read(metrics)
    assert value(samples, "soundpost_info", device="porch-pi", version=version()) == 1
    assert value(samples, "soundpost_queue_messages") == 3
    assert value(samples, "soundpost_queue_dropped_total") == 2
    assert value(samples, "soundpost_broker_connected") == 1
    events = Counter((s, c[0]) for w, s, c in told if w == "reported" and c[1] == "start")
    read_events = {
        (dict(labels)["source"], dict(labels)["label"]): count
        for (name, labels), count in samples.items()
        if name == "soundpost_events_total"
    }
    assert read_events == dict(events)
    for source in {source for what, source, _ in told if what != "reported"}:
        of = {w: [c for x, s, c in told if (x, s) == (w, source)] for w in ("heard", "scored")}
        heard, scored = of["heard"], of["scored"]
        prefix = "soundpost_source_"
        assert value(samples, f"{prefix}samples_total", source=source) == sum(heard)
        assert value(samples, f"{prefix}windows_total", source=source) == len(scored)
        failed = sum(seconds > 2 for seconds in scored)
        assert value(samples, f"{prefix}failed_windows_total", source=source) == failed
        assert value(samples, "soundpost_window_seconds_count", source=source) == len(scored)
        spent_s = value(samples, "soundpost_window_seconds_sum", source=source)
        assert spent_s == pytest.approx(sum(scored))
        for (name, labels), count in samples.items():
            if name == "soundpost_window_seconds_bucket" and ("source", source) in labels:
                edge_s = float(dict(labels)["le"])
                assert count == sum(seconds <= edge_s for seconds in scored)


def version() -> str:
    from soundpost.device import __version__

    return __version__


def test_health_is_counters_and_whether_it_listens() -> None:
    metrics = Metrics("porch-pi", Queue(state="refused"))
    told = Health("porch-pi", "mic0", NOW, "degraded", gaps=4, overflows=2, lost_s=1.25)
    told = replace(told, clips={"written": 3, "gated": 2})
    metrics.health(told)
    samples = read(metrics)
    assert value(samples, "soundpost_source_up", source="mic0") == 1
    assert value(samples, "soundpost_source_gaps_total", source="mic0") == 4
    assert value(samples, "soundpost_source_overflows_total", source="mic0") == 2
    assert value(samples, "soundpost_source_lost_seconds_total", source="mic0") == 1.25
    assert value(samples, "soundpost_clips_total", source="mic0", outcome="written") == 3
    assert value(samples, "soundpost_clips_total", source="mic0", outcome="gated") == 2
    assert value(samples, "soundpost_broker_connected") == 0
    metrics.health(Health("porch-pi", "mic0", NOW, "failed", "it is gone"))
    assert value(read(metrics), "soundpost_source_up", source="mic0") == 0


def test_the_model_is_the_one_it_hears_with(tiny_bundle: Path, frames_bundle: Path) -> None:
    metrics = Metrics("porch-pi", Queue())
    for path in (tiny_bundle, frames_bundle):
        bundle, interpreter, _ = open_bundle(path)
        metrics.tuned("mic0", SourcePlan("mic0", "mic:", bundle, interpreter, ()))
    models = [dict(labels) for name, labels in read(metrics) if name.endswith("model_info")]
    assert models == [{"source": "mic0", "name": "tiny-frames", "version": "1.0.0"}]


# -------------------------------------------------------------------------------------- the port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    settings = MetricsSettings(port=free_port())
    with MetricsServer(settings, Metrics("porch-pi", Queue())) as running:
        yield running


def scrape(port: int, path: str = "/metrics") -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return parse(answer.read().decode())


def until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_it_answers_and_counts_its_own_process(server: MetricsServer) -> None:
    samples = scrape(server.port)
    assert value(samples, "process_open_fds") > 3
    assert math.isfinite(value(samples, "process_cpu_seconds_total"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        scrape(server.port, "/")
    assert refused.value.code == 404
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("POST", "/metrics", b"x")
    assert connection.getresponse().status == 501
    connection.close()


@pytest.mark.parametrize("nonsense", [b"\0\xff\r\n\r\n", b"GET " + b"x" * 70_000, b"\x16\x03\x01"])
def test_nonsense_harms_nothing(server: MetricsServer, nonsense: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
        client.sendall(nonsense)
    assert scrape(server.port)


def answering() -> int:
    """Threads that serve a connection."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_many_silent_clients_take_few_threads_and_are_sent_away(server: MetricsServer) -> None:
    most = 0
    clients = []
    try:
        for _ in range(5 * MAX_CONNECTIONS):
            clients.append(socket.create_connection(("127.0.0.1", server.port), PATIENCE_S))
            # Looked at while they come: on a busy machine all may be away again afterwards.
            most = max(most, answering())
        if not most:
            until(lambda: answering() > 0)
            most = 1
        for client in clients:
            # It ends the connection itself, though nothing was asked.
            most = max(most, answering())
            assert client.recv(1) == b""
        assert 1 <= most <= MAX_CONNECTIONS
        until(lambda: answering() == 0)
        assert scrape(server.port)
    finally:
        for client in clients:
            client.close()


def test_a_client_that_sends_byte_by_byte_is_cut(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n")

        def cut() -> bool:
            try:
                client.sendall(b"X")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        until(cut)


def test_a_port_that_is_taken_is_said(server: MetricsServer) -> None:
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{server.port}: Address already in use"):
        MetricsServer(MetricsSettings(port=server.port), Metrics("porch-pi", Queue()))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::"])
def test_other_machines_are_let_in_only_where_that_is_said(host: str) -> None:
    with pytest.raises(UsageError, match="remote = true"):
        MetricsSettings(port=9464, host=host)
    assert MetricsSettings(port=9464, host=host, remote=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_needs_no_word(host: str) -> None:
    assert MetricsSettings(port=9464, host=host).host == host


def test_a_name_is_no_address() -> None:
    with pytest.raises(UsageError, match="an address in numbers, found 'localhost'"):
        MetricsSettings(port=9464, host="localhost")


# ------------------------------------------------------------------------------ the real program


def run(
    folder: Path, bundle: Path, *settings: str, config: Path | None = None
) -> subprocess.Popen[str]:
    sets = [part for text in ("broker.port=0", *settings) for part in ("--set", text)]
    sets += [] if config is None else ["--config", str(config)]
    return subprocess.Popen(
        [sys.executable, "-m", "soundpost.device", "run", "--bundle", str(bundle), *sets],
        env={**os.environ, "XDG_STATE_HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_sensor_offers_its_figures_and_agrees_with_its_totals(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """As the file plays, samples, windows and compute times grow at the rates they must have."""
    wav = tmp_path / "noise.wav"
    soundfile.write(wav, 0.1 * np.random.default_rng(4).standard_normal(16_000), 16_000)
    port = free_port()
    settings = (f"metrics.port={port}", f"source.porch.url=file:{wav}", "source.porch.loop=true")
    settings += ("levels.enabled=true", "levels.interval_s=1")
    with run(tmp_path, tiny_bundle, *settings) as process:
        try:
            found: Samples = {}

            def windows(samples: Samples) -> float:
                return value(samples, "soundpost_source_windows_total", source="porch")

            def enough() -> bool:
                nonlocal found
                assert process.poll() is None
                try:
                    found = scrape(port)
                except urllib.error.URLError:
                    return False
                names = {name for name, _ in found}
                return "soundpost_level_db" in names and windows(found) >= 8

            until(enough)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)
    assert value(found, "soundpost_source_up", source="porch") == 1
    assert value(found, "soundpost_source_rate_hertz", source="porch") == 16_000
    n_samples = value(found, "soundpost_source_samples_total", source="porch")
    manifest = read_bundle(tiny_bundle).manifest
    expected = 1 + (n_samples - manifest.window_samples) / manifest.hop_samples
    # The front end holds back up to 50 frames of 10 ms; both are read while they grow.
    assert abs(expected - windows(found)) <= 2 + 8_000 / manifest.hop_samples
    assert value(found, "soundpost_window_seconds_count", source="porch") == windows(found)
    levels = {dict(labels)["level"] for name, labels in found if name == "soundpost_level_db"}
    assert {"laeq", "lceq", "lafmax"} <= levels


def test_a_source_that_a_reload_takes_away_is_no_longer_up(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    wav, path, port = tmp_path / "noise.wav", tmp_path / "soundpost.toml", free_port()
    soundfile.write(wav, np.zeros(8_000), 16_000)
    source = f'url = "file:{wav}"\nloop = true\n'
    rest = f"[metrics]\nport = {port}\n[source.porch]\n{source}"
    path.write_text(f"{rest}[source.yard]\n{source}", encoding="utf-8")

    def up() -> dict[str, float]:
        assert process.poll() is None
        try:
            samples = scrape(port)
        except urllib.error.URLError:
            return {}
        return {
            dict(labels)["source"]: figure
            for (name, labels), figure in samples.items()
            if name == "soundpost_source_up"
        }

    with run(tmp_path, tiny_bundle, config=path) as process:
        try:
            until(lambda: up() == {"porch": 1, "yard": 1})
            path.write_text(rest, encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            until(lambda: up() == {"porch": 1})
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


def test_without_its_port_a_sensor_listens_all_the_same(tmp_path: Path, tiny_bundle: Path) -> None:
    wav = tmp_path / "noise.wav"
    soundfile.write(wav, np.zeros(8_000), 16_000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = (f"metrics.port={port}", f"source.porch.url=file:{wav}")
        with run(tmp_path, tiny_bundle, *settings) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert f"127.0.0.1:{port}: Address already in use; choose another port; it listens" in err
    assert "porch: 0.5 s heard" in out
