"""TLS and passwords as people give them: options of `alerts`, settings of `run`, real processes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trustme

from soundpost.device.broker_options import add_broker_options, broker_settings
from soundpost.device.errors import InputError, UsageError

PASSWORD = "s3cret-enough"


def parse(*options: str, **environment: str):
    parser = argparse.ArgumentParser()
    add_broker_options(parser)
    return broker_settings(parser.parse_args(options), environment)


def test_the_port_follows_tls_unless_it_is_given(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    assert parse().port == 1883
    assert parse().tls is None
    assert parse("--tls").port == 8883
    assert parse("--ca", str(ca)).port == 8883
    assert parse("--tls-insecure").port == 8883
    given = parse("--ca", str(ca), "--port", "1884", "--host", "h", "--mqtt-version", "5")
    assert (given.host, given.port, given.version) == ("h", 1884, "5")
    assert given.tls is not None
    assert given.tls.ca_file == ca


def test_user_and_password_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("of the file\n")
    variables = {
        "SOUNDPOST_MQTT_USERNAME": "of the environment",
        "SOUNDPOST_MQTT_PASSWORD": "of the environment too",
    }
    found = parse(**variables)
    assert (found.username, found.password) == tuple(variables.values())
    found = parse("--username", "me", "--password-file", str(path), **variables)
    assert (found.username, found.password) == ("me", "of the file")
    # A password in the environment of somebody who names no user is for another program.
    assert parse(SOUNDPOST_MQTT_PASSWORD="x").password is None
    assert "of the file" not in repr(found)


def test_options_that_contradict_and_files_that_are_absent_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--password-file is given without --username"):
        parse("--password-file", "x")
    with pytest.raises(UsageError, match="--key is given without --cert"):
        parse("--key", "x")
    absent = tmp_path / "absent.pem"
    with pytest.raises(InputError, match=r"CA file .*absent\.pem: No such file"):
        parse("--ca", str(absent))


# --- the commands themselves


@dataclass(frozen=True)
class Guarded:
    """A Mosquitto that wants TLS, our certificate and the password of `sensor`."""

    port: int
    folder: Path


@pytest.fixture
def guarded(start_mosquitto, tmp_path: Path) -> Guarded:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, identity in (("server", "127.0.0.1"), ("client", "sensor@example.org")):
        issued = authority.issue_cert(identity)
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        (tmp_path / f"{name}.key").chmod(0o600)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", passwords, "sensor", PASSWORD],
        check=True,
        capture_output=True,
    )
    passwords.chmod(0o644)
    acl = tmp_path / "acl"
    acl.write_text(
        "user sensor\ntopic readwrite soundpost/porch-pi/#\ntopic readwrite homeassistant/#\n"
        "topic read soundpost/#\n"
    )
    acl.chmod(0o644)
    broker = start_mosquitto(
        f"certfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.key\n"
        f"cafile {tmp_path}/ca.pem\nrequire_certificate true\n"
        f"allow_anonymous false\npassword_file {passwords}\nacl_file {acl}"
    )
    return Guarded(broker.port, tmp_path)


class Running:
    def __init__(self, folder: Path, *arguments: object, **environment: str) -> None:
        name = "alerts" if "alerts" in arguments else "run"
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "soundpost.device", *map(str, arguments)],
                cwd=folder,
                env={**os.environ, "XDG_STATE_HOME": str(folder), **environment},
                stdout=out,
                stderr=err,
            )

    @property
    def shown(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def wait_for(self, text: str) -> None:
        deadline_s = time.monotonic() + 60
        while text not in self.shown:
            assert self.process.poll() is None, self.shown
            assert time.monotonic() < deadline_s, self.shown
            time.sleep(0.02)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:

        def begin(*arguments: object, **environment: str) -> Running:
            running = Running(tmp_path, *arguments, **environment)
            stack.callback(running.close)
            return running

        yield begin


def test_alerts_pass_between_commands_that_show_their_password_nowhere(
    guarded: Guarded, start: Callable[..., Running], tiny_bundle: Path
) -> None:
    sound = np.zeros(24_000)
    sound[6_400:14_400] = 0.3 * np.random.default_rng(8).standard_normal(8_000)
    soundfile.write(guarded.folder / "clap.wav", np.clip(sound, -1, 1), 16_000)
    (guarded.folder / "soundpost.toml").write_text(
        f"""
        device_id = "porch-pi"
        [mqtt]
        host = "127.0.0.1"
        port = {guarded.port}
        username = "sensor"
        password_file = "password"
        ca_file = "ca.pem"
        cert_file = "client.pem"
        key_file = "client.key"
        [model]
        bundle = "{tiny_bundle}"
        [source.mic0]
        url = "file:clap.wav"
        loop = true
        [class.clap]
        min_gap_s = 0.2
        """
    )
    tls = ["--ca", "ca.pem", "--cert", "client.pem", "--key", "client.key"]
    alerts = start(
        *("-v", "-v", "alerts", "--port", guarded.port, *tls, "--label", "clap", "--count", 2),
        SOUNDPOST_MQTT_USERNAME="sensor",
        SOUNDPOST_MQTT_PASSWORD=PASSWORD,
    )
    sensor = start("-v", "-v", "run", "--config", "soundpost.toml")
    sensor.wait_for("connected")
    for running in (alerts, sensor):
        assert PASSWORD.encode() not in Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
    assert alerts.process.wait(60) == 0
    assert alerts.out.read_text().count("clap") == 2
    for running in (alerts, sensor):
        running.close()
        assert PASSWORD not in running.shown
        assert "Traceback" not in running.shown


def test_a_wrong_file_is_one_line_before_anything_is_heard(
    guarded: Guarded, start: Callable[..., Running]
) -> None:
    (guarded.folder / "client.key").chmod(0o644)
    options = ["--ca", "ca.pem", "--cert", "client.pem", "--key", "client.key"]
    alerts = start("alerts", "--port", guarded.port, *options)
    assert alerts.process.wait(60) == 3
    (line,) = alerts.shown.splitlines()
    assert "client.key: every user of this machine can read it: chmod o-rwx" in line
    (guarded.folder / "soundpost.toml").write_text(
        '[mqtt]\nhost = "127.0.0.1"\ncert_file = "client.pem"\nkey_file = "client.key"\n'
    )
    sensor = start("run", "--config", "soundpost.toml", "--check")
    assert sensor.process.wait(60) == 3
    assert "every user of this machine" in sensor.shown
