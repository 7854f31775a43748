"""Prints what a second of sound costs with one model, counted, and with a second one beside it.

python tests/benchmarks/two_models.py                the starter bundle, beside itself
python tests/benchmarks/two_models.py my.bundle
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from machine import describe, medians_ms, one_thread

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import Bundle, open_bundle, starter_bundle_path
from soundpost.device.features import FloatArray
from soundpost.device.pipeline import Pipeline
from soundpost.device.soundscape import soundscape
from soundpost.device.source_models import SourceModels

BLOCK_S = 0.02
N_SECONDS = 60


def second_of(bundle: Bundle, samples: FloatArray, how: str) -> Callable[[], object]:
    """The next second through the pipeline; `how`: uncounted, counted or shadowed."""
    rate_hz = bundle.manifest.front_end.sample_rate_hz
    pipeline = Pipeline(bundle, bundle.load_interpreter(), rate_hz)
    models = SourceModels("mic0")
    models.opened()
    if how == "shadowed":
        models.begin_shadow(bundle, bundle.load_interpreter(), bundle.manifest.classes)
    length = round(BLOCK_S * rate_hz)
    position = 0

    def once() -> None:
        nonlocal position
        for _ in range(rate_hz // length):
            at = position % (len(samples) - length)
            block = AudioBlock(samples[at : at + length, None], position, rate_hz, None)
            position += length
            for window in pipeline.push(block):
                if how != "uncounted":
                    models.scored(window, bundle, pipeline.detector.classes)
            if how != "uncounted":
                models.heard(block, pipeline)

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, default=starter_bundle_path())
    arguments = parser.parse_args()
    one_thread()
    describe()
    bundle, _, _ = open_bundle(arguments.bundle)
    samples, _ = soundscape(1, bundle.manifest.front_end.sample_rate_hz)
    runs = {how: second_of(bundle, samples, how) for how in ("uncounted", "counted", "shadowed")}
    times_ms = medians_ms(runs, N_SECONDS)
    for how, median_ms in times_ms.items():
        times = median_ms / times_ms["uncounted"]
        print(f"{how:<10} {median_ms:7.3f} ms a second of sound, {times:5.2f} times")


if __name__ == "__main__":
    main()
