"""Carries a roll-out on, from wherever it stands.

Each step is written to the state file before it is done, and can be done twice. What the repository
must say follows from the state alone (`placement`), and so does who is asked to update: a process
that is killed at any instant leaves nothing to repair, and the next one goes on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from soundpost.export.fleet.journal import Journal, utc_now
from soundpost.export.fleet.judgement import Troubles, judge, why_stop
from soundpost.export.fleet.listening import FleetListener
from soundpost.export.fleet.placement import keep_fresh, place
from soundpost.export.fleet.requests import clear_request, read_request
from soundpost.export.fleet.roll_out import Member, RollOut, Stage, write_roll_out
from soundpost.export.fleet.sensors import Sensor, so_many
from soundpost.export.fleet.turns import turns_s
from soundpost.export.repository.folder import RepositoryBusyError, RepositoryFolder
from soundpost.export.repository.keys import KeyRing

# A message that was lost, or a sensor that was started again: it is asked once more.
ASK_AGAIN_S: Final = 60.0
TICK_S = 1.0
_FRESH_EVERY_S: Final = 60.0
_LEAVING: Final[Mapping[str, Stage]] = {
    "stopping": "stopped",
    "aborting": "aborted",
    "finishing": "done",
}
_RESTING: Final = ("paused", "stopped", "aborted", "done")


class RollOutDriver:
    """Carries one roll-out on until it is done, paused, stopped or given up.

    fleet : connected, and settled; its answers are taken here
    show : is given the roll-out and the sensors with each tick, for a screen

    Its owner holds `roll_out_lock`.
    """

    def __init__(
        self,
        repository: RepositoryFolder,
        ring: KeyRing,
        fleet: FleetListener,
        journal: Journal,
        roll_out: RollOut,
        *,
        show: Callable[[RollOut, Mapping[str, Sensor]], None] | None = None,
    ) -> None:
        self.roll_out = roll_out
        self._repository, self._ring, self._fleet = repository, ring, fleet
        self._journal, self._show = journal, show
        self._troubles = Troubles()
        self._placed = False
        self._fresh_s = 0.0
        # By device, when it was asked, and when its turn is; monotonic. After a kill, those who
        # have not been asked are spread anew, however long it was ago.
        self._asked_s: dict[str, float] = {}
        self._turns_s: dict[str, float] = {}
        self._answers: queue.SimpleQueue[tuple[str, bool, str]] = queue.SimpleQueue()
        self._told_away = self._told_busy = self._taking_back = False
        self._pause = threading.Event()
        fleet.on_answer = lambda *answer: self._answers.put(answer)

    def run(self) -> RollOut:
        """Go on until it rests; returns the roll-out as it then stands.

        Raises SoundpostError where repository or disk do not let it go on; it can be resumed.
        """
        # Of one who asked a process that is no more; it has seen to that itself.
        clear_request(self._repository.path)
        while True:
            self._obey()
            self._step()
            if self._show is not None:
                self._show(self.roll_out, self._fleet.sensors)
            if self.roll_out.stage in _RESTING:
                return self.roll_out
            self._pause.wait(TICK_S)

    # ---------------------------------------------------------------------------------- steps

    def _step(self) -> None:
        stage = self.roll_out.stage
        if stage == "running" and self.roll_out.began is None:
            self._begin_wave(1)
        if not self._place():
            return
        if stage in _LEAVING:
            if self.roll_out.take_back and not self._asked_back():
                return
            self._keep(stage=_LEAVING[stage])
            self._journal.line(f"roll-out {_LEAVING[stage]}{_because(self.roll_out)}")
        elif stage == "running":
            self._watch()

    def _place(self) -> bool:
        """Let the repository say what the state says; False where it must be tried again."""
        now = utc_now().replace(microsecond=0)
        try:
            if not self._placed:
                published = place(self._repository, self._ring, self.roll_out, now)
                self._placed = True
                if published is not None:
                    self._journal.line(f"published list of models {published.targets}")
            elif time.monotonic() >= self._fresh_s:
                self._fresh_s = time.monotonic() + _FRESH_EVERY_S
                keep_fresh(self._repository, self._ring, now)
        except RepositoryBusyError as error:
            if not self._told_busy:
                self._journal.line(f"waiting: {error}")
            self._told_busy = True
            return False
        self._told_busy = False
        return True

    def _watch(self) -> None:
        if not self._fleet.connected:
            # What was known is no longer sure: nothing is decided by it.
            if not self._told_away:
                self._journal.line("waiting: the connection to the broker is lost")
            self._told_away = True
            return
        self._told_away = False
        sensors = self._fleet.sensors
        self._take_answers()
        self._judge(sensors)
        grace_s = self.roll_out.settings.grace_s
        troubles = self._troubles.of(self.roll_out.begun, sensors, time.monotonic(), grace_s)
        stop = why_stop(self.roll_out, troubles)
        if stop is not None:
            self._leave("stopping", stop.reason, blamed=stop.devices)
            return
        if all(member.settled for member in self.roll_out.begun):
            self._hold()
        else:
            self._ask(sensors)

    def _begin_wave(self, number: int) -> None:
        self._keep(wave=number, began=utc_now(), hold_until=None)
        members = [member for member in self.roll_out.members if member.wave == number]
        self._journal.line(f"wave {number} of {self.roll_out.n_waves}: {so_many(len(members))}")

    def _hold(self) -> None:
        roll_out = self.roll_out
        now = utc_now()
        if roll_out.hold_until is None:
            self._keep(hold_until=now + timedelta(seconds=roll_out.settings.hold_s))
            well = sum(member.outcome == "confirmed" for member in roll_out.begun)
            self._journal.line(
                f"wave {roll_out.wave} of {roll_out.n_waves} is settled: {well} of "
                f"{so_many(len(roll_out.begun))} confirmed; holding for "
                f"{roll_out.settings.hold_s:g} s"
            )
        elif now >= roll_out.hold_until:
            if roll_out.wave < roll_out.n_waves:
                self._begin_wave(roll_out.wave + 1)
            else:
                self._leave("finishing", f"all of {so_many(len(roll_out.members))} asked")

    def _leave(
        self,
        stage: Stage,
        reason: str,
        *,
        take_back: bool = False,
        blamed: tuple[str, ...] = (),
    ) -> None:
        """Begin to end it; only sensors that have the model stay pinned, until the channel has."""
        kept = tuple(member.device for member in self.roll_out.members if member.has_model)
        self._keep(
            stage=stage,
            reason=reason,
            kept=() if take_back else kept,
            take_back=take_back,
            blamed=blamed,
        )
        self._journal.line(f"{stage}: {reason}")

    # -------------------------------------------------------------------------------- sensors

    def _judge(self, sensors: Mapping[str, Sensor]) -> None:
        now = utc_now()
        changed = {}
        for member in self.roll_out.begun:
            judged = judge(member, sensors.get(member.device), self.roll_out, now)
            if judged != member:
                changed[member.device] = judged
        self._keep_members(changed)

    def _ask(self, sensors: Mapping[str, Sensor]) -> None:
        """Send `cmd/update` to those whose turn has come, and again to those that do not begin."""
        pending = [one for one in self.roll_out.begun if one.outcome in ("waiting", "asked")]
        now_s = self._draw_turns(pending)
        changed = {}
        for member in pending:
            device = member.device
            if now_s < max(self._turns_s[device], self._asked_s.get(device, -1e9) + ASK_AGAIN_S):
                continue
            sensor = sensors.get(device)
            if sensor is None or sensor.online is not True:
                continue
            if self._fleet.ask_to_update(device):
                self._asked_s[device] = now_s
                if member.outcome == "waiting":
                    changed[device] = replace(member, outcome="asked", reason=None)
        self._keep_members(changed)

    def _draw_turns(self, members: Sequence[Member]) -> float:
        """See that each has its turn; returns the time, monotonic."""
        now_s = time.monotonic()
        new = [member.device for member in members if member.device not in self._turns_s]
        spread_s, salt = self.roll_out.settings.spread_s, self.roll_out.model.sha256
        for device, turn_s in turns_s(new, spread_s, salt).items():
            self._turns_s[device] = now_s + turn_s
        return now_s

    def _asked_back(self) -> bool:
        """Ask sensors that have the model to go back, each in its turn; whether all were."""
        if not self._taking_back:
            self._taking_back = True
            self._turns_s, self._asked_s = {}, {}
        having = [member for member in self.roll_out.begun if member.has_model]
        now_s = self._draw_turns(having)
        for member in having:
            device = member.device
            if device not in self._asked_s and now_s >= self._turns_s[device]:
                self._asked_s[device] = now_s
                told = self._fleet.ask_to_update(device)
                how = "asked to go back" if told else "goes back with its next look"
                self._journal.line(f"{device}: {how} to the model of its channel")
        return len(self._asked_s) == len(having)

    def _take_answers(self) -> None:
        members = {member.device: member for member in self.roll_out.begun}
        changed = {}
        while True:
            try:
                device, obeys, line = self._answers.get_nowait()
            except queue.Empty:
                break
            member = members.get(device)
            if member is not None and not obeys and member.outcome == "asked":
                changed[device] = replace(member, reason=f"does not obey, looks by itself: {line}")
        self._keep_members(changed)

    # ------------------------------------------------------------------------ requests and state

    def _obey(self) -> None:
        request = read_request(self._repository.path)
        if request is None:
            return
        if self.roll_out.stage in ("running", "stopping"):
            if request.action == "abort":
                self._leave("aborting", "by an operator", take_back=request.take_back)
            elif self.roll_out.stage == "running":
                self._keep(stage="paused", reason="by an operator")
                self._journal.line("paused by an operator")
        clear_request(self._repository.path)

    def _keep_members(self, changed: dict[str, Member]) -> None:
        if not changed:
            return
        before = {member.device: member for member in self.roll_out.members}
        self._keep(members=self.roll_out.with_members(changed).members)
        for device, member in changed.items():
            if (member.outcome, member.reason) != (before[device].outcome, before[device].reason):
                reason = f": {member.reason}" if member.reason else ""
                self._journal.line(f"{device}: wave {member.wave}: {member.outcome}{reason}")

    def _keep(self, **fields: Any) -> None:
        roll_out = replace(self.roll_out, **fields)
        write_roll_out(self._repository.path, roll_out)
        self.roll_out = roll_out
        if "stage" in fields or "wave" in fields:
            self._placed = False


def _because(roll_out: RollOut) -> str:
    return f": {roll_out.reason}" if roll_out.reason else ""
