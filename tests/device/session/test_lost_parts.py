"""lost.csv: a frozen example, parts of it, what a kill leaves, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from soundpost.device.errors import InputError
from soundpost.device.session.lost_parts import LostPart, LostWriter, read_lost, write_lost
from soundpost.device.session.session_reader import lost_ms, open_session

PARTS = (LostPart(48, 48, 8, 8, "lost"), LostPart(100, 900, 0, 8, "silent"))
TEXT = """\
first_sample,length,first_channel,n_channels,cause
48,48,8,8,lost
100,900,0,8,silent
"""


def test_the_table_is_as_frozen(tmp_path: Path) -> None:
    writer = LostWriter(tmp_path)
    assert read_lost(tmp_path, 1_000, 16) == ()
    for number, part in enumerate(PARTS, 1):
        writer.put(part)
        # At once: a recorder that is killed tells nothing more.
        assert read_lost(tmp_path, 1_000, 16) == PARTS[:number]
    writer.close()
    assert (tmp_path / "lost.csv").read_text() == TEXT
    assert read_lost(tmp_path, 1_000, 16) == PARTS
    (tmp_path / "lost.csv").unlink()
    write_lost(tmp_path, PARTS)
    assert (tmp_path / "lost.csv").read_text() == TEXT
    # As a kill leaves it: a line without its end is not read.
    (tmp_path / "lost.csv").write_text(TEXT + "1000,4")
    assert read_lost(tmp_path, 1_000, 16) == PARTS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("990,20,0,8,lost", "at least 1 sample within 1000"),
        ("-1,20,0,8,lost", "at least 1 sample within 1000"),
        ("0,0,0,8,lost", "at least 1 sample within 1000"),
        ("0,20,9,8,lost", "at least 1 channel within 16"),
        ("0,20,0,0,lost", "at least 1 channel within 16"),
        ("0,20,0,lost", "expected first_sample,length"),
        ("a,20,0,8,lost", "expected first_sample,length"),
    ],
)
def test_what_cannot_be_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "lost.csv").write_text(TEXT + line + "\n")
    with pytest.raises(InputError, match=rf"lost\.csv, line 4: .*{message}"):
        read_lost(tmp_path, 1_000, 16)
    (tmp_path / "lost.csv").write_text("first,length\n")
    with pytest.raises(InputError, match=r"lost\.csv, line 1: expected 'first_sample,length"):
        read_lost(tmp_path, 1_000, 16)


def test_a_session_tells_of_it_and_keeps_it_in_its_parts(
    recording: ModuleType, tmp_path: Path
) -> None:
    run = recording.run
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, 4))
    soundfile.write(tmp_path / "hall.wav", sound, 16_000, subtype="PCM_24")
    hall, bark = tmp_path / "hall", tmp_path / "bark"
    recorded = run(
        "record", "--source", tmp_path / "hall.wav", "--fast", "--keep-free", 0, "--quiet", "--out",
        hall,
    )  # fmt: skip
    assert recorded.returncode == 0, recorded.stderr
    # As a power cut may leave it: of sound that is not there, or not to be read.
    write_lost(hall, [LostPart(800, 160, 2, 2, "lost"), LostPart(15_990, 20, 0, 2, "lost")])
    assert "lost.csv, line 3" in run("session", "check", hall).stdout
    repaired = run("session", "check", hall, "--repair")
    assert "repaired: lost.csv: what lies behind the end is left out" in repaired.stdout
    with open_session(hall) as session:
        assert session.lost == (
            LostPart(800, 160, 2, 2, "lost"),
            LostPart(15_990, 10, 0, 2, "lost"),
        )
    (hall / "lost.csv").write_text("")
    assert "repaired: lost.csv: put aside" in run("session", "check", hall, "--repair").stdout
    with open_session(hall) as session:
        assert session.lost == ()
    write_lost(hall, [LostPart(800, 160, 2, 2, "lost"), LostPart(7_900, 320, 0, 2, "silent")])
    with open_session(hall) as session:
        # Half of the channels lack 160 and 320 of the samples: 240 of each on average.
        assert lost_ms(session) == pytest.approx(15.0)
    shown = run("session", "show", hall)
    assert "lost         2 times on some channels, 15.0 ms of each on average: lost.csv" in (
        shown.stdout
    )
    checked = run("session", "check", hall)
    assert "warning  channels: 2 times some of them lack sound, 15.0 ms of each" in checked.stdout
    clips = run("session", "export", hall, "--clips", tmp_path / "clips", "--seconds", 0.25)
    # The second of four, from 0.25 s on to 0.5 s, lacks sound on channel 0, and the third its end.
    assert clips.stdout == f"{tmp_path / 'clips'}: 2 clips\n"
    trimmed = run("session", "trim", hall, "--from", 0.5, "--to", 0.75, "--out", bark)
    assert trimmed.returncode == 0, trimmed.stderr
    with open_session(bark) as session:
        assert session.lost == (LostPart(0, 220, 0, 2, "silent"),)
    shutil.rmtree(bark)
    run("session", "trim", hall, "--from", 0.6, "--to", 0.75, "--out", bark)
    assert not (bark / "lost.csv").exists()
