"""`soundpost config`: problems in lines, the settings in force, nothing secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema

from soundpost.device.config import load_settings

FULL = """\
device_id = "porch-pi"

[mqtt]
host = "192.168.1.2"
username = "porch"
password_file = "secret"

[outbox]
path = "waiting.sqlite3"

[detector]
min_gap_s = 2.5

[source."front door"]
url = "file:tape.flac"
loop = true

[source.yard]
url = "mic:USB"
channel = 1

[class."dog \\"Rex\\""]
onset = 0.8
"""


def config(*arguments: object, cwd: Path, password: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soundpost.device", "config", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={
            "PATH": "/usr/bin:/bin",
            "STATE_DIRECTORY": "/var/lib/soundpost",
            "SOUNDPOST_MQTT_PASSWORD": password,
        },
    )


def test_check_tells_every_problem_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "soundpost.toml"
    path.write_text('devise_id = "a"\n[mqtt]\nhost = ""\n[class.dog]\nonset = 2\n', "utf-8")
    done = config("check", "soundpost.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    first, second, third = done.stderr.splitlines()
    assert first == "soundpost.toml:1: devise_id: unknown key; did you mean device_id?"
    assert second.startswith("soundpost.toml:3: [mqtt] host: found '', expected")
    assert third.startswith("soundpost.toml:5: [class.dog] onset: found 2, expected a number")
    path.write_text('device_id = "a"\n', "utf-8")
    done = config("check", "soundpost.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "soundpost.toml: in order\n")
    done = config("check", "absent.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1


def test_show_is_the_settings_again_with_their_origins(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("swordfish\n", "utf-8")
    path = tmp_path / "soundpost.toml"
    path.write_text(FULL, "utf-8")
    options = ("--set", "mqtt.port=8883")
    done = config("show", "soundpost.toml", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    said = {line.partition("  #")[0].strip(): line.rpartition("# ")[2] for line in lines}
    assert said['host = "192.168.1.2"'] == "soundpost.toml:4"
    assert said["port = 8883"] == "command line"
    assert said["max_size_mb = 20.0"] == "default"
    assert "# password: password_file" in lines
    # What is shown means the same as what was given, from any folder.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shown = elsewhere / "shown.toml"
    shown.write_text(done.stdout, "utf-8")
    environment = {"STATE_DIRECTORY": "/var/lib/soundpost"}
    before = load_settings(path, {"mqtt.port": 8883}, environment)
    after = load_settings(shown, None, environment)
    assert (after.mqtt, after.outbox, after.model) == (before.mqtt, before.outbox, before.model)
    assert (after.detector, after.levels) == (before.detector, before.levels)
    assert after.classes == before.classes
    for one, other in zip(before.sources, after.sources, strict=True):
        assert (one.name, one.url, one.channel) == (other.name, other.url, other.channel)
        assert one.options.items() <= other.options.items()


def test_show_without_a_file_is_the_defaults(tmp_path: Path) -> None:
    done = config("show", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "# no [mqtt]: a broker of our own, for this machine alone" in done.stdout.splitlines()
    assert "[source.mic0]" in done.stdout.splitlines()
    assert "/var/lib/soundpost/outbox-" in done.stdout


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("swordfish\n", "utf-8")
    path = tmp_path / "soundpost.toml"
    path.write_text(FULL, "utf-8")
    from_file = config("show", path, cwd=tmp_path)
    from_environment = config("show", path, cwd=tmp_path, password="haddock")
    assert "# password: $SOUNDPOST_MQTT_PASSWORD" in from_environment.stdout
    path.write_text(FULL.replace("password_file", "password"), "utf-8")
    wrong = config("check", path, cwd=tmp_path)
    assert wrong.returncode == 2
    for done in (from_file, from_environment, wrong):
        for secret in ("swordfish", "haddock"):
            assert secret not in done.stdout + done.stderr
    assert '"secret"' not in wrong.stderr


def test_schema_is_json_that_accepts_an_example(tmp_path: Path) -> None:
    done = config("schema", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    jsonschema.validate({"device_id": "a", "mqtt": {"host": "b"}}, schema)
    assert config("schema", "soundpost.toml", cwd=tmp_path).returncode == 2
    assert config("check", cwd=tmp_path).returncode == 2
