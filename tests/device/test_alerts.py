from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from soundpost.device.broker import LoopbackBroker
from soundpost.device.commands.alerts import COMMAND, alert_line
from soundpost.device.errors import BrokerError, InputError, UsageError
from soundpost.device.events import ModelRef, SoundEvent, Topics, uuid7
from soundpost.device.mqtt import BrokerSettings, Publisher

SOUNDPOST = [sys.executable, "-c", "from soundpost.device.cli import main; main()"]
START = SoundEvent(
    id=uuid7(),
    device="porch-pi",
    source="mic0",
    label="smoke_alarm",
    phase="start",
    score=0.974,
    threshold=0.62,
    onset=datetime(2026, 11, 20, 10, 0, 1, 250_900, timezone.utc),
    offset=None,
    time_synced=True,
    stream=uuid7(),
    sample=20_000,
    rate_hz=16_000,
    model=ModelRef("starter", "1.0.0", "0" * 64),
)
END = replace(START, phase="end", offset=START.onset + timedelta(seconds=4.25))
KNOCK = replace(START, id=uuid7(), label="knock", source="mic1")


@pytest.fixture
def broker() -> Iterator[LoopbackBroker]:
    with LoopbackBroker() as running:
        yield running


@pytest.fixture
def publisher(broker: LoopbackBroker) -> Iterator[Publisher]:
    with Publisher(BrokerSettings(port=broker.port), Topics("soundpost", "porch-pi")) as running:
        running.wait_connected(5)
        yield running


