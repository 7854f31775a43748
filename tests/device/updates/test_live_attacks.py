"""Each attack on updates against one running sensor: none installs, each is named, none is heard.

The repositories are an operator's, the server is real; of the sensor only the clock's state is set,
by a file, and how patient it is with a slow server.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
import soundfile
from paho.mqtt.enums import CallbackAPIVersion
from signed_repository import Operator, bundle_bytes
from web import Web, send

from soundpost.device.bundle import parse_bundle
from soundpost.device.health import Health
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.offers import Offer
from soundpost.export.repository.ceremony import renew, rotate
from soundpost.export.repository.settings import Days, RepositorySettings
from soundpost.export.repository.signing import next_targets, sign

# A self-test has low priority: on a busy machine it takes minutes.
PATIENCE_S = 900.0
DEVICE = "porch-pi"
BASE = f"soundpost/{DEVICE}"

SENSOR = """
import sys
from pathlib import Path
from soundpost.device import clock
right = Path(sys.argv.pop(1))
clock.clock_synchronised = right.exists
from soundpost.device.updates import bounded_fetch
values = dict(gap_s=2.0, least_bytes_s=1000.0, window_s=2.0)
bounded_fetch.Pace.__init__.__defaults__ = tuple(
    values.get(name, default)
    for name, default in zip(
        bounded_fetch.Pace.__dataclass_fields__, bounded_fetch.Pace.__init__.__defaults__
    )
)
from soundpost.device.cli import main
sys.exit(main())
"""


class Sensor:
    """A running sensor, and the broker's view of it."""

    def __init__(self, folder: Path, port: int, repository: str, root: bytes) -> None:
        self.folder, self._right = folder, folder / "right"
        self.set_clock(right=True)
        rng = np.random.default_rng(8)
        sound = np.zeros(3 * 16_000)
        sound[16_000:32_000] = 0.3 * rng.standard_normal(16_000)
        soundfile.write(folder / "noise.wav", np.clip(sound, -1, 1), 16_000)
        (folder / "root.json").write_bytes(root)
        (folder / "first.bundle").write_bytes(bundle_bytes("1.0.0"))
        (folder / "soundpost.toml").write_text(
            f'device_id = "{DEVICE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
            '[outbox]\npath = "outbox.sqlite3"\n[model]\nbundle = "first.bundle"\n'
            '[source.mic0]\nurl = "file:noise.wav"\nloop = true\n'
            "[commands]\nenabled = true\nper_minute = 600\n"
            f'[updates]\nrepository = "{repository}"\nroot = "root.json"\nfolder = "models"\n'
            "spread_s = 0\nlatency_share = 1\nslowdown = 100\nshadow_s = 2\nprobation_s = 2\n"
        )
        self._messages: list[tuple[str, str]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _u, told: self._messages.append(
            (told.topic, told.payload.decode())
        )
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("soundpost/#", 1)
        self._client.loop_start()
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", SENSOR, str(self._right), "-v", "run"),
                *("--config", "soundpost.toml"),
            ],
            stdout=self._log,
            stderr=self._log,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def set_clock(self, *, right: bool) -> None:
        if right:
            self._right.touch()
        else:
            self._right.unlink()

    def of(self, topic: str) -> list[str]:
        return [payload for name, payload in tuple(self._messages) if name == f"{BASE}/{topic}"]

    def states(self) -> list[ModelState]:
        return [ModelState.from_json(payload) for payload in self.of("model/state")]

    def told(self) -> str:
        return (self.folder / "log").read_text()[-4_000:]

    def until(self, met: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not met():
            assert self._process.poll() is None, self.told()
            assert time.monotonic() < deadline_s, (self.states()[-4:], self.told())
            time.sleep(0.05)

    def update(self) -> None:
        """Send the command, as a person who wants what is offered does."""
        answers = len(self.of("cmd/update/result"))
        self._client.publish(f"{BASE}/cmd/update", '{"install":true}', 1)
        self.until(lambda: len(self.of("cmd/update/result")) > answers)
        assert json.loads(self.of("cmd/update/result")[-1])["ok"], self.told()

    def meets(self, result: str, reason: str) -> None:
        """An update ends so, for a reason with this word; what is heard with stays."""
        before = self.states()[-1]
        n_events = len(self.of("mic0/event"))
        self.update()
        self.until(
            lambda: any(
                state.result == result and reason in (state.reason or "")
                for state in self.states()[-3:]
            )
        )
        # It goes on hearing: another sound begins and ends.
        self.until(lambda: len(self.of("mic0/event")) >= n_events + 2)
        last = self.states()[-1]
        assert (last.installed, last.confirmed) == (before.installed, True)
        assert "\n" not in (last.reason or "")
        models = list((self.folder / "models" / "models").iterdir())
        assert len(models) <= 2

    def installs(self, version: str) -> None:
        self.update()
        self.until(
            lambda: (
                (last := self.states()[-1]).installed.version == version
                and last.result == "confirmed"
            )
        )

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE_S) == 0
        health = [Health.from_json(payload) for payload in self.of("mic0/health")]
        # One stream without a gap through all of it.
        assert all((one.gaps, one.streams) == (0, 1) for one in health if one.streams)
        assert "Traceback" not in (self.folder / "log").read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def place(memory_path: Path, serve: Callable[..., Any]) -> tuple[Operator, Web]:
    operator = Operator(memory_path / "operator")
    operator.release("1.1.0")
    return operator, serve(operator.public)


