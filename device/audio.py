"""Sound as arrays: blocks of a stream, sample formats, one channel of many, resampling, clip files.

Samples are float32 with full scale ±1.0. A stream is numbered by its sample count, so that a block
says where it belongs whatever the clock of the machine does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.gaps import Missing

if TYPE_CHECKING:
    import soundfile

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]
Channel = int | Literal["mix"]

MIN_RATE_HZ = 8_000
MAX_RATE_HZ = 192_000
# A mean over the microphones of an array is a beam that points nowhere useful and cancels sound
# from the side: above this many channels one has to be chosen.
MAX_MIX_CHANNELS = 8

# libsndfile shortens a file whose header promises more than there is without an error, and says so
# only in its log: "data : 32000 (should be 19182)". WAV writes `data`, AIFF `SSND`, AU `Data Size`,
# W64 `riff`, RF64 `Riff size`; the upper-case `RIFF` of a WAV is often wrong in sound files.
_PROMISED_LENGTH = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE
)
# A recorder that writes into a pipe cannot know the length: 2^32 - 1, or close below 2^31.
_UNKNOWN_LENGTHS = (range(0x7FFF_0000, 0x8000_0000), range(0xFFFF_0000, 0x1_0000_0000))
# Frames that a file may lack: an MP3 without a length header is counted in frames of 1152 samples
# and may lose one to the bit reservoir and one to padding.
_MISSING_FRAMES = {"MP3": 2 * 1152}


@dataclass(frozen=True, eq=False)
class AudioBlock:
    """Consecutive samples of one stream.

    samples : (n_samples, n_channels) float32, full scale ±1.0
    first_sample : count of the block's first sample in its stream, at rate_hz; it jumps over
        samples that were lost
    rate_hz : sample rate of the stream
    time_s : monotonic clock at the end of the block's last sample, where it is known
    missing : what of it never came and is zeros, in the order of samples; a source that loses all
        channels at once may as well jump
    """

    samples: FloatArray
    first_sample: int
    rate_hz: int
    time_s: float | None = None
    missing: tuple[Missing, ...] = ()


def to_float(raw: NDArray[Any], bits: int | None = None) -> FloatArray:
    """Samples of any usual format as float32, full scale ±1.0.

    Parameters
    ----------
    raw : array of any shape
        int16, int32, float32 or float64; uint8 is 8-bit sound around 128; int32 with `bits=24` is
        24-bit sound in the low three bytes, whatever the fourth holds; uint8 of shape (..., 3) with
        `bits=24` is packed little-endian 24-bit sound.
    bits : significant bits, where the type does not tell

    Returns
    -------
    float32, the same shape (packed 24-bit: without the last axis)

    Raises InputError for any other type.
    """
    kind = raw.dtype
    if kind == np.uint8 and bits == 24 and raw.ndim > 0 and raw.shape[-1] == 3:
        wide = np.zeros((*raw.shape[:-1], 4), np.uint8)
        wide[..., 1:] = raw
        return _scaled(wide.view("<i4")[..., 0], 31)
    if kind == np.uint8 and bits in (None, 8):
        return _scaled(raw.astype(np.int16) - 128, 7)
    if kind == np.int16 and bits in (None, 16):
        return _scaled(raw, 15)
    if kind == np.int32 and bits == 24:
        # The shift drops the padding byte, which some drivers leave unsigned or undefined.
        return _scaled(np.left_shift(raw, 8), 31)
    if kind == np.int32 and bits in (None, 32):
        return _scaled(raw, 31)
    if kind in (np.float32, np.float64) and bits is None:
        return np.asarray(raw, np.float32)
    raise InputError(
        f"samples of type {kind} with {bits or 'default'} bits and shape {raw.shape}: expected "
        "uint8, int16, int32, 24 bits in int32 or in packed bytes, float32 or float64"
    )


def _scaled(integers: NDArray[Any], exponent: int) -> FloatArray:
    samples: FloatArray = integers.astype(np.float32)
    samples *= np.float32(2.0**-exponent)
    return samples


def check_channel(channel: Channel, n_channels: int, where: str) -> None:
    """Refuse a channel that a stream of n_channels does not have (InputError naming `where`)."""
    if channel == "mix":
        if n_channels > MAX_MIX_CHANNELS:
            raise InputError(
                f"{where}: {n_channels} channels, and at most {MAX_MIX_CHANNELS} can be mixed: "
                f"choose one with --channel 0 to --channel {n_channels - 1}"
            )
    elif isinstance(channel, bool) or not isinstance(channel, int):
        raise InputError(f"{where}: channel {channel!r}: expected 'mix' or a number from 0")
    elif not 0 <= channel < n_channels:
        raise InputError(
            f"{where}: has no channel {channel}: choose --channel 0"
            + (f" to --channel {n_channels - 1}" if n_channels > 1 else "")
        )


def select_channel(samples: FloatArray, channel: Channel) -> FloatArray:
    """One channel, counted from 0, or with "mix" the mean of all (at most 8).

    samples : (n_samples, n_channels) float32

    Returns (n_samples,) float32. Raises InputError for a channel that is not there.
    """
    n_channels = samples.shape[1]
    check_channel(channel, n_channels, "sound")
    if channel != "mix" or n_channels == 1:
        return np.ascontiguousarray(samples[:, 0 if channel == "mix" else channel])
    mean: FloatArray = samples.mean(axis=1, dtype=np.float32)
    return mean


def check_rate(rate_hz: float, where: str) -> None:
    """Refuse a sample rate outside 8-192 kHz (InputError naming `where`)."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise InputError(
            f"{where}: sample rate {rate_hz:g} Hz: expected {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; "
            "record or convert it again at 16000 Hz or more"
        )


