"""Prints how well alarms are heard: recall at 0 dB, false alarms in real sound and of beepers.

Alarms and half of the beepers come from the second generator (second_alarms.py), backgrounds from
clips of one fold that the model has not heard, looped to the length of a test. Real sound is that
fold's clips one after the other, without any alarm.

    python tests/benchmarks/alarms.py --data ../shared/data/esc50 --fold 5
    python tests/benchmarks/alarms.py --data … --fold 5 --bundle my.bundle
    python tests/benchmarks/alarms.py --data … --fold 5 --cadence-only

--cadence-only gives every window the score 1: what the cadence check alone does.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import soundfile
from numpy.typing import NDArray
from second_alarms import CADENCES, make_alarm, make_beeper, mix_at_0_db

from soundpost.device.alarms import synthesise_beeper
from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.detector import EventDetector
from soundpost.device.features import FrontEnd, log_mel

RATE_HZ = 16_000
# Three groups of T4 at its slowest, wherever in its pattern the clip begins.
SECONDS = 20.0

# (n_frames, n_mels) patch → (n_labels,) scores
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Listener:
    """What hears: a scorer, its detector settings and its windows."""

    scorer: Scorer
    classes: Sequence[ClassSettings]
    front_end: FrontEnd
    n_frames: int
    hop_frames: int

    def detections(self, samples: NDArray[np.float32]) -> Iterator[Detection]:
        """Everything that the detector says of a clip."""
        frames = log_mel(samples, self.front_end)
        hop = self.hop_frames * self.front_end.hop_length
        window = self.front_end.samples_of(self.n_frames)
        detector = EventDetector(self.classes, window, hop, self.front_end.sample_rate_hz)
        for start in range(0, len(frames) - self.n_frames + 1, self.hop_frames):
            patch = frames[start : start + self.n_frames]
            first = start * self.front_end.hop_length
            yield from detector.update(first, self.scorer(patch), patch)
        yield from detector.flush()

    def alarms(self, samples: NDArray[np.float32]) -> list[Detection]:
        """Starts of alarms in a clip."""
        return [d for d in self.detections(samples) if d.label in CADENCES and d.phase == "start"]


def from_bundle(path: Path) -> Listener:
    """The alarm labels of a bundle, as a device would run them."""
    bundle, interpreter, _ = open_bundle(path)
    manifest = bundle.manifest
    # Other labels do not bear on alarms.
    keep = [index for index, label in enumerate(manifest.labels) if label in CADENCES]

    def scorer(patch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(interpreter.run(patch).scores)[keep]

    return Listener(
        scorer,
        [manifest.classes[index] for index in keep],
        manifest.front_end,
        manifest.n_frames,
        manifest.hop_samples // manifest.front_end.hop_length,
    )


def cadence_only() -> Listener:
    """Every window is as likely an alarm as any."""
    classes = [
        ClassSettings("smoke_alarm", smoothing="none", cadence="T3"),
        ClassSettings("co_alarm", smoothing="none", cadence="T4"),
    ]
    return Listener(lambda patch: np.ones(2, np.float32), classes, FrontEnd(), 100, 25)


def fold_clips(data: Path, fold: str) -> list[tuple[str, NDArray[np.float32]]]:
    """Name and samples of each clip of a fold; raises SystemExit where there are none."""
    with (data / "clips.csv").open(newline="", encoding="utf-8") as file:
        names = [row["filename"] for row in csv.DictReader(file) if row["fold"] == fold]
    if not names:
        raise SystemExit(f"{data / 'clips.csv'}: no clips of fold {fold}")
    return [(name, soundfile.read(data / name, dtype="float32")[0]) for name in names]


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share."""
    interval = scipy.stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def recall(
    listener: Listener,
    clips: list[tuple[str, NDArray[np.float32]]],
    n_alarms: int,
    seed: int,
) -> dict[str, object]:
    """Share of the alarms of each kind that are heard as their kind, and how fast."""
    found: dict[str, object] = {}
    for kind in CADENCES:
        rng = np.random.default_rng([seed, len(kind)])
        missed, delays, wrong = [], [], 0
        for _ in range(n_alarms):
            name, clip = clips[int(rng.integers(len(clips)))]
            background = np.resize(clip, round(SECONDS * RATE_HZ))
            alarm = make_alarm(kind, rng, SECONDS, RATE_HZ)
            starts = listener.alarms(mix_at_0_db(background, alarm))
            right = [start for start in starts if start.label == kind]
            wrong += len(starts) > len(right)
            if right:
                first = right[0]
                delays.append((first.window_end_sample - first.onset_sample) / RATE_HZ)
            else:
                missed.append(f"{name} ({alarm.sounder} {alarm.pitch_hz:.0f} Hz)")
        hits = n_alarms - len(missed)
        found[kind] = {
            "alarms": n_alarms,
            "recall": hits / n_alarms,
            "recall_95": wilson(hits, n_alarms),
            "heard_as_other_kind": wrong,
            "onset_to_decision_median_s": float(np.median(delays)) if delays else None,
            "missed": missed,
        }
    return found


