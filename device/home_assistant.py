"""What Home Assistant is told, so that it finds the sensor by itself (MQTT discovery).

One entity for each label of each source, for levels, and for how the sensor is doing. Nothing is
sent here: `discovery.py` does that.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Final, Literal, get_args

from soundpost.device.health import HEALTH_STATES
from soundpost.device.presence import OFFLINE, ONLINE
from soundpost.device.topics import Topics, check_base_topic, check_name

DiscoveryMode = Literal["device", "component", "off"]
DISCOVERY_MODES: Final[tuple[str, ...]] = get_args(DiscoveryMode)

# A bundle of more labels than this switches on those of alarms alone, until a person wants more.
_ALL_ENABLED: Final = 12
# Brokers in the cloud take some 128 KiB in a message: many sources are announced one by one.
_MAX_DEVICE_BYTES: Final = 100_000
_ALARM: Final = re.compile(r"alarm|siren|glass|scream|gunshot|baby")


@dataclass(frozen=True)
class HomeAssistantSettings:
    """What Home Assistant finds.

    discovery : device: one message for the whole sensor (Home Assistant 2024.11 or newer);
        component: one for each entity; off: none, and what was announced before is taken back;
        None: device where a broker is named, else off
    prefix : of the topics that Home Assistant listens to
    labels : of the entities, all enabled; None: all labels, and of a bundle of more than 12 only
        alarms are enabled
    """

    discovery: DiscoveryMode | None = None
    prefix: str = "homeassistant"
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_base_topic(self.prefix)
        for label in self.labels or ():
            check_name(label, "label")

    def resolved(self, names_a_broker: bool) -> HomeAssistantSettings:
        """The same with a mode of discovery: a broker of our own has no Home Assistant."""
        if self.discovery is not None:
            return self
        return replace(self, discovery="device" if names_a_broker else "off")


@dataclass(frozen=True)
class AnnouncedSource:
    """What is announced of one source.

    labels : of its bundle
    interval_s : of its level records; None: it sends none
    calibrated : they are in dB SPL
    """

    name: str
    labels: tuple[str, ...]
    interval_s: float | None = None
    calibrated: bool = False


def discovery_messages(
    settings: HomeAssistantSettings,
    topics: Topics,
    sources: Sequence[AnnouncedSource],
    can_update: bool = False,
) -> dict[str, str]:
    """Retained payload by topic; none where discovery is off.

    can_update : the model is updated, and the command `update` is obeyed
    """
    if settings.discovery not in ("device", "component"):
        return {}
    components = dict(_components(settings, topics, sources))
    components.update(_model(topics, can_update))
    device = {
        "ids": [f"soundpost/{topics.device_id}"],
        "name": topics.device_id,
        "mf": "Soundpost",
        "mdl": "Sound-event sensor",
        "sw": _version(),
    }
    origin = {"name": "soundpost", "sw": _version()}
    if settings.discovery == "device":
        payload = _dump({"dev": device, "o": origin, "cmps": components})
        if len(payload.encode()) <= _MAX_DEVICE_BYTES:
            return {device_topic(settings, topics): payload}
    messages = {}
    for key, component in components.items():
        config = dict(component)
        topic = f"{settings.prefix}/{config.pop('p')}/{node_id(topics)}/{key}/config"
        messages[topic] = _dump({"dev": device, "o": origin, **config})
    return messages


def device_topic(settings: HomeAssistantSettings, topics: Topics) -> str:
    """Where a whole device is announced."""
    return f"{settings.prefix}/device/{node_id(topics)}/config"


def component_filter(settings: HomeAssistantSettings, topics: Topics) -> str:
    """Subscription for this sensor's entities that are announced one by one."""
    return f"{settings.prefix}/+/{node_id(topics)}/+/config"


def node_id(topics: Topics) -> str:
    """The device id as Home Assistant allows it in a topic."""
    return safe_id(topics.device_id)


