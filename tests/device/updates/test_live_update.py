"""A newer model from the operator's hands into a running sensor, everything real: broker, server,
repository, sound, commands."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import paho.mqtt.client as paho
import pytest
import soundfile
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.updates.model_state import ModelState
from soundpost.export.repository import folder as _needs_the_operators_side

# A self-test has low priority: on a busy machine it takes minutes.
PATIENCE_S = 900.0
DEVICE = "porch-pi"
BASE = f"soundpost/{DEVICE}"
assert _needs_the_operators_side

# Here the kernel may not say that its clock follows a reference, which updates wait for.
SENSOR = """
import sys
from soundpost.device import clock
clock.clock_synchronised = lambda: True
from soundpost.device.cli import main
sys.exit(main())
"""


class Messages:
    """What the broker passes on, and a way to send commands."""

    def __init__(self, port: int) -> None:
        self._changed = threading.Condition()
        self._all: list[tuple[str, str]] = []
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([("soundpost/#", 1), ("homeassistant/#", 1)])
        self._client.loop_start()
        assert ready.wait(PATIENCE_S)

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self._all.append((message.topic, message.payload.decode()))
            self._changed.notify_all()

    def of(self, topic: str) -> list[str]:
        with self._changed:
            return [payload for name, payload in self._all if name == topic]

    def states(self) -> list[ModelState]:
        return [ModelState.from_json(payload) for payload in self.of(f"{BASE}/model/state")]

    def wait(self, met: Callable[[], object], told: Callable[[], object] = lambda: None) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        with self._changed:
            while not met():
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, (self.states()[-5:], told())
                self._changed.wait(min(left_s, 1.0))

    def send(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Site:
    """A sensor's folder with its settings, and the sensor that runs on them."""

    def __init__(
        self, folder: Path, port: int, repository: str, root: bytes, bundle: bytes
    ) -> None:
        self.folder = folder
        rng = np.random.default_rng(8)
        sound = np.zeros(5 * 16_000)
        sound[16_000:40_000] = 0.3 * rng.standard_normal(24_000)
        soundfile.write(folder / "noise.wav", np.clip(sound, -1, 1), 16_000)
        (folder / "root.json").write_bytes(root)
        (folder / "first.bundle").write_bytes(bundle)
        self.settings = folder / "soundpost.toml"
        self.port, self.repository = port, repository
        self.processes: list[subprocess.Popen[str]] = []
        self.write()

    def write(
        self,
        updates: str = "",
        bundle: str = "first.bundle",
        more: str = "",
        probation_s: float = 4.0,
    ) -> None:
        self.settings.write_text(
            f'device_id = "{DEVICE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {self.port}\n'
            "retry_min_s = 0.05\nretry_max_s = 0.2\n"
            f'[outbox]\npath = "outbox.sqlite3"\n[model]\nbundle = "{bundle}"\n'
            '[source.mic0]\nurl = "file:noise.wav"\nloop = true\n'
            "[commands]\nenabled = true\nper_minute = 600\n"
            f'[updates]\nrepository = "{self.repository}"\nroot = "root.json"\n'
            'folder = "models"\nspread_s = 0\nlatency_share = 1\nslowdown = 100\n'
            f"shadow_s = 3\nprobation_s = {probation_s}\n{updates}\n{more}",
            "utf-8",
        )

    def start(self) -> subprocess.Popen[str]:
        self.log = (self.folder / "log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-c", SENSOR, "-v", "run", "--config", str(self.settings)],
            stdout=self.log,
            stderr=self.log,
            text=True,
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.processes.append(process)
        return process

    def command(self, *arguments: str) -> str:
        """What `soundpost command` prints."""
        to = ("--device", DEVICE, "--port", str(self.port), "--timeout", "60")
        done = subprocess.run(
            [sys.executable, "-m", "soundpost.device", "command", *arguments, *to],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        return done.stdout

    def told(self) -> str:
        return (self.folder / "log").read_text()

    def end(self, which: signal.Signals = signal.SIGTERM) -> int:
        process = self.processes[-1]
        process.send_signal(which)
        code = process.wait(PATIENCE_S)
        assert "Traceback" not in self.told(), self.told()
        return code


@pytest.fixture
def operator(memory_path: Path) -> Any:
    return sys.modules["signed_repository"].Operator(memory_path / "operator")


@pytest.fixture
def messages(mosquitto: Any) -> Iterator[Messages]:
    made = Messages(mosquitto.port)
    yield made
    made.close()


@pytest.fixture
def site(
    operator: Any, serve: Callable[..., Any], mosquitto: Any, memory_path: Path
) -> Iterator[Site]:
    folder = memory_path / "sensor"
    folder.mkdir()
    web = serve(operator.public)
    made = Site(folder, mosquitto.port, web.address, operator.root, operator.release("1.2.0"))
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def assert_heard_without_a_break(messages: Messages) -> None:
    """No gap in the sound, and every event has one start and one end."""
    health = [Health.from_json(payload) for payload in messages.of(f"{BASE}/mic0/health")]
    assert all(one.gaps == 0 and one.streams <= 1 for one in health)
    events = [SoundEvent.from_json(payload) for payload in messages.of(f"{BASE}/mic0/event")]
    phases: dict[str, list[str]] = {}
    for event in events:
        phases.setdefault(event.id, []).append(event.phase)
    for phase in phases.values():
        assert phase[0] == "start"
        assert phase.count("start") == 1
        assert phase.count("end") <= 1
    # Those of one label follow each other.
    assert sum("end" not in phase for phase in phases.values()) <= 3


@pytest.mark.timeout(3_600)
def test_from_push_to_confirmed(site: Site, operator: Any, messages: Messages) -> None:
    """By the command, each step told; then it is what a start begins with."""
    site.start()
    messages.wait(lambda: [s for s in messages.states() if s.result == "up_to_date"], site.told)
    assert messages.states()[-1].installed.version == "1.2.0"
    new = operator.release("1.3.0")
    asked = site.command("update")
    assert asked == f"{DEVICE}: looks at the repository and installs what it offers\n"
    messages.wait(lambda: [s for s in messages.states() if s.result == "confirmed"], site.told)
    states = messages.states()
    phases = [state.phase for state in states]
    for phase in ("refresh", "download", "self_test", "shadow", "probation"):
        assert phase in phases
    order = [phases.index(phase) for phase in ("download", "self_test", "shadow", "probation")]
    assert order == sorted(order)
    last = states[-1]
    assert (last.installed.version, last.confirmed) == ("1.3.0", True)
    assert last.previous is not None
    assert last.previous.version == "1.2.0"
    assert site.end() == 0
    assert_heard_without_a_break(messages)
    # A start hears with it, and says so before the repository is asked.
    count = len(messages.states())
    site.start()
    messages.wait(lambda: len(messages.states()) > count, site.told)
    assert messages.states()[count].installed == last.installed
    assert f"{sha_of(new)}" == messages.states()[count].installed.sha256
    messages.wait(
        lambda: [e for e in messages.of(f"{BASE}/mic0/event") if '"1.3.0"' in e], site.told
    )
    # A bundle that a person names in the settings wins.
    (site.folder / "mine.bundle").write_bytes(
        sys.modules["signed_repository"].bundle_bytes("1.0.0", name="mine")
    )
    site.write(bundle="mine.bundle")
    messages.send(f"{BASE}/cmd/reload", "")
    messages.wait(lambda: messages.states()[-1].installed.name == "mine", site.told)
    messages.wait(lambda: messages.of(f"{BASE}/cmd/reload/result"), site.told)
    (reloaded,) = messages.of(f"{BASE}/cmd/reload/result")
    assert "the settings' model is in place of the installed one" in reloaded
    assert site.end() == 0


@pytest.mark.timeout(3_600)
def test_what_is_on_probation_for_a_day_gives_way_when_asked(
    site: Site, operator: Any, messages: Messages
) -> None:
    """To a repaired release, and to the one before all of them."""
    site.write(probation_s=86_400.0)

    def on_probation(version: str) -> Callable[[], bool]:
        def met() -> bool:
            state = messages.states()[-1] if messages.states() else None
            return (
                state is not None
                and (state.phase, state.confirmed) == ("probation", False)
                and state.installed.version == version
            )

        return met

    operator.release("1.3.0")
    site.start()
    messages.wait(on_probation("1.3.0"), site.told)
    operator.release("1.4.0")
    site.command("update")
    messages.wait(on_probation("1.4.0"), site.told)
    (gave_way,) = {s.reason for s in messages.states() if s.result == "superseded"}
    assert gave_way == "tiny 1.3.0: gives way to tiny 1.4.0 before it has proved itself"
    # Beside it, 1.2.0 was heard with, to be compared with one that has proved itself.
    beside = [s.installed.version for s in messages.states() if s.phase == "shadow"]
    assert set(beside) == {"1.2.0"}
    operator.add((site.folder / "first.bundle").read_bytes(), allow_older=True)
    operator.push()
    site.command("update")
    messages.wait(
        lambda: (
            (messages.states()[-1].installed.version, messages.states()[-1].confirmed)
            == ("1.2.0", True)
        ),
        site.told,
    )
    assert site.end() == 0
    assert_heard_without_a_break(messages)


def sha_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.timeout(3_600)
def test_home_assistants_button_installs_what_waits(
    site: Site, operator: Any, messages: Messages
) -> None:
    """What is announced, its topics and payload alone, as Home Assistant would use them."""
    site.write('install = "ask"\ninterval_s = 2')
    operator.release("1.3.0")
    site.start()
    messages.wait(lambda: announced(messages), site.told)
    entity = announced(messages)
    topic = entity["stat_t"].replace("~", entity["~"], 1)
    messages.wait(
        lambda: rendered(entity, messages.of(topic)).get("latest_version") == "1.3.0", site.told
    )
    shown = rendered(entity, messages.of(topic))
    assert (shown["installed_version"], shown["in_progress"]) == ("1.2.0", False)
    messages.send(entity["cmd_t"].replace("~", entity["~"], 1), entity["pl_inst"])
    messages.wait(lambda: rendered(entity, messages.of(topic))["in_progress"], site.told)
    messages.wait(
        lambda: rendered(entity, messages.of(topic))["installed_version"] == "1.3.0", site.told
    )
    assert site.end() == 0


def announced(messages: Messages) -> dict[str, Any]:
    for payload in messages.of(f"homeassistant/device/{DEVICE}/config"):
        component = json.loads(payload)["cmps"].get("model-update")
        if component is not None:
            return dict(component)
    return {}


def rendered(entity: dict[str, Any], payloads: list[str]) -> dict[str, Any]:
    """The last payload by the entity's template."""
    if not payloads:
        return {}
    template = jinja2.Environment().from_string(entity["val_tpl"])
    found = json.loads(template.render(value_json=json.loads(payloads[-1])))
    assert isinstance(found, dict)
    return found


def test_a_sensor_without_the_extra_says_so_in_one_line(site: Site, messages: Messages) -> None:
    """python-tuf hidden: it listens all the same."""
    hidden = site.folder / "hidden" / "tuf"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text('raise ModuleNotFoundError("no tuf", name="tuf")')
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{hidden.parent}{os.pathsep}{before}"
    try:
        site.start()
    finally:
        os.environ["PYTHONPATH"] = before
    messages.wait(lambda: messages.of(f"{BASE}/mic0/event"), site.told)
    (line,) = [line for line in site.told().splitlines() if "soundpost[updates]" in line]
    assert re.search(r"needs the package tuf: install soundpost\[updates\]; it listens", line)
    (state,) = messages.states()
    assert (state.phase, state.installed.version) == ("off", "1.2.0")
    assert "soundpost[updates]" in (state.reason or "")
    messages.send(f"{BASE}/cmd/update", "")
    messages.wait(lambda: messages.of(f"{BASE}/cmd/update/result"), site.told)
    assert json.loads(messages.of(f"{BASE}/cmd/update/result")[0])["ok"] is False
    assert site.end() == 0
