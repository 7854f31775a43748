"""Files of the published acoustic-image set, as they are written: one per frame, 12 a second.

    MFCC_Image/Data_1.mat      key MFCC: directions up, across, coefficients; 36 x 48 x 12
    audio/A_000001.npy         microphones x 1,024 samples, int32
    video/I_000001.jpeg

Perez et al. 2020. Files are numbered from 1. 12 x 1,024 samples make 12,288 Hz, where the paper
says 12 kHz. train/datasets/action_files.py reads them.
"""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import FloatArray

FRAMES_PER_SECOND = 12
SAMPLES_PER_FRAME = 1_024
RATE_HZ = FRAMES_PER_SECOND * SAMPLES_PER_FRAME
IMAGE_SHAPE = (36, 48, 12)
# Key of the image in its file.
IMAGE_KEY = "MFCC"
# A set of one's own says in it what its actions are called and how many microphones it has.
SETTINGS_FILE = "actions.json"
SETTINGS_SCHEMA = "soundpost.actions/1"
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


def image_bytes(image: FloatArray) -> bytes:
    """A .mat file of an acoustic image of (36, 48, 12)."""
    from scipy.io import savemat

    if image.shape != IMAGE_SHAPE:
        raise ValueError(f"acoustic image of shape {image.shape}: expected {IMAGE_SHAPE}")
    file = io.BytesIO()
    savemat(file, {IMAGE_KEY: np.asarray(image, np.float32)})
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
