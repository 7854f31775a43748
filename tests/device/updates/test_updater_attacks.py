"""Attacks on a repository are named in what the sensor publishes, and none installs.

The repositories are real, made by the operator's own commands.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from update_bench import ENDS, QUICK, Bench

from soundpost.device.updates.bounded_fetch import Pace
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.trusted_download import TrustedRepository
from soundpost.device.updates.updater import _EndingError


@pytest.fixture
def attacked(memory_path: Path, serve: Callable[..., Any]) -> Any:
    """A device that has 1.1.0 from a real repository, over a web server that may misbehave."""
    from signed_repository import Operator

    class Attacked(Bench):
        def __init__(self) -> None:
            (memory_path / "device").mkdir()
            super().__init__(memory_path / "device", settings=QUICK)
            self.operator = Operator(memory_path / "repository")
            self.web = serve(self.operator.public)
            self.late_clock_s, self.synchronised = 0.0, True
            self.real = TrustedRepository(
                self.web.address,
                self.operator.root,
                self.folder / "metadata",
                Pace(gap_s=1.0, least_bytes_s=1_000.0, window_s=1.0),
                refresh_s=60.0,
                download_s=60.0,
                synchronised=lambda: self.synchronised,
                utc_s=lambda: time.time() + self.late_clock_s,
            )

        def told(self, result: str, reason: str) -> None:
            """The next look ends so, published in one line, and the model stays."""
            assert self.updater.request(install=True)
            running = self.sensor.running
            looks, before = len(self.sensor.shown), self.state.reason
            self.late_s += 10.0
            self.updater.step()
            assert len(self.sensor.shown) > looks
            shown = ModelState.from_json(self.sensor.shown[-1].to_json())
            assert shown.result == result, shown
            assert re.search(reason, str(shown.reason)), shown.reason
            assert shown.reason != before
            assert "\n" not in str(shown.reason)
            assert (shown.installed, shown.confirmed) == (running, True)
            assert not self.updater._trial.going_on

    made = Attacked()
    made.operator.release("1.1.0")
    made.start()
    assert made.until_result(*ENDS).installed.version == "1.1.0"
    return made


def test_attacks_are_named_in_what_the_sensor_publishes(attacked: Any, memory_path: Path) -> None:
    """One after the other on one device, each of which would have installed 1.2.0, or 1.0.0."""
    from signed_repository import Operator
    from web import send

    operator, web = attacked.operator, attacked.web
    before = memory_path / "before"
    shutil.copytree(operator.public, before)
    content = operator.release("1.2.0")

    old = (before / "metadata" / "2.targets.json").read_bytes()
    web.misdeeds["/3.targets"] = lambda request: send(request, old)
    attacked.told("refused", "is not to be trusted: .*(hash|version|length)")
    web.misdeeds.clear()

    altered = bytearray(content)
    altered[len(altered) // 2] ^= 1
    web.misdeeds["/targets/"] = lambda request: send(request, bytes(altered))
    attacked.told("refused", "is not to be trusted: .*hash")
    web.misdeeds.clear()

    signed = (operator.public / "metadata" / "timestamp.json").read_bytes()
    web.misdeeds["/timestamp"] = lambda request: send(request, signed.replace(b"2", b"3"))
    attacked.told("refused", "is not to be trusted")
    web.misdeeds.clear()

    def endless(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(bytes(65_536))

    web.misdeeds["/targets/"] = endless
    attacked.told("refused", "expected at most .*; nothing of it is used")

    def drip(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        while not web.ending.wait(0.02):
            request.wfile.write(b"{")

    web.misdeeds["/targets/"] = drip
    attacked.told("unreachable", "bytes per second: expected at least")
    web.misdeeds.clear()

    other = Operator(memory_path / "other")
    for version in ("1.0.0", "1.1.0", "9.0.0"):
        other.release(version)
    web.folder = other.public
    attacked.told("refused", "is not to be trusted: .*sign")
    web.folder = operator.public

    attacked.synchronised = False
    attacked.told("deferred", "updates wait for the clock")
    attacked.synchronised = True
    attacked.late_clock_s = -10 * 365 * 86_400
    attacked.told("deferred", "updates wait for the clock: it says")
    attacked.late_clock_s = 0.0

    web.misdeeds["/"] = lambda request: request.send_error(503)
    attacked.told("unreachable", "the web server answers 503")
    web.misdeeds.clear()

    # A refresh makes the newer versions known; what was published before is then refused.
    attacked.real.refresh()
    web.folder = before
    attacked.told("refused", "is not to be trusted: New timestamp version 2 must be >= 3")
    web.folder = operator.public
    assert attacked.updater.request(install=True)
    attacked.until(lambda state: state.installed.version == "1.2.0")
    assert attacked.until_result("confirmed").confirmed


def test_a_download_that_is_broken_off_by_an_end_goes_on_at_the_next_start(attacked: Any) -> None:
    attacked.operator.release("1.2.0")
    shown = attacked.sensor.show

    def end_there(state: ModelState) -> None:
        shown(state)
        if state.phase == "download":
            attacked.updater._ending.set()

    attacked.sensor.show = end_there
    attacked.updater.request(install=True)
    attacked.late_s += 10.0
    with pytest.raises(_EndingError):
        attacked.updater.step()
    parts = list((attacked.folder / "models" / "downloads").iterdir())
    assert len(parts) == 1
    attacked.end()
    attacked.start()
    attacked.until(lambda state: state.installed.version == "1.2.0")
