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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.published_files import (
    FRAMES_PER_SECOND,
    IMAGE_KEY,
    IMAGE_SHAPE,
    RATE_HZ,
    SAMPLES_PER_FRAME,
    block_bytes,
    block_name,
    image_bytes,
    image_name,
    picture_bytes,
    picture_name,
)
from soundpost.device.audio import to_float
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.datasets.catalogue import Problem

# What is written lies in the device, which records such sets; here are both for who trains on them.
__all__ = [
    "BROKEN_MICROPHONES",
    "FRAMES_PER_SECOND",
    "IMAGE_SHAPE",
    "N_MICROPHONES",
    "RATE_HZ",
    "SAMPLES_PER_FRAME",
    "block_bytes",
    "block_name",
    "block_samples",
    "image_bytes",
    "image_name",
    "pad_image",
    "picture_bytes",
    "picture_name",
    "read_block",
    "read_image",
    "read_picture",
]

N_MICROPHONES = 128
# Counted from 0, by the authors' converter.
BROKEN_MICROPHONES = (79, 105)


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
    image = table.get(IMAGE_KEY)
    if image is None or image.dtype.kind not in "fiu":
        found = ", ".join(name for name in table if not name.startswith("__")) or "nothing"
        raise Problem(
            str(path), f"holds {found}", f"numbers under the key {IMAGE_KEY}", "make it again"
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


def _unreadable(path: Path, reason: str) -> InputError:
    return Problem(
        str(path), f"cannot be read ({reason})", "a file of the set", "copy it again"
    ).error()
