"""Prints what log-mel costs, streamed and whole, against librosa on the same audio.

python tests/benchmarks/front_end.py
python tests/benchmarks/front_end.py --rounds 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import librosa
import numpy as np
from machine import describe, medians_ms, one_thread, verdict
from numpy.typing import NDArray

from soundpost.device.features import FrontEnd, LogMelStream, log_mel
from soundpost.device.soundscape import soundscape

FloatArray = NDArray[np.float32]

SECONDS = 5.0  # a clip of ESC-50
# Frames that the sensor's pipeline takes at once: what divides both a window of 100 and a hop of 25
GROUP = 25
# Name of a contender: ours at most this many times librosa's whole clip
LIMITS = {"20 ms blocks": 4.0, "0.5 s blocks": 1.2}


def streamed(
    samples: FloatArray, front_end: FrontEnd, block_s: float, group: int
) -> Callable[[], object]:
    """Feed a stream that lives on from round to round, as the sensor's does."""
    stream = LogMelStream(front_end, group)
    length = round(block_s * front_end.sample_rate_hz)
    blocks = [samples[i : i + length] for i in range(0, len(samples), length)]

    def once() -> None:
        for block in blocks:
            stream.push(block)

    return once


def librosa_log_mel(samples: FloatArray, front_end: FrontEnd, filters: FloatArray) -> FloatArray:
    """The same spectrogram by librosa, its mel filters made beforehand."""
    spectrum = librosa.stft(
        samples,
        n_fft=front_end.fft_length,
        hop_length=front_end.hop_length,
        win_length=front_end.window_length,
        window="hamming",
        center=False,
    )
    mel: FloatArray = np.log(filters @ np.abs(spectrum) + np.float32(front_end.log_offset))
    return mel


def librosa_from_nothing(samples: FloatArray, front_end: FrontEnd) -> FloatArray:
    """The same by librosa's one call, which makes the filters each time."""
    mel = librosa.feature.melspectrogram(
        y=samples,
        sr=front_end.sample_rate_hz,
        n_fft=front_end.fft_length,
        hop_length=front_end.hop_length,
        win_length=front_end.window_length,
        window="hamming",
        center=False,
        power=1.0,
        n_mels=front_end.n_mels,
        fmin=front_end.fmin_hz,
        fmax=front_end.fmax_hz,
        htk=True,
        norm=None,
    )
    logarithm: FloatArray = np.log(mel + np.float32(front_end.log_offset))
    return logarithm


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    one_thread()
    describe()
    front_end = FrontEnd()
    samples = soundscape(0, front_end.sample_rate_hz)[0]
    # From the smoke alarm on, so that there is sound in it.
    start = 5 * front_end.sample_rate_hz
    samples = samples[start : start + round(SECONDS * front_end.sample_rate_hz)].copy()
    filters = librosa.filters.mel(
        sr=front_end.sample_rate_hz,
        n_fft=front_end.fft_length,
        n_mels=front_end.n_mels,
        fmin=front_end.fmin_hz,
        fmax=front_end.fmax_hz,
        htk=True,
        norm=None,
    )
    peer = "librosa, whole clip"
    times = medians_ms(
        {
            peer: lambda: librosa_log_mel(samples, front_end, filters),
            "librosa, filters made each time": lambda: librosa_from_nothing(samples, front_end),
            "whole clip": lambda: log_mel(samples, front_end),
            "0.5 s blocks": streamed(samples, front_end, 0.5, GROUP),
            "0.5 s blocks, every frame at once": streamed(samples, front_end, 0.5, 1),
            "20 ms blocks": streamed(samples, front_end, 0.02, GROUP),
            "20 ms blocks, by 8 frames": streamed(samples, front_end, 0.02, 8),
            "20 ms blocks, every frame at once": streamed(samples, front_end, 0.02, 1),
        },
        rounds,
    )
    print(f"log-mel of {SECONDS:g} s, median of {rounds} rounds, CPU ms per second of audio:")
    for name, ms in times.items():
        ratio = ms / times[peer]
        limit = LIMITS.get(name)
        note = f"  {verdict(ratio, limit)} {limit:g} x" if limit else ""
        print(f"  {name:<34} {ms / SECONDS:6.3f} ms  {ratio:5.2f} x librosa{note}")


if __name__ == "__main__":
    main()
