"""The README's commands, snippets, links and figures of format, run as a reader would run them.

Every command of an `sh` block is known here by its exact text; the test of its section runs it,
with what a test machine needs in place of the reader's own (a file for a microphone, a port).
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile

from soundpost.device import errors
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.bundle import read_bundle, starter_bundle_path
from soundpost.device.config import load_settings
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.features import FrontEnd
from soundpost.device.identifiers import uuid7
from soundpost.device.level_record import LevelRecord
from soundpost.device.publisher import Publisher
from soundpost.device.remote import parse_request, result_json
from soundpost.device.session.session_reader import open_session
from soundpost.device.settings import TABLES
from soundpost.device.topics import Topics
from soundpost.device.updates.offers import Installed

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RATE_HZ = 16_000

# By section: each command, and what runs it. None: it needs another machine, or changes this one.
KNOWN: dict[str, dict[str, str | None]] = {
    "The first alert": {
        "git clone REPOSITORY soundpost": f"git clone --quiet --depth 1 'file://{ROOT}' soundpost",
        "cd soundpost": "cd soundpost",
        # The tests are a part of `make test`, and `make demo` installs: only their recipes here.
        "make demo": "make --dry-run demo",
        "make test": "make --dry-run test",
    },
    "Listen": {
        "source .venv/bin/activate": "source .venv/bin/activate",
        "soundpost devices": "soundpost devices",
        "soundpost run": "soundpost run --set source.mic0.url=file:street.wav --set broker.port=0",
        "soundpost replay street.wav": "soundpost replay street.wav",
        # Beside a sensor that runs; tests/device/test_top.py has one.
        "soundpost top": "soundpost top --help",
        "soundpost run --config soundpost.toml --check": (
            "soundpost run --config soundpost.toml --check"
        ),
        "soundpost run --config soundpost.toml": (
            "soundpost run --config soundpost.toml --set source.porch.url=file:street.wav "
            "--set mqtt.host=127.0.0.1 --set mqtt.port=PORT"
        ),
    },
    "Change it while it runs": {
        "soundpost config check soundpost.toml": "soundpost config check soundpost.toml",
        "soundpost config show soundpost.toml": "soundpost config show soundpost.toml",
        "sudo systemctl reload soundpost": None,
        "soundpost command pause --host broker.local --device porch-pi --duration 3600": (
            "soundpost command pause --port PORT --device porch-pi --duration 3600"
        ),
        "soundpost command resume --host broker.local --device porch-pi": (
            "soundpost command resume --port PORT --device porch-pi"
        ),
        "soundpost command threshold --host broker.local --device porch-pi --label dog --onset "
        "0.9": "soundpost command threshold --port PORT --device porch-pi --label dog --onset 0.9",
        "soundpost command threshold --host broker.local --device porch-pi --label dog --reset": (
            "soundpost command threshold --port PORT --device porch-pi --label dog --reset"
        ),
    },
    "Keep it running": {
        "sudo mkdir -p /etc/soundpost": None,
        "sudo cp soundpost.toml mqtt.password /etc/soundpost/": None,
        "sudo .venv/bin/soundpost service install": (
            "soundpost service install --dry-run --root . --python /usr/bin/python3"
        ),
        "soundpost service status": None,
        "soundpost service logs": None,
        # It says what it finds here by its exit code: that it finds something is enough.
        "soundpost doctor": "soundpost doctor --json | python -m json.tool",
    },
    "Receive alerts": {
        "soundpost alerts": "soundpost alerts --port PORT --count 1 --timeout 60",
        "soundpost alerts --host broker.local --label smoke_alarm --json": (
            "soundpost alerts --host 127.0.0.1 --label smoke_alarm --json "
            "--port PORT --count 1 --timeout 60"
        ),
        "soundpost alerts --host broker.local --client-id logger --sqlite alerts.sqlite3 "
        "--csv alerts.csv": (
            "soundpost alerts --host 127.0.0.1 --client-id logger --sqlite alerts.sqlite3 "
            "--csv alerts.csv --port PORT --count 1 --timeout 60"
        ),
        "soundpost alerts --host broker.local --phase start --exec 'notify-send Soundpost'": (
            "soundpost alerts --host 127.0.0.1 --phase start --exec 'env' "
            "--port PORT --count 1 --timeout 60"
        ),
        "mosquitto_sub -h broker.local -v -t 'soundpost/+/+/event'": (
            "mosquitto_sub -h 127.0.0.1 -v -t 'soundpost/+/+/event' -p PORT -C 1 -W 60"
        ),
    },
    "How loud it is": {
        "soundpost replay street.wav --levels": "soundpost replay street.wav --levels",
    },
    "Teach it your sounds": {
        "pip install --constraint constraints.txt --editable '.[train,export]'": (
            # Everything but the download: pip says so where an extra does not exist.
            "python -m pip install --constraint constraints.txt --editable '.[train,export]' "
            "--dry-run --no-deps --no-build-isolation --disable-pip-version-check"
        ),
        "soundpost train finetune --data my_clips --out runs/mine --init starter --fold 1": (
            "soundpost train finetune --data my_clips --out runs/mine --init starter --fold 1 "
            "--device cpu --threads 1 --quiet training.epochs=2 training.batch_size=8"
        ),
        "soundpost evaluate runs/mine --data my_clips --fold 1": (
            "soundpost evaluate runs/mine --data my_clips --fold 1 --device cpu"
        ),
        "soundpost export runs/mine --out mine.bundle": (
            # Two epochs make no student whose int8 form must agree.
            "soundpost export runs/mine --out mine.bundle --least-agreement 0 "
            "--most-accuracy-drop 100 --most-class-drop 1"
        ),
        "soundpost bundle check mine.bundle": "soundpost bundle check mine.bundle",
    },
    "Let a sensor say what it is unsure of": {
        "soundpost collect --host broker.local --device 'porch-*' --out examples": (
            "soundpost collect --port PORT --device 'porch-*' --out examples"
        ),
        "soundpost collect copied/porch-pi copied/yard --out examples": (
            "soundpost collect copied/porch-pi copied/yard --out examples"
        ),
        "soundpost train finetune --data examples --out runs/mine --init starter": (
            "soundpost train finetune --data examples --out runs/mine --init starter "
            "--device cpu --threads 1 --quiet training.epochs=1 training.batch_size=8"
        ),
    },
    "Data sets as published": {
        "soundpost dataset check esc50 ESC-50": "soundpost dataset check esc50 ESC-50",
        "soundpost dataset show esc50 ESC-50": "soundpost dataset show esc50 ESC-50",
    },
    "Teachers that see": {
        "soundpost dataset world small --data esc50 --out world": (
            "soundpost dataset world tiny.toml --data esc50 --out world --workers 1 --quiet"
        ),
        "soundpost dataset pictures --out pictures": (
            "soundpost dataset pictures --out pictures --train 1 --validation 1 --height-px 96 "
            "--quiet"
        ),
        "soundpost train pictures --data pictures --out runs/eye": (
            "soundpost train pictures --data pictures --out runs/eye --device cpu --threads 1 "
            "--quiet training.epochs=1"
        ),
        "soundpost train world_yin2021 --data world --out runs/yin": (
            "soundpost train world_yin2021 --data world --out runs/yin --device cpu --threads 1 "
            "--quiet training.epochs=1 data.validation=[] training.keep=last data.seconds=1 "
            "training.bfloat16=false"
        ),
        "soundpost evaluate runs/yin --data world": (
            "soundpost evaluate runs/yin --data world --device cpu"
        ),
        "soundpost distil runs/yin --data world --kind world --network teacher --split train "
        "--out soft": (
            "soundpost distil runs/yin --data world --kind world --network teacher --split train "
            "--out soft --device cpu"
        ),
    },
    "Know when it began and when it ended": {
        "soundpost soundscapes esc50_scenes --data esc50 --out scenes": (
            "soundpost soundscapes test.toml --data event_clips --out scenes --quiet"
        ),
        "soundpost train full --data scenes --out runs/full": (
            "soundpost train full --data scenes --out runs/full --device cpu --threads 1 --quiet "
            "model.width=0.1 batch.strong=2 batch.weak=2 batch.unlabelled=2 training.epochs=2"
        ),
        "soundpost train streaming --data scenes --teacher runs/full --out runs/streaming": (
            "soundpost train streaming --data scenes --teacher runs/full --out runs/streaming "
            "--device cpu --threads 1 --quiet batch.strong=3 batch.weak=0 batch.unlabelled=0 "
            "model.channels=[8,12,16] training.epochs=20 training.learning_rate=1e-2 "
            "training.teacher_weight=0.0"
        ),
        "soundpost evaluate runs/streaming --data scenes": (
            "soundpost evaluate runs/streaming --data scenes --device cpu"
        ),
        "soundpost export runs/streaming --out streaming.bundle": (
            # A minute of training makes no student whose int8 form must find the same events.
            "soundpost export runs/streaming --out streaming.bundle --most-event-drop 100"
        ),
        "soundpost evaluate streaming.bundle --data scenes": (
            "soundpost evaluate streaming.bundle --data scenes"
        ),
    },
    "Record with the array": {
        "soundpost array layout optimised --mics 64 --out array.json": (
            "soundpost array layout optimised --mics 16 --out array.json --quiet"
        ),
        "soundpost scene render scene.toml --array array.json --out scene.wav": (
            "soundpost scene render scene.toml --array array.json --out scene.wav"
        ),
        # Each command here has a shell of its own, which has no jobs of those before.
        "soundpost array simulate scene.wav --loop &": (
            "soundpost array simulate scene.wav --loop --quiet --to 127.0.0.1:PORT "
            "> sent.txt 2>&1 & echo $! > sender.pid; "
            "for _ in $(seq 300); do [ -e scene.sdp ] && break; sleep 0.1; done"
        ),
        "soundpost array receive scene.sdp --seconds 5": (
            "soundpost array receive scene.sdp --seconds 1"
        ),
        "soundpost record --source rtp:scene.sdp --array array.json --seconds 6 --out yard": (
            "soundpost record --source rtp:scene.sdp --array array.json --seconds 2 --out yard "
            "--keep-free 0 --quiet"
        ),
        "kill %1": "kill $(cat sender.pid)",
        "soundpost images yard --picture yard.png --at 1": (
            "soundpost images yard --picture yard.png --at 1"
        ),
        "soundpost images --live yard": "soundpost images --live yard --plain --seconds 2",
        "soundpost record --source rtp:array.sdp --array array.json --camera v4l2:/dev/video0 "
        "--page --out hall": (
            # As much of it as a machine without array and camera has.
            "soundpost record --source scene.wav --array array.json --camera file:street.mkv "
            "--out hall --keep-free 0 --quiet"
        ),
        "soundpost images hall": "soundpost images hall --quiet",
        "soundpost images hall --video hall.mp4": "soundpost images hall --video hall.mp4 --quiet",
        "soundpost session check hall --repair": "soundpost session check hall --repair",
        "soundpost session show hall --picture hall.svg": (
            "soundpost session show hall --picture hall.svg"
        ),
        "soundpost session trim hall --from 0.5 --to 1.5 --out bark": (
            "soundpost session trim hall --from 0.5 --to 1.5 --out bark"
        ),
        "soundpost session export hall --clips clips --seconds 1": (
            "soundpost session export hall --clips clips --seconds 1"
        ),
    },
    "Give a sensor a model": {
        "scp mine.bundle pi@porch-pi.local:soundpost/": None,
        "soundpost bundle check mine.bundle": "soundpost bundle check mine.bundle",
        "soundpost run --config soundpost.toml --check": (
            "soundpost run --config soundpost.toml --check"
        ),
        "sudo systemctl reload soundpost": None,
        # To a sensor that runs with a repository; tests/device/updates/test_live_update.py has one.
        "soundpost command update --host broker.local --device porch-pi --look": (
            "soundpost command update --help"
        ),
        "soundpost command update --host broker.local --device porch-pi": (
            "soundpost command update --help"
        ),
    },
    "Bring a model to many sensors": {
        "soundpost repo add models mine.bundle --channel canary": (
            "soundpost repo add models mine.bundle --channel canary"
        ),
        "soundpost repo push models": "soundpost repo push models",
        "soundpost fleet list --host broker.local": "soundpost fleet list --port PORT",
        "soundpost fleet roll-out mine-1.1.0 --repo models --host broker.local --dry-run": (
            "soundpost fleet roll-out mine-1.1.0 --repo models --port PORT --dry-run"
        ),
        "soundpost fleet roll-out mine-1.1.0 --repo models --host broker.local": (
            "soundpost fleet roll-out mine-1.1.0 --repo models --port PORT --hold 0s --spread 0s"
        ),
        "soundpost fleet status --repo models": "soundpost fleet status --repo models",
    },
    "The starter, and what it is not for": {
        "soundpost bundle show --card": "soundpost bundle show --card",
    },
}


@dataclass(frozen=True)
class Block:
    """One fenced block: its section, language and text."""

    section: str
    language: str
    text: str


def blocks() -> list[Block]:
    found: list[Block] = []
    section, language, lines = "", None, list[str]()
    for line in README.splitlines():
        if language is None and line.startswith("## "):
            section = line[3:]
        elif language is None and line.startswith("```"):
            language, lines = line[3:], []
        elif line == "```" and language is not None:
            found.append(Block(section, language, "\n".join(lines) + "\n"))
            language = None
        else:
            lines.append(line)
    assert language is None, "a block is not closed"
    return found


def snippets(language: str) -> list[Block]:
    found = [block for block in blocks() if block.language == language]
    assert found, f"the README has no {language} block"
    return found


def commands(section: str) -> list[str]:
    """Commands of a section's sh blocks in order, without their comments."""
    text = "".join(block.text for block in snippets("sh") if block.section == section)
    lines = (re.sub(r"(^|\s+)#.*", "", line) for line in text.replace("\\\n", " ").splitlines())
    return [" ".join(line.split()) for line in lines if line.strip()]


