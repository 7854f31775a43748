"""What became of a sensor that was asked to update, and whether the fleet bears it.

Nothing here waits or sends. A sensor's clock is never compared with ours: how its last try ended is
ours where it is not what stood there before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from soundpost.device.updates.model_state import ModelState
from soundpost.export.fleet.plan import result_of
from soundpost.export.fleet.roll_out import Member, RollOut
from soundpost.export.fleet.sensors import BAD_RESULTS, Sensor, so_many
from soundpost.export.fleet.settings import STOP_KINDS

_AT_WORK: Final = ("refresh", "download", "check", "self_test", "shadow", "swap")


def judge(member: Member, sensor: Sensor | None, roll_out: RollOut, now: datetime) -> Member:
    """A member of a wave that has begun, by what its sensor says now.

    Of those that were settled, a late one may come after all, and one that has the model may lose
    it; others stay as they are until they have the model.
    """
    state = None if sensor is None else sensor.state
    if sensor is None or state is None:
        return _unless_late(member, roll_out, now, "it tells nothing of its model")
    if state.installed.sha256 == roll_out.model.sha256:
        if state.confirmed:
            return replace(member, outcome="confirmed", reason=None, has_model=True)
        ours = replace(member, outcome="probation", reason=state.reason, has_model=True)
        limit_s = roll_out.settings.confirm_s
        return _unless_late(ours, roll_out, now, f"on probation after {limit_s:g} s", limit_s)
    if member.outcome in ("rolled-back", "refused"):
        return member
    bad = state.result in BAD_RESULTS and result_of(sensor) != member.result_before
    about_ours = state.offered is None or state.offered.sha256 == roll_out.model.sha256
    if bad and about_ours:
        return _ended_badly(member, state)
    if member.has_model and state.phase != "roll_back":
        was = f"hears with {state.installed.name} {state.installed.version} again"
        told = state.reason if bad or state.result == "superseded" else None
        reason = f"{was}: {told}" if told else was
        return replace(member, outcome="rolled-back", reason=reason, has_model=False)
    last = f"; last: {state.result}: {state.reason}" if state.result and state.reason else ""
    if state.phase in _AT_WORK and member.outcome != "late":
        member = replace(member, outcome="installing", reason=state.phase.replace("_", " "))
    elif member.outcome == "installing":
        # It looked and found nothing, or could not fetch it: it is asked again.
        member = replace(member, outcome="asked", reason=f"{state.phase}{last}")
    return _unless_late(member, roll_out, now, f"{state.phase.replace('_', ' ')}{last}")


def _ended_badly(member: Member, state: ModelState) -> Member:
    reason = state.reason or "no reason given"
    if state.result == "rolled_back":
        return replace(member, outcome="rolled-back", reason=reason, has_model=False)
    return replace(member, outcome="refused", reason=f"{state.result}: {reason}", has_model=False)


def _unless_late(
    member: Member, roll_out: RollOut, now: datetime, why: str, limit_s: float | None = None
) -> Member:
    if roll_out.began is None or member.outcome == "late":
        return member
    limit_s = roll_out.settings.install_s if limit_s is None else limit_s
    # Sensors of earlier waves had their time already.
    if member.settled or now - roll_out.began < timedelta(seconds=limit_s):
        return member
    return replace(member, outcome="late", reason=f"{why}, {limit_s:g} s after it was asked")


class Troubles:
    """Which sensors have been away, deaf or drifted for longer than they may.

    What passes by itself, such as a microphone that is replugged, must stop nothing.
    """

    def __init__(self) -> None:
        self._since_s: dict[tuple[str, str], float] = {}

    def of(
        self,
        members: Collection[Member],
        sensors: Mapping[str, Sensor],
        now_s: float,
        grace_s: float,
    ) -> dict[str, dict[str, str]]:
        """By kind of STOP_KINDS, the devices that it is true of, and why; now_s is monotonic."""
        now: dict[str, dict[str, str]] = {"offline": {}, "deaf": {}, "drift": {}}
        for member in members:
            sensor = sensors.get(member.device, Sensor(member.device))
            if sensor.online is not True:
                now["offline"][member.device] = "offline"
            for source, reason in sensor.deaf_sources.items():
                now["deaf"][member.device] = f"{source}: {reason}"
            if sensor.drifted and member.has_model and not member.drifted_before:
                now["drift"][member.device] = "its scores have drifted"
        present = {(kind, device) for kind, devices in now.items() for device in devices}
        self._since_s = {key: self._since_s.get(key, now_s) for key in present}
        return {
            kind: {
                device: why
                for device, why in devices.items()
                # Drift is a figure of hours already.
                if kind == "drift" or now_s - self._since_s[kind, device] >= grace_s
            }
            for kind, devices in now.items()
        }


@dataclass(frozen=True)
class Stop:
    """A condition that is reached: one line, and the sensors that it is about."""

    reason: str
    devices: tuple[str, ...]


def why_stop(roll_out: RollOut, troubles: Mapping[str, Mapping[str, str]]) -> Stop | None:
    """The first condition of a roll-out that is reached; None where none is.

    troubles : as `Troubles.of` gives them
    """
    begun = roll_out.begun
    found: dict[str, dict[str, str]] = {
        kind: {one.device: one.reason or kind for one in begun if one.outcome == kind}
        for kind in ("rolled-back", "refused", "late")
    }
    found.update({kind: dict(devices) for kind, devices in troubles.items()})
    accepted = {member.device for member in begun if member.accepted}
    for kind, what in STOP_KINDS.items():
        amount = roll_out.settings.stops.get(kind)
        devices = {
            device: why for device, why in found.get(kind, {}).items() if device not in accepted
        }
        if amount is not None and amount.reached_by(len(devices), len(begun)):
            listed = "; ".join(f"{device}: {why}" for device, why in sorted(devices.items())[:3])
            more = f"; and {len(devices) - 3} more" if len(devices) > 3 else ""
            reason = f"{len(devices)} of {so_many(len(begun))} {what} ({kind}={amount} stops)"
            return Stop(f"{reason}: {listed}{more}", tuple(sorted(devices)))
    return None
