"""Bad models are taken back within their probation, good ones are kept: so many of so many.

usage: bad_models.py [--sound FOLDER] [--clips N] [--repetitions N] [--probation-s S] [--live-s S]

The starter hears clips of a folder (by default, synthesised sound) by a real interpreter, and so do
variants of it in real bundles: good ones, whose weights are off by up to 12 of 127 steps, one with
permuted labels, one with constant output. Slow ones and such whose scores are no numbers are made
from a good one's scores. Then the updater lives through updates to each, on scenes of these clips
in random order with quiet between them, no two alike. Shadow off: probation has to find it out.
Prints a table of counts; ends with 1 where a good model was taken back or a bad one kept. A few
minutes of a quiet core.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from machine import describe, one_thread
from numpy.typing import NDArray

from soundpost.device.audio import read_clip
from soundpost.device.bundle import (
    parse_bundle,
    read_bundle,
    score_features,
    starter_bundle_path,
)
from soundpost.device.features import log_mel
from soundpost.device.interpreter import sigmoid
from soundpost.device.soundscape import soundscape
from soundpost.device.updates.boot import boot
from soundpost.device.updates.offers import Offer
from soundpost.device.updates.self_test import SelfTestResult
from soundpost.device.updates.update_settings import UpdateSettings
from soundpost.device.updates.updater import Updater

sys.path.insert(0, str(Path(__file__).parents[1] / "device" / "updates"))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from model_variants import off_by_steps, packed, reweighted
from simulated_sensor import Hearing, SimulatedSensor, StaticRepository

KINDS = ("good", "permuted", "constant", "slow", "nan")
ENDS = ("confirmed", "rejected", "rolled_back")
# Scores of a window, by clip: (n_windows, n_labels).
Scores = list[NDArray[np.float32]]


@dataclass
class Heard:
    """How a model hears the windows that a world names; see `simulated_sensor.Behaviour`."""

    seed: int
    scores_of: NDArray[np.float32]
    order: NDArray[np.int64]
    failing: float = 0.0
    compute_s: float = 0.001

    def scores(self, numbers: NDArray[np.int64], _rng: object) -> NDArray[np.float32]:
        return self.scores_of[numbers][:, self.order]


class World:
    """Clips in random order, quiet between them for 20 s on average; gives numbers of windows."""

    def __init__(self, seed: int, lengths: list[int], quiet: list[int]) -> None:
        self._rng = np.random.default_rng(seed)
        self._lengths, self._quiet = np.array(lengths), np.array(quiet)
        self._starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self._left = np.zeros(0, np.int64)

    def listen(self, n_windows: int) -> NDArray[np.int64]:
        parts, n_there = [self._left], len(self._left)
        while n_there < n_windows:
            rest = self._rng.choice(self._quiet, 1 + self._rng.poisson(20))
            clip = int(self._rng.integers(len(self._lengths)))
            sound = self._starts[clip] + np.arange(self._lengths[clip])
            parts += [rest, sound]
            n_there += len(rest) + len(sound)
        numbers = np.concatenate(parts)
        self._left = numbers[n_windows:]
        return numbers[:n_windows]


def sounds(folder: Path | None, n_clips: int, rate_hz: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    if folder is None:
        return [soundscape(seed, rate_hz)[0] for seed in range(n_clips)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac", ".ogg"))
    chosen = rng.choice(len(paths), min(n_clips, len(paths)), replace=False)
    return [read_clip(paths[number], rate_hz) for number in chosen]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sound", type=Path)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--probation-s", type=float, default=7_200.0)
    parser.add_argument("--live-s", type=float, default=1_800.0)
    arguments = parser.parse_args()
    one_thread()
    describe()
    starter = read_bundle(starter_bundle_path())
    manifest = starter.manifest
    rate_hz, n_labels = manifest.front_end.sample_rate_hz, len(manifest.labels)
    rng = np.random.default_rng(1)

    order = rng.permutation(n_labels)
    model = starter.model

    def off(share: float) -> bytes:
        return reweighted(model, off_by_steps(rng, share))

    contents = {
        "good": packed(starter, off(1.0), "1.1.0"),
        "permuted": packed(starter, model, "1.2.0", order),
        "constant": packed(starter, reweighted(model, lambda weights: weights * 0), "1.3.0"),
        "slow": packed(starter, off(0.4), "1.4.0"),
        "nan": packed(starter, off(0.3), "1.5.0"),
    }
    bundles = {kind: parse_bundle(content, kind) for kind, content in contents.items()}
    bundles["old"] = starter
    heard = sounds(arguments.sound, arguments.clips, rate_hz)
    quiet = (1e-3 * rng.standard_normal(60 * rate_hz)).astype(np.float32)
    features = [log_mel(clip, manifest.front_end) for clip in [quiet, *heard]]
    features = [one for one in features if len(one) >= manifest.n_frames]
    tables = {}
    for kind, bundle in bundles.items():
        interpreter = bundle.load_interpreter()
        scores = [sigmoid(score_features(one, manifest, interpreter)) for one in features]
        tables[kind] = np.concatenate(scores)
    lengths = [len(one) for one in scores]
    print(f"{len(heard)} clips, {sum(lengths)} windows by {len(bundles)} interpreters")
    for kind in bundles:
        differs = np.abs(tables[kind] - tables["old"]).mean()
        print(f"  {kind}: mean difference of scores {differs:.4f}")
    onsets = np.array([known.onset for known in manifest.classes])
    releases = np.array([known.release for known in manifest.classes])
    hop_s = manifest.hop_samples / rate_hz
    known = Hearing(tuple(manifest.labels), onsets, releases, hop_s)
    by_sha = {bundle.sha256: kind for kind, bundle in bundles.items()}
    settings = UpdateSettings(
        repository="simulated",
        root=Path("root.json"),
        spread_s=0.0,
        shadow_s=0.0,
        probation_s=arguments.probation_s,
    )

    def lives(kind: str, seed: int) -> tuple[str, str, float]:
        private = np.random.default_rng((seed, 7))

        def behaviour(sha256: str) -> Heard:
            found = by_sha[sha256]
            straight = np.arange(n_labels)
            # By label of the old model: another permutation each time.
            shuffled = private.permutation(n_labels) if found == "permuted" else straight
            return Heard(
                seed,
                tables["old" if found == "permuted" else found],
                shuffled,
                failing=0.05 if found == "nan" else 0.0,
                compute_s=0.01 if found == "slow" else 0.001,
            )

        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            folder = Path(name)
            found = boot(folder, None)
            world = World(seed, lengths[1:], list(range(lengths[0])))
            world._starts = world._starts + lengths[0]
            sensor = SimulatedSensor(starter, world, behaviour, known)
            repository = StaticRepository()
            new, content = bundles[kind], contents[kind]
            offer = Offer.of(new.manifest, len(content), new.sha256)
            repository.offers = (replace(offer, channels=("stable",)),)
            repository.contents[new.sha256] = content
            at_s = 0.0
            updater = Updater(
                settings,
                "bench",
                found,
                repository,  # type: ignore[arg-type]
                sensor,
                now=lambda: at_s,
                rng=random.Random(seed),
                self_test=lambda *_arguments, **_more: SelfTestResult(True, "not tried here"),
            )
            sensor.hear(arguments.live_s)
            while updater.state.result not in ENDS:
                wait_s = updater.step()
                if wait_s > 0.0:
                    step_s = 1.0 if wait_s < 1.0 else 60.0
                    at_s += step_s
                    sensor.hear(step_s)
            state = updater.state
            found.ended()
        return str(state.result), str(state.reason), at_s

    print("\n| model | lives | kept | taken back | after s, middle | after s, most | e.g. |")
    print("|---|---|---|---|---|---|---|")
    wrong = 0
    for kind in KINDS:
        results = [lives(kind, seed) for seed in range(arguments.repetitions)]
        kept = sum(result == "confirmed" for result, _, _ in results)
        back = sum(result == "rolled_back" for result, _, _ in results)
        wrong += len(results) - (kept if kind == "good" else back)
        times = [at_s for _, _, at_s in results]
        print(
            f"| {kind} | {len(results)} | {kept} | {back} | {np.median(times):.0f} | "
            f"{max(times):.0f} | {results[0][1]} |",
            flush=True,
        )
    print(f"\n{wrong} of {len(KINDS) * arguments.repetitions} ended otherwise than they should")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
