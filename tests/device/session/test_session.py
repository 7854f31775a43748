"""`soundpost session` as a program."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import Gap


def test_show_tells_and_draws(recording: ModuleType, write_session: Callable[..., Any]) -> None:
    folder = write_session(gaps=[Gap(800, 80, "lost")]).folder
    done = recording.run("session", "show", folder, "--picture", folder / "hall.svg")
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines() if line[0] != " ")
    assert lines["began"] == "2026-11-20T10:00:00.250000Z"
    assert lines["sound"] == "0.6 s, 4 channels at 8000 Hz from file:street.wav"
    assert lines["gaps"] == "1, 0.010 s"
    assert "0.100 s on for 0.010 s: lost" in done.stdout
    assert (folder / "hall.svg").read_text().startswith("<svg")
    facts = json.loads(recording.run("session", "show", folder, "--json").stdout)
    assert facts["gaps"] == [{"first_sample": 800, "length": 80, "cause": "lost"}]
    assert facts["n_samples"] == 5_000


def test_check_repairs_on_request(recording: ModuleType, write_session: Callable[..., Any]) -> None:
    folder = write_session().folder
    (folder / "audio" / "000001.wav").unlink()
    done = recording.run("session", "check", folder)
    assert done.returncode == 3
    assert f"run soundpost session check {folder} --repair" in done.stderr.replace("; ", " run ")
    done = recording.run("session", "check", folder, "--repair")
    assert (done.returncode, done.stderr) == (0, "")
    assert "repaired: gaps.csv: 1500 samples from 1500 on are missing" in done.stdout
    assert recording.run("session", "check", folder).returncode == 0


def test_trim_takes_seconds(
    recording: ModuleType, write_session: Callable[..., Any], tmp_path: Any
) -> None:
    written = write_session()
    out = tmp_path / "part"
    done = recording.run("session", "trim", written.folder, "--from", "0.1", "--out", out)
    assert (done.returncode, done.stdout) == (0, f"{out}: 0.525 s\n")
    with open_session(out) as part:
        np.testing.assert_array_equal(part.read(0, part.n_samples), written.sound[800:])


def test_export_writes_clips(
    recording: ModuleType, write_session: Callable[..., Any], tmp_path: Any
) -> None:
    folder = write_session().folder
    done = recording.run(
        "session", "export", folder, "--clips", tmp_path / "clips", "--seconds", "0.2"
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'clips'}: 3 clips\n")
    done = recording.run("session", "export", folder, "--clips", tmp_path, "--take", "0/1")
    assert done.returncode == 2
    assert done.stderr == "--take 0/1: expected location/subject/action, such as 1/2/3\n"
