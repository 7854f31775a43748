"""Home Assistant's own rules for MQTT discovery, from its package, for those who change payloads.

Needs a Python in which `pip install homeassistant paho-mqtt` was run (600 MB, some minutes: too
much for each build, which checks against the frozen rules instead).

    python home_assistant_rules.py freeze > home_assistant_mqtt.json
    python home_assistant_rules.py check < messages.json      {topic: payload}, as retained

`check` runs Home Assistant's own functions and schemas over the messages; test_home_assistant.py
writes such a file where SOUNDPOST_DISCOVERY_DUMP names one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from typing import Any

import voluptuous as vol
from homeassistant.components.binary_sensor import BinarySensorDeviceClass
from homeassistant.components.mqtt import (
    abbreviations,
    binary_sensor,
    discovery,
    schemas,
    sensor,
    update,
)
from homeassistant.components.sensor import SensorDeviceClass, SensorStateClass
from homeassistant.components.sensor.const import DEVICE_CLASS_UNITS
from homeassistant.const import EntityCategory, __version__
from homeassistant.core import HomeAssistant
from homeassistant.helpers import frame

PLATFORMS = {"binary_sensor": binary_sensor, "sensor": sensor, "update": update}


def plain(schema: Any) -> dict[Any, Any]:
    """The dictionary within validators around a schema."""
    while not isinstance(schema, dict):
        if isinstance(schema, vol.Schema):
            schema = schema.schema
        else:
            schema = next(
                part for part in schema.validators if isinstance(part, (vol.Schema, vol.All))
            )
    return schema


def keys(schema: Any) -> dict[str, bool]:
    """Key: whether it must be there."""
    found = plain(schema)
    return {str(key): isinstance(key, vol.Required) for key in sorted(found, key=str)}


def freeze() -> None:
    rules = {
        "origin": f"the package homeassistant {__version__} (Apache-2.0), home_assistant_rules.py",
        "topic": discovery.TOPIC_MATCHER.pattern,
        "abbreviations": abbreviations.ABBREVIATIONS,
        "device_abbreviations": abbreviations.DEVICE_ABBREVIATIONS,
        "origin_abbreviations": abbreviations.ORIGIN_ABBREVIATIONS,
        "shared_options": schemas.SHARED_OPTIONS,
        "device": keys(schemas.MQTT_ENTITY_DEVICE_INFO_SCHEMA),
        "origin_keys": keys(schemas.MQTT_ORIGIN_INFO_SCHEMA),
        "platforms": {name: keys(module.DISCOVERY_SCHEMA) for name, module in PLATFORMS.items()},
        "binary_sensor_classes": sorted(BinarySensorDeviceClass),
        "sensor_units": {
            name: sorted(str(unit) for unit in DEVICE_CLASS_UNITS.get(name, ()))
            for name in sorted(SensorDeviceClass)
        },
        "state_classes": sorted(SensorStateClass),
        "entity_categories": sorted(EntityCategory),
    }
    json.dump(rules, sys.stdout, indent=1, sort_keys=True)
    print()


async def _check() -> None:
    # Templates are parsed in the name of a running Home Assistant.
    hass = HomeAssistant(tempfile.mkdtemp())
    frame.async_setup(hass)
    n = 0
    for topic, text in json.load(sys.stdin).items():
        rest = topic.partition("/")[2]
        match = discovery.TOPIC_MATCHER.match(rest)
        assert match, f"illegal discovery topic {topic}"
        payload = discovery.MQTTDiscoveryPayload(json.loads(text))
        discovery._replace_all_abbreviations(payload)
        if match[1] == "device":
            discovery.DEVICE_DISCOVERY_SCHEMA(payload)
            components = [
                (config.pop("platform"), discovery.MQTTDiscoveryPayload(config))
                for config in payload["components"].values()
            ]
            for _, config in components:
                config["device"], config["origin"] = payload["device"], payload["origin"]
                discovery._merge_common_device_options(config, payload)
        else:
            assert discovery._valid_origin_info(payload), f"origin of {topic}"
            components = [(match[1], payload)]
        for platform, config in components:
            if "~" in config:
                discovery._replace_topic_base(config)
            PLATFORMS[platform].DISCOVERY_SCHEMA(config)
            n += 1
    print(f"homeassistant {__version__}: {n} components are valid")


def check() -> None:
    asyncio.run(_check())


if __name__ == "__main__":
    {"freeze": freeze, "check": check}[sys.argv[1]]()
