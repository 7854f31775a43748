"""Prints what a second of sound costs with a bundle of kind `frames`, and how large it is.

python tests/benchmarks/frames.py streaming.bundle
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from inference import sensor_second
from machine import describe, medians_ms, one_thread, verdict

from soundpost.device.bundle import Bundle, read_bundle, windows
from soundpost.device.features import FloatArray, log_mel
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import available_runtimes
from soundpost.device.soundscape import soundscape

BYTES = 300_000
NETWORK_MS, SENSOR_MS = 10.0, 10.0


def network_second(
    bundle: Bundle, interpreter: FrameInterpreter, samples: FloatArray
) -> Callable[[], object]:
    """One second of chunks through the network alone, which carries its state on."""
    manifest = bundle.manifest
    rate_hz = manifest.front_end.sample_rate_hz
    chunks = windows(log_mel(samples[: 2 * rate_hz], manifest.front_end), manifest)
    chunks = chunks[: rate_hz // manifest.hop_samples]
    state = interpreter.initial_state()

    def once() -> None:
        nonlocal state
        for chunk in chunks:
            state = interpreter.run(chunk, state).state

    return once


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    bundle = read_bundle(arguments.bundle)
    manifest = bundle.manifest
    if manifest.frames is None:
        raise SystemExit(f"{arguments.bundle}: is of kind '{manifest.kind}'; see inference.py")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    runtimes = [name for name in available_runtimes() if name != "tensorflow"]
    interpreters = {name: bundle.load_interpreter(name, threads=1) for name in runtimes}
    one_thread()
    describe()
    size = len(bundle.model)
    print(f"{manifest.name}: model {size:,} bytes, {verdict(size, BYTES)} {BYTES:,}")
    samples = soundscape(0, manifest.front_end.sample_rate_hz)[0]
    contenders: dict[str, Callable[[], object]] = {}
    for name, interpreter in interpreters.items():
        assert isinstance(interpreter, FrameInterpreter)
        contenders[f"{name}, network"] = network_second(bundle, interpreter, samples)
        contenders[f"{name}, sensor"] = sensor_second(bundle, interpreter, samples)
    for name, spent_ms in medians_ms(contenders, arguments.rounds).items():
        limit = NETWORK_MS if name.endswith("network") else SENSOR_MS
        print(
            f"{name}: {spent_ms:.2f} ms per second of sound, {spent_ms / limit:.2f} x {limit:g} "
            f"ms, {verdict(spent_ms, limit)}"
        )


if __name__ == "__main__":
    main()
