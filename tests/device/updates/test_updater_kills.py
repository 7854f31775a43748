"""Killed before any of its writes, an update comes to its end, and a model is always there.

Time is simulated, and so is what the sensor hears; folders, bundles and the order of things are
real.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from kill_points import killed_at
from update_bench import QUICK, Bench

from soundpost.device.bundle import open_bundle
from soundpost.device.updates.boot import boot
from soundpost.device.updates.model_store import StoreState


def lived(folder: Path, seed: int, versions: dict[str, str], steps: int) -> None:
    """A life of the sensor, which ends without a word; every bundle's kind is known by version."""
    bench = Bench(folder, seed, QUICK)
    for version, kind in versions.items():
        bench.offer(version, kind)
    bench.start()
    for _ in range(steps):
        if bench.updater.step() > 0.0:
            bench.late_s += 30.0
            bench.sensor.hear(30.0)


def state_of(folder: Path) -> StoreState:
    """As the next start will find it, and that it finds a model that can be loaded."""
    copy = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        shutil.copytree(folder, copy / "device")
        found = boot(copy / "device" / "models", copy / "device" / "settings.bundle")
        open_bundle(found.path)
        assert found.store is not None
        state = found.store.state
        files = {path.name for path in (copy / "device" / "models" / "models").iterdir()}
        assert files == {f"{sha256}.bundle" for sha256 in state.kept}
        found.ended()
    finally:
        shutil.rmtree(copy)
    return state


def good(state: StoreState) -> str:
    """The last model that has proved itself; empty: the settings' own."""
    model = state.current if state.confirmed else state.previous
    return "" if model is None else model.version


@pytest.mark.parametrize("first", range(4))
def test_an_update_that_is_killed_before_one_of_its_writes_comes_to_its_end(
    memory_path: Path, first: int
) -> None:
    """Between the writes of one whole update, every sixteenth beginning with `first` times four."""
    number, killed = 4 * first, True
    while killed:
        folder = Path(tempfile.mkdtemp(dir=memory_path)) / "device"
        folder.mkdir()
        Bench(folder)
        killed = killed_at(number, lambda folder=folder: lived(folder, 0, {"1.1.0": "good"}, 30))
        state = state_of(folder)
        assert good(state) in ("", "1.1.0")
        assert not killed_at(10**9, lambda folder=folder: lived(folder, 0, {"1.1.0": "good"}, 30))
        state = state_of(folder)
        assert (good(state), state.rejected, state.candidate) == ("1.1.0", (), None)
        shutil.rmtree(folder.parent)
        number += 16
    assert number > 48


class Lives(RuleBasedStateMachine):
    """Releases, good and bad, and lives of the sensor that end before any of its writes."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.folder = self.root / "device"
        self.folder.mkdir()
        Bench(self.folder)
        self.versions: dict[str, str] = {}
        self.before = state_of(self.folder)

    @rule(kind=st.sampled_from(["good", "good", "nan", "slow"]))
    def release(self, kind: str) -> None:
        if len(self.versions) < 6:
            self.versions[f"1.{len(self.versions) + 1}.0"] = kind

    @precondition(lambda self: self.versions)
    @rule(steps=st.integers(1, 40), kill=st.none() | st.integers(0, 40))
    def live(self, steps: int, kill: int | None) -> None:
        def life() -> None:
            lived(self.folder, len(self.versions), self.versions, steps)

        killed_at(10**9 if kill is None else kill, life)
        state = state_of(self.folder)
        # One update at a time.
        assert state.candidate is None or state.confirmed
        # What has proved itself is replaced by what has proved itself, and by nothing else.
        now = good(state)
        assert now == good(self.before) or self.versions[now] == "good"
        for model in (state.current, state.candidate):
            assert model is None or model.sha256 not in state.rejected
        self.before = state

    def teardown(self) -> None:
        shutil.rmtree(self.root)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=6, stateful_step_count=8, deadline=None)
