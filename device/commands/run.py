"""`soundpost run`: the sensor itself."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from soundpost.device.broker import LoopbackBroker
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.clips import Clips
from soundpost.device.command import Command
from soundpost.device.config import load_settings, parse_override
from soundpost.device.control import Control
from soundpost.device.daemon import Daemon
from soundpost.device.discovery import Discovery
from soundpost.device.disk_outbox import DiskOutbox
from soundpost.device.errors import BrokerError, SoundpostError, UsageError
from soundpost.device.events import SoundEvent
from soundpost.device.feedback.feedback import Feedback
from soundpost.device.feedback.feedback_answers import FeedbackAnswers
from soundpost.device.health import Health
from soundpost.device.home_assistant import AnnouncedSource
from soundpost.device.interrupt import interrupts_wait
from soundpost.device.model_updates import ModelUpdates, installed_model, read_root, started
from soundpost.device.monitor import Monitor
from soundpost.device.mqtt_link import LinkState
from soundpost.device.notify import Notifier
from soundpost.device.observer import Observer
from soundpost.device.overlay import load_overlay
from soundpost.device.plan import SourcePlan, plan_sources
from soundpost.device.publisher import Publisher
from soundpost.device.remote import Remote
from soundpost.device.settings import PATH_SCHEMES, Settings, SourceSettings
from soundpost.device.speech import SpeechGate
from soundpost.device.topics import Topics
from soundpost.device.updates.boot import Boot
from soundpost.device.watchdog import Watchdog

if TYPE_CHECKING:
    from soundpost.device.metrics import Metrics

_DESCRIPTION = """\
Listens and publishes alerts over MQTT until it is stopped (Ctrl-C, or SIGTERM from systemd).

Without a settings file: the default microphone, the starter bundle, and a broker of its own on
127.0.0.1:1883 for programs on this machine. Any value of the file can be given on the command line.

An alert waits on disk until the broker has it, through restarts and power cuts. The file is
outbox-DEVICE.sqlite3 in $STATE_DIRECTORY (systemd), else in $XDG_STATE_HOME/soundpost, else in
~/.local/state/soundpost; or outbox.path.

examples:
  soundpost run
  soundpost run --source mic:seeed2micvoicec --device-id porch-pi
  soundpost run --set mqtt.host=192.168.1.2 --set mqtt.username=porch
  soundpost run --config /etc/soundpost.toml
  soundpost run --source file:street.wav              as if it were heard now; ends with the file
  soundpost run --source rtp:array.sdp --channel 0    one microphone of an array on the network

a settings file:
  device_id = "porch-pi"
  [mqtt]
  host = "192.168.1.2"
  username = "porch"
  password_file = "/etc/soundpost/password"          # or SOUNDPOST_MQTT_PASSWORD
  [outbox]
  max_size_mb = 20                                   # beyond, the oldest alerts are given up
  max_age_days = 30
  [source.yard]
  url = "mic:seeed2micvoicec"
  channel = 0
  profile = "yard.toml"                              # of the microphone: response, sensitivity
  [class.smoke_alarm]
  onset = 0.6
  [levels]
  enabled = true                                     # publish LAeq, LAFmax, L10, L50, L90 ...
  interval_s = 60
  [updates]                                          # newer models; see `soundpost repo --help`
  repository = "https://models.example.org/soundpost"
  root = "root.json"                                 # whose models are trusted
