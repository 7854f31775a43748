"""A roll-out for a person: the plan, how it stands, and the picture of it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from soundpost.device.terminal import Row, Span, Style, clip_row, duration, pad, printable
from soundpost.device.updates.offers import Installed
from soundpost.export.fleet.roll_out import Member, Outcome, RollOut
from soundpost.export.fleet.sensors import Sensor, so_many
from soundpost.export.fleet.table import phase_words

# What a person looks for first.
_ORDER: Final[tuple[Outcome, ...]] = (
    *("rolled-back", "refused", "late", "installing", "probation"),
    *("asked", "waiting", "confirmed"),
)
_STYLES: Final[Mapping[str, Style]] = {
    "rolled-back": "red",
    "refused": "red",
    "late": "yellow",
    "installing": "cyan",
    "probation": "cyan",
    "confirmed": "green",
}
_BAR: Final = 30


def name_of(model: Installed | None) -> str:
    """A model as people name it."""
    return "none" if model is None else f"{model.name} {model.version}"


def heading(roll_out: RollOut) -> str:
    """What is rolled out to whom, in a line."""
    return (
        f"{name_of(roll_out.model)} ({roll_out.model.sha256[:12]}) to "
        f"{so_many(len(roll_out.members))} of channel {roll_out.channel}, "
        f"which has {name_of(roll_out.before)}, in "
        f"{roll_out.n_waves} wave{'' if roll_out.n_waves == 1 else 's'}"
    )


def plan_lines(roll_out: RollOut) -> list[str]:
    """One line for each sensor: its wave, or why it has none."""
    lines = [f"{member.device}: wave {member.wave}" for member in roll_out.members]
    return lines + [f"{device}: skipped: {why}" for device, why in roll_out.skipped]


def member_line(member: Member) -> str:
    """What became of a sensor so far."""
    accepted = ", accepted" if member.accepted else ""
    reason = f": {member.reason}" if member.reason else ""
    return f"{member.device}: wave {member.wave}: {member.outcome}{accepted}{reason}"


def status_lines(roll_out: RollOut, working: bool, now: datetime) -> list[str]:
    """How a roll-out stands.

    working : whether a process carries it on
    """
    lines = [heading(roll_out), stage_line(roll_out, working, now)]
    lines += [f"  {member_line(member)}" for member in roll_out.members]
    return lines + [f"  {device}: skipped: {why}" for device, why in roll_out.skipped]


def stage_line(roll_out: RollOut, working: bool, now: datetime) -> str:
    """Where it is, and what to do about it where it rests."""
    stage, reason = roll_out.stage, f": {roll_out.reason}" if roll_out.reason else ""
    if stage == "running":
        where = f"wave {roll_out.wave} of {roll_out.n_waves}"
        if roll_out.hold_until is not None:
            left_s = max(0.0, (roll_out.hold_until - now).total_seconds())
            where += f", settled, held for another {duration(left_s)}"
        return f"running: {where}" if working else f"interrupted: {where}; `soundpost fleet resume`"
    hints = {
        "paused": "; `soundpost fleet resume`",
        "stopped": "; `soundpost fleet abort --take-back`, or `resume --accept`",
    }
    interrupted = stage in ("stopping", "aborting", "finishing") and not working
    hint = "; interrupted: `soundpost fleet resume`" if interrupted else hints.get(stage, "")
    return f"{stage}{reason}{hint}"


def status_record(roll_out: RollOut, working: bool) -> dict[str, Any]:
    """The same for a program."""
    return {
        "model": vars(roll_out.model),
        "channel": roll_out.channel,
        "stage": roll_out.stage,
        "working": working,
        "reason": roll_out.reason,
        "wave": roll_out.wave,
        "waves": roll_out.n_waves,
        "members": [vars(member) for member in roll_out.members],
        "skipped": [{"device": device, "why": why} for device, why in roll_out.skipped],
    }


def roll_out_rows(
    roll_out: RollOut, sensors: Mapping[str, Sensor], columns: int, lines: int, now: datetime
) -> list[Row]:
    """The picture: a bar, a line for each wave, then the sensors that are at work or in trouble."""
    well = sum(member.outcome == "confirmed" for member in roll_out.members)
    share = well / max(1, len(roll_out.members))
    bar = "█" * round(_BAR * share)
    rows: list[Row] = [
        [Span(heading(roll_out), "bold")],
        [
            Span(pad(bar, _BAR), "green"),
            Span(f"│ {well} of {len(roll_out.members)} confirmed  "),
            Span(stage_line(roll_out, True, now), "yellow" if roll_out.reason else ""),
        ],
    ]
    for number in range(1, roll_out.n_waves + 1):
        members = [member for member in roll_out.members if member.wave == number]
        outcomes = [member.outcome for member in members]
        counted = [f"{outcomes.count(one)} {one}" for one in _ORDER if one in outcomes]
        style: Style = "" if number <= roll_out.wave else "dim"
        rows.append([Span(f"  wave {number}  {len(members):>5}  {', '.join(counted)}", style)])
    begun = sorted(roll_out.begun, key=lambda one: (_ORDER.index(one.outcome), one.device))
    room = max(1, lines - len(rows))
    shown = begun if len(begun) <= room else begun[: max(1, room - 1)]
    for member in shown:
        sensor = sensors.get(member.device, Sensor(member.device))
        away = "" if sensor.online is True else "offline  "
        note = member.reason or ""
        rows.append(
            [
                Span(f"  {pad(printable(member.device), 24)}  "),
                Span(pad(member.outcome, 12), _STYLES.get(member.outcome, "")),
                Span(f"{pad(phase_words(sensor), 16)}"),
                Span(away, "red"),
                Span(note),
            ]
        )
    if len(shown) < len(begun):
        rows.append([Span(f"  … and {len(begun) - len(shown)} more", "dim")])
    return [clip_row(row, columns) for row in rows[: max(1, lines)]]
