"""Prints how many clips with speech the privacy gate stops, and how many without, with limits.

python tests/benchmarks/privacy.py --data ../shared/data
python tests/benchmarks/privacy.py --data ../shared/data --trials 200 --every 1 --jobs 2

A clip is as the sensor makes it: five seconds of an event with the default pre- and post-roll, and
the margin that is judged with it. Speech (folds of DCASE 2016 task 2, and the talker of a
microphone array) is mixed into sounds of ESC-50 without human voices, and noise: its power over its
length is SNR above the sound's power over the clip. The gate's thresholds were chosen on folds 1
and 2 of both; the figures are of the other folds, `--folds 1 2` gives those. The intervals are
Wilson's, 95 %; the utterances are few, so that they say little about other voices.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from machine import describe, medians_ms, one_thread
from numpy.typing import NDArray

from soundpost.device.audio import read_clip
from soundpost.device.clip_ring import FULL_SCALE
from soundpost.device.clip_store import ClipSettings
from soundpost.device.speech import GATE_MARGIN_S, RATE_HZ, SpeechGate

Sound = NDArray[np.float32]

SNRS_DB = (0, 5, 10, 20)
EVENT_S = 5.0
GATED_LIMIT = 0.99
OTHERS_LIMIT = 0.10
HUMAN = ("breathing", "coughing", "crying_baby", "laughing", "sneezing", "snoring")
# Short and loud, for voices that follow them.
BURSTS = ("dog", "door_wood_knock", "glass_breaking", "car_horn")
BELOW_DB = (-30, -40, -50)

ROLLS = ClipSettings()
LENGTH = round((EVENT_S + ROLLS.pre_roll_s + ROLLS.post_roll_s + 2 * GATE_MARGIN_S) * RATE_HZ)
MARGIN = round(GATE_MARGIN_S * RATE_HZ)


@cache
def gate() -> SpeechGate:
    """One of each process."""
    return SpeechGate()


def gated(sound: Sound) -> bool:
    """Whether the gate keeps a clip back, for whatever reason."""
    peak = float(np.abs(sound).max())
    scaled = sound * (min(1.0, 0.99 / peak) if peak else 1.0)
    return gate().judge(np.rint(scaled * FULL_SCALE).astype(np.int16)[:, None], RATE_HZ) != "clear"


def rows(folder: Path, folds: set[str]) -> list[dict[str, str]]:
    with (folder / "clips.csv").open(newline="", encoding="utf-8") as table:
        found = [row for row in csv.DictReader(table) if row["fold"] in folds]
    return [{**row, "path": str(folder / row["filename"])} for row in found]


def repeated(path: str) -> Sound:
    """A recording as long as a clip, from its beginning again where it is shorter."""
    sound = read_clip(Path(path), RATE_HZ)
    return np.tile(sound, -(-LENGTH // len(sound)))[:LENGTH]


def noise(rng: np.random.Generator) -> Sound:
    """Pink, RMS 0.02."""
    spectrum = np.fft.rfft(rng.standard_normal(LENGTH))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    sound = np.fft.irfft(spectrum, LENGTH)
    return (0.02 * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def utterances(data: Path, folds: set[str]) -> list[Sound]:
    speech = [row for row in rows(data / "dcase2016_task2", folds) if row["label"] == "speech"]
    found = [read_clip(Path(row["path"]), RATE_HZ) for row in speech]
    if "1" not in folds:
        array = data / "multichannel" / "cmu_arrA_8ch" / "an101-mtms-arrA.flac"
        found.append(read_clip(array, RATE_HZ, 3))
    return found


def power(sound: Sound) -> float:
    return max(float(np.mean(np.square(sound, dtype=np.float64))), 1e-10)


def spoken(voice: Sound, other: Sound, snr_db: float, at: int) -> Sound:
    """A voice from sample `at` on; what lies outside the clip is not heard."""
    mixed = other.copy()
    gain = math.sqrt(power(other) / power(voice)) * 10 ** (snr_db / 20)
    first, last = max(at, 0), min(at + len(voice), LENGTH)
    mixed[first:last] += np.float32(gain) * voice[first - at : last - at]
    return mixed


def after_a_burst(voice: Sound, path: str, below_db: float, rng: np.random.Generator) -> Sound:
    """A voice so far below the peak of a burst that is over when it begins."""
    whole = read_clip(Path(path), RATE_HZ)
    loudest = int(np.abs(whole).argmax())
    burst = whole[max(0, loudest - RATE_HZ // 2) :][: 2 * RATE_HZ]
    sound = (10 ** (-70 / 20) * rng.standard_normal(LENGTH)).astype(np.float32)
    fade = np.minimum(1.0, np.arange(len(burst), 0, -1) / (RATE_HZ / 2)).astype(np.float32)
    sound[: len(burst)] += burst * fade * np.float32(0.9 / np.abs(burst).max())
    at = rng.integers(len(burst), LENGTH - len(voice) - MARGIN)
    level = 0.2 * 10 ** (below_db / 20) / math.sqrt(power(voice))
    sound[at : at + len(voice)] += np.float32(level) * voice
    return sound


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    if total == 0:
        return 0.0, 1.0
    z, share = 1.96, hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + (z / total / 2) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def told(name: str, answers: list[bool], verdict: str = "") -> None:
    hits, total = sum(answers), len(answers)
    low, high = wilson(hits, total)
    share = 100 * hits / total if total else 0.0
    print(
        f"{name:<44} {hits:4d} of {total:4d}  {share:5.1f} %  ({100 * low:.1f} to "
        f"{100 * high:.1f} %){verdict}"
    )


Judge = Callable[[list[Sound]], list[bool]]


def speech_figures(data: Path, folds: set[str], trials: int, judge: Judge) -> None:
    rng = np.random.default_rng(5)
    voices = utterances(data, folds)
    esc = rows(data / "esc50", folds)
    others = [row["path"] for row in esc if row["label"] not in HUMAN]
    bursts = [row["path"] for row in esc if row["label"] in BURSTS]

    def other() -> Sound:
        # One in ten is noise.
        return noise(rng) if rng.random() < 0.1 else repeated(others[rng.integers(len(others))])

    print(f"\nspeech: {len(voices)} utterances; gated, at least 99 % wanted")
    every: list[bool] = []
    for snr_db in SNRS_DB:
        sounds = []
        for trial in range(trials):
            voice = voices[trial % len(voices)]
            at = int(rng.integers(MARGIN, LENGTH - MARGIN - len(voice)))
            sounds.append(spoken(voice, other(), snr_db, at))
        answers = judge(sounds)
        every += answers
        reached = sum(answers) >= GATED_LIMIT * len(answers)
        told(f"  {snr_db:2d} dB", answers, "" if reached else "  BELOW")
    reached = sum(every) >= GATED_LIMIT * len(every)
    told("  0 to 20 dB", every, f"  limit 99 %: {'reached' if reached else 'MISSED'}")
    some = max(len(voices), trials // 3)
    sounds = []
    for trial in range(some):
        voice = voices[trial % len(voices)]
        # A quarter of a second of it lies in the clip, at the beginning or the end.
        inside = round(0.25 * RATE_HZ)
        at = MARGIN + inside - len(voice) if trial % 2 else LENGTH - MARGIN - inside
        sounds.append(spoken(voice, other(), 20, at))
    told("  20 dB, 0.25 s of it within the clip", judge(sounds))
    for below_db in BELOW_DB:
        sounds = [
            after_a_burst(
                voices[trial % len(voices)], bursts[rng.integers(len(bursts))], below_db, rng
            )
            for trial in range(some)
        ]
        told(f"  after a burst, {-below_db} dB below a close voice", judge(sounds))


def other_figures(data: Path, folds: set[str], every: int, judge: Judge) -> None:
    esc = rows(data / "esc50", folds)[::every]
    answers = judge([repeated(row["path"]) for row in esc])
    stopped = list(zip((row["label"] for row in esc), answers, strict=True))
    print("\nESC-50; gated although nobody is said to speak, at most 10 % wanted")
    plain = [answer for label, answer in stopped if label not in HUMAN]
    reached = sum(plain) <= OTHERS_LIMIT * len(plain)
    told("  no human voice", plain, f"  limit 10 %: {'reached' if reached else 'MISSED'}")
    told("  human, no speech", [answer for label, answer in stopped if label in HUMAN])
    totals = Counter(label for label, _ in stopped)
    counts = Counter(label for label, answer in stopped if answer)
    for label, count in counts.most_common():
        print(
            f"    {label + (' (human)' if label in HUMAN else ''):<30} {count} of {totals[label]}"
        )


def cost() -> None:
    sound = noise(np.random.default_rng(0))
    pcm = np.rint(sound * FULL_SCALE).astype(np.int16)[:, None]
    spent = medians_ms({"gate": lambda: gate().judge(pcm, RATE_HZ)}, 5)["gate"]
    per_second = spent / (LENGTH / RATE_HZ)
    print(
        f"\ncost: {per_second:.0f} ms of a core for a second of a clip's sound; none without events"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", nargs="+", default=["3", "4", "5"])
    parser.add_argument("--trials", type=int, default=60, help="of each SNR")
    parser.add_argument("--every", type=int, default=4, help="n-th clip of ESC-50")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    one_thread()
    describe()
    folds = set(arguments.folds)
    print(f"folds {', '.join(sorted(folds))}; clips of {LENGTH / RATE_HZ - 2 * GATE_MARGIN_S:g} s")
    with ProcessPoolExecutor(arguments.jobs, initializer=os.nice, initargs=(5,)) as pool:

        def judge(sounds: list[Sound]) -> list[bool]:
            return list(pool.map(gated, sounds, chunksize=4))

        speech_figures(arguments.data, folds, arguments.trials, judge)
        other_figures(arguments.data, folds, arguments.every, judge)
    cost()


if __name__ == "__main__":
    main()
