"""Checking and repairing: what is there stays to the bit, what is missing becomes a stated gap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.device.session.session_check import (
    CUT_OFF,
    MISSING,
    check_session,
    repair_session,
)
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import Gap
from soundpost.device.session.wav_segments import HEADER_BYTES, SegmentWriter, wav_header

RATE_HZ, N_CHANNELS, SEGMENT = 8_000, 2, 1_000
FRAME_BYTES = 3 * N_CHANNELS


def states(folder: Path) -> list[str]:
    return [finding.state for finding in check_session(folder)]


def test_a_whole_session_has_no_fault_and_nothing_to_repair(
    write_session: Callable[..., Any],
) -> None:
    written = write_session()
    before = {path: path.read_bytes() for path in written.folder.rglob("*") if path.is_file()}
    assert set(states(written.folder)) == {"ok"}
    assert repair_session(written.folder) == []
    assert before == {
        path: path.read_bytes() for path in written.folder.rglob("*") if path.is_file()
    }


def test_gaps_are_a_warning(write_session: Callable[..., Any]) -> None:
    findings = check_session(write_session(gaps=[Gap(10, 80, "lost")]).folder)
    assert [(one.state, one.text) for one in findings if one.area == "sound"] == [
        ("warning", "1 gaps, together 80 of 5000 samples (0.010 s): lost")
    ]


def test_a_lost_file_becomes_a_gap(write_session: Callable[..., Any]) -> None:
    written = write_session(gaps=[Gap(1_400, 300, "lost")])
    (written.folder / "audio" / "000001.wav").unlink()
    assert states(written.folder) == ["fault"]
    assert len(repair_session(written.folder)) == 1
    with open_session(written.folder) as session:
        assert session.gaps == (Gap(1_400, 300, "lost"), Gap(1_700, 1_300, MISSING))
        read = session.read(0, 5_000)
    expected = written.sound.copy()
    expected[1_500:3_000] = 0.0
    np.testing.assert_array_equal(read, expected)
    assert repair_session(written.folder) == []


def test_a_file_that_is_no_sound_is_put_aside(write_session: Callable[..., Any]) -> None:
    written = write_session()
    path = written.folder / "audio" / "000002.wav"
    path.write_bytes(b"no sound")
    repair_session(written.folder)
    assert (written.folder / "audio" / "000002.damaged").read_bytes() == b"no sound"
    with open_session(written.folder) as session:
        assert session.gaps == (Gap(3_000, 1_500, MISSING),)


def test_a_shortened_file_loses_what_it_lost(write_session: Callable[..., Any]) -> None:
    written = write_session()
    path = written.folder / "audio" / "000000.wav"
    samples, rate_hz = soundfile.read(path, dtype="int32")
    soundfile.write(path, samples[:900], rate_hz, subtype="PCM_24")
    repair_session(written.folder)
    with open_session(written.folder) as session:
        assert session.gaps == (Gap(900, 600, CUT_OFF),)
        np.testing.assert_array_equal(session.read(0, 900), written.sound[:900])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_cut_at_any_byte_all_whole_samples_stay(
    write_session: Callable[..., Any], data: st.DataObject
) -> None:
    """A recorder that was killed within a write, its last header not yet or half way told."""
    written = write_session(10, N_CHANNELS, with_array=False)
    folder = written.folder
    for path in (folder / "audio").iterdir():
        path.unlink()
    (folder / "audio").rmdir()
    n_samples = data.draw(st.integers(1, 2_500), "samples")
    steps = np.random.default_rng(n_samples).integers(-(2**23), 2**23, (n_samples, N_CHANNELS))
    sound = (steps / 2**23).astype(np.float32)
    writer = SegmentWriter(folder, RATE_HZ, N_CHANNELS, SEGMENT)
    writer.write(sound)
    writer.close()
    last = folder / "audio" / f"{(n_samples - 1) // SEGMENT:06d}.wav"
    size = data.draw(st.integers(HEADER_BYTES, last.stat().st_size), "bytes")
    told = data.draw(st.integers(0, SEGMENT), "told")
    with last.open("r+b") as file:
        file.truncate(size)
        file.write(wav_header(RATE_HZ, N_CHANNELS, told))
    text = (folder / "session.json").read_text()
    text = text.replace('"closed"', '"recording"').replace(
        '"segment_samples": 1500, "n_samples": 10',
        f'"segment_samples": {SEGMENT}, "n_samples": null',
    )
    (folder / "session.json").write_text(text.replace('{"sample": 4000', '{"sample": 9999'))
    repair_session(folder)
    left = (n_samples - 1) // SEGMENT * SEGMENT + (size - HEADER_BYTES) // FRAME_BYTES
    with open_session(folder) as session:
        assert session.n_samples == left
        np.testing.assert_array_equal(session.read(0, left), sound[:left])
        assert session.gaps == ()
    assert repair_session(folder) == []


def test_a_table_of_gaps_that_is_lost_is_written_anew(write_session: Callable[..., Any]) -> None:
    written = write_session()
    (written.folder / "gaps.csv").write_bytes(b"\x00\x00\x00")
    repair_session(written.folder)
    with open_session(written.folder) as session:
        assert session.gaps == ()
    assert (written.folder / "gaps.damaged").read_bytes() == b"\x00\x00\x00"


def test_without_session_json_there_is_no_session(write_session: Callable[..., Any]) -> None:
    written = write_session()
    (written.folder / "session.json").unlink()
    with pytest.raises(InputError, match=r"session\.json: cannot be read"):
        repair_session(written.folder)
