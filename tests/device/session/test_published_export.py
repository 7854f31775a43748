"""A session in the published layout, read back by the folder that trains on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.geometry import ImageGrid
from soundpost.device.array.geometry_files import read_array, write_array
from soundpost.device.errors import InputError
from soundpost.device.session.published_export import export_published
from soundpost.device.session.session_json import read_description, write_description
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import FrameTable, Gap

RATE_HZ = 16_000


def quietly(_n_samples: int) -> None:
    pass


@pytest.fixture
def hall(write_session: Callable[..., Any]) -> Path:
    """1.2 s of 8 microphones at 16 kHz below 5 kHz, and 36 pictures, each of its own shade."""
    from soundpost.device.session.video_file import VideoEncoder

    written = write_session(
        19_200, 8, segment_samples=RATE_HZ, frames=FrameTable(*np.zeros((3, 0)))
    )
    rng = np.random.default_rng(8)
    sound = soxr.resample(0.1 * rng.standard_normal((12_000, 8)), 10_000, RATE_HZ)
    for number, part in enumerate((sound[:RATE_HZ], sound[RATE_HZ:])):
        path = written.folder / "audio" / f"{number:06d}.wav"
        soundfile.write(path, part, RATE_HZ, subtype="PCM_24")
    description = read_description(written.folder)
    write_description(written.folder, replace(description, rate_hz=RATE_HZ))
    times = np.arange(36) / 30
    rows = [f"{n},{time_s},{RATE_HZ * time_s:.1f},{time_s}\n" for n, time_s in enumerate(times)]
    header = "frame,sensor_time_s,sample,arrived_s\n"
    (written.folder / "video.csv").write_text(header + "".join(rows))
    import av

    encoder = VideoEncoder(written.folder / "video.mkv", 64, 48)
    for number, time_s in enumerate(times):
        picture = np.full((48, 64, 3), 6 * number + 20, np.uint8)
        encoder.add(av.VideoFrame.from_ndarray(picture, format="rgb24"), time_s)
    encoder.close()
    return written.folder


def test_the_train_folder_reads_what_was_recorded(hall: Path, tmp_path: Path) -> None:
    import av

    from soundpost.train.datasets.acoustic_actions import read_actions

    assert av
    with open_session(hall) as session:
        path, n_frames = export_published(session, tmp_path / "set", (2, 3, 4), quietly)
        samples = session.read(0, session.n_samples)
        array = session.array
    assert path == tmp_path / "set" / "Location_02" / "Subject_03" / "Action_04"
    assert n_frames == 14
    actions, problems = read_actions(tmp_path / "set")
    assert problems == ()
    (recording,) = actions.recordings
    assert (recording.location, recording.subject, recording.action) == (2, 3, 4)
    assert recording.n_frames == 14
    # soxr at once is the oracle of soxr block by block.
    expected = soxr.resample(samples, RATE_HZ, 12_288, quality="HQ")[: 14 * 1_024]
    sound = recording.load_audio(settings=actions.settings)
    np.testing.assert_allclose(sound, expected, atol=2e-6)
    assert array is not None
    images = recording.load_images()
    # The session's air has 21.5 degrees.
    settings = ImageSettings(temperature_c=21.5)
    made = AcousticImager(array.geometry, settings=settings).mfcc(cut_snapshots(sound))
    np.testing.assert_allclose(images, made, rtol=1e-3, atol=1e-3)
    shades = recording.load_pictures()[:, 24, 32, 0].astype(float)
    nearest = np.round((np.arange(14) + 0.5) / 12 * 30)
    # The middle of a frame may lie half way between two pictures.
    np.testing.assert_allclose(shades, 6 * nearest + 20, atol=6 + 3)


def test_a_recording_is_not_written_over(hall: Path, tmp_path: Path) -> None:
    import av

    assert av
    with open_session(hall) as session:
        export_published(session, tmp_path, (1, 1, 1), quietly)
        with pytest.raises(InputError, match="Action_01: is there already"):
            export_published(session, tmp_path, (1, 1, 1), quietly)
        export_published(session, tmp_path, (1, 1, 2), quietly)


def test_what_makes_no_published_images_is_told(
    write_session: Callable[..., Any], tmp_path: Path
) -> None:
    def said(folder: Path) -> str:
        with open_session(folder) as session, pytest.raises(InputError) as caught:
            export_published(session, tmp_path / "set", (1, 1, 1), quietly)
        assert not (tmp_path / "set").exists()
        return str(caught.value)

    assert "has no array.json" in said(write_session(with_array=False).folder)
    assert "no sound from 0.013 s on" in said(write_session(gaps=[Gap(100, 9, "lost")]).folder)
    small = write_session().folder
    array = read_array(small / "array.json")
    write_array(small / "array.json", replace(array, image=ImageGrid(18, 24)))
    assert "18 x 24 pixels; expected 36 x 48" in said(small)
