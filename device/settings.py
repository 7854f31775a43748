"""What can be set: the frozen settings of a sensor, and the tables of a settings file.

One place for each setting: its dataclass gives the default, its kind below gives meaning, unit and
range. To add a table: a frozen dataclass whose checks raise UsageError, an entry of `TABLES` with
that dataclass as its `record`, and a field of `Settings` with the table's name. Reader (config.py),
messages, schema and `soundpost config show` follow.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from soundpost.device.audio import Channel
from soundpost.device.broker_settings import (
    HOST_PATTERN,
    MQTT_VERSIONS,
    PASSWORD_VARIABLE,
    USERNAME_VARIABLE,
    BrokerSettings,
    check_host,
)
from soundpost.device.clip_store import ClipSettings
from soundpost.device.detection import ClassSettings
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.device.feedback.feedback_settings import WHATS, FeedbackSettings
from soundpost.device.home_assistant import DISCOVERY_MODES, HomeAssistantSettings
from soundpost.device.interpreter import RUNTIME_CHOICES
from soundpost.device.kinds import (
    ChannelNumber,
    Choice,
    Choices,
    FilePath,
    Flag,
    Kind,
    Names,
    Number,
    Table,
    Text,
)
from soundpost.device.topics import (
    DEFAULT_BASE_TOPIC,
    MAX_BASE_BYTES,
    MAX_NAME_BYTES,
    check_base_topic,
    check_name,
)
from soundpost.device.updates.offers import NAME
from soundpost.device.updates.update_settings import (
    HOURS_PATTERN,
    INSTALL_CHOICES,
    UpdateSettings,
)

# What check_name and check_base_topic accept, as far as a regular expression can say. A `$` may
# stand before a last line feed: what ends in white space is refused first.
_LEVEL = r"[^/+#\u0000-\u001f\u007f-\u009f\u2028\u2029\ufdd0-\ufdef]"
NAME_PATTERN = rf"^(?![$\s])(?![\s\S]*\s$){_LEVEL}+$"
# Of an address in numbers, as far.
_ADDRESS_PATTERN = (
    r"^([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[\s\S]+)?)$"
)
_BASE_PATTERN = rf"^(?!([\s\S]*/)?[$\s])(?![\s\S]*\s(/|$)){_LEVEL}+(/{_LEVEL}+)*$"


@dataclass(frozen=True)
class ModelSettings:
    """bundle : None for the starter bundle; threads, runtime : of the interpreter."""

    bundle: Path | None = None
    threads: int = 1
    runtime: str = "auto"


@dataclass(frozen=True)
class LevelSettings:
    """Sound levels.

    enabled : publish them. Off unless asked for: they cost processor time and messages, and without
        a calibrated microphone compare with nothing but themselves
    interval_s : length of an interval
    bands : third-octave bands too
    """

    enabled: bool = False
    interval_s: float = 60.0
    bands: bool = False


COMMANDS = ("pause", "resume", "threshold", "reload", "update", "feedback")


@dataclass(frozen=True)
class CommandSettings:
    """Commands over MQTT.

    enabled : obey any. Off unless asked for: who may write to the broker's topics may then make the
        sensor deaf
    allow : which ones
    per_minute : more are refused
    """

    enabled: bool = False
    allow: tuple[str, ...] = COMMANDS
    per_minute: int = 10


@dataclass(frozen=True)
class MetricsSettings:
    """Figures for Prometheus.

    port : None: none are offered
    host : address to listen on
    remote : let other machines read them, which is refused without: they tell who is at home
    """

    port: int | None = None
    host: str = "127.0.0.1"
    remote: bool = False

    def __post_init__(self) -> None:
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError as error:
            raise UsageError(
                f"host must be an address in numbers, found {self.host!r}; 127.0.0.1 is this "
                "machine alone"
            ) from error
        if not address.is_loopback and not self.remote:
            raise UsageError(
                f"host {self.host}: other machines could read what the sensor hears; set "
                "remote = true too if they shall, or leave host out"
            )


@dataclass(frozen=True)
class SourceSettings:
    """One source.

    name : in its topics
    url : "mic:", "mic:NAME", "file:PATH", "rtp:FILE.sdp" or another kind that is installed
    channel : index, or "mix" for the mean of all
    bundle : None for the one of [model]
    profile : of its microphone (microphone.py); None: unknown
    classes : detector values by label, for this source alone
    options : of the kind's opener, only those that were given
    """

    name: str = "mic0"
    url: str = "mic:"
    channel: Channel = "mix"
    bundle: Path | None = None
    profile: Path | None = None
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, float | int | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """All settings of `soundpost run`.

    device_id : unique among the sensors of a broker; by default the machine's name
    mqtt : None: the embedded broker, on 127.0.0.1 at broker_port (0: any free port)
    outbox : where events wait for the broker
    detector : values for every label, in place of the bundle's
    classes : values by label, in place of both; a source's own stand above them
    path : of the file they came from
    """

    device_id: str
    outbox: OutboxSettings
    base_topic: str = DEFAULT_BASE_TOPIC
    mqtt: BrokerSettings | None = None
    broker_port: int = 1883
    model: ModelSettings = field(default_factory=ModelSettings)
    sources: tuple[SourceSettings, ...] = (SourceSettings(),)
    levels: LevelSettings = field(default_factory=LevelSettings)
    clips: ClipSettings = field(default_factory=ClipSettings)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    commands: CommandSettings = field(default_factory=CommandSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    home_assistant: HomeAssistantSettings = field(default_factory=HomeAssistantSettings)
    updates: UpdateSettings = field(default_factory=UpdateSettings)
    detector: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    path: Path | None = None

    def only_labels(self, source: str, labels: Collection[str]) -> Settings:
        """The same without what they say of other labels, for one source."""

        def known(classes: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
            return {label: values for label, values in classes.items() if label in labels}

        sources = tuple(
            replace(one, classes=known(one.classes)) if one.name == source else one
            for one in self.sources
        )
        return replace(self, classes=known(self.classes), sources=sources)

    @property
    def overlay_path(self) -> Path:
        """Where thresholds that commands set are kept: beside the outbox."""
        return self.outbox.path.with_name(f"thresholds-{self.device_id}.json")

    def detector_classes(
        self, source: str, defaults: Sequence[ClassSettings]
    ) -> tuple[ClassSettings, ...]:
        """Detector settings of a source: its bundle's, with these in their place.

        Raises ConfigError for a label of the source's own that its bundle lacks, or thresholds that
        contradict.
        """
        own = next((one.classes for one in self.sources if one.name == source), {})
        self._check_labels(f"source.{source}.class", own, [known.label for known in defaults])
        found = []
        for default in defaults:
            label = default.label
            changed = {**self.detector, **self.classes.get(label, {}), **own.get(label, {})}
            if "onset" in changed and "release" not in changed:
                # One threshold moved: the other keeps its share of it.
                changed["release"] = changed["onset"] * default.release / default.onset
            try:
                found.append(replace(default, **changed))
            except InputError as error:
                raise ConfigError(f"{self._name}: {error}") from error
        return tuple(found)

    def check_class_labels(self, labels: Collection[str]) -> None:
        """Raise ConfigError for a [class.LABEL] that no source's bundle has.

        labels : of all of them
        """
        self._check_labels("class", self.classes, labels)

    def _check_labels(self, table: str, given: Iterable[str], labels: Collection[str]) -> None:
        for label in given:
            if label not in labels:
                near = nearest(label, sorted(labels)) or "; delete this table"
                raise ConfigError(
                    f"{self._name}: [{table}.{label}]: the bundle has no such label{near}"
                )

    @property
    def _name(self) -> str:
        return str(self.path) if self.path is not None else "settings"


def nearest(name: str, known: Sequence[str]) -> str:
    """End of a message on an unknown name: the nearest known one, or all where they are few."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected one of {', '.join(sorted(known))}" if 0 < len(known) <= 12 else ""


