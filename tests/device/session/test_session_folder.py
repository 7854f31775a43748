"""A start that came to nothing does not stand in the way; whatever else is in a folder does."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from soundpost.device.errors import InputError
from soundpost.device.session.session_check import repair_session
from soundpost.device.session.session_folder import SessionFolder, is_unstarted
from soundpost.device.session.session_lock import session_lock
from soundpost.device.session.session_reader import open_session

RATE_HZ = 16_000


def test_after_a_kill_at_any_instant_the_folder_serves_again_or_holds_sound(
    recording: ModuleType, tmp_path: Path
) -> None:
    sound = recording.write_noise(tmp_path / "noise.wav", 1.0, 2, RATE_HZ)
    outcomes, _ = recording.at_instants(
        *(signal.SIGKILL, 25, tmp_path, "--source", tmp_path / "noise.wav", "--fast"),
        *("--out", "FOLDER", "--quiet"),
    )
    assert outcomes.pop(0) == ("whole", 0)
    again = 0
    for name, code in outcomes:
        folder = tmp_path / name
        assert code == -signal.SIGKILL
        if not folder.exists():
            continue
        if not any(folder.iterdir()) or is_unstarted(folder):
            again += 1
            SessionFolder(folder).discard()
            # The folder was there, and stays.
            assert list(folder.iterdir()) == []
            continue
        repair_session(folder)
        with open_session(folder) as session:
            assert session.n_samples > 0
            np.testing.assert_array_equal(
                session.read(0, session.n_samples), sound[: session.n_samples]
            )
    assert again > 0


def unstarted(folder: Path) -> Path:
    (folder / "audio").mkdir(parents=True)
    for name in (".reserve", "session.json", "array.json", "gaps.csv", "video.mkv", "video.csv"):
        (folder / name).write_text("some")
    (folder / ".session.json.k3x_9.part").write_text("half")
    (folder / "audio" / "000000.wav").write_bytes(bytes(68))
    return folder


def test_what_is_not_of_an_unstarted_session_is_left_alone(tmp_path: Path) -> None:
    """One change each time, to what may be cleared away."""
    folder = unstarted(tmp_path / "clear")
    SessionFolder(folder).close()
    assert [path.name for path in folder.iterdir()] == [".reserve"]

    def ended(folder: Path) -> None:
        (folder / ".reserve").unlink()

    def with_sound(folder: Path) -> None:
        (folder / "audio" / "000000.wav").write_bytes(bytes(69))

    def with_a_second_segment(folder: Path) -> None:
        (folder / "audio" / "000001.wav").write_bytes(b"")

    def with_a_diary(folder: Path) -> None:
        (folder / "diary.txt").write_text("dear diary")

    for number, change in enumerate((ended, with_sound, with_a_second_segment, with_a_diary)):
        folder = unstarted(tmp_path / str(number))
        change(folder)
        before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
        with pytest.raises(InputError, match="is not empty; give the folder of a new session"):
            SessionFolder(folder)
        assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


def test_an_unstarted_session_that_somebody_records_is_left_alone(tmp_path: Path) -> None:
    folder = unstarted(tmp_path / "s")
    with session_lock(folder), pytest.raises(InputError, match="is being recorded"):
        SessionFolder(folder)
    assert (folder / "session.json").exists()


def test_discarding_takes_the_folder_only_where_it_was_made(tmp_path: Path) -> None:
    SessionFolder(tmp_path / "made").discard()
    assert not (tmp_path / "made").exists()
    (tmp_path / "there").mkdir()
    SessionFolder(tmp_path / "there").discard()
    assert list((tmp_path / "there").iterdir()) == []
    # What somebody has put beside it meanwhile is not ours to take.
    held = SessionFolder(tmp_path / "made")
    (tmp_path / "made" / "notes.txt").write_text("mine")
    held.discard()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["notes.txt"]
    shutil.rmtree(tmp_path / "made")
