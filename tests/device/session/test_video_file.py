"""Frames by their number, against pictures that tell theirs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from soundpost.device.errors import InputError
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import FrameTable
from soundpost.device.session.video_file import VideoEncoder, read_pictures

N_FRAMES = 90


def shade(number: int) -> int:
    return 20 + 2 * number


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"g": "25", "preset": "ultrafast", "tune": "zerolatency"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(N_FRAMES):
            picture = np.full((48, 64, 3), shade(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            # An uneven pace, as a camera's.
            frame.pts, frame.time_base = number * 33 + number % 3, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("first", "last"), [(0, N_FRAMES), (0, 1), (24, 26), (25, 27), (60, 90), (89, 90)]
)
def test_frames_are_found_by_number(
    write_session: Callable[..., Any], video: Path, first: int, last: int
) -> None:
    times = np.arange(N_FRAMES) / 30
    written = write_session(frames=FrameTable(times, 7.5 + 266.5 * np.arange(N_FRAMES), times))
    (written.folder / "video.mkv").write_bytes(video.read_bytes())
    with open_session(written.folder) as session:
        assert session.frame_table.nearest(7.5 + 266.5 * 12 + 100) == 12
        found = list(session.frames(first, last))
    assert [frame.number for frame in found] == list(range(first, last))
    for frame in found:
        assert frame.sample == pytest.approx(7.5 + 266.5 * frame.number, abs=0.05)
        assert frame.picture.shape == (48, 64, 3)
        assert abs(float(frame.picture.mean()) - shade(frame.number)) <= 1.0


@pytest.mark.parametrize("kind", ["yuvj420p", "yuvj422p", "yuv420p", "rgb24", "yuyv422"])
def test_colours_are_those_of_the_camera(tmp_path: Path, kind: str) -> None:
    """JPEGs use all values of a byte, video 16 to 235: a mixture is too dark or too bright."""
    picture = np.empty((48, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = (80, 80, 80), (200, 40, 90)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=kind)
    frame.pts, frame.time_base = 0, Fraction(1, 1000)
    if kind.startswith("yuvj"):
        encoder = av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt = 64, 48, kind
        encoder.time_base = Fraction(1, 1000)
        packets = [*encoder.encode(frame), *encoder.encode(None)]
        decoder = av.CodecContext.create("mjpeg", "r")
        (frame,) = [seen for packet in [*packets, None] for seen in decoder.decode(packet)]
    encoder = VideoEncoder(tmp_path / "video.mkv", 64, 48)
    encoder.add(frame, 0.0)
    encoder.close()
    (read,) = read_pictures(tmp_path / "video.mkv", 0, 1)
    for column, colour in ((16, (80, 80, 80)), (48, (200, 40, 90))):
        assert np.abs(read[24, column].astype(int) - colour).max() <= 4


def test_fewer_frames_than_the_table_says_is_an_error(
    write_session: Callable[..., Any], video: Path
) -> None:
    times = np.arange(N_FRAMES + 1) / 30
    written = write_session(frames=FrameTable(times, times, times))
    (written.folder / "video.mkv").write_bytes(video.read_bytes())
    with (
        open_session(written.folder) as session,
        pytest.raises(InputError, match=r"video\.mkv: holds 90 frames; expected 91"),
    ):
        list(session.frames(80))
    (written.folder / "video.mkv").write_bytes(b"no video")
    with (
        open_session(written.folder) as session,
        pytest.raises(InputError, match=r"video\.mkv: cannot be read"),
    ):
        list(session.frames())
