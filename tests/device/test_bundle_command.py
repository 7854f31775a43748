"""`soundpost bundle show|check`: what it prints, and the exit code and line of each refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from soundpost.device.bundle import write_bundle


@pytest.fixture(scope="module")
def path(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    student, manifest = tiny.tiny_student(), tiny.tiny_manifest()
    place: Path = tmp_path_factory.mktemp("bundles") / "tiny.bundle"
    card = "# tiny\n\nNot fit for anything.\n"
    write_bundle(place, manifest, student.model, tiny.tiny_golden(student, manifest), card)
    return place


def soundpost(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "soundpost.device", "bundle", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_show_is_for_people(path: Path) -> None:
    done = soundpost("show", path)
    assert done.returncode == 0
    assert done.stdout.startswith("tiny 1.2.0-rc.1, made 2026-11-20T10:00:01.250000Z\n")
    assert "0.115 s every 0.050 s at 16000 Hz, 10 x 64 log-mel" in done.stdout
    assert "claps: 3 clips (1 CC-BY-4.0, 2 CC0-1.0)" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if "smoke_alarm" in line]
    assert row.split() == ["smoke_alarm", "0.620", "0.400", "none", "1", "T3"]


def test_show_json_is_the_manifest_with_the_files_hash(path: Path) -> None:
    table = json.loads(soundpost("show", path, "--json").stdout)
    assert table["schema"] == "soundpost.bundle/1"
    assert table["bundle"] == str(path)
    assert len(table["bundle_sha256"]) == 64
    assert [settings["label"] for settings in table["classes"]] == table["labels"]


def test_show_card(path: Path) -> None:
    assert soundpost("show", path, "--card").stdout == "# tiny\n\nNot fit for anything.\n"


def test_check_says_what_was_checked(path: Path) -> None:
    done = soundpost("check", path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "in order. tiny 1.2.0-rc.1, 3 labels, by ai-edge-litert" in done.stdout
    table = json.loads(soundpost("check", path, "--json").stdout)
    assert table["windows"] == 3
    assert table["feature_error"] <= 0.001


def test_a_damaged_bundle_ends_with_3_and_one_line(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.bundle"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    for action in ("check", "show"):
        done = soundpost(action, damaged)
        assert done.returncode == 3
        assert done.stdout == ""
        assert done.stderr.startswith(f"{damaged}: is damaged or no bundle")
        assert done.stderr.count("\n") == 1


def test_a_missing_file_ends_with_3(tmp_path: Path) -> None:
    done = soundpost("check", tmp_path / "none.bundle")
    assert done.returncode == 3
    assert "No such file" in done.stderr


def test_wrong_options_end_with_2(path: Path) -> None:
    assert soundpost("check", path, "--runtime", "onnx").returncode == 2
    assert soundpost("weigh", path).returncode == 2
    assert "soundpost bundle check porch.bundle" in soundpost("--help").stdout