def false_in_real_sound(
    listener: Listener, clips: list[tuple[str, NDArray[np.float32]]]
) -> dict[str, object]:
    """False alarms in the clips one after the other, and the 95 % bound of their rate."""
    samples = np.concatenate([clip for _, clip in clips])
    ends = np.cumsum([len(clip) for _, clip in clips])
    starts = listener.alarms(samples)
    hours = len(samples) / RATE_HZ / 3_600
    # Exact Poisson bound (Garwood, 1936): 3.0 where there was none.
    bound = float(scipy.stats.chi2.ppf(0.95, 2 * (len(starts) + 1)) / 2)
    return {
        "hours": hours,
        "false_alarms": len(starts),
        "bound_95": bound,
        "bound_95_per_hour": bound / hours,
        "where": [
            f"{start.label} in {clips[int(np.searchsorted(ends, start.onset_sample, 'right'))][0]}"
            for start in starts
        ],
    }


def false_of_beepers(listener: Listener, n_beepers: int, seed: int) -> dict[str, object]:
    """Share of other beepers that raise an alarm, from both generators in turn."""
    rng = np.random.default_rng([seed, 7])
    raised: Counter[str] = Counter()
    for number in range(n_beepers):
        if number % 2:
            name, samples = make_beeper(rng, SECONDS, RATE_HZ)
        else:
            name, samples = "device.alarms", synthesise_beeper(rng, SECONDS, RATE_HZ)
        raised[name] += bool(listener.alarms(samples))
    total = sum(raised.values())
    return {
        "beepers": n_beepers,
        "false_alarms": total,
        "share": total / n_beepers,
        "share_95": wilson(total, n_beepers),
        "by_rhythm": {name: count for name, count in raised.items() if count},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with clips.csv (esc50)")
    parser.add_argument("--fold", default="5", help="fold that the model has not heard (5)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--bundle", type=Path, help="model (the starter bundle)")
    which.add_argument("--cadence-only", action="store_true", help="no model: every score is 1")
    parser.add_argument("--alarms", type=int, default=200, help="of each kind (200)")
    parser.add_argument("--beepers", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = options.data or Path(__file__).parents[3] / "shared" / "data" / "esc50"
    if not (data / "clips.csv").is_file():
        raise SystemExit(f"{data}: no clips.csv: give the folder of real sound with --data")
    listener = cadence_only() if options.cadence_only else None
    if listener is None:
        listener = from_bundle(options.bundle or starter_bundle_path())
    clips = fold_clips(data, options.fold)
    began_s = time.monotonic()
    result = {
        "recall": recall(listener, clips, options.alarms, options.seed),
        "real": false_in_real_sound(listener, clips),
        "beepers": false_of_beepers(listener, options.beepers, options.seed),
    }
    if options.json:
        print(json.dumps(result))
        return
    for kind, row in result["recall"].items():
        low, high = row["recall_95"]
        print(
            f"{kind}: recall {100 * row['recall']:.1f} % of {row['alarms']} at 0 dB "
            f"(95 %: {100 * low:.1f}-{100 * high:.1f} %), decided "
            f"{row['onset_to_decision_median_s'] or float('nan'):.1f} s after its first pulse, "
            f"{row['heard_as_other_kind']} heard as the other kind"
        )
        for miss in row["missed"]:
            print(f"  missed in {miss}")
    real, beepers = result["real"], result["beepers"]
    print(
        f"false alarms in {real['hours']:.3f} h of real sound: {real['false_alarms']} "
        f"(95 % bound {real['bound_95']:.1f}, {real['bound_95_per_hour']:.1f} per hour)"
    )
    for place in real["where"]:
        print(f"  {place}")
    print(
        f"false alarms of {beepers['beepers']} other beepers: {beepers['false_alarms']} "
        f"({100 * beepers['share']:.1f} %, 95 %: {100 * beepers['share_95'][0]:.1f}-"
        f"{100 * beepers['share_95'][1]:.1f} %) {beepers['by_rhythm']}"
    )
    print(f"{time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
