"""Prints what the sensor's student loses against the published one, and in int8 against itself.

python tests/benchmarks/streaming_student.py --data scenes --pair runs/full \
    --student runs/streaming --bundle streaming.bundle

The pair's student hears ten seconds at once, both ways, and is decided three times: as published,
at one half; with the two thresholds that its run chose on validation; and with thresholds of its
own for each label, chosen on validation by the rule that chooses the sensor's, which is fairest to
it. All on the folder's test recordings. The trade of the streaming student's threshold follows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from machine import describe, one_thread, verdict

from soundpost.device.bundle import open_bundle
from soundpost.device.detection import ClassSettings
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.train.sed.batches import in_order
from soundpost.train.sed.decisions import FrameGrid
from soundpost.train.sed.desed import DesedFolder
from soundpost.train.sed.evaluate import judge_bundle
from soundpost.train.sed.event_filter import gate_and_filter
from soundpost.train.sed.feature_cache import FeatureCache, open_features
from soundpost.train.sed.fitting import score_scenes
from soundpost.train.sed.judged import ScoresOf
from soundpost.train.sed.judging import Judged, heard_frames, judge_on_device, judge_published
from soundpost.train.sed.metrics import SedFigures, sed_figures
from soundpost.train.sed.report import HEADLINES, written
from soundpost.train.sed.run import DetectionRun, load_detection_run
from soundpost.train.sed.streaming_run import load_streaming_run, read_scenes, score_student
from soundpost.train.sed.thresholds import TradePoint, choose_thresholds, trade_off

POINTS, INT8_POINTS, DELAY_S = 0.03, 0.015, 0.5
ONSETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CPU = torch.device("cpu")


def pair_figures(run: DetectionRun, held: dict[str, FeatureCache]) -> dict[str, SedFigures]:
    """Of the published student on the test recordings, by how it is decided."""
    front_end = run.recipe.front_end
    windows = run.windows.frames(run.labels, front_end.hop_length / front_end.sample_rate_hz)
    filtered: dict[str, ScoresOf] = {}
    found: dict[str, SedFigures] = {}
    for name, features in held.items():
        frames, clips = score_scenes(run.pair.student, in_order(features, 16), CPU)
        scenes = features.scenes.scenes
        opens = run.decision.tag_threshold if run.decision.gate else 0.0
        filtered[name] = {
            scene.path: gate_and_filter(heard_frames(f, scene, front_end), c, windows, opens)
            for scene, f, c in zip(scenes, frames, clips, strict=True)
        }
        if name == "test":
            decided = (scenes, run.labels, frames, clips, windows)
            for how, settings in (
                ("pair, at 0.5 as published", run.recipe.filter),
                ("pair, thresholds chosen", run.decision),
            ):
                found[how] = judge_published(*decided, settings, front_end).figures
    grid = FrameGrid.of(front_end)
    plain = [ClassSettings(label, 0.5, 0.3, "none", 1, 0.0, 0.05) for label in run.labels]
    validation = held["validation"].scenes.scenes
    chosen = choose_thresholds(validation, filtered["validation"], grid, plain)
    found["pair, chosen for each label"] = sed_figures(
        held["test"].scenes.scenes, filtered["test"], grid, [of.settings for of in chosen]
    )
    return found


def features_of(sets: DesedFolder, seconds: float, front_end: object) -> dict[str, FeatureCache]:
    """Of validation and test."""
    if sets.test is None:
        raise SystemExit(f"{sets.train.folder}: has no metadata/eval to judge on")
    return {
        name: open_features(scenes, front_end, seconds)
        for name, scenes in (("validation", sets.validation), ("test", sets.test))
    }


def print_table(found: dict[str, SedFigures]) -> None:
    """One line for each system."""
    names = ("event_f1", "segment_f1", "clip_f1", "psds_1", "psds_2", "false_alarms_per_hour")
    delays = ("onset_delay_median_s", "onset_delay_p90_s")
    print(f"| system | {' | '.join(HEADLINES[name][0] for name in (*names, *delays))} |")
    print("|---" * (1 + len(names) + len(delays)) + "|")
    for system, figures in found.items():
        of = figures.headline()
        cells = [written(of[name], HEADLINES[name][1]) for name in (*names, *delays)]
        print(f"| {system} | {' | '.join(cells)} |")


def print_trade(points: Sequence[TradePoint]) -> None:
    """All labels at one onset threshold."""
    print("\n| onset threshold | event F1 | false alarms per hour | delay: median | 90 % | heard |")
    print("|---|---|---|---|---|---|")
    for at in points:
        if at.label is None:
            heard = f"{at.n_heard} of {at.n_heard + at.n_missed}"
            print(
                f"| {at.onset:.2f} | {at.event_f1:.1%} | {at.false_alarms_per_hour:.0f} | "
                f"{at.onset_delay_median_s:.2f} s | {at.onset_delay_p90_s:.2f} s | {heard} |"
            )


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="soundscapes")
    parser.add_argument("--pair", type=Path, required=True, help="run of full or the like")
    parser.add_argument("--student", type=Path, required=True, help="run of streaming")
    parser.add_argument("--bundle", type=Path, required=True, help="the student, exported")
    arguments = parser.parse_args()
    one_thread()
    describe()
    torch.set_num_threads(1)
    run = load_streaming_run(arguments.student)
    sets = read_scenes(run.recipe, arguments.data)
    held = features_of(sets, run.recipe.batch.seconds, run.recipe.front_end)
    found = pair_figures(load_detection_run(arguments.pair), held)
    detector, test = run.detector, held["test"]

    def judge(name: str) -> Judged:
        return judge_on_device(
            held[name].scenes.scenes,
            score_student(run.student.network, held[name]),
            detector.classes,
            test.front_end,
            detector.look_ahead_frames,
            detector.chunk_frames,
        )

    student = judge("test")
    found["streaming, float"] = student.figures
    bundle, interpreter, _ = open_bundle(arguments.bundle, "auto")
    assert isinstance(interpreter, FrameInterpreter)
    found["streaming, int8"] = judge_bundle(bundle.manifest, interpreter, test, quiet=False).figures
    print_table(found)
    f1 = {system: figures.headline()["event_f1"] for system, figures in found.items()}
    best = max(value for system, value in f1.items() if system.startswith("pair"))
    behind = best - f1["streaming, float"]
    print(
        f"\nstreaming behind the best of the pair's three: {100 * behind:+.1f} points, "
        f"{verdict(behind, POINTS)} {100 * POINTS:g}"
    )
    lost = f1["streaming, float"] - f1["streaming, int8"]
    print(
        f"int8 behind float: {100 * lost:+.1f} points, {verdict(lost, INT8_POINTS)} "
        f"{100 * INT8_POINTS:g}"
    )
    delay_s = found["streaming, int8"].headline()["onset_delay_median_s"]
    print(
        f"first message of int8 at the chosen point: {1000 * delay_s:.0f} ms after the onset in "
        f"the median, {verdict(delay_s, DELAY_S)} {1000 * DELAY_S:g}"
    )
    points = trade_off(
        student.scenes,
        student.scores,
        FrameGrid.of(test.front_end),
        detector.classes,
        ONSETS,
        look_ahead_frames=detector.look_ahead_frames,
        chunk_frames=detector.chunk_frames,
    )
    print_trade(points)
    sounding = np.mean([len(scene.events) for scene in student.scenes])
    print(f"\n{len(student.scenes)} test recordings with {sounding:.1f} events each")


if __name__ == "__main__":
    main()