"""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    parser.add_argument("--source", metavar="URL", help="mic:, mic:NAME, file:PATH or rtp:FILE.sdp")
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
    if not colon:
        scheme, path = "file", url
    if scheme not in PATH_SCHEMES:
        return url
    return f"{scheme}:{Path(path).expanduser().absolute()}"


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


@contextlib.contextmanager
def _broker(settings: Settings) -> Iterator[tuple[BrokerSettings, str]]:
    if settings.mqtt is not None:
        yield settings.mqtt, "broker"
        return
    with LoopbackBroker(settings.broker_port) as broker:
        yield broker.settings, "own broker"


def _run(arguments: argparse.Namespace) -> int:
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    reloading = threading.Event()

    def reload(_signal: int, _frame: FrameType | None) -> None:
        reloading.set()

    # systemd stops a service with SIGTERM: the same orderly end as Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    # Not before the daemon runs: until then there is nothing to reload, and the signal must not
    # end the process either.
    signal.signal(signal.SIGHUP, reload)
    notifier = Notifier.from_environment()
    if notifier.watchdog_s is not None:
        # systemd ends a sensor that hangs with SIGABRT: the log shows where every thread stood.
        faulthandler.enable()
    settings = _settings(arguments)
    if arguments.check:
        return _check(settings)
    with started(settings) as found:
        return _listen(arguments, settings, found, notifier, stopping, reloading)


def _check(settings: Settings) -> int:
    with interrupts_wait():
        plans = plan_sources(settings, load_overlay(settings.overlay_path))
        if settings.clips.enabled or settings.feedback.enabled:
            SpeechGate()
    for plan in plans:
        manifest = plan.bundle.manifest
        print(f"{plan.name}: {plan.url}, bundle {manifest.name} {manifest.version}: in order")
        _tell_levels(plan)
    if settings.updates.repository is not None:
        read_root(settings.updates)
        print(f"updates: channel {settings.updates.channel} of {settings.updates.repository}")
    return 0


def _listen(
    arguments: argparse.Namespace,
    settings: Settings,
    found: Boot | None,
    notifier: Notifier,
    stopping: threading.Event,
    reloading: threading.Event,
) -> int:
    with interrupts_wait():
        overlay = load_overlay(settings.overlay_path)
        model = installed_model(found)
        plans = plan_sources(settings, overlay, model=model)
        # What every clip must pass.
        gate = SpeechGate() if settings.clips.enabled else None
        # One for each thread that judges.
        feedback_gate = SpeechGate() if settings.feedback.enabled else None
    interrupted = False
    with (
        DiskOutbox(settings.outbox) as outbox,
        _broker(settings) as (address, kind),
        contextlib.ExitStack() as stack,
    ):
        topics = Topics(settings.base_topic, settings.device_id)
        states = [(plan.name, label) for plan in plans for label in plan.bundle.manifest.labels]
        publisher = Publisher(address, topics, states=states, outbox=outbox, on_state=_tell_state)
        discovery = _discovery(settings, plans, publisher)
        publisher.start()
        watchdog = Watchdog(notifier)
        metrics = _offer_metrics(settings, publisher, stack)
        clips = None if gate is None else Clips(settings.clips, gate)
        monitor = Monitor(settings.device_id, publisher)
        feedback = _feedback(settings, publisher, feedback_gate)
        observers = [_Teller(), watchdog, monitor, *metrics, *feedback]
        daemon = Daemon(plans, settings.device_id, publisher, observers, clips)
        monitor.start(lambda: daemon.plans)
        for known in metrics:
            known.names = lambda: daemon.plans
        for plan in plans:
            manifest = plan.bundle.manifest
            _say(
                f"{settings.device_id}/{plan.name}: listening to {plan.url} with "
                f"{manifest.name} {manifest.version} ({len(manifest.labels)} labels); "
                f"{kind} {address.address}; Ctrl-C ends it"
            )
            _tell_levels(plan)

        def take(new: Settings, plans: Sequence[SourcePlan]) -> None:
            remote.use(new.commands)
            wanted = new.home_assistant.resolved(settings.mqtt is not None)
            discovery.update(announced_sources(plans), wanted, can_update(new))
            updates.follow_reload()

        control = Control(
            lambda: _settings(arguments),
            settings,
            overlay,
            daemon,
            publisher,
            on_settings=take,
            model=model,
        )
        updates = ModelUpdates(settings, found, control, daemon, publisher, _tell)
        answers = [FeedbackAnswers(one).answer for one in feedback]
        remote = Remote(control, publisher, settings.commands, *answers)
        if clips is not None and clips.fault is None:
            _say(f"clips without speech are kept in {settings.clips.folder}")
        if feedback:
            _say(f"hard examples without speech are kept in {settings.feedback.folder}")
        daemon.start()
        updates.start()
        remote.start()
        try:
            while not stopping.is_set() and not daemon.wait(0.2):
                if reloading.is_set():
                    reloading.clear()
                    watchdog.reloading()
                    _reload(control)
                watchdog.tend(daemon.listening)
        except KeyboardInterrupt:
            interrupted = True
        notifier.stopping("hands over what waits")
        remote.close()
        updates.close()
        daemon.stop()
        daemon.wait(5.0)
        for one in feedback:
            one.close(5.0)
        monitor.close()
        discovery.close()
        monitor.close()
        waiting = publisher.close()
        outbox.close()
        if clips is not None:
            clips.close()
    for name, totals in daemon.totals.items():
        _say(
            f"{name}: {totals.seconds:.1f} s heard, {totals.windows} windows scored, "
            f"{totals.events} events{_clips_of(clips, name)}"
        )
    for one in feedback:
        counts = ", ".join(f"{count} {what}" for what, count in one.counts().items())
        _say(f"feedback: {counts}")
    for error in daemon.errors.values():
        return error.exit_code if isinstance(error, SoundpostError) else 1
    if waiting:
        lost = outbox.in_memory
        kept = f"{waiting - lost} wait in {outbox.path} for the next start"
        raise BrokerError(
            f"MQTT broker at {address.address}: {waiting} messages were not delivered, {kept}"
            f"{f', {lost} are lost' if lost else ''}: start it, or check host and port"
        )
    return 130 if interrupted else 0


def _reload(control: Control) -> None:
    """SIGHUP, as `systemctl reload` sends it."""
    try:
        _say(control.reload())
    except SoundpostError as error:
        _tell(f"settings were not reloaded: {error}")


def _offer_metrics(
    settings: Settings, publisher: Publisher, stack: contextlib.ExitStack
) -> list[Metrics]:
    """What counts for Prometheus, until the stack ends; nothing where it is not asked for."""
    if settings.metrics.port is None:
        return []
    # Only here: it takes memory that most sensors do not need.
    try:
        from soundpost.device.metrics import Metrics, MetricsServer

        metrics = Metrics(settings.device_id, publisher)
        stack.enter_context(MetricsServer(settings.metrics, metrics))
    except ModuleNotFoundError as error:
        told = f"[metrics] needs the package {error.name}: install soundpost[metrics]"
    except UsageError as error:
        told = str(error)
    else:
        return [metrics]
    _tell(f"{told}; it listens without")
    return []


def _feedback(settings: Settings, publisher: Publisher, gate: SpeechGate | None) -> list[Feedback]:
    """What keeps hard examples; nothing where it is not asked for."""
    topic = publisher.topics.feedback_state
    if gate is None:
        if settings.outbox.path.with_name("feedback").is_dir():
            # It was on once: what the broker keeps of it is true no more.
            publisher.publish_retained(topic, "")
        return []

    def publish(state: str) -> None:
        publisher.publish_retained(topic, state)

    return [Feedback(settings.feedback, settings.device_id, publish, gate)]


def announced_sources(plans: Sequence[SourcePlan]) -> list[AnnouncedSource]:
    """What Home Assistant is told of the sources."""
    return [
        AnnouncedSource(
            plan.name,
            tuple(plan.bundle.manifest.labels),
            plan.levels.interval_s if plan.levels is not None and plan.levels.publish else None,
            plan.levels is not None and plan.levels.profile.calibrated,
        )
        for plan in plans
    ]


def can_update(settings: Settings) -> bool:
    """Whether a button that sends the command `update` would do something."""
    commands = settings.commands
    asked_for = settings.updates.repository is not None
    return asked_for and commands.enabled and "update" in commands.allow


def _discovery(settings: Settings, plans: Sequence[SourcePlan], publisher: Publisher) -> Discovery:
    wanted = settings.home_assistant.resolved(settings.mqtt is not None)
    discovery = Discovery(publisher, wanted, announced_sources(plans), can_update(settings))
    # A broker of our own forgets everything when we end: there is nothing to take back.
    if settings.mqtt is not None or wanted.discovery != "off":
        discovery.start()
    return discovery


def _clips_of(clips: Clips | None, source: str) -> str:
    if clips is None:
        return ""
    counts = ", ".join(f"{count} {what}" for what, count in clips.counts(source).items())
    return f"; clips: {counts}"


def _tell_levels(plan: SourcePlan) -> None:
    """One line on a source's levels, which says so where they are not calibrated."""
    levels = plan.levels
    if levels is None:
        return
    unit = (
        f"in dB SPL by the profile {levels.profile.name}"
        if levels.profile.calibrated
        else "in dBFS, not calibrated: no profile gives a sensitivity"
    )
    what = f"levels every {levels.interval_s:g} s" if levels.publish else "levels of events"
    _say(f"{plan.name}: {what} {unit}")


