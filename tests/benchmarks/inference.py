"""Prints what a second of sound costs the sensor, and whether every runtime hears the same.

python tests/benchmarks/inference.py                 the starter bundle
python tests/benchmarks/inference.py my.bundle
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe, medians_ms, one_thread, verdict
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import Bundle, read_bundle, starter_bundle_path
from soundpost.device.detection import Detection
from soundpost.device.features import LogMelStream, log_mel
from soundpost.device.interpreter import Interpreter, available_runtimes
from soundpost.device.pipeline import Pipeline
from soundpost.device.soundscape import soundscape

FloatArray = NDArray[np.float32]

SECOND_LIMIT_MS = 5.0
MODEL_LIMIT_BYTES = 3_000_000
BLOCK_S = 0.02


def heard(
    bundle: Bundle, interpreter: Interpreter, samples: FloatArray
) -> tuple[list[Detection], FloatArray]:
    """Detections of the whole soundscape, and every window's scores (n_windows, n_labels)."""
    rate_hz = bundle.manifest.front_end.sample_rate_hz
    pipeline = Pipeline(bundle, interpreter, rate_hz)
    windows = list(pipeline.push(AudioBlock(samples[:, None], 0, rate_hz, None)))
    scores = np.stack([window.scores for window in windows])
    windows += pipeline.finish()
    return [d for window in windows for d in window.detections], scores


def sensor_second(
    bundle: Bundle, interpreter: Interpreter, samples: FloatArray
) -> Callable[[], object]:
    """The next second of sound through everything that the sensor does with it."""
    rate_hz = bundle.manifest.front_end.sample_rate_hz
    pipeline = Pipeline(bundle, interpreter, rate_hz)
    length = round(BLOCK_S * rate_hz)
    position = 0

    def once() -> None:
        nonlocal position
        for _ in range(rate_hz // length):
            at = position % (len(samples) - length)
            block = AudioBlock(samples[at : at + length, None], position, rate_hz, None)
            position += length
            for _window in pipeline.push(block):
                pass

    return once


def model_second(
    bundle: Bundle, interpreter: Interpreter | None, samples: FloatArray
) -> Callable[[], object]:
    """One second through the front end and, if one is given, the model."""
    manifest = bundle.manifest
    hop_frames = manifest.hop_samples // manifest.front_end.hop_length
    stream = LogMelStream(manifest.front_end, hop_frames)
    length = round(BLOCK_S * manifest.front_end.sample_rate_hz)
    second = samples[: manifest.front_end.sample_rate_hz]
    blocks = [second[i : i + length] for i in range(0, len(second), length)]
    frames = np.zeros((manifest.n_frames, manifest.front_end.n_mels), np.float32)

    def once() -> None:
        nonlocal frames
        for block in blocks:
            new = stream.push(block)
            if len(new) and interpreter is not None:
                frames = np.concatenate([frames[len(new) :], new])
                interpreter.run(frames)

    return once


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="default: the starter bundle")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    bundle = read_bundle(arguments.bundle or starter_bundle_path())
    manifest = bundle.manifest
    front_end = manifest.front_end
    samples = soundscape(0, front_end.sample_rate_hz)[0]
    patch = log_mel(samples[: manifest.window_samples], front_end)
    runtimes = available_runtimes()
    began = time.perf_counter()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    interpreters = {name: bundle.load_interpreter(name, threads=1) for name in runtimes}
    # After the runtimes are loaded, so that their libraries are held to one thread too.
    one_thread()
    describe()
    print(
        f"{manifest.name} {manifest.version}, {manifest.weights}: model {len(bundle.model):,} "
        f"bytes ({verdict(len(bundle.model), MODEL_LIMIT_BYTES)} {MODEL_LIMIT_BYTES:,}); "
        f"{len(runtimes)} runtimes loaded in {time.perf_counter() - began:.1f} s"
    )
    contenders: dict[str, Callable[[], object]] = {"": model_second(bundle, None, samples)}
    for name, interpreter in interpreters.items():
        contenders[f"{name} window"] = lambda interpreter=interpreter: interpreter.run(patch)
        contenders[f"{name} second"] = model_second(bundle, interpreter, samples)
        contenders[f"{name} sensor"] = sensor_second(bundle, interpreter, samples)
    times = medians_ms(contenders, arguments.rounds)
    per_second = front_end.sample_rate_hz / manifest.hop_samples
    print(
        f"one second of sound in {1000 * BLOCK_S:g} ms blocks, {per_second:g} windows, one thread, "
        f"median of {arguments.rounds} rounds, CPU ms:"
    )
    print(f"  front end alone {times['']:.2f}; then by runtime")
    print(f"  {'':<16} {'a window':>9} {'front end + model':>18} {'with detector':>14}")
    for name in runtimes:
        window, second, sensor = (
            times[f"{name} {what}"] for what in ("window", "second", "sensor")
        )
        print(
            f"  {name:<16} {window:9.2f} {second:18.2f} {sensor:14.2f}   front end + model "
            f"{second / SECOND_LIMIT_MS:.2f} x {SECOND_LIMIT_MS:g} ms, "
            f"{verdict(second, SECOND_LIMIT_MS)}"
        )

    first: list[Detection] = []
    first_scores = np.zeros(0, np.float32)
    print(f"events in the demo's soundscape ({len(samples) / front_end.sample_rate_hz:g} s):")
    for number, (name, interpreter) in enumerate(interpreters.items()):
        detections, scores = heard(bundle, interpreter, samples)
        seen = [(d.label, d.phase, d.onset_sample, d.offset_sample) for d in detections]
        starts = [d for d in detections if d.phase == "start"]
        if number == 0:
            first, first_scores = detections, scores
            said = ", ".join(
                f"{d.label} {d.onset_sample / front_end.sample_rate_hz:.2f} s" for d in starts
            )
        else:
            same = seen == [(d.label, d.phase, d.onset_sample, d.offset_sample) for d in first]
            said = (
                f"{'the same labels and samples' if same else 'NOT the same'}; scores differ by at "
                f"most {np.abs(scores - first_scores).max():.3f}"
            )
        print(f"  {name:<16} {len(starts)} events: {said}")


if __name__ == "__main__":
    main()
