"""Who takes part in a roll-out, in which wave, and why the others do not."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import (
    NAME,
    Installed,
    Offer,
    choose,
    compare_versions,
    target_path,
)
from soundpost.export.fleet.roll_out import Member, RollOut
from soundpost.export.fleet.sensors import Sensor
from soundpost.export.fleet.settings import Amount, RollOutSettings


def order(model: Installed, channel: str, devices: Collection[str]) -> list[str]:
    """Devices by a hash of each with the roll-out: as if drawn, and the same each time.

    Who goes first differs between models, so that no sensor is everybody's canary.
    """

    def key(device: str) -> str:
        return hashlib.sha256(f"{model.sha256}\0{channel}\0{device}".encode()).hexdigest()

    return sorted(devices, key=key)


def in_waves(devices: Sequence[str], waves: Sequence[Amount]) -> list[list[str]]:
    """Devices in their order, cut into waves; those that a small fleet leaves empty are left out.

    waves : how many have been asked by the end of each
    """
    cut, begin = [], 0
    for amount in waves:
        end = max(begin, amount.of(len(devices)))
        if end > begin:
            cut.append(list(devices[begin:end]))
        begin = end
    return cut


def find_offer(offers: Mapping[str, Offer], name: str) -> Offer:
    """The offer that is meant by NAME-VERSION; raises UsageError naming those there are."""
    path = name if name in offers else f"{name.removesuffix('.bundle')}.bundle"
    if path not in offers:
        there = ", ".join(sorted(path.removesuffix(".bundle") for path in offers)) or "none"
        raise UsageError(
            f"no model {name!r} is in the repository; there is {there}; `soundpost repo add` puts "
            "one there, such as for channel canary"
        )
    return offers[path]


def plan_roll_out(
    offers: Mapping[str, Offer],
    offer: Offer,
    channel: str,
    sensors: Mapping[str, Sensor],
    known_devices: Collection[str],
    settings: RollOutSettings,
    now: datetime,
) -> RollOut:
    """The roll-out of a model to the sensors of a channel.

    Parameters
    ----------
    offers : of the repository, by path
    sensors : that were chosen
    known_devices : that the repository may pin

    Raises UsageError: the channel has this model, or a newer one and `allow_older` is not set; no
    sensor is left.
    """
    model = Installed(offer.name, offer.version, offer.sha256)
    before = next((one for one in offers.values() if channel in one.channels), None)
    if before is not None:
        _check_channel(before, offer, channel, settings.allow_older)
    candidates: dict[str, Sensor] = {}
    skipped: dict[str, str] = {}
    for device, sensor in sorted(sensors.items()):
        why = why_not(sensor, offer, channel, offers, known_devices, settings.allow_older)
        if why:
            skipped[device] = why
        else:
            candidates[device] = sensor
    waves = in_waves(order(model, channel, candidates), settings.waves)
    members = [
        Member(
            device,
            number,
            result_before=result_of(candidates[device]),
            drifted_before=candidates[device].drifted,
        )
        for number, devices in enumerate(waves, 1)
        for device in devices
    ]
    return RollOut(
        model,
        target_path(offer.name, offer.version),
        channel,
        None if before is None else Installed(before.name, before.version, before.sha256),
        settings,
        now,
        tuple(members),
        tuple(skipped.items()),
    )


def _check_channel(before: Offer, offer: Offer, channel: str, allow_older: bool) -> None:
    if before.path == offer.path:
        raise UsageError(
            f"channel {channel!r} has {offer.name} {offer.version} already: its sensors take it by "
            "themselves; nothing was changed"
        )
    older = before.name == offer.name and compare_versions(offer.version, before.version) < 0
    if older and not allow_older:
        raise UsageError(
            f"channel {channel!r} has {before.name} {before.version}, and {offer.version} is "
            "older; give --allow-older to send sensors back to it; nothing was changed"
        )


def result_of(sensor: Sensor) -> str | None:
    """How its last try ended, and when: two that are equal are one."""
    state = sensor.state
    if state is None or state.result is None:
        return None
    return f"{state.result} {state.result_time}"


def why_not(
    sensor: Sensor,
    offer: Offer,
    channel: str,
    offers: Mapping[str, Offer],
    known_devices: Collection[str],
    allow_older: bool,
) -> str:
    """Why a sensor does not take part, in one line; empty where it does."""
    state = sensor.state
    later = f"it takes the model from {channel!r} at the end"
    if not NAME.fullmatch(sensor.device):
        return "its id is none that a repository can name; it is left to its channel"
    if sensor.online is not True:
        return f"offline; {later}, once it is back"
    if state is None:
        return "it tells nothing of its model: [updates] is off, or it is of an earlier version"
    if state.channel is None or state.phase == "off":
        return "its updates are off: [updates] of its settings names no repository"
    if state.channel != channel:
        return f"it follows channel {state.channel!r}"
    if sensor.device not in known_devices:
        return f"unknown to the repository (--new-devices makes it known); {later}"
    pinned = next((one for one in offers.values() if sensor.device in one.devices), None)
    if pinned is not None and pinned.path != offer.path:
        return f"pinned to {pinned.name} {pinned.version}"
    for source, reason in sensor.deaf_sources.items():
        return f"{source} does not hear ({reason}), so that it could not be judged; {later}"
    if not state.confirmed:
        return f"on probation with {state.installed.name} {state.installed.version}; {later}"
    meant = replace(offer, channels=(), devices=(sensor.device,), allow_older=allow_older)
    # What the sensor itself will ask, with the same function.
    choice = choose([meant], sensor.device, channel, state.installed)
    if choice.offer is None:
        _, _, why = choice.reason.partition(offer.path)
        return why.removeprefix(", ").removeprefix("which ") or choice.reason
    return ""
