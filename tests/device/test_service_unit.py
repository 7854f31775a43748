"""The unit file, judged by systemd's own programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from soundpost.device.service_unit import MARK, UNIT, unit_text

# Of 100; what is left is named in the unit, beside what a sensor is for: the network and the sound.
MOST_EXPOSURE = 20


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: sudo apt-get install systemd")
    return program


def version(program: str) -> int:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"systemd (\d+)", told)
    assert found is not None
    return int(found[1])


def written(folder: Path, text: str) -> Path:
    path = folder / UNIT
    # What it starts is not installed here, and systemd wants to see a program.
    path.write_text(text.replace("/opt/soundpost/current/bin/python", "/bin/true"), "utf-8")
    return path


def test_systemd_finds_nothing_wrong(analyze: str, tmp_path: Path) -> None:
    path = written(tmp_path, unit_text(version(analyze)))
    told = subprocess.run(
        [analyze, "verify", path], capture_output=True, text=True, check=False, timeout=60
    )
    ours = [line for line in (told.stdout + told.stderr).splitlines() if "soundpost" in line]
    assert (told.returncode, ours) == (0, [])


def test_an_older_systemd_is_given_only_what_it_knows(analyze: str, tmp_path: Path) -> None:
    """Its judge is the one here, where that is older; else what was added to the newer."""
    old, new = unit_text(252).splitlines(), unit_text(254).splitlines()
    assert [line for line in new if line not in old] == [
        "RestartSteps=6",
        "RestartMaxDelaySec=5min",
    ]
    assert [line for line in old if line not in new] == []
    assert unit_text(None) == unit_text(252)
    assert "RestartSteps" not in unit_text(version(analyze)) or version(analyze) >= 254


def test_it_may_do_little_else(analyze: str, tmp_path: Path) -> None:
    path = written(tmp_path, unit_text(version(analyze)))
    told = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_it_needs_no_network_and_comes_back() -> None:
    text = unit_text(254)
    assert text.startswith(MARK)
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    assert not set(parser["Unit"]) & {"Wants", "Requires", "BindsTo", "Requisite"}
    assert "online" not in parser["Unit"]["After"]
    service = parser["Service"]
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    # The exit codes of README: a wrong setting, a bundle that cannot be used.
    assert service["RestartPreventExitStatus"] == "2 3"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"
