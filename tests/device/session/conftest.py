"""Sessions written by other means than the recorder: soundfile, csv text, PyAV."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription, write_array
from soundpost.device.session.session_json import (
    ClockAnchor,
    SessionDescription,
    VideoDescription,
    write_description,
)
from soundpost.device.session.session_reader import segment_path
from soundpost.device.session.session_tables import (
    FrameTable,
    Gap,
    write_frames,
    write_gaps,
)

RATE_HZ = 8_000
RECORDING = Path(__file__).with_name("recording.py")
BEGAN = datetime(2026, 11, 20, 10, 0, 0, 250_000, timezone.utc)
ID = "0192f0c4-7a11-7c33-8d44-5566778899aa"


@dataclass(frozen=True)
class Written:
    """sound : (n_samples, n_channels) float32, as it is to be read, gaps as zeros."""

    folder: Path
    sound: NDArray[np.float32]
    description: SessionDescription


def noise(n_samples: int, n_channels: int, seed: int = 1) -> NDArray[np.float32]:
    """Sound that 24 bits hold exactly."""
    steps = np.random.default_rng(seed).integers(-(2**23), 2**23, (n_samples, n_channels))
    return (steps / 2**23).astype(np.float32)


@pytest.fixture(scope="session")
def recording() -> ModuleType:
    """Programs that record: pytest's importlib mode has no path to a module that is no test."""
    specification = spec_from_file_location("recording", RECORDING)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def write_session(tmp_path: Path) -> Callable[..., Written]:
    """Writes a session into a folder of its own."""

    def write(
        n_samples: int = 5_000,
        n_channels: int = 4,
        *,
        segment_samples: int = 1_500,
        gaps: Sequence[Gap] = (),
        frames: FrameTable | None = None,
        with_array: bool = True,
        calibration: bytes | None = None,
        seed: int = 1,
    ) -> Written:
        folder = Path(tempfile.mkdtemp(prefix="session-", dir=tmp_path))
        (folder / "audio").mkdir()
        sound = noise(n_samples, n_channels, seed)
        for gap in gaps:
            sound[gap.first_sample : gap.first_sample + gap.length] = 0.0
        for first in range(0, n_samples, segment_samples):
            part = sound[first : first + segment_samples]
            steps = np.round(part.astype(np.float64) * 2**31).clip(-(2**31), 2**31 - 1)
            path = segment_path(folder, first // segment_samples)
            soundfile.write(path, steps.astype(np.int32), RATE_HZ, subtype="PCM_24")
        array_sha256 = None
        if with_array:
            array = ArrayDescription(vogel_spiral(n_channels, 0.2))
            write_array(folder / "array.json", array)
            array_sha256 = array.geometry.hash()
        description = SessionDescription(
            id=ID,
            device="porch-pi",
            created=BEGAN,
            source="file:street.wav",
            rate_hz=RATE_HZ,
            n_channels=n_channels,
            segment_samples=segment_samples,
            array_sha256=array_sha256,
            clock=(
                ClockAnchor(0, 100.0, BEGAN),
                ClockAnchor(4_000, 100.5001, BEGAN + timedelta(seconds=0.5001)),
            ),
            time_synced=True,
            temperature_c=21.5,
            notes="two people talk in the hall",
        ).closed(n_samples, "asked to stop")
        if frames is not None:
            video = VideoDescription("file:camera.mkv", 64, 48, "h264")
            description = replace(description, video=video)
            write_frames(folder, frames)
        if calibration is not None:
            (folder / "calibration.json").write_bytes(calibration)
            sha256 = hashlib.sha256(calibration).hexdigest()
            description = replace(description, calibration_sha256=sha256)
        write_gaps(folder, gaps)
        write_description(folder, description)
        return Written(folder, sound, description)

    return write


# ------------------------------------------------------------- sound from a place, and its picture

ARRAY_RATE_HZ = 16_000
PICTURE = (96, 64)


@pytest.fixture
def write_scene_session(tmp_path: Path) -> Callable[..., Path]:
    """Writes a session in which noise comes from one pixel after the other, as plane waves.

    24 microphones at 16 kHz; a camera with a white square where it comes from.
    """

    def write(
        pixels: Sequence[int] = (200, 1_500),
        seconds: float = 1.0,
        *,
        gaps: Sequence[Gap] = (),
        video: bool = True,
        self_noise: float = 0.0,
    ) -> Path:
        import scipy.fft

        folder = Path(tempfile.mkdtemp(prefix="scene-", dir=tmp_path))
        (folder / "audio").mkdir()
        array, grid, rng = vogel_spiral(24), ImageGrid(), np.random.default_rng(3)
        n_each = round(seconds * ARRAY_RATE_HZ)
        parts = []
        for pixel in pixels:
            lead_s = array.positions_m @ grid.directions()[pixel] / 343.2
            spectrum = scipy.fft.rfft(rng.normal(0, 0.05, n_each))
            turns = np.outer(lead_s, scipy.fft.rfftfreq(n_each, 1 / ARRAY_RATE_HZ))
            parts.append(scipy.fft.irfft(spectrum * np.exp(2j * np.pi * turns), n_each).T)
        sound = np.concatenate(parts)
        sound += rng.normal(0, self_noise, sound.shape)
        soundfile.write(segment_path(folder, 0), sound, ARRAY_RATE_HZ, subtype="PCM_24")
        write_array(folder / "array.json", ArrayDescription(array))
        description = SessionDescription(
            id=ID,
            device="porch-pi",
            created=BEGAN,
            source="file:street.wav",
            rate_hz=ARRAY_RATE_HZ,
            n_channels=24,
            segment_samples=60 * ARRAY_RATE_HZ,
            array_sha256=array.hash(),
            temperature_c=20.0,
        ).closed(len(sound), "asked to stop")
        if video:
            _write_camera(folder, [grid.directions()[pixel] for pixel in pixels], seconds)
            camera = VideoDescription("file:camera.mkv", *PICTURE, "ffv1")
            description = replace(description, video=camera)
        write_gaps(folder, gaps)
        write_description(folder, description)
        return folder

    return write


def _write_camera(folder: Path, directions: Sequence[NDArray[np.float64]], seconds: float) -> None:
    import av

    width, height = PICTURE
    n_each = round(seconds * 10)
    with av.open(str(folder / "video.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        for x, y, z in directions:
            picture = np.full((height, width, 3), 40, np.uint8)
            column = round((x / z + 1) / 2 * width - 0.5)
            row = round((1 - y / z / np.tan(np.radians(32))) / 2 * height - 0.5)
            picture[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 255
            for _ in range(n_each):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    taken_s = np.arange(n_each * len(directions)) / 10
    write_frames(folder, FrameTable(taken_s, taken_s * ARRAY_RATE_HZ, taken_s))