@pytest.fixture
def sensor(place: tuple[Operator, Web], mosquitto: Any, memory_path: Path) -> Iterator[Sensor]:
    operator, web = place
    folder = memory_path / "sensor"
    folder.mkdir()
    made = Sensor(folder, mosquitto.port, web.address, operator.root)
    yield made
    made.close()


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(65_536))


def dripping(web: Web) -> Callable[[BaseHTTPRequestHandler], None]:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not web.ending.wait(0.02):
            request.wfile.write(b"{")

    return drip


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("MODEL_CARD.md", "golden.npz", "manifest.json"):
            archive.writestr(name, b"")
        archive.writestr("model.tflite", bytes(200_000_000))
    return file.getvalue()


def sign_in(operator: Operator, content: bytes, offer: Offer) -> None:
    """What `add` would not take, signed by an operator without our commands."""
    from tuf.api.metadata import TargetFile

    folder = operator.folder
    targets, signers = next_targets(folder, operator.ring(), operator.now())
    target = TargetFile.from_data(offer.path, content, ["sha256"])
    target.unrecognized_fields = {"custom": offer.to_custom()}
    targets.signed.targets = {offer.path: target}
    sign(targets, signers)
    folder.stage_bundle(target.hashes["sha256"], content)
    folder.stage_targets(targets)
    operator.push()


def offer_of(version: str, content: bytes) -> Offer:
    manifest = parse_bundle(bundle_bytes(version), "bundle").manifest
    sha256 = hashlib.sha256(content).hexdigest()
    return Offer.of(manifest, len(content), sha256, channels=("stable",))


