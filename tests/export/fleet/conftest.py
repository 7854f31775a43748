"""A fleet for tests: Mosquitto, a repository behind a web server, simulated sensors."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

_TESTS = Path(__file__).parents[2]


def load(name: str, path: Path) -> ModuleType:
    """A module beside the tests: pytest's importlib mode has no path to it."""
    if name not in sys.modules:
        specification = spec_from_file_location(name, path)
        assert specification is not None
        assert specification.loader is not None
        module = module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return sys.modules[name]


for _name in ("kill_points", "web", "signed_repository", "simulated_sensor"):
    load(_name, _TESTS / "device" / "updates" / f"{_name}.py")
load("fleet_sensor", Path(__file__).with_name("fleet_sensor.py"))
load("updater_sensor", Path(__file__).with_name("updater_sensor.py"))
load("fleet_examples", Path(__file__).with_name("fleet_examples.py"))
_DEVICE = load("device_peers", _TESTS / "device" / "conftest.py")
start_mosquitto, mosquitto = _DEVICE.start_mosquitto, _DEVICE.mosquitto
terminal = _DEVICE.terminal


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where that can be had: a busy disk flushes for minutes."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="soundpost-", dir=memory) as folder:
        yield Path(folder)


class Fleet:
    """An operator with a repository of two versions, and sensors that have the first."""

    def __init__(self, folder: Path, port: int) -> None:
        from fleet_sensor import FleetSensor
        from signed_repository import Operator, bundle_bytes
        from web import Web

        from soundpost.device.bundle import parse_bundle
        from soundpost.device.updates.offers import Installed
        from soundpost.export.repository.settings import RepositorySettings

        self.folder, self.port = folder, port
        self.devices = tuple(f"hall-{number}" for number in range(6))
        self.operator = Operator(
            folder / "repository", RepositorySettings(devices=(*self.devices, "attic"))
        )
        first = self.operator.release("1.0.0")
        self.operator.add(bundle_bytes("1.1.0"), channel="canary")
        self.operator.push()
        self.installed = Installed("tiny", "1.0.0", parse_bundle(first, "first").sha256)
        self.web = Web(self.operator.public)
        self.sensors: dict[str, Any] = {}
        self._make = FleetSensor

    @property
    def repository(self) -> Path:
        return self.operator.path

    def sensor(self, device: str, **options: Any) -> Any:
        """Start one; `ears`, `channel`, `installed` as `FleetSensor` has them."""
        options = {"installed": self.installed, **options}
        self.sensors[device] = self._make(
            device,
            self.port,
            self.web.address,
            self.operator.root,
            self.folder / "sensors" / device,
            **options,
        )
        return self.sensors[device]

    def offers(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...], bool]]:
        """Channels, pins and whether going back is allowed, of each published model."""
        from soundpost.export.repository.contents import offers_of

        published = self.operator.folder.published_targets()
        assert published is not None
        return {
            offer.path: (offer.channels, offer.devices, offer.allow_older)
            for offer in offers_of(published.signed)
        }

    def versions(self) -> dict[str, str]:
        return {name: one.state.installed.version for name, one in sorted(self.sensors.items())}

    def close(self) -> None:
        for sensor in self.sensors.values():
            sensor.close()
        self.web.close()


@pytest.fixture
def make_fleet(start_mosquitto: Callable[..., Any], memory_path: Path) -> Iterator[Any]:
    """Function that makes a `Fleet` with a broker of its own."""
    made: list[Fleet] = []

    def make() -> Fleet:
        folder = memory_path / f"fleet{len(made)}"
        folder.mkdir()
        made.append(Fleet(folder, start_mosquitto().port))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def fleet(make_fleet: Callable[[], Fleet]) -> Fleet:
    """Six sensors, `hall-0` to `hall-5`, that are good."""
    one = make_fleet()
    for device in one.devices:
        one.sensor(device)
    return one


@pytest.fixture
def run_fleet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """Function that runs `soundpost fleet` with these words: what it printed, its error."""
    import argparse

    from signed_repository import PASSPHRASE

    from soundpost.device.errors import SoundpostError
    from soundpost.export.fleet.command import COMMAND

    monkeypatch.setenv("SOUNDPOST_REPO_PASSPHRASE", PASSPHRASE)

    def run(*words: object) -> SimpleNamespace:
        parser = argparse.ArgumentParser()
        COMMAND.add_arguments(parser)
        error = None
        began_s = time.monotonic()
        try:
            assert COMMAND.run(parser.parse_args([*map(str, words)])) == 0
        except SoundpostError as failed:
            error = failed
        out = capsys.readouterr().out
        return SimpleNamespace(
            out=out, lines=out.splitlines(), error=error, took_s=time.monotonic() - began_s
        )

    return run
