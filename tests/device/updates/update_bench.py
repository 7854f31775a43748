"""One device with a simulated sensor, from start to start: what the tests of updates work on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from signed_repository import bundle_bytes
from simulated_sensor import SimulatedSensor, StaticRepository, World, behaviour

from soundpost.device.bundle import Bundle, parse_bundle, read_bundle
from soundpost.device.updates.boot import Boot, boot
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.offers import Offer
from soundpost.device.updates.self_test import SelfTestResult
from soundpost.device.updates.update_settings import UpdateSettings
from soundpost.device.updates.updater import Updater

SETTINGS = UpdateSettings(
    repository="simulated",
    root=Path("root.json"),
    interval_s=3_600.0,
    spread_s=600.0,
    shadow_s=600.0,
    probation_s=7_200.0,
)
# Lives of minutes, which crash as often as a test wants.
QUICK = replace(SETTINGS, spread_s=0.0, shadow_s=90.0, probation_s=300.0, max_crashes=1_000)
ENDS = ("confirmed", "rejected", "rolled_back")


def passed(*_arguments: Any, **_more: Any) -> SelfTestResult:
    return SelfTestResult(True, "passed")


class Bench:
    """A device in a folder.

    kinds : by sha256, how models hear (`simulated_sensor.behaviour`)
    late_s : seconds since the device began
    """

    def __init__(self, folder: Path, seed: int = 0, settings: UpdateSettings = SETTINGS) -> None:
        self.folder, self.seed, self.settings = folder, seed, settings
        self.bundle = folder / "settings.bundle"
        self.bundle.write_bytes(bundle_bytes("1.0.0"))
        self.repository = StaticRepository()
        self.kinds: dict[str, str] = {}
        self.unloadable: dict[str, Exception] = {}
        self.late_s = 0.0
        self.noon = datetime(2026, 11, 29, 12)
        self.self_test: Callable[..., SelfTestResult] = passed
        self.world = World(seed)
        self.real: Any = None
        self.boot: Boot
        self.sensor: SimulatedSensor
        self.updater: Updater

    def offer(self, version: str, kind: str = "good") -> Bundle:
        """Put a model into the channel."""
        content = bundle_bytes(version)
        bundle = parse_bundle(content, version)
        self.kinds[bundle.sha256] = kind
        self.repository.contents[bundle.sha256] = content
        offer = Offer.of(bundle.manifest, len(content), bundle.sha256)
        self.repository.offers = (replace(offer, channels=("stable",)),)
        return bundle

    def start(self) -> Bench:
        """Start the sensor; its thread of updates is left to `step`."""
        self.boot = boot(self.folder / "models", self.bundle)
        bundle = read_bundle(self.boot.path)
        self.sensor = SimulatedSensor(
            bundle,
            self.world,
            lambda sha256: behaviour(self.kinds.get(sha256, "old"), self.seed),
        )
        self.sensor.unloadable = self.unloadable
        self.updater = Updater(
            self.settings,
            "attic",
            self.boot,
            self.real or self.repository,
            self.sensor,
            now=lambda: self.late_s,
            local=lambda: self.noon,
            rng=random.Random(self.seed),
            self_test=self.self_test,
        )
        return self

    def end(self, *, orderly: bool = True) -> None:
        if orderly:
            self.updater.close()
            self.boot.ended()
        else:
            self.boot.release()

    def step(self, most_s: float = 60.0) -> ModelState:
        """One step of the updater, and the time until the next."""
        wait_s = self.updater.step()
        if wait_s > 0.0:
            wait_s = min(wait_s, 1.0 if self.state.phase == "swap" else most_s)
            self.late_s += wait_s
            self.sensor.hear(wait_s)
        return self.state

    def until(self, done: Callable[[ModelState], bool], steps: int = 2_000) -> ModelState:
        """Step until a state, which must come."""
        for _ in range(steps):
            if done(state := self.step()):
                return state
        raise AssertionError(f"did not come: {self.state}")

    def until_result(self, *results: str) -> ModelState:
        return self.until(lambda state: state.result in results)

    @property
    def state(self) -> ModelState:
        return self.updater.state

    @property
    def phases(self) -> list[str]:
        """What was shown, repetitions left out."""
        shown: list[str] = []
        for state in self.sensor.shown:
            if not shown or shown[-1] != state.phase:
                shown.append(state.phase)
        return shown