@dataclass
class Reader:
    """A folder, a home and a shell, in which a reader follows the README."""

    folder: Path
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        home = self.folder / "home"
        home.mkdir()
        binaries = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
        }

    def follow(self, section: str, code: int = 0) -> dict[str, str]:
        """Run a section's commands in order; what each printed, standard error included."""
        return {command: self.run(section, command, code) for command in commands(section)}

    def run(self, section: str, command: str, code: int = 0) -> str:
        runs = KNOWN[section][command]
        if runs is None:
            return ""
        runs = runs.replace("PORT", str(self.port))
        # What a command changes of the shell (its folder, its PATH) holds for those after it.
        kept = Path(self.environment["HOME"], "shell")
        script = f'{runs}\nstatus=$?\npwd > "{kept}"\necho "$PATH" >> "{kept}"\nexit $status\n'
        told = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        assert told.returncode == code, f"{runs}\nended with {told.returncode}:\n{told.stdout}"
        folder, path = kept.read_text(encoding="utf-8").splitlines()
        self.folder = Path(folder)
        self.environment["PATH"] = path
        return told.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A reader who has cloned and installed, recorded three seconds, and written the settings."""
    rng = np.random.default_rng(2)
    sound = 0.05 * rng.standard_normal((3 * RATE_HZ, 2))
    soundfile.write(tmp_path / "street.wav", sound, RATE_HZ)
    settings = [block.text for block in snippets("toml") if block.section == "Listen"]
    (tmp_path / "soundpost.toml").write_text("\n".join(settings), encoding="utf-8")
    (tmp_path / "mqtt.password").write_text("a secret\n", encoding="utf-8")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return Reader(tmp_path)


def module_of(path: str) -> ModuleType:
    """A file of tests/ that is in no package, as a module."""
    name = path.removesuffix(".py").replace("/", "_")
    specification = spec_from_file_location(name, ROOT / "tests" / path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    # Where its dataclasses look for it.
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Any]:
    """A real Mosquitto, started as tests/device does."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is missing: sudo apt-get install mosquitto")
    module = module_of("device/conftest.py")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    running = module.Mosquitto(program, folder, "allow_anonymous true").start()
    yield running
    running.kill()