def _whole(pattern: str) -> str:
    """The pattern for a whole text: a `$` may stand before a last line feed."""
    return rf"^{pattern.strip('^$')}(?![\s\S])"


_CLASS: dict[str, Kind] = {
    "onset": Number("an event begins at this score", 0.01, 1.0),
    "release": Number("an event ends below this score; not above onset", 0.001, 1.0),
    "smoothing": Choice("how scores are smoothed", ("median", "mean", "none")),
    "smoothing_windows": Number("over how many windows", 1, 100, "windows", whole=True),
    "min_duration_s": Number("shorter events are not reported", 0, 3_600, "s"),
    "min_gap_s": Number("events closer than this are one", 0, 3_600, "s"),
}
_SOURCE: dict[str, Kind] = {
    "url": Text("mic:, mic:NAME, file:PATH or rtp:FILE.sdp"),
    "channel": ChannelNumber("which channel, or the mean of all"),
    "bundle": FilePath("its model bundle; by default the one of [model]"),
    "profile": FilePath("of its microphone: response and sensitivity"),
}
SOURCE_KEYS = frozenset(_SOURCE)
_MICROPHONE: dict[str, Kind] = {
    "rate_hz": Number(
        "capture rate; by default the device's own", 8_000, 192_000, "Hz", whole=True
    ),
    "channels": Number("channels to capture; by default all of a card's", 1, 256, whole=True),
    "block_s": Number("length of a block of samples", 0.005, 1.0, "s"),
    "latency_s": Number("sound that the driver may hold back", 0.005, 2.0, "s"),
    "digital_silence_s": Number(
        "zeros for this long are a fault of the microphone; 0: they are not", 0, 3_600, "s"
    ),
}
_FILE: dict[str, Kind] = {
    "block_s": Number("length of a block of samples", 0.005, 1.0, "s"),
    "realtime": Flag("play at the pace of sound, or as fast as it is read"),
    "loop": Flag("start again at the end"),
}
_RTP: dict[str, Kind] = {
    "block_s": Number("length of a block of samples", 0.005, 1.0, "s"),
    "window_s": Number(
        "how long a packet is waited for once a later one has come", 0.001, 1.0, "s"
    ),
    "buffer_s": Number("sound kept for when the sensor is busy", 0.1, 30.0, "s"),
    "interface": Text("this machine's address on the array's network, for multicast"),
}
# Kinds of source whose url holds a path.
PATH_SCHEMES = frozenset({"file", "rtp"})
# By the kind of a source's url; kinds of other packages check their own options.
SOURCE_OPTIONS: dict[str, Table] = {
    "mic": Table(
        "a microphone",
        _MICROPHONE,
        defaults={"block_s": 0.1, "latency_s": 0.2, "digital_silence_s": 2.0},
    ),
    "file": Table(
        "a sound file", _FILE, defaults={"block_s": 0.02, "realtime": True, "loop": False}
    ),
    "rtp": Table(
        "an array on the network",
        _RTP,
        defaults={"block_s": 0.02, "window_s": 0.05, "buffer_s": 2.0},
    ),
}

