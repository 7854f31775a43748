"""`soundpost doctor` and its checks: real brokers, sound servers and files, well and ill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import trustme

from soundpost.device import checks
from soundpost.device.board import Board
from soundpost.device.broker_probe import probe_broker
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.checks import (
    check_board,
    check_certificates,
    check_clips,
    check_clock,
    check_disk,
    check_models,
    check_source,
    sensor_runs,
)
from soundpost.device.clip_store import ClipSettings
from soundpost.device.disk_outbox import DiskOutbox, OutboxSettings
from soundpost.device.findings import Finding, worst
from soundpost.device.settings import ModelSettings, Settings, SourceSettings
from soundpost.device.tls import TlsSettings

PATIENCE_S = 120.0


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Path) -> Settings:
    return Settings(
        "porch-pi",
        OutboxSettings(tmp_path / "outbox.sqlite3"),
        model=ModelSettings(tiny_bundle),
    )


def one(findings: Any) -> Finding:
    (finding,) = findings
    assert isinstance(finding, Finding)
    # What is not well says what to do; what is well asks for nothing.
    assert bool(finding.remedy) == (finding.state != "ok")
    return finding


def test_the_worst_counts() -> None:
    def of(*states: Any) -> str:
        return worst([Finding("x", state, "") for state in states])

    assert (of(), of("ok"), of("ok", "warning", "ok")) == ("ok", "ok", "warning")
    assert of("fault", "warning") == "fault"


# ---------------------------------------------------------------------------------------- models


def test_a_model_that_is_in_order(settings: Settings) -> None:
    finding = one(check_models(settings))
    assert finding.state == "ok"
    assert "golden vector" in finding.text


def test_a_model_that_is_not(settings: Settings, tmp_path: Path) -> None:
    content = bytearray((settings.model.bundle or Path()).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "bent.bundle").write_bytes(content)
    finding = one(check_models(replace(settings, model=ModelSettings(tmp_path / "bent.bundle"))))
    assert finding.state == "fault"
    assert "bent.bundle" in finding.text
    unknown = replace(settings, classes={"no such label": {"onset": 0.5}})
    *_, found = check_models(unknown)
    assert found.state == "fault"
    assert "no such label" in found.text


def test_a_profile_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    source = SourceSettings(profile=tmp_path / "none.toml")
    model, profile = check_models(replace(settings, sources=(source,)))
    assert (model.state, profile.area, profile.state) == ("ok", "profile", "fault")


# --------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize(
    ("sound", "state", "said"),
    [
        (lambda n: 0.1 * np.sin(np.arange(n) / 5), "ok", "-23 dBFS"),
        (np.zeros, "warning", "digital zeros only"),
        (lambda n: np.sign(np.sin(np.arange(n) / 5)), "warning", "full scale"),
        (lambda n: np.full(n, 1e-6), "warning", "-120 dBFS"),
    ],
)
def test_what_a_source_delivers(tmp_path: Path, sound: Any, state: str, said: str) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.asarray(sound(32_000), np.float32), 16_000, subtype="FLOAT")
    finding = one([check_source(SourceSettings("yard", f"file:{path}"))])
    assert (finding.area, finding.state) == ("source yard", state)
    assert said in finding.text
    assert "16000 Hz, 1 channels" in finding.text


def test_a_channel_that_is_not_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "sound.wav", np.zeros(16_000), 16_000)
    source = SourceSettings("yard", f"file:{tmp_path}/sound.wav", channel=3)
    assert one([check_source(source)]).state == "fault"


def test_a_microphone_that_is_heard(pulseaudio: Any, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    tone = 0.3 * np.sin(2 * np.pi * 1_000 * np.arange(48_000 * 30) / 48_000)
    soundfile.write(path, tone, 48_000)
    pulseaudio.play(path)
    deadline = 60
    for _ in range(deadline):
        finding = one([check_source(SourceSettings("mic0", "mic:pulse"))])
        if finding.state == "ok":
            break
    assert finding.state == "ok", finding
    assert "dBFS" in finding.text


def test_a_microphone_that_is_not_there(portaudio: Any) -> None:
    source = SourceSettings("mic0", "mic:no such card")
    assert one([check_source(source)]).state == "fault"
    for running in (True, None):
        busy = one([check_source(source, running)])
        assert busy.state == "warning"
        assert "stop the sensor" in busy.remedy


# ---------------------------------------------------------------------------------- clock, disk


def test_the_clock() -> None:
    def now() -> datetime:
        return datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)

    assert check_clock(lambda: True, now).text == "2026-11-20 10:00:00 UTC, synchronised"
    assert one([check_clock(lambda: False, now)]).state == "warning"


def test_a_disk_with_room_and_one_without(tmp_path: Path) -> None:
    there = tmp_path / "not" / "yet" / "outbox.sqlite3"
    assert one(check_disk(OutboxSettings(there))).state == "ok"
    assert not there.parent.exists()
    huge = OutboxSettings(there, max_size_mb=1e9)
    finding = one(check_disk(huge))
    assert finding.state == "warning"
    assert finding.remedy.startswith("free at least ")


def test_a_disk_that_cannot_be_written() -> None:
    """The kernel's own file system lets not even root make a file."""
    finding = one(check_disk(OutboxSettings(Path("/proc/soundpost/outbox.sqlite3"))))
    assert finding.state == "fault"
    assert "cannot be written" in finding.text


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Without root's rights, where the test has them."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_the_services_folder_is_closed_to_an_ordinary_user(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd makes it for a DynamicUser: a link into a folder that only root may enter."""
    # This environment is root's.
    monkeypatch.setattr(checks, "load_detector", lambda: None)
    private = tmp_path / "private"
    (private / "soundpost").mkdir(parents=True)
    (tmp_path / "soundpost").symlink_to("private/soundpost")
    outbox = OutboxSettings(tmp_path / "soundpost/outbox.sqlite3")
    clips = ClipSettings(enabled=True, folder=tmp_path / "soundpost/clips", max_size_mb=1.0)
    with DiskOutbox(outbox):
        private.chmod(0)
        with ordinary_user():
            running = sensor_runs(outbox.path)
            disk = one(check_disk(outbox))
            kept = one(check_clips(replace(settings, clips=clips)))
        private.chmod(0o700)
    assert running is None
    for finding in (disk, kept):
        assert finding.state == "fault"
        assert "Permission denied" in finding.text
        assert "sudo" in finding.remedy