@contextmanager
def alarms(port: int) -> Iterator[None]:
    """A sensor that hears a smoke alarm again and again: a broker keeps no events."""
    topics = Topics("soundpost", "porch-pi")
    stopping = threading.Event()

    def event() -> SoundEvent:
        return SoundEvent(
            id=uuid7(),
            device="porch-pi",
            source="porch",
            label="smoke_alarm",
            phase="start",
            score=0.9,
            threshold=0.5,
            onset=datetime.now(timezone.utc),
            offset=None,
            time_synced=True,
            stream=uuid7(),
            sample=16_000,
            rate_hz=RATE_HZ,
            model=ModelRef("starter", "1.0.0", "0" * 64),
        )

    with Publisher(BrokerSettings("127.0.0.1", port), topics, states=[]) as publisher:

        def hear() -> None:
            while not stopping.wait(0.2):
                publisher.publish_event(event())

        thread = threading.Thread(target=hear)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


# ------------------------------------------------------------------------------------- commands


def test_every_command_is_known_here() -> None:
    sections = dict.fromkeys(block.section for block in snippets("sh"))
    told = {section: commands(section) for section in sections}
    assert told == {section: list(known) for section, known in KNOWN.items()}


def test_every_language_is_looked_at() -> None:
    looked_at = {"sh", "toml", "json", "python", "csv"}
    # Without a language: the diagram. text: what commands print.
    assert {block.language for block in blocks()} == looked_at | {"", "text"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing: sudo apt-get install git")
def test_clone_and_make(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: nothing to clone from")
    told = Reader(tmp_path).follow("The first alert")
    assert ".venv/bin/soundpost demo" in told["make demo"]
    assert "-m pytest" in told["make test"]
    assert "ruff check" in told["make test"]


def test_listen(reader: Reader, broker: Any) -> None:
    reader.port = broker.port
    section = "Listen"
    told = {}
    for command in commands(section):
        if command == "soundpost devices":
            continue
        told[command] = reader.run(section, command)
    assert "3.0 s heard" in told["soundpost run"]
    assert "3.0 s heard" in told["soundpost replay street.wav"]
    assert "in order" in told["soundpost run --config soundpost.toml --check"]
    live = told["soundpost run --config soundpost.toml"]
    assert f"127.0.0.1:{broker.port}: connected" in live
    assert "porch: 3.0 s heard" in live


def test_change_it_while_it_runs(reader: Reader, broker: Any) -> None:
    reader.port = broker.port
    section = "Change it while it runs"
    (more,) = [block.text for block in snippets("toml") if block.section == section]
    settings = reader.folder / "soundpost.toml"
    with settings.open("a", encoding="utf-8") as file:
        file.write(more)
    options = {
        "source.porch.url": "file:street.wav",
        "source.porch.loop": "true",
        "mqtt.host": "127.0.0.1",
        "mqtt.port": broker.port,
        "class.dog.onset": 0.8,
    }
    sets = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    sensor = subprocess.Popen(
        [sys.executable, "-m", "soundpost.device", "run", "--config", str(settings), *sets],
        cwd=reader.folder,
        env=reader.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert sensor.stdout is not None
        while f"127.0.0.1:{broker.port}: connected" not in (line := sensor.stdout.readline()):
            assert line, "the sensor has ended"
        told = reader.follow(section)
    finally:
        sensor.kill()
        sensor.communicate()
    check, show, _, pause, resume, threshold, reset = told.values()
    assert check == "soundpost.toml: in order\n"
    assert 'allow = ["pause", "resume", "threshold", "reload", "update", "feedback"]' in show
    assert pause == "porch-pi: porch paused for 3600 s\n"
    assert resume == "porch-pi: porch listening\n"
    assert threshold.startswith("porch-pi: dog: onset 0.9, release ")
    assert reset == "porch-pi: dog: as in settings and bundle\n"


def test_keep_it_running(reader: Reader) -> None:
    told = reader.follow("Keep it running")
    assert "Type=notify" in told["sudo .venv/bin/soundpost service install"]
    assert '"soundpost.doctor/1"' in told["soundpost doctor"]


def test_devices(reader: Reader) -> None:
    try:
        import sounddevice  # noqa: F401
    except OSError:
        pytest.skip("PortAudio is missing: sudo apt-get install libportaudio2")
    told = reader.run("Listen", "soundpost devices")
    assert "NAME" in told or "no sound inputs found" in told


def test_alerts(reader: Reader, broker: Any) -> None:
    reader.port = broker.port
    section = "Receive alerts"
    plain, as_json, logged, acted, subscribed = commands(section)
    with alarms(broker.port):
        assert re.search(r"porch-pi  porch  smoke_alarm  start  0\.90", reader.run(section, plain))
        told = reader.run(section, as_json).splitlines()
        assert SoundEvent.from_json(told[-1]).label == "smoke_alarm"
        reader.run(section, logged)
        with closing(sqlite3.connect(reader.folder / "alerts.sqlite3")) as database:
            assert database.execute("SELECT label FROM event").fetchall() == [("smoke_alarm",)]
        header, row = (reader.folder / "alerts.csv").read_text(encoding="utf-8").splitlines()
        assert dict(zip(header.split(","), row.split(","), strict=True))["phase"] == "start"
        variables = reader.run(section, acted)
        assert "SOUNDPOST_LABEL=smoke_alarm\n" in variables
        assert "SOUNDPOST_SCORE=0.9\n" in variables
        if shutil.which("mosquitto_sub") is None:
            pytest.skip("mosquitto_sub is missing: sudo apt-get install mosquitto-clients")
        topic, _, payload = reader.run(section, subscribed).partition(" ")
    assert topic == "soundpost/porch-pi/porch/event"
    assert SoundEvent.from_json(payload).source == "porch"


def test_how_loud_it_is(reader: Reader) -> None:
    (told,) = reader.follow("How loud it is").values()
    assert "not calibrated" in told
    levels, profile = (b.text for b in snippets("toml") if b.section == "How loud it is")
    path = reader.folder / "soundpost.toml"
    source = '[source.porch]\nprofile = "porch-mic.toml"'
    settings = path.read_text(encoding="utf-8").replace("[source.porch]", source)
    path.write_text(settings + levels, encoding="utf-8")
    (reader.folder / "porch-mic.toml").write_text(profile, encoding="utf-8")
    told = reader.run("Listen", "soundpost run --config soundpost.toml --check")
    assert "porch: levels every 60 s in dB SPL by the profile porch-mic\n" in told


def test_an_array_is_simulated_recorded_looked_at_cut_and_exported(reader: Reader) -> None:
    section = "Record with the array"
    (scene,) = [block.text for block in snippets("toml") if block.section == section]
    (reader.folder / "scene.toml").write_text(scene, encoding="utf-8")
    layouts = module_of("train/datasets/layouts.py")
    layouts.write_video(reader.folder / "street.mkv", 2.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        reader.port = free.getsockname()[1] & ~1
    told = reader.follow(section)
    info = soundfile.info(reader.folder / "scene.wav")
    assert (info.channels, info.samplerate, info.frames) == (16, 16_000, 32_000)
    assert (reader.folder / "scene.sdp").read_text(encoding="utf-8").count("m=audio ") == 2
    yard = open_session(reader.folder / "yard")
    assert (yard.n_channels, yard.rate_hz) == (16, 16_000)
    assert yard.n_samples >= 32_000
    # What was rendered, over and over, is what was heard on each channel.
    heard = yard.read(8_000, 16_000)
    rendered, _ = soundfile.read(reader.folder / "scene.wav")
    for channel in (0, 15):
        around = np.concatenate([rendered[:, channel], rendered[:16_000, channel]])
        product = scipy.signal.correlate(around, heard[:, channel], "valid")
        first = int(product.argmax())
        np.testing.assert_allclose(heard[:, channel], around[first : first + 16_000], atol=2.0**-20)
    assert "; 0 gaps" in told["soundpost array receive scene.sdp --seconds 5"]
    assert "ok       sound: 32000 samples, no gap" in told["soundpost session check hall --repair"]
    for name in ("yard.png", "hall.svg", "hall.mp4", "hall/acoustic_images.h5"):
        assert (reader.folder / name).stat().st_size > 1_000, name
    assert told["soundpost session trim hall --from 0.5 --to 1.5 --out bark"] == "bark: 1.000 s\n"
    assert told["soundpost session export hall --clips clips --seconds 1"] == "clips: 2 clips\n"


def test_train_evaluate_export_check(reader: Reader) -> None:
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, reader.folder)
    for name in ("device", "firmware_bridge", "calibration", "train", "export"):
        (reader.folder / name).symlink_to(ROOT / name)
    make_clips(reader.folder / "my_clips")
    told = reader.follow("Teach it your sounds")
    installed = next(text for command, text in told.items() if command.startswith("pip"))
    assert "Would install soundpost" in installed
    assert "does not provide the extra" not in installed
    manifest = read_bundle(reader.folder / "mine.bundle").manifest
    assert manifest.labels == ("doorbell", "other")
    assert manifest.front_end == FrontEnd()
    assert "in order" in told["soundpost bundle check mine.bundle"]


def test_examples_are_collected_labelled_and_trained_with(reader: Reader, broker: Any) -> None:
    """From a sensor that hears noise it is unsure of, and from two copies of its folder."""
    section = "Let a sensor say what it is unsure of"
    sound = 0.02 * np.random.default_rng(3).standard_normal(20 * RATE_HZ)
    soundfile.write(reader.folder / "unsure.wav", sound, RATE_HZ)
    (feedback,) = [b.text for b in snippets("toml") if b.section == section]
    settings = reader.folder / "soundpost.toml"
    settings.write_text(settings.read_text(encoding="utf-8") + feedback, encoding="utf-8")
    loaded = load_settings(settings, environment={"STATE_DIRECTORY": str(reader.folder)}).feedback
    assert (loaded.enabled, loaded.margin, loaded.folder) == (True, 0.5, reader.folder / "feedback")
    reader.port = broker.port
    # A wide margin: the starter is sure that noise is nothing of what it knows.
    options = {
        "source.porch.url": "file:unsure.wav",
        "source.porch.channel": "mix",
        "source.porch.loop": "true",
        "mqtt.host": "127.0.0.1",
        "mqtt.port": broker.port,
        "feedback.margin": 5,
        "feedback.apart_s": 1,
        "feedback.min_free_mb": 0,
        "feedback.folder": "kept",
    }
    sets = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    sensor = subprocess.Popen(
        [sys.executable, "-m", "soundpost.device", "run", "--config", str(settings), *sets],
        cwd=reader.folder,
        env=reader.environment,
    )
    try:
        kept = reader.folder / "kept"
        deadline_s = time.monotonic() + 400
        while len(list(kept.glob("*.flac"))) < 2:
            assert time.monotonic() < deadline_s
            assert sensor.poll() is None
            time.sleep(0.2)
        over_mqtt, from_folders, train = commands(section)
        told = reader.run(section, over_mqtt)
        assert re.search(r"^porch-pi: \d+ new, 0 known$", told, re.MULTILINE)
    finally:
        sensor.terminate()
        sensor.wait(60)
    for name in ("porch-pi", "yard"):
        shutil.copytree(kept, reader.folder / "copied" / name)
    reader.run(section, from_folders)
    examples = reader.folder / "examples"
    with (examples / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len(rows) >= 2
    for number, row in enumerate(rows):
        # Hours of one microphone do not fill two sides: as if they were of many days.
        row.update(label=("noise", "other")[number % 2], group=f"day {number}")
    while len(rows) < 20:
        rows.append({**rows[len(rows) % 2], "filename": "", "group": f"day {len(rows)}"})
        rows[-1]["filename"] = f"porch-pi/copy-{len(rows)}.flac"
        shutil.copy2(examples / rows[0]["filename"], examples / rows[-1]["filename"])
    with (examples / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    reader.run(section, train)
    assert (reader.folder / "runs" / "mine" / "model.safetensors").is_file()


def test_soundscapes_to_a_streaming_bundle(reader: Reader) -> None:
    made = module_of("train/sed/event_clips.py")
    (reader.folder / "test.toml").write_text(made.SETTINGS, encoding="utf-8")
    (reader.folder / "event_clips").mkdir()
    made.write_event_clips(reader.folder / "event_clips")
    told = reader.follow("Know when it began and when it ended")
    assert "4 recordings: event F1" in told["soundpost evaluate runs/streaming --data scenes"]
    assert "| event F1" in (reader.folder / "runs" / "full" / "report.md").read_text()
    bundle = read_bundle(reader.folder / "streaming.bundle")
    assert bundle.manifest.frames is not None
    assert bundle.manifest.labels == ("beep", "hum", "tap")
    # The bundle is judged as the export judged it: the same recordings, to their ends.
    on_card = re.search(r"\| event F1 .*\| ([\d.]+) % \|$", bundle.model_card, re.MULTILINE)
    evaluated = told["soundpost evaluate streaming.bundle --data scenes"]
    judged = re.search(r"event F1 ([\d.]+)%", evaluated)
    assert on_card is not None
    assert judged is not None
    assert judged[1] == on_card[1]


def test_data_sets(reader: Reader) -> None:
    folder = reader.folder / "ESC-50"
    for name in ("audio", "meta"):
        (folder / name).mkdir(parents=True)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold, (target, category) in enumerate([(0, "dog"), (1, "rooster")], 1):
        name = f"{fold}-100-A-{target}.wav"
        soundfile.write(folder / "audio" / name, np.zeros(5 * 44_100, np.int16), 44_100)
        rows.append(f"{name},{fold},{target},{category},False,100{fold},A")
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    told = reader.follow("Data sets as published")
    assert "dog" in told["soundpost dataset show esc50 ESC-50"]


def test_teachers_that_see(reader: Reader) -> None:
    made = module_of("train/datasets/world_clips.py")
    (reader.folder / "tiny.toml").write_text(made.SETTINGS, encoding="utf-8")
    (reader.folder / "esc50").mkdir()
    made.write_world_clips(reader.folder / "esc50")
    told = reader.follow("Teachers that see")
    judged = told["soundpost evaluate runs/yin --data world"]
    found = re.search(r"^8 clips: mAP (0\.\d{4})", judged, re.MULTILINE)
    assert found is not None
    report = (reader.folder / "runs" / "yin" / "report.md").read_text(encoding="utf-8")
    assert f"| mAP | {found[1]} |" in report
    distilled = next(text for command, text in told.items() if "distil" in command)
    assert "soft labels of 8 clips, 8 of them new" in distilled


def make_clips(folder: Path) -> None:
    """The table of the README, and more of its kind: two tones for a bell, noise for the rest."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    (block,) = snippets("csv")
    header, *rows = csv.reader(block.text.splitlines())
    for number in range(3, 12):
        for name, label in (("bell", "doorbell"), ("room", "other")):
            rows.append([f"{name}-{number:02}.wav", label, str(1 + number % 2), f"day {number}"])
    for name, label, *_ in rows:
        n = np.arange(int(1.4 * RATE_HZ))
        sound = 0.02 * rng.standard_normal(len(n))
        if label == "doorbell":
            hz = rng.uniform(600, 700) * np.where(n < len(n) // 2, 1.25, 1.0)
            sound = sound + 0.3 * np.sin(2 * np.pi * hz * n / RATE_HZ)
        soundfile.write(folder / name, sound, RATE_HZ)
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_give_a_sensor_a_model(reader: Reader) -> None:
    shutil.copy2(starter_bundle_path(), reader.folder / "mine.bundle")
    model, updates = [b.text for b in snippets("toml") if b.section == "Give a sensor a model"]
    with (reader.folder / "soundpost.toml").open("a", encoding="utf-8") as file:
        file.write(model)
    told = reader.follow("Give a sensor a model")
    assert "mine.bundle: in order" in told["soundpost bundle check mine.bundle"]
    settings = load_settings(reader.folder / "soundpost.toml", environment={})
    assert settings.model.bundle == reader.folder / "mine.bundle"
    (reader.folder / "updates.toml").write_text(updates, encoding="utf-8")
    environment = {"STATE_DIRECTORY": str(reader.folder)}
    found = load_settings(reader.folder / "updates.toml", environment=environment).updates
    assert (found.channel, found.install) == ("stable", "automatic")
    assert found.root == reader.folder / "root.json"
    for key in ("shadow_s", "probation_s"):
        assert key in TABLES["updates"].kinds


def test_bring_a_model_to_many_sensors(reader: Reader, broker: Any) -> None:
    """To one, with a repository whose `stable` has the version before."""
    signed = module_of("device/updates/signed_repository.py")
    fleet = module_of("export/fleet/fleet_sensor.py")
    operator = signed.Operator(reader.folder / "models")
    before = signed.bundle_bytes("1.0.0", "mine")
    sha256 = operator.add(before).offer.sha256
    operator.push()
    (reader.folder / "mine.bundle").write_bytes(signed.bundle_bytes("1.1.0", "mine"))
    reader.port = broker.port
    reader.environment["SOUNDPOST_REPO_PASSPHRASE"] = signed.PASSPHRASE
    sensor = fleet.FleetSensor(
        signed.DEVICE,
        broker.port,
        str(operator.public),
        operator.root,
        reader.folder / "sensor",
        Installed("mine", "1.0.0", sha256),
    )
    try:
        told = list(reader.follow("Bring a model to many sensors").values())
    finally:
        sensor.close()
    listed, planned, rolled, status = told[2:]
    assert listed.splitlines()[0] == "1 sensor: 1 well"
    assert planned.splitlines()[1:] == ["porch-pi: wave 1"]
    assert "porch-pi: wave 1: confirmed" in rolled.splitlines()
    assert status.splitlines()[1:] == [
        "done: all of 1 sensor asked",
        "  porch-pi: wave 1: confirmed",
    ]
    assert sensor.state.installed.version == "1.1.0"


def test_the_card(reader: Reader) -> None:
    (told,) = reader.follow("The starter, and what it is not for").values()
    assert told.startswith("# starter")


# ------------------------------------------------------------------------------------- snippets


def test_settings_say_what_the_text_says(reader: Reader) -> None:
    settings = load_settings(reader.folder / "soundpost.toml", environment={})
    assert settings.mqtt is not None
    assert settings.mqtt.password == "a secret"
    (source,) = settings.sources
    assert (source.name, source.url, source.channel) == ("porch", "mic:usb-1-1.2", 0)
    assert settings.classes == {"dog": {"onset": 0.8, "release": 0.5}}
    assert settings.outbox == OutboxSettings(settings.outbox.path, 20, 30)
    assert settings.outbox.path.name == "outbox-porch-pi.sqlite3"


def test_metrics_are_where_the_text_says(reader: Reader) -> None:
    (block,) = (b.text for b in snippets("toml") if b.section == "Keep it running")
    path = reader.folder / "metrics.toml"
    path.write_text(block, encoding="utf-8")
    metrics = load_settings(path).metrics
    assert f"http://{metrics.host}:{metrics.port}/metrics" in README


def test_home_assistant_finds_what_the_text_names(tmp_path: Path) -> None:
    (block,) = (b.text for b in snippets("toml") if "[home_assistant]" in b.text)
    (tmp_path / "soundpost.toml").write_text(block, encoding="utf-8")
    settings = load_settings(tmp_path / "soundpost.toml", environment={"HOME": str(tmp_path)})
    assert settings.home_assistant.discovery == "device"
    assert settings.home_assistant.labels == ("dog", "doorbell", "smoke_alarm")


def test_settings_of_tls_are_known() -> None:
    (block,) = (b.text for b in snippets("toml") if b.section == "A broker with TLS")
    keys = re.findall(r"^(\w+) =", block, re.MULTILINE)
    assert set(keys) <= set(TABLES["mqtt"].kinds)
    assert "cert_file" in keys


def test_topic_table() -> None:
    topics = Topics("soundpost", "DEVICE")
    table = re.findall(r"^\| `([^`]+)` \|", README.partition("**Topics**")[2], re.MULTILINE)
    ours = [
        topics.status,
        topics.instance,
        topics.event("SOURCE"),
        topics.state("SOURCE", "LABEL"),
        topics.level("SOURCE"),
        topics.health("SOURCE"),
        topics.paused("SOURCE"),
        topics.model_state,
        topics.feedback_state,
        topics.cmd("NAME"),
        topics.cmd_result("NAME"),
    ]
    prefix = "soundpost/DEVICE/"
    words = {"<source>": "SOURCE", "<label>": "LABEL", "<name>": "NAME"}
    named = [re.sub(r"<\w+>", lambda word: words[word[0]], row) for row in table]
    assert named == [topic.removeprefix(prefix) for topic in ours]


def test_records_are_ours() -> None:
    event, level, result = (block.text for block in snippets("json"))
    assert result_json("pause", "7", True, "porch paused for 600 s") == result.strip()
    text = README.partition("**Command**")[2].partition("```")[0]
    for name, payload in zip(
        ("pause", "resume", "threshold", "threshold", "update"),
        re.findall(r"`(\{.*?\})`", text),
        strict=True,
    ):
        parse_request(name, payload.encode())
    assert SoundEvent.from_json(event).to_json() == event.strip()
    assert LevelRecord.from_json(level).to_json() == level.strip()


def test_python_program_prints_an_alert(tmp_path: Path, broker: Any) -> None:
    (block,) = snippets("python")
    assert block.text.count('"broker.local", 1883') == 1
    text = block.text.replace('"broker.local", 1883', f'"127.0.0.1", {broker.port}')
    program = tmp_path / "listen.py"
    program.write_text(text, encoding="utf-8")
    with alarms(broker.port):
        process = subprocess.Popen(
            [sys.executable, program], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        overdue = threading.Timer(60, process.kill)
        overdue.start()
        assert process.stdout is not None
        with process:
            line = process.stdout.readline()
            process.kill()
        overdue.cancel()
    assert re.fullmatch(r"\S+Z smoke_alarm start 0\.9\n", line)


# -------------------------------------------------------------------------------- what it claims


def test_front_end_is_as_described() -> None:
    front_end = FrontEnd()
    text = README.partition("**Front end**")[2].partition("**Bundle**")[0]
    for words in (
        f"{front_end.sample_rate_hz // 1000} kHz mono",
        f"{1000 * front_end.window_length // front_end.sample_rate_hz} ms periodic Hamming window",
        f"every {1000 * front_end.hop_length // front_end.sample_rate_hz} ms",
        f"{front_end.fft_length}-point FFT",
        f"{front_end.n_mels} HTK mel bands",
        f"from {front_end.fmin_hz:.0f} to {front_end.fmax_hz:,.0f} Hz",
        f"plus {front_end.log_offset:g}",
        f"−{-front_end.clamp_low:.0f}…{front_end.clamp_high:.0f}",
        f"100 frames, {front_end.samples_of(100):,} samples",
    ):
        assert words in " ".join(text.split()), words


def test_exit_codes_are_all_told() -> None:
    text = README.partition("**Exit codes**")[2].partition("## ")[0]
    told = {int(number) for number in re.findall(r"\b(\d+) [a-zC]", text)}
    ours = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SoundpostError)
    }
    assert told - {124} == ours | {0, 9, 10, 130}


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).is_file(), target
