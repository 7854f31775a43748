"""`soundpost export`: one line on a mistake, and nothing heavy for `--help`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def soundpost(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "soundpost.device", "export", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_shows_examples() -> None:
    done = soundpost("--help")
    assert done.returncode == 0
    assert "soundpost export runs/first --out first.bundle" in done.stdout


def test_a_folder_that_is_no_run_is_named_in_one_line(tmp_path: Path) -> None:
    done = soundpost(str(tmp_path), "--out", str(tmp_path / "x.bundle"))
    assert done.returncode == 3
    assert str(tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1


def test_notes_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_bytes(b"\xff")
    done = soundpost(str(tmp_path), "--out", str(tmp_path / "x.bundle"), "--notes", str(notes))
    assert done.returncode == 2
    assert f"--notes {notes}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_listing_the_command_imports_no_converter() -> None:
    program = (
        "import sys, soundpost.export.command\n"
        "assert not {'torch', 'tensorflow', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
