"""Sensors, offers and roll-outs for tests of what needs neither broker nor repository."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from soundpost.device.features import FrontEnd
from soundpost.device.health import Health
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.offers import Installed, Offer
from soundpost.export.fleet.roll_out import Member, RollOut
from soundpost.export.fleet.sensors import Sensor
from soundpost.export.fleet.settings import RollOutSettings

NOW = datetime(2026, 11, 20, 10, tzinfo=timezone.utc)
OLD = Installed("mine", "1.0.0", "0" * 64)
NEW = Installed("mine", "1.1.0", "1" * 64)


def offer(model: Installed = NEW, **fields: Any) -> Offer:
    front_end = FrontEnd()
    given = {
        "kind": "window",
        "front_end": json.dumps(front_end.to_dict(), sort_keys=True),
        "front_end_hash": front_end.hash(),
        **fields,
    }
    return Offer(
        f"{model.name}-{model.version}.bundle",
        1_000,
        model.sha256,
        model.name,
        model.version,
        **given,
    )


def sensor(device: str = "hall", **fields: Any) -> Sensor:
    """Online, well, with the old model of channel stable; `fields` are of its model state."""
    given = {"phase": "idle", "installed": OLD, "channel": "stable", **fields}
    health = Health(device, "mic0", NOW, "ok")
    return Sensor(device, True, 0.0, ModelState(device, NOW, **given), {"mic0": health})


def with_health(one: Sensor, state: Any, reason: str | None = None) -> Sensor:
    return replace(one, health={"mic0": Health(one.device, "mic0", NOW, state, reason)})


def rolling(*members: Member, **fields: Any) -> RollOut:
    """A roll-out of NEW in its first wave, begun at NOW."""
    given = {"began": NOW, "settings": RollOutSettings(), **fields}
    return RollOut(
        NEW,
        "mine-1.1.0.bundle",
        "stable",
        OLD,
        created=NOW - timedelta(seconds=5),
        members=members,
        **given,
    )