def _tell_state(_state: LinkState, line: str) -> None:
    _tell(line)


class _Teller(Observer):
    """Prints events, and sources that are lost or come back."""

    def __init__(self) -> None:
        self._failing: dict[str, str | None] = {}

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        _say(
            f"{event.onset:%H:%M:%S} {event.source} {event.label} {event.phase} "
            f"score {event.score:.2f}"
        )

    def health(self, health: Health) -> None:
        before = self._failing.get(health.source)
        now = health.reason if health.state == "failed" else None
        self._failing[health.source] = now
        if now is not None and now != before:
            _tell(f"source {health.source}: {now}")
        elif now is None and before is not None:
            _tell(f"source {health.source}: listens again")


def _say(text: str) -> None:
    _write(sys.stdout, text)


def _tell(line: str) -> None:
    _write(sys.stderr, line)


def _write(stream: TextIO, line: str) -> None:
    # A sensor goes on where what it prints goes nowhere any more, be it a pipe without a reader, a
    # terminal that is gone or a log on a full disk: its alerts go to the broker.
    with contextlib.suppress(OSError, ValueError):
        # At once, unlike print(): sources and broker speak in threads of their own.
        stream.write(f"{line}\n")
        stream.flush()


COMMAND = Command("listen and publish alerts", _DESCRIPTION, _add, _run)