class StreamResampler:
    """Changes the rate of a stream; the output is the same, bit for bit, for any cut of it.

    soxr (Rob Sykes) at quality HQ: pass band to 91 % of the lower Nyquist frequency, linear phase,
    the filter's delay taken out, so that output sample m lies at m / rate_out_hz of the input's
    time. Sound is withheld until the filter and its FFT blocks have what they need: measured to
    16 kHz, at most 37 ms from 48 kHz, 40 ms from 44.1 and 22.05 kHz, 58 ms from 32 kHz, 79 ms from
    96 and 192 kHz, 115 ms from 8 kHz, and half of that on average. Equal rates pass through.

    n_channels : 1 for mono samples (n,), more for (n, n_channels)
    """

    def __init__(self, rate_in_hz: int, rate_out_hz: int, n_channels: int = 1) -> None:
        check_rate(rate_in_hz, "resampler input")
        check_rate(rate_out_hz, "resampler output")
        self.rate_in_hz = rate_in_hz
        self.rate_out_hz = rate_out_hz
        self._shape = (0,) if n_channels == 1 else (0, n_channels)
        self._stream = (
            None
            if rate_in_hz == rate_out_hz
            else soxr.ResampleStream(
                rate_in_hz, rate_out_hz, n_channels, dtype="float32", quality="HQ"
            )
        )

    def push(self, samples: FloatArray) -> FloatArray:
        """Next float32 samples in, those that are ready out."""
        if self._stream is None:
            return samples
        ready: FloatArray = self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32))
        return ready

    def flush(self) -> FloatArray:
        """End the stream: the float32 samples still held back; the next push starts anew."""
        empty = np.empty(self._shape, np.float32)
        if self._stream is None:
            return empty
        rest: FloatArray = self._stream.resample_chunk(empty, last=True)
        self._stream.clear()
        return rest


class AudioFile:
    """An open sound file, checked: it is one, holds samples, and all those its header promises.

    Parameters
    ----------
    path : file in any format of libsndfile (WAV, FLAC, OGG, MP3, AIFF, ...)

    Raises InputError naming the file: missing, a folder, unreadable, empty, not sound, no samples,
    truncated, a sample rate outside 8-192 kHz.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = _open_sound(self.path)
        self.rate_hz: int = self._file.samplerate
        self.n_channels: int = self._file.channels
        self.n_samples: int = self._file.frames
        try:
            self._check_header()
        except InputError:
            self._file.close()
            raise

    def _check_header(self) -> None:
        if self.n_samples == 0:
            raise InputError(
                f"{self.path}: holds no samples (the recorder was stopped before it wrote any, or "
                "before it completed the header); record it again"
            )
        for promised, present in _PROMISED_LENGTH.findall(self._file.extra_info):
            unknown = any(int(promised) in lengths for lengths in _UNKNOWN_LENGTHS)
            if int(promised) > int(present) and not unknown:
                raise self._truncated(f"{present} of {promised} bytes of sound")
        check_rate(self.rate_hz, str(self.path))

    def _truncated(self, found: str) -> InputError:
        return InputError(f"{self.path}: truncated: holds {found}; copy or record it again")

    def blocks(self, n_samples: int) -> Iterator[FloatArray]:
        """The file from its start in blocks of (n_samples, n_channels) float32, the last shorter.

        Raises InputError where the file ends early, is damaged, or holds NaN or infinity.
        """
        import soundfile

        position = 0
        self._file.seek(0)
        while True:
            try:
                samples = self._file.read(n_samples, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise InputError(
                    f"{self.path}: truncated or damaged after {position / self.rate_hz:.3f} s of "
                    f"{self.n_samples / self.rate_hz:.3f} s; copy or record it again"
                ) from error
            if not len(samples):
                break
            if not np.isfinite(samples).all():
                first, channel = np.argwhere(~np.isfinite(samples))[0]
                raise InputError(
                    f"{self.path}: sample {position + first} of channel {channel} is "
                    f"{samples[first, channel]}, not a number within full scale; write the file "
                    "again without NaN and infinity"
                )
            position += len(samples)
            yield samples
        if position < self.n_samples - _MISSING_FRAMES.get(self._file.format, 0):
            raise self._truncated(f"{position} of {self.n_samples} samples")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_sound(path: Path) -> soundfile.SoundFile:
    import soundfile

    try:
        if path.exists() and not path.is_file():
            found = "a folder" if path.is_dir() else "not a regular file"
            raise InputError(f"{path}: is {found}: expected a sound file; give the file itself")
        with path.open("rb") as file:
            empty = not file.read(1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read: {reason}; check the path") from error
    if empty:
        raise InputError(f"{path}: is empty (0 bytes): expected a sound file; copy it again")
    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path}: is not sound that can be read ({error.error_string.rstrip('.')}): expected "
            "WAV, FLAC, OGG, MP3 or AIFF; convert it, for example with ffmpeg"
        ) from error


def read_clip(path: str | Path, rate_hz: int = 16_000, channel: Channel = "mix") -> FloatArray:
    """A whole sound file as mono samples at rate_hz.

    Parameters
    ----------
    path : file in any format of libsndfile
    rate_hz : wanted sample rate, 8,000 to 192,000
    channel : number from 0, or "mix" for the mean of at most 8

    Returns
    -------
    (n_samples,) float32, full scale ±1.0
        round(n_file_samples * rate_hz / file_rate_hz) samples, give or take one.

    Raises InputError naming the file and the remedy (see AudioFile and check_channel).
    """
    with AudioFile(path) as file:
        check_channel(channel, file.n_channels, str(file.path))
        resampler = StreamResampler(file.rate_hz, rate_hz)
        parts = [
            resampler.push(select_channel(samples, channel))
            for samples in file.blocks(file.rate_hz)
        ]
    return np.concatenate([*parts, resampler.flush()])
