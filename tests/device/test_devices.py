"""`soundpost devices`, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from soundpost.device.microphone_source import open_microphone

MAIN = "import sys; from soundpost.device.cli import main; sys.exit(main())"


def soundpost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, "devices", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_inputs_are_listed_with_the_default_marked(pulseaudio: Any) -> None:
    table = soundpost(**pulseaudio.environment)
    assert table.returncode == 0
    rows = table.stdout.splitlines()
    assert rows[0].split() == ["NAME", "CHANNELS", "DEFAULT", "RATE", "OTHER", "NAMES"]
    assert ["pulse", "32", "44100", "Hz", "-"] in [row.split() for row in rows]
    assert [row.split()[1] for row in rows if row.startswith("*")] == ["default"]


def test_json_says_the_same_and_its_names_open(pulseaudio: Any) -> None:
    answer = soundpost("--json", **pulseaudio.environment)
    assert answer.returncode == 0
    listing = json.loads(answer.stdout)
    assert listing["schema"] == "soundpost.devices/1"
    pulse = next(item for item in listing["inputs"] if item["name"] == "pulse")
    names = {"name": "pulse", "other_names": [], "portaudio_name": "pulse", "alsa_card": None}
    state = {"portaudio_index": 0, "is_default": False, "user": None}
    assert pulse == {**names, **state, "n_channels": 32, "default_rate_hz": 44_100}
    for item in listing["inputs"]:
        with open_microphone(f"mic:{item['name']}") as source:
            assert source.rate_hz == item["default_rate_hz"]
            assert len(next(source.blocks()).samples)


def test_without_any_input_it_says_what_to_do(portaudio: Any, tmp_path: Path) -> None:
    # An ALSA that knows one card, which is not there (PortAudio aborts where it knows none).
    (tmp_path / "asound.conf").write_text("pcm.absent { type hw card 31 }\n")
    nowhere = {
        "ALSA_CONFIG_PATH": str(tmp_path / "asound.conf"),
        "PULSE_SERVER": f"unix:{tmp_path}/none",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    table = soundpost(**nowhere)
    assert table.returncode == 0
    assert table.stdout.startswith("no sound inputs found: plug in a microphone")
    assert len(table.stdout.splitlines()) == 1
    assert json.loads(soundpost("--json", **nowhere).stdout)["inputs"] == []


def test_without_portaudio_it_names_the_package(tmp_path: Path) -> None:
    """A start-up file hides the library from the loader's search, as where it is not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes.util\nctypes.util.find_library = lambda name: None\n"
    )
    answer = soundpost(PYTHONPATH=str(tmp_path))
    assert answer.returncode == 5
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    assert "sudo apt-get install libportaudio2" in answer.stderr


def test_help_has_examples() -> None:
    answer = soundpost("--help")
    assert answer.returncode == 0
    assert "soundpost devices --json" in answer.stdout
    assert "exit codes: 0 listed" in answer.stdout