def test_where_the_service_may_not_write(settings: Settings, tmp_path: Path) -> None:
    """Root may: what it can write to does not tell."""
    state = tmp_path / "state"
    clips = ClipSettings(enabled=True, folder=tmp_path / "clips", max_size_mb=1.0, min_free_mb=1.0)
    beyond = [
        *check_disk(OutboxSettings(tmp_path / "outbox.sqlite3"), state),
        *check_clips(replace(settings, clips=clips), state),
    ]
    assert [finding.state for finding in beyond] == ["warning", "ok", "warning", "ok"]
    assert beyond[0].text.endswith(f"the service may write below {state} alone")
    assert "take clips.folder out" in beyond[2].remedy
    assert one(check_disk(OutboxSettings(state / "outbox.sqlite3"), state)).state == "ok"
    clips = replace(clips, folder=state / "clips")
    assert one(check_clips(replace(settings, clips=clips), state)).state == "ok"


def test_a_folder_for_clips_that_cannot_be_written(settings: Settings) -> None:
    clips = ClipSettings(enabled=True, folder=Path("/proc/soundpost"))
    finding = one(check_clips(replace(settings, clips=clips)))
    assert (finding.area, finding.state) == ("clips", "fault")
    assert "cannot be written" in finding.text


def test_an_outbox_in_order_in_use_and_damaged(tmp_path: Path) -> None:
    settings = OutboxSettings(tmp_path / "outbox.sqlite3")
    with DiskOutbox(settings):
        assert sensor_runs(settings.path)
        _, used = check_disk(settings)
        assert (used.state, used.text) == ("ok", f"{settings.path}: in use by a running sensor")
    assert not sensor_runs(settings.path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    _, kept = check_disk(settings)
    assert (kept.state, kept.text) == ("ok", f"{settings.path}: in order, 0 messages wait")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    settings.path.write_bytes(b"no database" * 1_000)
    _, damaged = check_disk(settings)
    assert damaged.state == "fault"


# ---------------------------------------------------------------------------------------- broker


def probe(settings: Settings, port: int, **options: Any) -> Finding:
    broker = BrokerSettings("127.0.0.1", port, **options)
    return one(probe_broker(replace(settings, mqtt=broker)))


def test_a_broker_that_is_there_and_gone(settings: Settings, mosquitto: Any) -> None:
    finding = probe(settings, mosquitto.port)
    assert finding.state == "ok"
    assert "may publish to soundpost/porch-pi/#" in finding.text
    mosquitto.kill()
    assert probe(settings, mosquitto.port).state == "fault"


def test_a_broker_that_does_not_answer(settings: Settings, mosquitto: Any) -> None:
    mosquitto.freeze()
    finding = probe(settings, mosquitto.port, timeout_s=0.5)
    mosquitto.thaw()
    assert finding.state == "fault"
    assert "no answer in 0.5 s" in finding.text


def test_a_broker_that_refuses_login_or_message(
    settings: Settings, start_mosquitto: Any, tmp_path: Path
) -> None:
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("mosquitto_passwd is missing: sudo apt-get install mosquitto")
    passwords = tmp_path / "passwords"
    subprocess.run([program, "-c", "-b", str(passwords), "porch", "secret"], check=True)
    rights = tmp_path / "rights"
    rights.write_text("user porch\ntopic write soundpost/other/#\n", encoding="utf-8")
    for path in (passwords, rights):
        path.chmod(0o600)
    lines = f"allow_anonymous false\npassword_file {passwords}\n"
    port = start_mosquitto(lines).port
    assert probe(settings, port, username="porch", password="secret").state == "ok"
    wrong = probe(settings, port, username="porch", password="guess")
    assert wrong.state == "fault"
    assert "refuses the connection" in wrong.text
    assert "guess" not in wrong.text
    port = start_mosquitto(f"{lines}acl_file {rights}\n").port
    finding = probe(settings, port, username="porch", password="secret")
    assert finding.state == "fault"
    assert "refuses a message on soundpost/porch-pi/doctor" in finding.text
    assert finding.remedy.startswith("allow porch to publish to soundpost/porch-pi/#")


def test_certificates_are_told_before_they_expire(settings: Settings, tmp_path: Path) -> None:
    """Against the dates that the certificate was made with."""
    now = datetime(2026, 11, 20, tzinfo=timezone.utc)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = authority.issue_cert("porch", not_before=now - timedelta(90), not_after=now)
    ours.private_key_and_cert_chain_pem.write_to_path(tmp_path / "porch.pem")
    tls = TlsSettings(cert_file=tmp_path / "porch.pem")
    settings = replace(settings, mqtt=BrokerSettings(tls=tls))

    def state(days: int) -> tuple[str, str]:
        found = one(check_certificates(settings, now + timedelta(days)))
        return found.state, found.text

    assert state(-60)[0] == "ok"
    assert "valid until 2026-11-20, 60 days" in state(-60)[1]
    assert state(-10)[0] == "warning"
    assert state(1) == ("fault", f"{tmp_path}/porch.pem: expired on 2026-11-20")
    assert state(-100)[0] == "fault"
    tls = TlsSettings(ca_file=tmp_path / "ca.pem")
    settings = replace(settings, mqtt=BrokerSettings(tls=tls))
    assert "ca.pem: " in one(check_certificates(settings)).text
    (tmp_path / "ca.pem").write_text("no certificate")
    assert one(check_certificates(settings)).state == "fault"


def test_clips_need_their_detector_and_room(settings: Settings, tmp_path: Path) -> None:
    assert list(check_clips(settings)) == []
    clips = ClipSettings(enabled=True, folder=tmp_path / "clips", max_size_mb=1.0, min_free_mb=1.0)
    assert one(check_clips(replace(settings, clips=clips))).state == "ok"
    short = one(check_clips(replace(settings, clips=replace(clips, max_size_mb=1e7))))
    assert short.state == "warning"
    assert "free at least" in short.remedy


def test_a_broker_of_its_own(settings: Settings, mosquitto: Any) -> None:
    taken = replace(settings, broker_port=mosquitto.port)
    assert one(probe_broker(taken)).state == "fault"
    assert one(probe_broker(taken, running=True)).state == "ok"
    assert one(probe_broker(taken, running=None)).state == "ok"
    mosquitto.kill()
    assert one(probe_broker(taken)).state == "ok"
    assert one(probe_broker(taken, running=None)).state == "ok"
    assert one(probe_broker(taken, running=True)).state == "fault"
    assert one(probe_broker(replace(settings, broker_port=0))).state == "ok"


# ----------------------------------------------------------------------------------------- board


def test_heat_supply_and_speed(tmp_path: Path) -> None:
    files = {
        "sys/class/thermal/thermal_zone0/temp": "78000",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50001",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
        "proc/meminfo": "MemAvailable: 50000 kB",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    found = [(finding.area, finding.state) for finding in check_board(Board(tmp_path))]
    assert found == [
        ("temperature", "warning"),
        ("supply", "fault"),
        ("speed", "warning"),
        ("speed", "warning"),
        ("memory", "warning"),
    ]
    assert list(check_board(Board(tmp_path / "nothing"))) == []


# ------------------------------------------------------------------------------------ the command


def doctor(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soundpost.device", "doctor", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def written(folder: Path, bundle: Path, port: int) -> Path:
    soundfile.write(folder / "noise.wav", 0.1 * np.sin(np.arange(32_000) / 7), 16_000)
    path = folder / "soundpost.toml"
    path.write_text(
        f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n[model]\nbundle = "{bundle}"\n'
        '[outbox]\npath = "outbox.sqlite3"\n[source.yard]\nurl = "file:noise.wav"\n',
        encoding="utf-8",
    )
    return path


def test_the_command_says_the_worst(tmp_path: Path, tiny_bundle: Path, mosquitto: Any) -> None:
    path = written(tmp_path, tiny_bundle, mosquitto.port)
    told = doctor("--config", path)
    assert told.stderr == ""
    assert told.stdout.startswith(f"ok       settings     {path}\n")
    as_json = doctor("--config", path, "--json")
    document = json.loads(as_json.stdout)
    assert document["schema"] == "soundpost.doctor/1"
    states = {finding["area"]: finding["state"] for finding in document["findings"]}
    assert {states[area] for area in ("settings", "model", "source yard", "disk", "broker")} == {
        "ok"
    }
    # The clock and the board are this machine's.
    code = {"ok": 0, "warning": 9, "fault": 10}[document["worst"]]
    assert as_json.returncode == code
    mosquitto.kill()
    assert doctor("--config", path).returncode == 10


def test_settings_that_are_wrong_leave_the_rest_to_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "soundpost.toml"
    path.write_text("devise_id = 3\n", encoding="utf-8")
    told = doctor("--config", path, "--json")
    assert told.returncode == 10
    findings = json.loads(told.stdout)["findings"]
    assert findings[0]["state"] == "fault"
    assert "did you mean device_id?" in findings[0]["text"]
    assert {"model", "clock"} <= {finding["area"] for finding in findings}


def test_without_settings_it_works_too(tmp_path: Path) -> None:
    told = doctor("--json", HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path / "state"))
    assert told.returncode in (0, 9, 10)
    areas = [finding["area"] for finding in json.loads(told.stdout)["findings"]]
    assert areas[:2] == ["settings", "model"]
    assert {"source mic0", "clock", "disk", "broker"} <= set(areas)


def test_the_board_is_measured(tmp_path: Path, tiny_bundle: Path) -> None:
    path = written(tmp_path, tiny_bundle, 1)
    told = doctor("--bench", "--config", path)
    assert told.returncode == 0, told.stderr
    rows = [line for line in told.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 8
    assert all(row.count("|") == 3 for row in rows)
    for what in ("front end,", "model,", "alerts kept on disk", "memory (PSS)", "of one core"):
        assert any(what in row for row in rows), what
    assert [path.name for path in tmp_path.glob(".soundpost*")] == []
