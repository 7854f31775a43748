"""Where pictures lie among the samples, for cameras whose clocks are their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.device.session.camera import CameraFrame
from soundpost.device.session.clock_line import ClockLine
from soundpost.device.session.session_tables import read_frames
from soundpost.device.session.video_file import VideoEncoder
from soundpost.device.session.video_writer import VideoWriter

RATE_HZ = 48_000
SOUND_PPM, FPS, N_FRAMES = 80.0, 15, 600


class Stamped:
    """A camera that says only how it stamps."""

    name = "stamped"
    paced = True
    size = (32, 32)
    settling_s = 0.0

    def __init__(self, monotonic: bool) -> None:
        self.monotonic = monotonic

    def frames(self) -> Iterator[CameraFrame]:
        yield from ()

    def close(self) -> None:
        pass


def picture() -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
    frame.time_base = Fraction(1, 1000)
    return frame


def sound_from(began_s: float, seconds: float, rng: np.random.Generator) -> ClockLine:
    """Blocks of 20 ms from a crystal that is slow, up to 10 ms late."""
    clock = ClockLine()
    for own_s in np.arange(1, round(seconds * 50)) / 50:
        truth_s = began_s + own_s * (1 + 1e-6 * SOUND_PPM)
        clock.add(float(own_s), truth_s + rng.uniform(0, 0.01))
    return clock


def samples_at(truth_s: NDArray[np.float64], began_s: float) -> NDArray[np.float64]:
    places: NDArray[np.float64] = (truth_s - began_s) / (1 + 1e-6 * SOUND_PPM) * RATE_HZ
    return places


@pytest.mark.parametrize(
    ("monotonic", "parts_per_million", "offset_s"),
    [(True, 0.0, 0.0), (True, 0.0, 1.8e9), (False, 50.0, -900.0), (False, -120.0, 0.0)],
)
def test_pictures_lie_where_they_were_taken(
    tmp_path: Path, monotonic: bool, parts_per_million: float, offset_s: float
) -> None:
    """By the machine's clock, by that of the wall though it says otherwise, and by its own."""
    rng = np.random.default_rng(4)
    began_s = time.monotonic() + 10.0
    sound = sound_from(began_s, 42.0, rng)
    writer = VideoWriter(tmp_path, 32, 32, sound, RATE_HZ)
    writer.camera(Stamped(monotonic))
    taken_s = began_s + 1.0 + np.arange(N_FRAMES) / FPS
    stamps_s = offset_s + taken_s * (1 + 1e-6 * parts_per_million)
    arrived_s = taken_s + rng.uniform(0, 0.01, N_FRAMES)
    shown = picture()
    for stamp_s, arrival_s in zip(stamps_s.tolist(), arrived_s.tolist(), strict=True):
        writer.put(CameraFrame(shown, stamp_s, arrival_s), wait=True)
    writer.finish()
    assert (writer.written, writer.dropped, writer.error) == (N_FRAMES, 0, None)
    table = read_frames(tmp_path)
    error_s = (table.samples - samples_at(taken_s, began_s)) / RATE_HZ
    assert np.abs(error_s).max() < 0.001


def test_a_camera_that_comes_back_has_a_clock_of_its_own(tmp_path: Path) -> None:
    """It counts from nothing again, and its crystal is another."""
    rng = np.random.default_rng(5)
    began_s = time.monotonic() + 10.0
    writer = VideoWriter(tmp_path, 32, 32, sound_from(began_s, 42.0, rng), RATE_HZ)
    shown = picture()
    taken_s = np.concatenate(
        [began_s + 1 + np.arange(300) / 30, began_s + 20 + np.arange(300) / 30]
    )
    for half, ppm in ((slice(0, 300), 60.0), (slice(300, 600), -90.0)):
        writer.camera(Stamped(False))
        first_s = float(taken_s[half][0])
        for truth_s in taken_s[half].tolist():
            stamp_s = (truth_s - first_s) * (1 + 1e-6 * ppm)
            arrival_s = truth_s + rng.uniform(0, 0.01)
            writer.put(CameraFrame(shown, stamp_s, arrival_s), wait=True)
    writer.finish()
    error_s = (read_frames(tmp_path).samples - samples_at(taken_s, began_s)) / RATE_HZ
    assert np.abs(error_s).max() < 0.001


def test_pictures_from_before_and_after_the_sound_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    began_s = time.monotonic() + 10.0
    writer = VideoWriter(tmp_path, 32, 32, sound_from(began_s, 12.0, rng), RATE_HZ)
    writer.camera(Stamped(True))
    shown = picture()
    taken_s = began_s - 1.01 + np.arange(300) / 30
    for truth_s in taken_s.tolist():
        writer.put(CameraFrame(shown, truth_s, truth_s), wait=True)
    writer.end_sample = 5 * RATE_HZ
    writer.finish()
    table = read_frames(tmp_path)
    expected = samples_at(taken_s, began_s)
    expected = expected[(expected >= 0) & (expected <= 5 * RATE_HZ)]
    assert table.n_frames == len(expected)
    np.testing.assert_allclose(table.samples, expected, atol=0.001 * RATE_HZ)


@pytest.mark.parametrize("error", [ValueError("no such layout"), OSError(28, "No space left")])
def test_whoever_waits_is_told_of_any_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    rng = np.random.default_rng(6)
    began_s = time.monotonic() + 10.0
    writer = VideoWriter(tmp_path, 32, 32, sound_from(began_s, 12.0, rng), RATE_HZ)
    writer.camera(Stamped(True))
    add = VideoEncoder.add

    def failing(encoder: VideoEncoder, shown: object, time_s: float) -> None:
        if time_s > 1.0:
            raise error
        add(encoder, shown, time_s)

    monkeypatch.setattr(VideoEncoder, "add", failing)
    shown = picture()
    for number in range(200):
        truth_s = began_s + number / 30
        writer.put(CameraFrame(shown, truth_s, truth_s), wait=True)
    writer.finish()
    assert writer.error is error
    assert 25 <= writer.written <= 35
    # The first may lie a little before the sound.
    assert writer.written + writer.dropped in (199, 200)
    assert read_frames(tmp_path).n_frames == writer.written
