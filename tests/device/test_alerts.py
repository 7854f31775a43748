from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alert_examples import (
    csv_message,
    csv_messages,
    database_row,
    database_rows,
    start_of,
)

from soundpost.device.alert_output import alert_line
from soundpost.device.broker import LoopbackBroker
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.commands.alerts import COMMAND
from soundpost.device.errors import BrokerError, InputError, UsageError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

# Generous: the machine may be busy. Nothing here sleeps for as long as it may take.
PATIENCE_S = 60.0
Mosquitto = Any
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
    with Publisher(broker.settings, Topics("soundpost", "porch-pi")) as running:
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
        # What the broker keeps may come, from another thread, before the connection is told.
        self._early: list[str] = []
        while not (said := self._process.stderr.readline()).endswith(": connected\n"):
            assert said, self._early
            self._early.append(said)

    def lines(self, n: int) -> list[str]:
        assert self._process.stdout is not None
        return [self._process.stdout.readline().rstrip("\n") for _ in range(n)]

    def error_line(self) -> str:
        if self._early:
            return self._early.pop(0)
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    def signal(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    def end(self) -> tuple[int, str, str]:
        out, err = self._process.communicate(timeout=PATIENCE_S)
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
        Publisher(
            BrokerSettings(port=port, version="3.1.1"), Topics("soundpost", "porch-pi")
        ) as publisher,
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


# ------------------------------------------------------------------------------- several sensors


def sensor(port: int, device: str) -> Publisher:
    publisher = Publisher(BrokerSettings(port=port), Topics("soundpost", device)).start()
    publisher.wait_connected(PATIENCE_S)
    return publisher


def of(device: str, **more: object) -> SoundEvent:
    return start_of(device=device, **more)


@pytest.mark.parametrize(
    ("options", "heard"),
    [
        (["--device", "porch", "--device", "attic"], ["porch", "attic"]),
        (["--device", "barn-*"], ["barn-1", "barn-2"]),
        (["--device", "barn-?", "--device", "attic"], ["attic", "barn-1", "barn-2"]),
        (["--min-score", "0.5"], ["porch", "barn-1"]),
    ],
)
def test_sensors_and_scores_that_were_asked_for(
    options: list[str], heard: list[str], mosquitto: Mosquitto
) -> None:
    scores = {"porch": 0.9, "attic": 0.4, "barn-1": 0.5, "barn-2": 0.1}
    listener = Listener(mosquitto.port, "--json", "--count", str(len(heard)), *options)
    for device, score in scores.items():
        publisher = sensor(mosquitto.port, device)
        publisher.publish_event(of(device, score=score))
        assert publisher.close() == 0
    told = [json.loads(line)["device"] for line in listener.lines(len(heard))]
    assert told == heard
    assert listener.end()[0] == 0


def test_a_sensor_that_goes_offline_and_comes_back_is_told(mosquitto: Mosquitto) -> None:
    sensor(mosquitto.port, "attic").close()
    listener = Listener(mosquitto.port)
    # It was away before, which a retained topic says.
    assert listener.error_line() == "attic: offline (since before this command began)\n"
    publisher = sensor(mosquitto.port, "porch")
    publisher.close()
    assert listener.error_line() == "porch: offline\n"
    publisher = sensor(mosquitto.port, "porch")
    publisher.publish_event(of("porch"))
    assert re.fullmatch(
        r"porch: online again after \S+ s; late alerts may still come\n", listener.error_line()
    )
    assert "porch" in listener.lines(1)[0]
    publisher.close()
    listener.signal(signal.SIGTERM)
    assert listener.end()[0] == 0


# ------------------------------------------------------------------------------- files, programs


def lives_of(device: str, n: int, chance: random.Random) -> list[list[SoundEvent]]:
    """Events with all their messages; the score of some moves, that of others is steady."""
    found = []
    for number in range(n):
        first = of(device, label=f"label {number % 7}, {device}", score=0.1, report=0)
        life = [first]
        for step in range(chance.randint(0, 3)):
            score = 0.1 if number % 2 else 0.2 + 0.1 * step
            life.append(replace(first, phase="update", score=score, report=step + 1))
        if chance.random() < 0.9:
            offset = first.onset + timedelta(seconds=chance.uniform(0.1, 100))
            end = replace(life[-1], phase="end", score=0.9, offset=offset, report=len(life))
            life.append(end)
        found.append(life)
    return found


def test_a_logger_that_is_killed_again_and_again_loses_and_doubles_nothing(
    start_mosquitto: Any, tmp_path: Path
) -> None:
    """kill -9 at random moments, and alerts that come while nobody listens."""
    chance = random.Random(1)
    mosquitto = start_mosquitto("allow_anonymous true\nmax_queued_messages 0")
    database, table = tmp_path / "alerts.sqlite3", tmp_path / "alerts.csv"
    options = ["--client-id", "logger", "--sqlite", str(database), "--csv", str(table)]
    options += ["--lines", "--device", "porch", "--device", "attic"]
    listener = Listener(mosquitto.port, *options)
    devices = ["porch", "attic", "cellar"]
    publishers = {device: sensor(mosquitto.port, device) for device in devices}
    lives = {device: lives_of(device, 50, chance) for device in devices}
    left = {device: [event for life in lives[device] for event in life] for device in devices}
    while any(left.values()):
        for _ in range(chance.randint(1, 200)):
            device = chance.choice([device for device in devices if left[device]] or ["porch"])
            if left[device]:
                publishers[device].publish_event(left[device].pop(0))
        time.sleep(chance.uniform(0, 0.3))
        listener.signal(signal.SIGKILL)
        assert listener.end()[0] == -signal.SIGKILL
        for device in devices:
            # Nobody listens.
            for event in left[device][:5]:
                publishers[device].publish_event(event)
            del left[device][:5]
        listener = Listener(mosquitto.port, *options)
    for publisher in publishers.values():
        assert publisher.close() == 0
    wanted = [life for device in ("porch", "attic") for life in lives[device]]
    rows = {life[0].id: database_row(life) for life in wanted}
    messages = sorted(csv_message(event) for life in wanted for event in life)
    deadline_s = time.monotonic() + PATIENCE_S
    while database_rows(database) != rows or len(csv_messages(table)) < len(messages):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    listener.signal(signal.SIGTERM)
    assert listener.end()[0] == 0
    assert database_rows(database) == rows
    assert sorted(csv_messages(table)) == messages


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_logger_hears_what_came_while_it_was_away_also_over_a_restart_of_the_broker(
    version: str, start_mosquitto: Any, tmp_path: Path
) -> None:
    stored = f"persistence true\npersistence_location {tmp_path}/"
    mosquitto = start_mosquitto(f"allow_anonymous true\n{stored}")
    options = ["--client-id", "logger", "--json", "--mqtt-version", version]
    listener = Listener(mosquitto.port, *options)
    listener.signal(signal.SIGTERM)
    assert listener.end() == (0, "", "")
    publisher = sensor(mosquitto.port, "porch")
    events = [of("porch", label=f"label {number}") for number in range(50)]
    for event in events:
        publisher.publish_event(event)
    assert publisher.close() == 0
    listener = Listener(mosquitto.port, *options, "--count", "20")
    code, out, _ = listener.end()
    assert code == 0
    assert [SoundEvent.from_json(line) for line in out.splitlines()] == events[:20]
    # The rest was not acknowledged: it is for the next one, and so on after a stop of the broker.
    # It may be stopped before it has read all acknowledgements: those come again.
    mosquitto.stop()
    mosquitto.start()
    listener = Listener(mosquitto.port, *options)
    told: list[SoundEvent] = []
    while not told or told[-1] != events[-1]:
        told.append(SoundEvent.from_json(listener.lines(1)[0]))
    listener.signal(signal.SIGTERM)
    assert listener.end()[0] == 0
    assert told[-30:] == events[20:]
    assert told[:-30] == events[20 - len(told[:-30]) : 20]


def test_a_file_that_cannot_be_written_ends_it_and_the_broker_keeps_the_alert(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    database = tmp_path / "alerts.sqlite3"
    options = ["--client-id", "logger", "--sqlite", str(database), "--json"]
    listener = Listener(mosquitto.port, *options)
    with sqlite3.connect(database) as other:
        other.execute("ALTER TABLE event RENAME TO gone")
    publisher = sensor(mosquitto.port, "porch")
    event = of("porch")
    publisher.publish_event(event)
    code, out, err = listener.end()
    assert (code, out) == (3, "")
    assert re.search(r"alerts\.sqlite3: cannot be written \(no such table: event\)", err)
    listener = Listener(mosquitto.port, *options, "--count", "1")
    assert listener.lines(1) == [event.to_json()]
    assert listener.end()[0] == 0
    assert database_rows(database) == {event.id: database_row([event])}
    publisher.close()


def test_a_program_is_run_for_each_alert_and_its_failure_is_told(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    script = f'echo "$SOUNDPOST_LABEL $SOUNDPOST_PHASE" >> {told}; echo heard; exit 5'
    options = ["--lines", "--phase", "start", "--count", "2", "--exec-jobs", "1"]
    listener = Listener(mosquitto.port, *options, "--exec", shlex.join(["sh", "-c", script]))
    publisher = sensor(mosquitto.port, "porch")
    first = of("porch", label="dog bark")
    publisher.publish_event(first)
    offset = first.onset + timedelta(seconds=1)
    publisher.publish_event(replace(first, phase="end", offset=offset))
    publisher.publish_event(of("porch", label="knock"))
    code, out, err = listener.end()
    publisher.close()
    assert code == 0
    assert told.read_text() == "dog bark start\nknock start\n"
    assert len(out.splitlines()) == 2
    assert err.count("heard\n") == 2
    assert "exec: 2 run, 2 failed (the last: knock start: ended with code 5)\n" in err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--client-id", "a/b"], UsageError, "--client-id 'a/b'"),
        (["--exec", "no-such-program"], UsageError, "no program 'no-such-program'"),
        (["--sqlite", "/nonexistent/x"], InputError, "/nonexistent/x"),
        (["--csv", "/nonexistent/x"], InputError, "/nonexistent/x"),
    ],
)
def test_bad_files_and_programs_are_named_before_it_connects(
    options: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(*options, "--port", "1")


# ------------------------------------------------------------------------------- the live table


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (132, 43)])
def test_the_live_table(size: tuple[int, int], mosquitto: Mosquitto, terminal: Any) -> None:
    columns, lines = size
    command = [*SOUNDPOST, "alerts", "--port", str(mosquitto.port)]
    running = terminal(columns, lines, command, TZ="UTC")
    running.wait(lambda rows: "connected" in rows[0])
    publisher, other = sensor(mosquitto.port, "porch"), sensor(mosquitto.port, "煙突")
    alarm = of("porch", label="smoke_alarm")
    publisher.publish_event(alarm)
    other.publish_event(of("煙突", label="Hundegebell"))
    rows = running.wait(
        lambda rows: (
            any("Hundegebell" in row for row in rows) and "goes on" in "".join(rows)
            if columns > 60
            else any("Hund" in row for row in rows)
        )
    )
    assert rows[0].startswith(f"127.0.0.1:{mosquitto.port}  connected")
    assert rows.index("SENSORS") < rows.index("SOUNDS NOW") < rows.index("LAST ALERTS")
    offset = alarm.onset + timedelta(seconds=4.25)
    publisher.publish_event(replace(alarm, phase="end", offset=offset))
    publisher.close()

    def ended(rows: list[str]) -> bool:
        now = rows[rows.index("SOUNDS NOW") : rows.index("LAST ALERTS")]
        return not any("smoke" in row for row in now) and "offline" in "".join(rows)

    rows = running.wait(ended)
    assert any("smoke" in row for row in rows[rows.index("LAST ALERTS") :])
    # No line was scrolled away or left behind.
    assert sum("SENSORS" in row for row in rows) == 1
    mosquitto.kill()
    running.wait(lambda rows: rows[0].startswith("MQTT broker at 127.0.0.1"))
    mosquitto.start()
    running.wait(lambda rows: f"{mosquitto.port}  connected" in rows[0])
    other.close()
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 0
    assert running.modes() == (True, True)
    assert running.settings_now() == running.settings
    assert sum("SENSORS" in row for row in running.rows()) == 1


def test_faults_of_programs_are_at_the_foot_of_the_table(
    mosquitto: Mosquitto, terminal: Any
) -> None:
    command = [*SOUNDPOST, "alerts", "--port", str(mosquitto.port), "--exec", "false"]
    running = terminal(80, 24, command)
    running.wait(lambda rows: "connected" in rows[0])
    publisher = sensor(mosquitto.port, "porch")
    publisher.publish_event(of("porch", label="dog"))
    running.wait(lambda rows: any("exec: dog start: ended with code 1" in row for row in rows))
    publisher.close()
    running.type("\x03")
    assert running.end() == 130
    assert "exec: 1 run, 1 failed" in "".join(running.rows())
    assert running.settings_now() == running.settings
