"""`soundpost run`: the sensor itself."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from soundpost.device.broker import LoopbackBroker
from soundpost.device.bundle import Bundle, open_bundle, starter_bundle_path
from soundpost.device.command import Command
from soundpost.device.config import Settings, SourceSettings, load_settings, parse_override
from soundpost.device.daemon import Daemon, SourcePlan
from soundpost.device.errors import BrokerError, SoundpostError, UsageError
from soundpost.device.events import SoundEvent, Topics
from soundpost.device.interrupt import interrupts_wait
from soundpost.device.mqtt import Publisher
from soundpost.device.mqtt_link import BrokerSettings, LinkState

_DESCRIPTION = """\
Listens and publishes alerts over MQTT until it is stopped (Ctrl-C, or SIGTERM from systemd).

Without a settings file: the default microphone, the starter bundle, and a broker of its own on
127.0.0.1:1883 for programs on this machine. Any value of the file can be given on the command line.

examples:
  soundpost run
  soundpost run --source mic:seeed2micvoicec --device-id porch-pi
  soundpost run --set mqtt.host=192.168.1.2 --set mqtt.username=porch
  soundpost run --config /etc/soundpost.toml
  soundpost run --source file:street.wav              as if it were heard now; ends with the file

a settings file:
  device_id = "porch-pi"
  [mqtt]
  host = "192.168.1.2"
  username = "porch"
  password_file = "/etc/soundpost/password"          # or SOUNDPOST_MQTT_PASSWORD
  [source.yard]
  url = "mic:seeed2micvoicec"
  channel = 0
  [class.smoke_alarm]
  onset = 0.6
"""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    parser.add_argument("--source", metavar="URL", help="mic:, mic:NAME or file:PATH")
    parser.add_argument("--channel", metavar="N", help="channel of the source, or mix")
    parser.add_argument("--bundle", metavar="FILE", help="model (default: the starter bundle)")
    parser.add_argument("--device-id", metavar="ID", help="name of this sensor in topics")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value in place of the file's; repeatable",
    )
    parser.add_argument("--check", action="store_true", help="check settings and bundles, then end")


def _from_here(url: str) -> str:
    """A source as typed: its path is relative to the shell's folder, not to the settings file's."""
    scheme, colon, path = url.partition(":")
    if colon and scheme != "file":
        return url
    return f"file:{Path(path if colon else url).expanduser().absolute()}"


def _settings(arguments: argparse.Namespace) -> Settings:
    overrides: dict[str, Any] = dict(parse_override(text) for text in arguments.set)
    if arguments.device_id:
        overrides["device_id"] = arguments.device_id
    if arguments.bundle:
        overrides["model.bundle"] = str(Path(arguments.bundle).expanduser().absolute())
    of_source: dict[str, Any] = {}
    if arguments.source:
        of_source["url"] = _from_here(arguments.source)
    if arguments.channel:
        of_source["channel"] = parse_override(f"channel={arguments.channel}")[1]
    if of_source:
        names = _source_names(arguments.config, overrides)
        if len(names) != 1:
            raise UsageError(
                f"{'--source' if arguments.source else '--channel'}: there are {len(names)} "
                f"sources, {', '.join(names)}; use --set source.NAME.{next(iter(of_source))}=VALUE"
            )
        overrides.update({f"source.{names[0]}.{key}": value for key, value in of_source.items()})
    return load_settings(arguments.config, overrides)


def _source_names(config: Path | None, overrides: dict[str, Any]) -> list[str]:
    """Names of the settings' sources, whose options may make sense only with --source."""
    others = {key: value for key, value in overrides.items() if not key.startswith("source.")}
    default = SourceSettings()
    found = [source.name for source in load_settings(config, others).sources if source != default]
    found += [key.split(".")[1] for key in overrides if key.startswith("source.")]
    return list(dict.fromkeys(found)) or [default.name]


def plan_sources(settings: Settings) -> list[SourcePlan]:
    """Load every source's bundle (each file once) and apply the settings' thresholds."""
    loaded: dict[Path, Bundle] = {}
    plans = []
    runtime, threads = settings.model.runtime, settings.model.threads
    for source in settings.sources:
        path = source.bundle or settings.model.bundle or starter_bundle_path()
        if path in loaded:
            # An interpreter holds tensors of one invocation: each source's thread needs its own.
            bundle = loaded[path]
            interpreter = bundle.load_interpreter(runtime, threads)
        else:
            bundle, interpreter, _ = open_bundle(path, runtime, threads)
            loaded[path] = bundle
        plans.append(
            SourcePlan(
                source.name,
                source.url,
                bundle,
                interpreter,
                settings.detector_classes(bundle.manifest.classes),
                source.channel,
                dict(source.options),
            )
        )
    return plans


@contextlib.contextmanager
def _broker(settings: Settings) -> Iterator[tuple[BrokerSettings, str]]:
    if settings.mqtt is not None:
        yield settings.mqtt, "broker"
        return
    with LoopbackBroker(settings.broker_port) as broker:
        yield BrokerSettings(broker.host, broker.port), "own broker"


def _run(arguments: argparse.Namespace) -> int:
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    # systemd stops a service with SIGTERM: the same orderly end as Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    settings = _settings(arguments)
    with interrupts_wait():
        plans = plan_sources(settings)
    if arguments.check:
        for plan in plans:
            manifest = plan.bundle.manifest
            print(f"{plan.name}: {plan.url}, bundle {manifest.name} {manifest.version}: in order")
        return 0
    interrupted = False
    with _broker(settings) as (address, kind):
        topics = Topics(settings.base_topic, settings.device_id)
        states = [(plan.name, label) for plan in plans for label in plan.bundle.manifest.labels]
        publisher = Publisher(address, topics, states=states, on_state=_tell_state).start()
        daemon = Daemon(plans, settings.device_id, publisher, on_event=_tell_event)
        for plan in plans:
            manifest = plan.bundle.manifest
            _say(
                f"{settings.device_id}/{plan.name}: listening to {plan.url} with "
                f"{manifest.name} {manifest.version} ({len(manifest.labels)} labels); "
                f"{kind} {address.address}; Ctrl-C ends it"
            )
        daemon.start()
        failed: set[str] = set()
        try:
            while not stopping.is_set() and not daemon.wait(0.2):
                _tell_errors(daemon, failed)
        except KeyboardInterrupt:
            interrupted = True
        daemon.stop()
        daemon.wait(5.0)
        lost = publisher.close()
    _tell_errors(daemon, failed)
    for name, totals in daemon.totals.items():
        _say(
            f"{name}: {totals.seconds:.1f} s heard, {totals.windows} windows scored, "
            f"{totals.events} events"
        )
    for error in daemon.errors.values():
        return error.exit_code if isinstance(error, SoundpostError) else 1
    if lost:
        raise BrokerError(
            f"MQTT broker at {address.address}: {lost} messages were not delivered: start it "
            "before the sensor ends, or check host and port"
        )
    return 130 if interrupted else 0


def _tell_state(_state: LinkState, line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tell_event(event: SoundEvent, _window_ended_s: float) -> None:
    _say(
        f"{event.onset:%H:%M:%S} {event.source} {event.label} {event.phase} score {event.score:.2f}"
    )


def _say(text: str) -> None:
    # A sensor goes on where nobody reads what it prints any more: its alerts go to the broker.
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)


def _tell_errors(daemon: Daemon, told: set[str]) -> None:
    for name, error in daemon.errors.items():
        if name not in told:
            told.add(name)
            print(f"source {name}: {error}", file=sys.stderr, flush=True)


COMMAND = Command("listen and publish alerts", _DESCRIPTION, _add, _run)
