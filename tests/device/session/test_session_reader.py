"""Reading a session: one stretch of sound whatever the files are, and every lack told in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import soundpost.device
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.errors import InputError
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import Gap


def test_this_tree_is_tested() -> None:
    assert Path(soundpost.device.__file__).resolve() == (
        Path(__file__).resolve().parents[3] / "device" / "__init__.py"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_any_cut_reads_what_one_array_holds(
    write_session: Callable[..., Any], data: st.DataObject
) -> None:
    n_samples = data.draw(st.integers(1, 4_000), "n_samples")
    edges = sorted(data.draw(st.sets(st.integers(0, n_samples), max_size=6), "edges"))
    gaps = [
        Gap(first, last - first, "lost")
        for first, last in zip(edges[::2], edges[1::2], strict=False)
    ]
    written = write_session(
        n_samples,
        3,
        segment_samples=data.draw(st.integers(50, 2_000), "segment"),
        gaps=gaps,
        seed=data.draw(st.integers(0, 99), "seed"),
    )
    with open_session(written.folder) as session:
        assert (session.n_samples, session.n_channels) == written.sound.shape
        assert session.gaps == tuple(gaps)
        for _ in range(5):
            first = data.draw(st.integers(0, n_samples), "first")
            length = data.draw(st.integers(0, n_samples - first), "length")
            read = session.read(first, length)
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, written.sound[first : first + length])
        block = data.draw(st.integers(1, 2 * n_samples), "block")
        np.testing.assert_array_equal(
            np.concatenate(list(session.blocks(max(block, n_samples // 20)))), written.sound
        )


def test_what_session_json_says_is_at_hand(write_session: Callable[..., Any]) -> None:
    written = write_session(calibration=b"{}")
    with open_session(written.folder) as session:
        assert session.device == "porch-pi"
        assert (session.rate_hz, session.temperature_c) == (8_000, 21.5)
        assert session.notes == "two people talk in the hall"
        assert session.array is not None
        assert session.array.geometry.n_mics == 4
        assert session.calibration == written.folder / "calibration.json"
        assert session.frame_table.n_frames == 0
        assert list(session.frames()) == []


def test_utc_lies_on_the_line_through_the_anchors(write_session: Callable[..., Any]) -> None:
    """4,000 samples took 0.5001 s: a crystal 200 ppm slow. Beyond the last, the nominal rate."""
    written = write_session()
    began = written.description.clock[0].utc
    with open_session(written.folder) as session:
        assert session.utc(2_000) - began == timedelta(seconds=0.25005)
        assert session.utc(4_800) - began == timedelta(seconds=0.6001)


def test_a_missing_segment_is_an_error_unless_a_gap_states_it(
    write_session: Callable[..., Any],
) -> None:
    written = write_session()
    lost = written.folder / "audio" / "000001.wav"
    lost.unlink()
    with pytest.raises(InputError, match=r"000001\.wav: is missing: expected samples 1500 to 3000"):
        open_session(written.folder)
    (written.folder / "gaps.csv").write_text("first_sample,length,cause\n1500,1500,file lost\n")
    with open_session(written.folder) as session:
        read = session.read(0, session.n_samples)
    assert not read[1_500:3_000].any()
    np.testing.assert_array_equal(read[:1_500], written.sound[:1_500])
    np.testing.assert_array_equal(read[3_000:], written.sound[3_000:])


@pytest.mark.parametrize("number", [1, 3])
def test_a_short_segment_is_an_error(write_session: Callable[..., Any], number: int) -> None:
    written = write_session()
    path = written.folder / "audio" / f"{number:06d}.wav"
    samples, rate_hz = soundfile.read(path, dtype="int32")
    soundfile.write(path, samples[:-1], rate_hz, subtype="PCM_24")
    expected = f"truncated: holds {len(samples) - 1} of {len(samples)} samples"
    with pytest.raises(InputError, match=expected):
        open_session(written.folder)


def test_a_segment_of_another_session_is_an_error(write_session: Callable[..., Any]) -> None:
    written = write_session()
    path = written.folder / "audio" / "000002.wav"
    soundfile.write(path, np.zeros((1_500, 3)), 8_000, subtype="PCM_24")
    with pytest.raises(InputError, match=r"000002\.wav: 3 channels at 8000 Hz; expected 4"):
        open_session(written.folder)
    path.write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"000002\.wav: cannot be read"):
        open_session(written.folder)


def test_another_array_or_calibration_is_refused(write_session: Callable[..., Any]) -> None:
    written = write_session(calibration=b"{}")
    (written.folder / "calibration.json").write_bytes(b"{ }")
    with pytest.raises(InputError, match=r"calibration\.json: has the hash .*; expected 44136fa3"):
        open_session(written.folder)
    array = json.loads((written.folder / "array.json").read_text())
    array["positions_m"][0][0] += 0.001
    (written.folder / "array.json").write_text(json.dumps(array))
    with pytest.raises(InputError, match=r"array\.json: its positions have the hash"):
        open_session(written.folder)


def test_an_unfinished_session_is_refused(write_session: Callable[..., Any]) -> None:
    written = write_session()
    text = (written.folder / "session.json").read_text()
    text = text.replace('"closed"', '"recording"').replace('"n_samples": 5000', '"n_samples": null')
    (written.folder / "session.json").write_text(text)
    with pytest.raises(InputError, match="is still being recorded, or was interrupted"):
        open_session(written.folder)


def test_a_folder_that_is_no_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"session\.json: cannot be read: No such file"):
        open_session(tmp_path)


def test_the_calibration_is_read_once_and_must_be_of_the_array(
    write_session: Callable[..., Any],
) -> None:
    own, other = (Calibration.of(vogel_spiral(4, of)) for of in (0.2, 0.3))
    written = write_session(calibration=own.to_json().encode())
    with open_session(written.folder) as session:
        assert session.known == own
        # Whoever asks later gets what was checked, whatever has become of the file.
        (written.folder / "calibration.json").unlink()
        assert session.known == own
    with open_session(write_session().folder) as session:
        assert session.known is None
    foreign = write_session(calibration=other.to_json().encode())
    with (
        open_session(foreign.folder) as session,
        pytest.raises(InputError, match=r"calibration\.json: belongs to array"),
    ):
        assert session.known


def test_no_sound_beyond_the_end(write_session: Callable[..., Any]) -> None:
    with open_session(write_session().folder) as session:
        with pytest.raises(InputError, match="samples 4990 to 5001 were asked for"):
            session.read(4_990, 11)
        with pytest.raises(ValueError, match="expected 0 or more"):
            session.read(-1, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: expected 'first_sample,length,cause'"),
        ("first_sample,length,cause\n5,x,lost\n", "line 2: expected first sample, length, cause"),
        ("first_sample,length,cause\n5,9,a\n8,2,b\n", "line 3: expected a gap .* from 14 on"),
        ("first_sample,length,cause\n4990,11,a\n", "reaches to sample 5001; expected at most 5000"),
    ],
)
def test_a_table_of_gaps_that_cannot_be(
    write_session: Callable[..., Any], text: str, said: str
) -> None:
    written = write_session()
    (written.folder / "gaps.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        open_session(written.folder)