class Listener:
    """`soundpost alerts` as a process, listening by the time it is made."""

    def __init__(self, port: int, *options: str) -> None:
        self._process = subprocess.Popen(
            [*SOUNDPOST, "alerts", "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TZ": "UTC-1"},
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        assert said.endswith(": connected\n"), said

    def lines(self, n: int) -> list[str]:
        assert self._process.stdout is not None
        return [self._process.stdout.readline().rstrip("\n") for _ in range(n)]

    def signal(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    def end(self) -> tuple[int, str, str]:
        out, err = self._process.communicate(timeout=15)
        return self._process.returncode, out, err

    def stop_reading(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.stdout = None


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return COMMAND.run(parser.parse_args(options))


def test_a_line_says_when_where_what_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    try:
        assert (
            alert_line(START) == "2026-11-20 11:00:01.250  porch-pi  mic0  smoke_alarm  start  0.97"
        )
        assert (
            alert_line(END)
            == "2026-11-20 11:00:05.500  porch-pi  mic0  smoke_alarm  end  0.97  4.2 s"
        )
        unsure = alert_line(replace(START, time_synced=False))
        assert unsure.startswith("2026-11-20 11:00:01.250?  porch-pi")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_alerts_are_printed_as_they_arrive_and_count_ends_it(
    broker: LoopbackBroker, publisher: Publisher
) -> None:
    listener = Listener(broker.port, "--count", "3")
    publisher.publish_event(START)
    assert listener.lines(1) == [
        "2026-11-20 11:00:01.250  porch-pi  mic0  smoke_alarm  start  0.97"
    ]
    publisher.publish_event(KNOCK)
    publisher.publish_event(END)
    assert [line.split("  ")[3:5] for line in listener.lines(2)] == [
        ["knock", "start"],
        ["smoke_alarm", "end"],
    ]
    assert listener.end() == (0, "", "")


def test_json_lines_are_the_events_with_what_this_version_does_not_know(
    broker: LoopbackBroker, publisher: Publisher
) -> None:
    listener = Listener(broker.port, "--json", "--count", "2")
    newer = replace(START, extra={"direction_deg": 12.5})
    publisher.publish_event(newer)
    publisher.publish_event(END)
    first, second = (json.loads(line) for line in listener.lines(2))
    assert first == newer.to_dict()
    assert first["direction_deg"] == 12.5
    assert second == END.to_dict()
    assert listener.end()[0] == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--label", "knock"], [KNOCK]),
        (["--source", "mic0"], [START, END]),
        (["--phase", "start"], [START, KNOCK]),
        (["--label", "knock", "--label", "smoke_alarm", "--phase", "end"], [END]),
        (["--device", "porch-pi"], [START, KNOCK, END]),
    ],
)
def test_filters(
    broker: LoopbackBroker,
    publisher: Publisher,
    options: list[str],
    expected: list[SoundEvent],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def publish() -> None:
        time.sleep(0.4)
        for event in (START, KNOCK, END):
            publisher.publish_event(event)

    thread = threading.Thread(target=publish)
    thread.start()
    code = run("--port", str(broker.port), "--timeout", "1", "--json", *options)
    thread.join()
    assert code == 0
    printed = [SoundEvent.from_json(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == expected


def test_another_device_and_another_base_are_not_heard(
    broker: LoopbackBroker, publisher: Publisher
) -> None:
    attic = Listener(broker.port, "--device", "attic", "--count", "1", "--timeout", "1.5")
    other = Listener(broker.port, "--base", "other", "--count", "1", "--timeout", "1")
    publisher.publish_event(START)
    assert attic.end() == (124, "", "")
    assert other.end() == (124, "", "")


def test_timeout_without_count_is_a_clean_end(broker: LoopbackBroker) -> None:
    began_s = time.monotonic()
    assert run("--port", str(broker.port), "--timeout", "0.3") == 0
    assert 0.3 <= time.monotonic() - began_s < 3


def test_ctrl_c_ends_it_in_silence_with_130(broker: LoopbackBroker) -> None:
    listener = Listener(broker.port)
    time.sleep(0.2)
    listener.signal(signal.SIGINT)
    assert listener.end() == (130, "", "")


def test_a_reader_that_has_had_enough_ends_it_in_silence(
    broker: LoopbackBroker, publisher: Publisher
) -> None:
    listener = Listener(broker.port)
    publisher.publish_event(START)
    assert len(listener.lines(1)) == 1
    listener.stop_reading()
    publisher.publish_event(KNOCK)
    publisher.publish_event(END)
    assert listener.end() == (0, None, "")


def test_it_says_that_the_broker_went_and_came_back() -> None:
    broker = LoopbackBroker().start()
    port = broker.port
    listener = Listener(port, "--count", "1")
    broker.stop()
    time.sleep(0.3)
    with (
        LoopbackBroker(port),
        Publisher(BrokerSettings(port=port), Topics("soundpost", "porch-pi")) as publisher,
    ):
        publisher.wait_connected(5)
        # The listener comes back at its own pace, and what was sent before is not kept for it.
        ended = threading.Event()

        def publish() -> None:
            while not ended.wait(0.1):
                publisher.publish_event(replace(START, id=uuid7()))

        thread = threading.Thread(target=publish)
        thread.start()
        code, out, err = listener.end()
        ended.set()
        thread.join()
    assert code == 0
    assert len(out.splitlines()) == 1
    said = err.splitlines()
    assert re.search(r"the connection was lost", said[0])
    assert said[-1].endswith(": connected")


def test_an_absent_broker_is_one_line_and_exit_code_4() -> None:
    with LoopbackBroker() as broker:
        port = broker.port
    began_s = time.monotonic()
    done = subprocess.run(
        [*SOUNDPOST, "alerts", "--port", str(port)],
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - began_s < 5
    assert done.returncode == 4
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"127.0.0.1:{port}: connection refused" in done.stderr


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--label", "a/b"], UsageError, "label 'a/b'"),
        (["--source", ""], UsageError, "source ''"),
        (["--device", "+"], UsageError, "device id"),
        (["--base", "a/#"], UsageError, "base topic"),
        (["--port", "0"], UsageError, "port must be"),
        (["--password-file", "x"], UsageError, "without --username"),
        (["--username", "a", "--password-file", "/nonexistent/x"], InputError, "/nonexistent/x"),
        (["--host", "no-such-host.invalid"], BrokerError, "no-such-host.invalid:1883"),
    ],
)
def test_bad_options_are_named(options: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(*options)


@pytest.mark.parametrize("options", [["--count", "0"], ["--timeout", "-1"], ["--timeout", "nan"]])
def test_options_without_meaning_are_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*options)
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_a_password_file_is_used(start_mosquitto, tmp_path: Path) -> None:
    known = tmp_path / "known"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(known), "reader", "right"],
        check=True,
        capture_output=True,
    )
    mosquitto = start_mosquitto(f"allow_anonymous false\npassword_file {known}")
    secret = tmp_path / "secret"
    options = ["--port", str(mosquitto.port), "--timeout", "0.2", "--username", "reader"]
    secret.write_text("wrong\n")
    with pytest.raises(BrokerError, match="not authorised"):
        run(*options, "--password-file", str(secret))
    secret.write_text("right\n")
    assert run(*options, "--password-file", str(secret)) == 0