def removals(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """What takes back, of what was announced, that which is announced no more.

    A topic that is gone is emptied. From a device that stays, a component goes when it is left with
    its platform alone; the message without it follows.
    """
    messages = {}
    for topic, payload in before.items():
        if topic not in now:
            messages[topic] = ""
            continue
        wanted, had = _parse(now[topic]), _parse(payload)
        kept = wanted.get("cmps")
        old = had.get("cmps", had.get("components"))
        if not isinstance(kept, dict) or not isinstance(old, dict):
            continue
        gone = {key: _platform(config) for key, config in old.items() if key not in kept}
        marked = {key: {"p": platform} for key, platform in gone.items() if platform is not None}
        if marked:
            messages[topic] = _dump({**wanted, "cmps": {**kept, **marked}})
    return messages


def safe_id(*parts: str) -> str:
    """Names as one word of letters, digits, `_` and `-`; different for different names."""
    plain = "--".join(parts)
    if all(re.fullmatch(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*", part) for part in parts):
        return plain
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:64].strip("-")
    # No plain name holds two dashes in a row, or ends in them.
    return f"{slug}---{digest}"


def _components(
    settings: HomeAssistantSettings, topics: Topics, sources: Sequence[AnnouncedSource]
) -> Iterator[tuple[str, dict[str, Any]]]:
    base = f"{topics.base}/{topics.device_id}"
    several = len(sources) > 1
    for number, source in enumerate(sources):
        failed = f"{{{{ '{OFFLINE}' if value_json.state == 'failed' else '{ONLINE}' }}}}"
        online = {"t": "~/status", "pl_avail": ONLINE, "pl_not_avail": OFFLINE}
        listens: dict[str, Any] = {
            # It stands in each component: Home Assistant puts it in place nowhere else.
            "~": base,
            "avty_mode": "all",
            "avty": [online, {"t": f"~/{source.name}/health", "val_tpl": failed}],
        }
        # Health is told while the source fails too.
        runs: dict[str, Any] = {"~": base, "avty": [online]}

        def entity(
            platform: str, kind: str, name: str, shared: dict[str, Any], source: str = source.name
        ) -> dict[str, Any]:
            return {
                "p": platform,
                "uniq_id": f"soundpost/{topics.device_id}/{source}/{kind}",
                "name": f"{_readable(source)} {name[0].lower()}{name[1:]}" if several else name,
                **shared,
            }

        for label in _labels(settings, source):
            component = entity("binary_sensor", f"class/{label}", _readable(label), listens)
            component["stat_t"] = f"~/{source.name}/class/{label}"
            component["dev_cla"] = _device_class(label)
            if not _is_enabled(settings, source, label):
                component["en"] = False
            yield safe_id(source.name, "class", label), component
        for key, name in _LEVELS.items() if source.interval_s is not None else ():
            assert source.interval_s is not None
            component = entity("sensor", key, name, listens)
            component["stat_t"] = f"~/{source.name}/level"
            component["val_tpl"] = f"{{{{ value_json.{key} }}}}"
            component["stat_cla"] = "measurement"
            component["sug_dsp_prc"] = 1
            # Levels are not retained: an old one is none.
            component["exp_aft"] = max(10, round(3 * source.interval_s))
            if source.calibrated:
                component |= {"dev_cla": "sound_pressure", "unit_of_meas": "dBA"}
            else:
                component["unit_of_meas"] = "dBFS"
            yield safe_id(source.name, key), component
        health = entity("sensor", "health", "Health", runs)
        health |= {
            "stat_t": f"~/{source.name}/health",
            "val_tpl": "{{ value_json.state }}",
            "json_attr_t": f"~/{source.name}/health",
            "dev_cla": "enum",
            "options": list(HEALTH_STATES),
            "ent_cat": "diagnostic",
        }
        yield safe_id(source.name, "health"), health
        # These are of the sensor, and in the records of all its sources.
        for key, (name, about) in _DIAGNOSTICS.items() if number == 0 else ():
            component = entity("sensor", key, name, runs)
            component |= {"stat_t": f"~/{source.name}/health", "ent_cat": "diagnostic", **about}
            component["name"] = name
            component["val_tpl"] = f"{{{{ value_json.{key} }}}}"
            component["stat_cla"] = "measurement"
            yield safe_id(source.name, key), component


# What Home Assistant shows of a model state (soundpost.model-state/1). It compares versions; of
# models with different names, which compare with nothing, any difference is news.
_UPDATE_TEMPLATE: Final = (
    "{% set now = value_json.installed %}{% set new = value_json.offered or now %}"
    "{% set named = new.name != now.name %}"
    "{% set busy = value_json.phase in"
    " ['download', 'check', 'self_test', 'shadow', 'swap', 'roll_back'] %}"
    "{{ {'installed_version': (now.name ~ ' ' if named else '') ~ now.version,"
    " 'latest_version': (new.name ~ ' ' if named else '') ~ new.version,"
    " 'title': new.name, 'in_progress': busy,"
    " 'update_percentage': (100 * value_json.progress) | round | int"
    " if busy and value_json.progress is not none else none,"
    " 'release_summary': ((value_json.reason or '') | string)[:255]} | tojson }}"
)
_MODEL_TEMPLATE: Final = "{{ value_json.installed.name }} {{ value_json.installed.version }}"
INSTALL_PAYLOAD: Final = '{"install":true}'


def _model(topics: Topics, can_update: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The model: with a button where it can be updated, else for information."""
    component: dict[str, Any] = {
        "p": "sensor",
        "~": f"{topics.base}/{topics.device_id}",
        "avty": [{"t": "~/status", "pl_avail": ONLINE, "pl_not_avail": OFFLINE}],
        "uniq_id": f"soundpost/{topics.device_id}/model",
        "name": "Model",
        "stat_t": "~/model/state",
        "json_attr_t": "~/model/state",
    }
    if can_update:
        component |= {
            "p": "update",
            "val_tpl": _UPDATE_TEMPLATE,
            "cmd_t": "~/cmd/update",
            "pl_inst": INSTALL_PAYLOAD,
        }
        # Of its own name: another platform under the same one would have to be taken back first.
        yield "model-update", component
    else:
        component |= {"val_tpl": _MODEL_TEMPLATE, "ent_cat": "diagnostic"}
        yield "model", component


_LEVELS: Final = {
    "laeq_db": "Sound level LAeq",
    "lafmax_db": "Sound level LAFmax",
    "l10_db": "Sound level L10",
    "l90_db": "Sound level L90",
}
_DIAGNOSTICS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "temperature_c": ("Processor temperature", {"dev_cla": "temperature", "unit_of_meas": "°C"}),
    "cpu_percent": ("Processor use", {"unit_of_meas": "%", "sug_dsp_prc": 1}),
    "queue": ("Messages waiting", {"en": False}),
    "dropped": ("Messages given up", {"en": False}),
}


def _labels(settings: HomeAssistantSettings, source: AnnouncedSource) -> Iterator[str]:
    for label in source.labels:
        if settings.labels is None or label in settings.labels:
            yield label


def _is_enabled(settings: HomeAssistantSettings, source: AnnouncedSource, label: str) -> bool:
    asked_for = settings.labels is not None
    return asked_for or len(source.labels) <= _ALL_ENABLED or bool(_ALARM.search(label.lower()))


def _device_class(label: str) -> str:
    return {"smoke_alarm": "smoke", "co_alarm": "carbon_monoxide"}.get(label, "sound")


def _readable(name: str) -> str:
    text = name.replace("_", " ").strip() or name
    return text[0].upper() + text[1:]


def _platform(config: object) -> str | None:
    if not isinstance(config, dict):
        return None
    found = config.get("p", config.get("platform"))
    return found if isinstance(found, str) else None


def _parse(payload: str) -> dict[str, Any]:
    try:
        found = json.loads(payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _version() -> str:
    try:
        return metadata.version("soundpost")
    except metadata.PackageNotFoundError:
        return "unknown"
