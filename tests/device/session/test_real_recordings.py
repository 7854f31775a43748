"""Sessions of what real microphones and a real camera have recorded, from source to export."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from soundpost.device.session.session_check import check_session
from soundpost.device.session.session_reader import open_session

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[4] / "shared" / "data")
EIGHT = DATA / "multichannel" / "cmu_arrA_8ch" / "an101-mtms-arrA.flac"
FILM = DATA / "audiovisual" / "ZYc410CE4Rg_0_10000.mp4"


def faults(folder: Path) -> list[str]:
    return [finding.text for finding in check_session(folder) if finding.state == "fault"]


@pytest.mark.data
def test_an_array_of_eight_is_recorded_checked_trimmed_and_exported(
    recording: ModuleType, tmp_path: Path
) -> None:
    """CMU's linear array: 24 bits hold its 16 exactly, all the way."""
    import h5py

    sound, rate_hz = soundfile.read(EIGHT, dtype="float32")
    hall, part = tmp_path / "hall", tmp_path / "part"
    done = recording.run("record", "--source", f"file:{EIGHT}", "--fast", "--out", hall)
    assert done.returncode == 0, done.stderr
    assert faults(hall) == []
    with open_session(hall) as session:
        assert (session.rate_hz, session.n_channels) == (rate_hz, 8)
        np.testing.assert_array_equal(session.read(0, session.n_samples), sound)
    done = recording.run("session", "trim", hall, "--from", "0.5", "--to", "2", "--out", part)
    assert done.returncode == 0, done.stderr
    assert faults(part) == []
    cut = sound[rate_hz // 2 : 2 * rate_hz]
    with open_session(part) as session:
        np.testing.assert_array_equal(session.read(0, session.n_samples), cut)
    clips = ("--clips", tmp_path / "clips", "--seconds", "0.5")
    for what in (("--acoular", tmp_path / "part.h5"), clips):
        done = recording.run("session", "export", part, *what)
        assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "part.h5") as exported:
        assert exported["time_data"].attrs["sample_freq"] == rate_hz
        np.testing.assert_array_equal(exported["time_data"][()], cut)
    with (tmp_path / "clips" / "clips.csv").open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(names) == 3
    for number, name in enumerate(names):
        clip, _ = soundfile.read(tmp_path / "clips" / name, dtype="float32")
        first = number * rate_hz // 2
        np.testing.assert_array_equal(clip, cut[first : first + rate_hz // 2, 0])


@pytest.mark.data
def test_a_real_film_is_a_camera(recording: ModuleType, tmp_path: Path) -> None:
    """Its pictures lie where its own time stamps have them, and show what they showed."""
    import av

    with av.open(str(FILM)) as container:
        frames = list(container.decode(video=0))
        times_s = np.array([float(frame.pts * frame.time_base) for frame in frames])
        shown = frames[100].to_ndarray(format="rgb24").astype(float)
    with av.open(str(FILM)) as container:
        parts = [
            frame.to_ndarray().reshape(1, -1) if frame.format.is_packed else frame.to_ndarray()
            for frame in container.decode(audio=0)
        ]
        rate_hz = container.streams.audio[0].rate
    sound = np.concatenate(parts, axis=1).mean(axis=0)
    soundfile.write(tmp_path / "film.wav", sound, rate_hz, subtype="PCM_24")
    done = recording.run(
        *("record", "--source", tmp_path / "film.wav", "--camera", f"file:{FILM}", "--fast"),
        *("--out", tmp_path / "hall"),
    )
    assert done.returncode == 0, done.stderr
    assert faults(tmp_path / "hall") == []
    with open_session(tmp_path / "hall") as session:
        inside = times_s - times_s[0] <= session.duration_s
        table = session.frame_table
        assert table.n_frames == np.count_nonzero(inside)
        expected = (times_s - times_s[0])[inside] * rate_hz
        np.testing.assert_allclose(table.samples, expected, atol=0.1)
        (kept,) = session.frames(100, 101)
        # Encoded once more, at a quality that is good enough to look at.
        height, width = kept.picture.shape[:2]
        assert np.abs(kept.picture - shown[:height, :width]).mean() < 8