TOP = Table(
    "settings of a Soundpost sensor",
    {
        "device_id": Text(
            "name of this sensor in topics; by default the machine's",
            check=lambda name: check_name(name, "device_id"),
            pattern=NAME_PATTERN,
            max_length=MAX_NAME_BYTES,
        )
    },
)
# Tables that stand once.
TABLES: dict[str, Table] = {
    "mqtt": Table(
        "the broker; without this table a broker of our own listens on 127.0.0.1",
        {
            "host": Text("name or address of the broker", check=check_host, pattern=HOST_PATTERN),
            "port": Number("its TCP port; by default 1883, with TLS 8883", 1, 65_535, whole=True),
            "username": Text(
                "user name, where the broker asks for one; the variable "
                f"{USERNAME_VARIABLE} takes its place"
            ),
            "password_file": FilePath(
                f"file whose first line is the password; or the variable {PASSWORD_VARIABLE}"
            ),
            "base_topic": Text(
                "levels of the topics before the device",
                check=check_base_topic,
                pattern=_BASE_PATTERN,
                max_length=MAX_BASE_BYTES,
            ),
            "version": Choice(
                "of MQTT; auto: 5, or 3.1.1 where the broker does not speak 5", MQTT_VERSIONS
            ),
            "tls": Flag("encrypt, trusting the system's CAs; on where a file below is given"),
            "ca_file": FilePath("certificates (PEM) of those who may sign the broker's"),
            "cert_file": FilePath("our certificate (PEM), where the broker asks for one"),
            "key_file": FilePath("its private key (PEM), not locked by a pass phrase"),
            "tls_insecure": Flag("take a broker's certificate that is of another name"),
            "keepalive_s": Number(
                "a silent connection is probed after this long", 1, 65_535, "s", whole=True
            ),
            "timeout_s": Number("for the connection and the broker's answer", 0.1, 600, "s"),
            "ack_timeout_s": Number(
                "a broker that acknowledges nothing for so long is left, and connected to again",
                1,
                3_600,
                "s",
            ),
            "retry_min_s": Number("first pause before connecting again", 0.01, 3_600, "s"),
            "retry_max_s": Number("longest pause before connecting again", 0.01, 86_400, "s"),
        },
        record=BrokerSettings,
        defaults={
            "base_topic": DEFAULT_BASE_TOPIC,
            "host": None,
            "port": None,
            "tls": None,
            "tls_insecure": False,
        },
        needs="host",
    ),
    "broker": Table(
        "the broker of our own, where [mqtt] is absent",
        {"port": Number("its TCP port on 127.0.0.1; 0 takes a free one", 0, 65_535, whole=True)},
        defaults={"port": Settings.broker_port},
    ),
    "outbox": Table(
        "where events wait until the broker has them",
        {
            "path": FilePath("the file; by default in the folder for state"),
            "max_size_mb": Number("beyond, the oldest events are given up", 0.1, 10_000, "MB"),
            "max_age_days": Number("events that waited longer are given up", 0.01, 3_650, "days"),
        },
        record=OutboxSettings,
    ),
    "model": Table(
        "what recognises sounds",
        {
            "bundle": FilePath("the model bundle; by default the starter"),
            "threads": Number("of the interpreter", 1, 64, whole=True),
            "runtime": Choice("what runs the model", RUNTIME_CHOICES),
        },
        record=ModelSettings,
    ),
    "home_assistant": Table(
        "what Home Assistant finds by itself",
        {
            "discovery": Choice(
                "device: one message (Home Assistant 2024.11 or newer); component: one for each "
                "entity; off: none. By default device where [mqtt] names a broker",
                DISCOVERY_MODES,
            ),
            "prefix": Text(
                "first levels of its discovery topics",
                check=check_base_topic,
                pattern=_BASE_PATTERN,
            ),
            "labels": Names(
                "labels that become entities; by default all, and of more than 12 only alarms "
                "are enabled",
                check=lambda name: check_name(name, "label"),
                pattern=NAME_PATTERN,
            ),
        },
        record=HomeAssistantSettings,
    ),
    "levels": Table(
        "how loud it is",
        {
            "enabled": Flag("publish sound levels"),
            "interval_s": Number("length of an interval, a record for each", 1, 3_600, "s"),
            "bands": Flag("third-octave bands too"),
        },
        record=LevelSettings,
    ),
    "commands": Table(
        "commands over MQTT",
        {
            "enabled": Flag("obey commands of those who may write to the broker"),
            "allow": Choices("which ones", COMMANDS),
            "per_minute": Number("more are refused", 1, 600, whole=True),
        },
        record=CommandSettings,
    ),
    "metrics": Table(
        "figures for Prometheus, on this machine alone unless told",
        {
            "port": Number("TCP port; without it there are none", 1, 65_535, whole=True),
            "host": Text("address to listen on", pattern=_ADDRESS_PATTERN),
            "remote": Flag("host may be one that other machines reach"),
        },
        record=MetricsSettings,
        needs="port",
    ),
    "updates": Table(
        "newer models from a signed repository; none without this table",
        {
            "repository": Text("its address or folder; it holds metadata and targets"),
            "root": FilePath("its root.json, copied to this device by a safe way"),
            "folder": FilePath(
                "where models are kept; by default models-DEVICE in the folder for state"
            ),
            "channel": Text("of the repository", pattern=_whole(NAME.pattern)),
            "install": Choice(
                "automatic, or ask: what is offered waits for the command update", INSTALL_CHOICES
            ),
            "interval_s": Number("between two looks at the repository", 1, 31 * 86_400, "s"),
            "spread_s": Number("the first look comes at a random time within", 0, 86_400, "s"),
            "hours": Text(
                "local time of day for updates, '02:00-05:00'", pattern=_whole(HOURS_PATTERN)
            ),
            "shadow_s": Number(
                "sound for which a new model is compared with the old one", 1, 7 * 86_400, "s"
            ),
            "probation_s": Number("sound for which it must then prove itself", 1, 31 * 86_400, "s"),
            "latency_share": Number(
                "of the time between two windows that computing one may take", 0.01, 1
            ),
            "slowdown": Number("times as long as the old model it may compute", 1, 100),
            "memory_mb": Number("that it may take", 8, 16_000, "MB"),
            "min_agreement": Number("share of what either model hears that both must hear", 0, 1),
            "max_score_shift": Number("of the scores, as a population stability index", 0.01, 100),
            "max_event_ratio": Number("times as many events, or as few, it may report", 1, 1_000),
            "max_crashes": Number("with a new model until it is taken back", 1, 100, whole=True),
        },
        record=UpdateSettings,
        needs="repository",
        wants="root",
        # It depends on the folder for state.
        defaults={"folder": None},
    ),
    "clips": Table(
        "the sound of events as files; nothing is kept where someone may be heard to speak",
        {
            "enabled": Flag("keep clips; no sound touches the disk otherwise"),
            "folder": FilePath("where they go; by default clips in the folder for state"),
            "pre_roll_s": Number("sound before the event", 0, 30, "s"),
            "post_roll_s": Number("sound after it, for which its end is held", 0, 30, "s"),
            "max_length_s": Number("longest clip; its beginning is kept", 1, 300, "s"),
            "labels": Names(
                "of these events only; by default of all",
                check=lambda name: check_name(name, "label"),
                pattern=NAME_PATTERN,
            ),
            "channels": Choice("what the source listens to, or all it has", ("source", "all")),
            "rate_hz": Number(
                "of the files; by default the source's", 8_000, 192_000, "Hz", whole=True
            ),
            "max_age_days": Number("older clips are deleted", 0.01, 3_650, "days"),
            "max_size_mb": Number("of all clips; beyond, the oldest go", 1, 10_000_000, "MB"),
            "min_per_class": Number(
                "newest clips of each label that are kept nevertheless", 0, 100_000, whole=True
            ),
            "min_free_mb": Number("left free on the disk", 0, 1_000_000, "MB"),
        },
        record=ClipSettings,
        # It depends on the folder for state.
        defaults={"folder": None},
    ),
    "feedback": Table(
        "hard examples for a person to label; nothing is kept where someone may be heard to speak",
        {
            "enabled": Flag(
                "keep them: seconds of sound that a person will listen to; say true only where "
                "those who may be heard know of it and agree"
            ),
            "what": Choice(
                "clips: sound, to train with; features: log-mel, for statistics (no secret: "
                "sound can be made of it again)",
                WHATS,
            ),
            "folder": FilePath("where they wait; by default feedback in the folder for state"),
            "sources": Names(
                "of these only; by default of all",
                check=lambda name: check_name(name, "source name"),
                pattern=NAME_PATTERN,
            ),
            "margin": Number(
                "how near its threshold a label's highest score is uncertain; 0.5 is 0.38 to 0.62 "
                "around 0.5",
                0,
                5,
                "logits",
            ),
            "short_s": Number(
                "an event that lasts no longer is an example; 0: none is", 0, 60, "s"
            ),
            "shadow": Flag("what two models disagree on, while one is tried beside the other"),
            "length_s": Number("of an example", 1, 10, "s"),
            "apart_s": Number("examples of one label closer than this are one", 0, 86_400, "s"),
            "per_day": Number(
                "examples of a day, shared fairly among the labels", 1, 10_000, whole=True
            ),
            "max_age_days": Number("older ones are deleted", 0.01, 3_650, "days"),
            "max_size_mb": Number(
                "of all; beyond, those go first that were collected or say least", 1, 100_000, "MB"
            ),
            "min_free_mb": Number("left free on the disk", 0, 1_000_000, "MB"),
        },
        record=FeedbackSettings,
        # It depends on the folder for state.
        defaults={"folder": None},
    ),
    "detector": Table(
        "how scores become events, for every label, in place of the bundle's values",
        {key: kind for key, kind in _CLASS.items() if key not in ("onset", "release")},
    ),
}
# Tables that stand once for each name, as [source.NAME].
NAMED_TABLES: dict[str, Table] = {
    "source": Table(
        "what the sensor listens to; by default one source, mic0, the default microphone",
        {
            **_SOURCE,
            **_MICROPHONE,
            **_FILE,
            **_RTP,
        },
        defaults={"url": SourceSettings.url, "channel": SourceSettings.channel},
    ),
    "class": Table("how scores of one label become events, in place of the bundle's", _CLASS),
}
