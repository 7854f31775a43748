"""Cameras: a file, programs, a pipeline; what is said where there is none."""

from __future__ import annotations

import shutil
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from soundpost.device.errors import InputError, MissingExtraError, UsageError
from soundpost.device.session.camera import CameraLostError, open_camera


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of 20 pictures that begins at 3 s of its own time."""
    path = tmp_path_factory.mktemp("video") / "street.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = 60 + number, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_file_comes_at_its_own_pace_from_its_first_picture(video: Path) -> None:
    camera = open_camera(f"file:{video}")
    assert camera.size == (64, 48)
    assert camera.paced
    frames = list(camera.frames())
    np.testing.assert_allclose([one.sensor_time_s for one in frames], np.arange(20) / 20)
    arrived_s = np.array([one.arrived_s for one in frames])
    # Never early; late by what the machine is busy with.
    assert (arrived_s - arrived_s[0] >= np.arange(20) / 20 - 0.001).all()


def test_a_file_that_is_taken_over_does_not_wait(video: Path) -> None:
    began_s = time.monotonic()
    camera = open_camera(str(video), paced=False)
    assert len(list(camera.frames())) == 20
    assert time.monotonic() - began_s < 0.9
    assert not camera.paced


def test_a_program_that_ends_is_a_camera_lost(recording: ModuleType) -> None:
    camera = open_camera(recording.CAMERA)
    frames = camera.frames()
    times_s = [next(frames).sensor_time_s for _ in range(5)]
    np.testing.assert_allclose(np.diff(times_s), 1 / recording.CAMERA_FPS, atol=1e-3)
    import os
    import signal

    os.kill(camera.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(CameraLostError, match=r"lost: its stream has ended \(it ended with sig"):
        list(frames)
    camera.close()


def test_closing_ends_the_program(recording: ModuleType) -> None:
    camera = open_camera(recording.CAMERA)
    next(camera.frames())
    camera.close()
    assert not Path(f"/proc/{camera.pid}/fd/1").exists()  # type: ignore[attr-defined]


def test_a_gstreamer_pipeline_is_a_camera() -> None:
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("gst-launch-1.0 is missing: sudo apt-get install gstreamer1.0-tools")
    pipeline = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=25/1 ! jpegenc"
    camera = open_camera(f"gst:{pipeline}")
    frames = camera.frames()
    some = [next(frames) for _ in range(12)]
    camera.close()
    assert camera.size == (64, 48)
    # Time stamps of Matroska are milliseconds.
    np.testing.assert_allclose(np.diff([one.sensor_time_s for one in some]), 0.04, atol=0.0011)


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("webcam", UsageError, "expected one of file:, gst:, picamera2:, pipe:, v4l2:"),
        ("v4l2:/dev/video987", CameraLostError, "/dev/video987: not found; plug it in"),
        ("/dev/video987", CameraLostError, "/dev/video987: not found; plug it in"),
        ("v4l2:/dev/null?exposure=3", UsageError, "setting 'exposure'; expected size, fps, format"),
        ("file:/nowhere.mp4", InputError, "/nowhere.mp4: no such file"),
        (f"file:{__file__}", InputError, "is no video that can be read"),
        ("pipe:", UsageError, "expected a command"),
        ("pipe:'", UsageError, "No closing quotation"),
        ("pipe:/no/such/program", CameraLostError, "cannot be started: No such file"),
        (f"pipe:{sys.executable} -c pass", CameraLostError, "writes no video that can be read"),
        ("gst: ", UsageError, "expected a pipeline"),
        ("picamera2:", MissingExtraError, "sudo apt-get install python3-picamera2"),
    ],
)
def test_what_is_no_camera_is_told(url: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        open_camera(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