@pytest.mark.timeout(3_600)
def test_one_sensor_meets_every_attack(
    sensor: Sensor, place: tuple[Operator, Web], memory_path: Path
) -> None:
    operator, web = place
    sensor.until(lambda: sensor.states() and sensor.of("mic0/event"))
    sensor.installs("1.1.0")
    before = memory_path / "before"
    shutil.copytree(operator.public, before)

    content = bytearray(operator.release("1.2.0"))
    content[len(content) // 2] ^= 1
    web.misdeeds["/targets/"] = lambda request: send(request, bytes(content))
    sensor.meets("refused", "hash")
    web.misdeeds.clear()

    # Metadata with one byte changed, endless, and too slow.
    timestamp = bytearray((operator.public / "metadata" / "timestamp.json").read_bytes())
    timestamp[timestamp.index(b'"version"') + 12] ^= 1
    web.misdeeds["/timestamp"] = lambda request: send(request, bytes(timestamp))
    sensor.meets("refused", "is not to be trusted")
    web.misdeeds["/timestamp"] = endless
    sensor.meets("refused", "expected at most")
    web.misdeeds["/timestamp"] = dripping(web)
    sensor.meets("unreachable", "bytes per second")
    web.misdeeds.clear()
    web.misdeeds["/targets/"] = endless
    sensor.meets("refused", "expected at most")
    web.misdeeds["/targets/"] = dripping(web)
    sensor.meets("unreachable", "bytes per second")
    web.misdeeds.clear()

    # Signed files of another day beside those of this one.
    old = (before / "metadata" / "2.targets.json").read_bytes()
    web.misdeeds[r"/\d+\.targets"] = lambda request: send(request, old)
    sensor.meets("refused", "is not to be trusted")
    web.misdeeds.clear()

    # Without a clock that is right nothing is even asked.
    sensor.set_clock(right=False)
    web.requests.clear()
    sensor.meets("deferred", "clock")
    assert web.requests == []
    sensor.set_clock(right=True)

    sensor.installs("1.2.0")

    # What was published before, whole and signed; then an older model in newer metadata.
    web.folder = before
    sensor.meets("refused", "New timestamp version")
    web.folder = operator.public
    older = bundle_bytes("1.0.5")
    sign_in(operator, older, offer_of("1.0.5", older))
    sensor.meets("up_to_date", "older than the 1.2.0 installed")

    # Somebody else's repository, and a root that ours has not signed.
    other = Operator(memory_path / "other")
    other.release("2.0.0")
    web.folder = other.public
    sensor.meets("refused", "is not to be trusted")
    web.folder = operator.public
    renew(other.folder, "root", other.ring(), other.now())
    other.push()
    forged = (other.public / "metadata" / "2.root.json").read_bytes()
    web.misdeeds["/2.root"] = lambda request: send(request, forged)
    sensor.meets("refused", "is not to be trusted")
    web.misdeeds.clear()

    # Signed, and unfit: a front end of another kind, told and hidden, and a bomb.
    new = bundle_bytes("1.3.0")
    honest = offer_of("1.3.0", new)
    front_end = honest.front_end.replace('"n_mels": 64', '"n_mels": 40')
    sign_in(operator, new, replace(honest, front_end=front_end))
    sensor.meets("refused", "was made for another front end")
    lie = json.dumps(json.loads(front_end), sort_keys=True).encode()
    lying = replace(honest, front_end=front_end, front_end_hash=hashlib.sha256(lie).hexdigest())
    sign_in(operator, new, lying)
    sensor.meets("refused", "front end")
    sign_in(operator, bomb(), offer_of("1.3.0", bomb()))
    sensor.meets("refused", "expands to")

    # A freeze: what is served was signed long ago.
    operator.late = timedelta(days=-400)
    operator.push()
    sensor.meets("refused", "timestamp.json is expired")
    operator.late = timedelta(0)

    # Keys are changed as they should be, and the next honest release arrives.
    for role in ("root", "targets", "snapshot", "timestamp"):
        assert rotate(operator.folder, role, operator.ring(), operator.now()).missing == ()
        operator.push()
    # The bomb has taken the number 1.3.0.
    operator.release("1.4.0")
    sensor.installs("1.4.0")
    sensor.end()


@pytest.mark.timeout(3_600)
def test_an_expired_root_is_named_and_its_successor_followed(
    memory_path: Path, serve: Callable[..., Any], mosquitto: Any
) -> None:
    days = Days(root=1, targets=90, snapshot=30, timestamp=30)
    late = timedelta(days=-1, seconds=-9)
    operator = Operator(memory_path / "operator", RepositorySettings(days=days), late=late)
    operator.release("1.1.0")
    folder = memory_path / "sensor"
    folder.mkdir()
    web = serve(operator.public)
    sensor = Sensor(folder, mosquitto.port, web.address, operator.root)
    try:
        sensor.until(lambda: sensor.states() and sensor.of("mic0/event"))
        sensor.meets("refused", "root.json is expired")
        operator.late = timedelta(0)
        assert renew(operator.folder, "root", operator.ring(), operator.now()).missing == ()
        operator.push()
        sensor.installs("1.1.0")
        sensor.end()
    finally:
        sensor.close()
