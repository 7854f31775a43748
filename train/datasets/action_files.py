"""Files of the acoustic-image action set: one per frame, 12 frames a second (Perez et al. 2020).

    MFCC_Image/Data_1.mat      key MFCC: directions up, across, coefficients; 36 x 48 x 12
    audio/A_000001.npy         128 microphones x 1,024 samples
    video/I_000001.jpeg        480 x 640 pixels

Files are numbered from 1. Of some images the first rows, columns or coefficients are missing: they
are padded in front with zeros, as the authors' own converter does. 12 x 1,024 samples make
12,288 Hz, where the paper says 12 kHz. Whole numbers in audio are full scale at the end of their
type, whatever the level was: the set is not calibrated.
"""

from __future__ import annotations

import io
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import to_float
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.datasets.catalogue import Problem

FRAMES_PER_SECOND = 12
SAMPLES_PER_FRAME = 1_024
RATE_HZ = FRAMES_PER_SECOND * SAMPLES_PER_FRAME
IMAGE_SHAPE = (36, 48, 12)
N_MICROPHONES = 128
# Counted from 0, by the authors' converter.
BROKEN_MICROPHONES = (79, 105)
_KEY = "MFCC"
# JPEG's quantiser, from 1 (best): at 2 a picture is off by about 1 of 255 on average.
_JPEG_SCALE = 2


def image_name(number: int) -> str:
    """File of an acoustic image, frames counted from 1."""
    return f"Data_{number}.mat"


def block_name(number: int) -> str:
    """File of a frame's sound."""
    return f"A_{number:06d}.npy"


def picture_name(number: int) -> str:
    """File of a frame's picture."""
    return f"I_{number:06d}.jpeg"


def pad_image(image: FloatArray, where: str) -> FloatArray:
    """An acoustic image of full size: what is missing in front of each axis is zero.

    image : up to (36, 48, 12) float32

    Raises ProblemError for one that is larger or has other axes.
    """
    lacks = [full - size for full, size in zip(IMAGE_SHAPE, image.shape, strict=False)]
    if image.ndim != 3 or min(lacks) < 0:
        raise Problem(
            where,
            f"an acoustic image of {' x '.join(map(str, image.shape))}",
            "at most 36 x 48 x 12",
            "make it again",
        ).error()
    return np.pad(image, [(lack, 0) for lack in lacks])


def read_image(path: Path) -> FloatArray:
    """An acoustic image, (36, 48, 12) float32; ProblemError where it is none."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        table = loadmat(io.BytesIO(path.read_bytes()))
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    # What its parser raises for files that are cut short, of another format, or of MATLAB 7.3.
    except (MatReadError, LookupError, TypeError, ValueError, NotImplementedError) as error:
        raise _unreadable(path, f"no MATLAB 5 file: {error}") from error
    except zlib.error as error:
        raise _unreadable(path, str(error)) from error
    image = table.get(_KEY)
    if image is None or image.dtype.kind not in "fiu":
        found = ", ".join(name for name in table if not name.startswith("__")) or "nothing"
        raise Problem(
            str(path), f"holds {found}", f"numbers under the key {_KEY}", "make it again"
        ).error()
    return pad_image(np.asarray(image, np.float32), str(path))


def read_block(path: Path, n_microphones: int = N_MICROPHONES) -> NDArray[Any]:
    """Sound of a frame as stored, (n_microphones, 1024); ProblemError where it is not that."""
    try:
        block = np.load(path, allow_pickle=False)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (ValueError, EOFError) as error:
        raise _unreadable(path, f"not an array: {error}") from error
    if getattr(block, "shape", None) != (n_microphones, SAMPLES_PER_FRAME):
        shape = getattr(block, "shape", ("several arrays",))
        raise Problem(
            str(path),
            f"holds {' x '.join(map(str, shape))}",
            f"{n_microphones} microphones x {SAMPLES_PER_FRAME} samples",
            "copy it again",
        ).error()
    return np.asarray(block)


def block_samples(block: NDArray[Any]) -> FloatArray:
    """(1024, n_microphones) float32, full scale ±1.0, of a stored block."""
    return np.ascontiguousarray(to_float(block).T)


def read_picture(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """A picture, (height, width, 3) uint8 RGB, scaled to size where one is given."""
    import av
    import av.error

    try:
        content = path.read_bytes()
        decoder = av.CodecContext.create("mjpeg", "r")
        frames = [*decoder.decode(av.Packet(content)), *decoder.decode(None)] if content else []
    except (OSError, av.error.FFmpegError) as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not frames:
        raise _unreadable(path, "no picture in it")
    height, width = size or (frames[0].height, frames[0].width)
    picture = frames[0].reformat(
        width=width, height=height, format="rgb24", interpolation="BILINEAR"
    )
    return np.asarray(picture.to_ndarray(), np.uint8)


def image_bytes(image: FloatArray) -> bytes:
    """A .mat file of an acoustic image of (36, 48, 12)."""
    from scipy.io import savemat

    if image.shape != IMAGE_SHAPE:
        raise ValueError(f"acoustic image of shape {image.shape}: expected {IMAGE_SHAPE}")
    file = io.BytesIO()
    savemat(file, {_KEY: np.asarray(image, np.float32)})
    # The header says when and on what machine it was made: equal images, equal bytes.
    note = b"MATLAB 5.0 MAT-file, soundpost".ljust(116)
    return note + file.getvalue()[116:]


def block_bytes(samples: FloatArray) -> bytes:
    """An .npy file of a frame's sound: int32 (n_microphones, 1024) of (1024, n_microphones)."""
    if samples.ndim != 2 or len(samples) != SAMPLES_PER_FRAME:
        raise ValueError(f"block of shape {samples.shape}: expected (1024, n_microphones)")
    steps = np.round(samples.T.astype(np.float64) * 2.0**31)
    file = io.BytesIO()
    np.save(file, np.clip(steps, -(2.0**31), 2.0**31 - 1).astype(np.int32))
    return file.getvalue()


def picture_bytes(picture: NDArray[np.uint8]) -> bytes:
    """A JPEG of (height, width, 3) uint8 RGB."""
    import av

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = picture.shape[:2]
    # Colours at full resolution: FFmpeg's halving shifts them by half a step, a tint of grey.
    encoder.pix_fmt = "yuvj444p"
    encoder.time_base = Fraction(1, FRAMES_PER_SECOND)
    encoder.qmin = encoder.qmax = _JPEG_SCALE
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _unreadable(path: Path, reason: str) -> InputError:
    return Problem(
        str(path), f"cannot be read ({reason})", "a file of the set", "copy it again"
    ).error()
