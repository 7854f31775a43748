"""Prints what levels cost a second of sound, against scipy.signal doing the same in the same run.

python tests/benchmarks/levels.py
python tests/benchmarks/levels.py --rounds 500
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import scipy.signal
from machine import describe, medians_ms, one_thread, verdict
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.levels import FAST_S, SLOW_S, LevelMeter
from soundpost.device.pipeline import Pipeline
from soundpost.device.soundscape import soundscape
from soundpost.device.weighting import POLES_HZ

FloatArray = NDArray[np.float32]

BLOCK_S = 0.02
RATES_HZ = (16_000, 48_000, 96_000, 192_000)
# Levels and everything else that a sensor does with one source of 48 kHz.
SENSOR_LIMIT_MS = 30.0


def blocks_of(samples: FloatArray, rate_hz: int) -> list[FloatArray]:
    """The next second of a soundscape, in blocks as a microphone gives them."""
    length = round(BLOCK_S * rate_hz)
    second = samples[5 * rate_hz : 6 * rate_hz]
    return [second[i : i + length] for i in range(0, len(second), length)]


def meter_second(samples: FloatArray, rate_hz: int, bands: bool) -> Callable[[], object]:
    """A second of levels, with the interval's end every ten."""
    meter = LevelMeter(rate_hz, 10.0, bands=bands)
    blocks = blocks_of(samples, rate_hz)
    position = 0

    def once() -> None:
        nonlocal position
        for block in blocks:
            for _ in meter.push(block, position):
                pass
            position += len(block)

    return once


def sections(rate_hz: int, weighting: str) -> NDArray[np.float64]:
    """Bilinear design of a weighting, as commonly found."""
    f1, f2, f3, f4 = (2 * math.pi * pole for pole in POLES_HZ)
    poles = [-f1, -f1, -f4, -f4] + ([-f2, -f3] if weighting == "A" else [])
    zeros = [0.0] * (len(poles) - 2)
    return np.asarray(
        scipy.signal.zpk2sos(*scipy.signal.bilinear_zpk(zeros, poles, f4**2, rate_hz))
    )


def scipy_second(
    samples: FloatArray, rate_hz: int, whole: bool, filters_only: bool
) -> Callable[[], object]:
    """A and C by sosfilt, squares, fast and slow by lfilter on every sample, and the sums."""
    of_a, of_c = sections(rate_hz, "A"), sections(rate_hz, "C")
    a_state, c_state = np.zeros((len(of_a), 2)), np.zeros((len(of_c), 2))
    decays = [math.exp(-1 / (time_s * rate_hz)) for time_s in (FAST_S, SLOW_S)]
    states = [np.zeros(1), np.zeros(1)]
    blocks = blocks_of(samples, rate_hz)
    blocks = [np.concatenate(blocks)] if whole else blocks

    def once() -> None:
        nonlocal a_state, c_state
        for block in blocks:
            a, a_state = scipy.signal.sosfilt(of_a, block, zi=a_state)
            c, c_state = scipy.signal.sosfilt(of_c, block, zi=c_state)
            if filters_only:
                continue
            squares = a * a
            squares.sum(), (c * c).sum(), (block * block).sum(), np.abs(block).max()
            for number, decay in enumerate(decays):
                average, states[number] = scipy.signal.lfilter(
                    [1 - decay], [1, -decay], squares, zi=states[number]
                )
                average.max()

    return once


def sensor_second(samples: FloatArray, rate_hz: int) -> Callable[[], object]:
    """A second of listening: resampling, features, model, detector."""
    bundle, interpreter, _ = open_bundle(starter_bundle_path())
    one_thread()
    pipeline = Pipeline(bundle, interpreter, rate_hz)
    length = round(BLOCK_S * rate_hz)
    position = 0

    def once() -> None:
        nonlocal position
        # Second after second: what the detector costs depends on what is heard.
        for _ in range(rate_hz // length):
            at = position % (len(samples) - length)
            block = AudioBlock(samples[at : at + length, None], position, rate_hz)
            for _window in pipeline.push(block):
                pass
            position += length

    return once


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    sounds = {rate_hz: soundscape(0, rate_hz)[0] for rate_hz in RATES_HZ}
    contenders: dict[str, Callable[[], object]] = {"sensor": sensor_second(sounds[48_000], 48_000)}
    for rate_hz, sound in sounds.items():
        contenders[f"{rate_hz} levels"] = meter_second(sound, rate_hz, False)
        contenders[f"{rate_hz} bands"] = meter_second(sound, rate_hz, True)
        contenders[f"{rate_hz} blocks"] = scipy_second(sound, rate_hz, False, False)
        contenders[f"{rate_hz} whole"] = scipy_second(sound, rate_hz, True, False)
        contenders[f"{rate_hz} filters"] = scipy_second(sound, rate_hz, True, True)
    one_thread()
    describe()
    times = medians_ms(contenders, rounds)
    print(
        f"a second of sound in {1000 * BLOCK_S:g} ms blocks, one thread, "
        f"median of {rounds} rounds, CPU ms:"
    )
    print(
        f"  {'rate':>10}  {'levels':>7} {'with bands':>11}   {'scipy, blocks':>14} "
        f"{'scipy, at once':>15} {'sosfilt alone':>14}   levels / scipy in blocks, / sosfilt alone"
    )
    for rate_hz in RATES_HZ:
        ours, bands, blocks, whole, filters = (
            times[f"{rate_hz} {name}"] for name in ("levels", "bands", "blocks", "whole", "filters")
        )
        print(
            f"  {rate_hz:>7} Hz  {ours:7.2f} {bands:11.2f}   {blocks:14.2f} {whole:15.2f} "
            f"{filters:14.2f}   {ours / blocks:.2f} x, {ours / filters:.2f} x"
        )
    listening, levels = times["sensor"], times["48000 levels"]
    total = listening + levels
    print(
        f"a sensor at 48 kHz: {listening:.2f} ms listening + {levels:.2f} ms levels = "
        f"{total / 10:.2f} % of one core, {verdict(total, SENSOR_LIMIT_MS)} "
        f"{SENSOR_LIMIT_MS / 10:g} %"
    )


if __name__ == "__main__":
    main()
