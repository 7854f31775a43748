"""`soundpost command`: tell a sensor something over MQTT, and wait for its answer."""

from __future__ import annotations

import argparse
import json
import queue
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from soundpost.device.broker_options import BROKER_OPTIONS, add_broker_options, broker_settings
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.command import Command
from soundpost.device.config import load_settings
from soundpost.device.errors import InputError, RefusedError, UsageError
from soundpost.device.identifiers import uuid7
from soundpost.device.mqtt_client import Client
from soundpost.device.mqtt_faults import Fault
from soundpost.device.mqtt_link import Link
from soundpost.device.records import parse_object
from soundpost.device.remote import parse_request
from soundpost.device.settings import COMMANDS
from soundpost.device.topics import DEFAULT_BASE_TOPIC, Topics

EXIT_TIMEOUT = 124  # as timeout(1) has it

_DESCRIPTION = f"""\
Tell a running sensor something, and print what it answers. The sensor's settings must say so:

  [commands]
  enabled = true
  allow = ["pause", "resume"]        # without: all

pause      closes the source, or all: nothing is heard until `resume`, or for --duration seconds.
           A restart of the sensor ends it.
resume     opens it again.
threshold  sets a label's thresholds; they are kept over restarts, until --reset.
reload     reads the settings file again, as `systemctl reload soundpost` does.
update     looks for a newer model in the repository of its settings, and tries and installs it;
           with --look, installs nothing.

examples:
  soundpost command pause --device porch-pi
  soundpost command pause --device porch-pi --source yard --duration 3600
  soundpost command resume --device porch-pi
  soundpost command threshold --device porch-pi --label dog --onset 0.8 --release 0.5
  soundpost command threshold --device porch-pi --label dog --reset
  soundpost command update --device porch-pi
  soundpost command reload --config soundpost.toml         broker and device of that file

exit codes:
  0    done
  2    an option is wrong
  3    a file cannot be read
  4    the broker is absent or refused us
  8    the sensor does not obey, and says why
  {EXIT_TIMEOUT}  no answer within --timeout: the sensor is away, or commands are off
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    # `soundpost collect` speaks the other one.
    known = [name for name in COMMANDS if name != "feedback"]
    parser.add_argument("command", choices=known, metavar="COMMAND", help=", ".join(known))
    parser.add_argument("--device", metavar="ID", help="which sensor")
    parser.add_argument("--source", metavar="NAME", help="which of its sources (default: all)")
    parser.add_argument("--duration", type=float, metavar="S", help="pause: seconds")
    parser.add_argument("--label", help="threshold: of which label")
    parser.add_argument("--onset", type=float, help="threshold: an event begins at this score")
    parser.add_argument("--release", type=float, help="threshold: an event ends below this score")
    parser.add_argument(
        "--reset", action="store_true", default=None, help="threshold: as in settings and bundle"
    )
    parser.add_argument(
        "--look",
        dest="install",
        action="store_false",
        default=None,
        help="update: only look what is offered",
    )
    parser.add_argument("--timeout", type=float, default=15.0, metavar="S", help="for the answer")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings that name broker and device"
    )
    parser.add_argument("--base", metavar="TOPIC", help=f"default: {DEFAULT_BASE_TOPIC}")
    add_broker_options(parser)


def _broker(arguments: argparse.Namespace) -> tuple[BrokerSettings, Topics]:
    if arguments.config is not None:
        own = (*BROKER_OPTIONS, "base")
        given = [name for name in own if getattr(arguments, name) not in (None, False)]
        if given:
            option = given[0].replace("_", "-")
            raise UsageError(f"--{option}: give it or --config, whose file names the broker")
        settings = load_settings(arguments.config)
        broker = settings.mqtt or BrokerSettings(port=settings.broker_port)
        return broker, Topics(settings.base_topic, arguments.device or settings.device_id)
    if arguments.device is None:
        raise UsageError("--device is missing: which sensor? (or --config)")
    broker = broker_settings(arguments)
    return broker, Topics(arguments.base or DEFAULT_BASE_TOPIC, arguments.device)


def _payload(arguments: argparse.Namespace) -> str:
    """The command as JSON; raises UsageError where the sensor would refuse it."""
    values = {
        "id": uuid7(),
        "source": arguments.source,
        "duration_s": arguments.duration,
        "label": arguments.label,
        "onset": arguments.onset,
        "release": arguments.release,
        "reset": arguments.reset,
        "install": arguments.install,
    }
    text = json.dumps({key: value for key, value in values.items() if value is not None})
    try:
        parse_request(arguments.command, text.encode())
    except InputError as error:
        raise UsageError(str(error)) from error
    return text


class _Question:
    """Sends one command on each connection until its answer has come."""

    def __init__(self, broker: BrokerSettings, topics: Topics, name: str, payload: str) -> None:
        self.answers: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._topic, self._result = topics.cmd(name), topics.cmd_result(name)
        self._payload = payload
        self._id = json.loads(payload)["id"]
        self.link = Link(
            broker,
            f"soundpost-command-{uuid7()}",
            configure=self._configure,
            on_up=self._ask,
            on_down=lambda: None,
        )

    def _configure(self, client: paho.Client) -> None:
        client.on_message = self._on_message

    def _ask(self, client: Client) -> Fault | None:
        fault = client.listen_to([self._result])
        if fault is not None:
            return fault
        # A repeat after a lost connection has the same id: the sensor obeys once.
        client.publish(self._topic, self._payload, qos=1)
        return None

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        try:
            answer = parse_object(bytes(message.payload), "answer")
        except InputError:
            return
        if answer.get("id") == self._id:
            self.answers.put(answer)


def _run(arguments: argparse.Namespace) -> int:
    broker, topics = _broker(arguments)
    question = _Question(broker, topics, arguments.command, _payload(arguments))
    question.link.start()
    try:
        question.link.wait_connected(2 * broker.timeout_s, first_failure=True)
        answer = question.answers.get(timeout=max(0.1, arguments.timeout))
    except queue.Empty:
        print(
            f"{topics.device_id}: no answer within {arguments.timeout:g} s: is it online, with "
            "[commands] enabled = true in its settings?",
            file=sys.stderr,
        )
        return EXIT_TIMEOUT
    finally:
        question.link.close(2.0)
    line = f"{topics.device_id}: {answer.get('message')}"
    if answer.get("ok") is not True:
        raise RefusedError(line)
    print(line)
    return 0


COMMAND = Command(
    summary="pause, resume, re-tune, reload or update a sensor over MQTT",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
    intermixed=True,
)
