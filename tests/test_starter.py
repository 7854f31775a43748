"""The starter bundle on real sound that it was not trained on (fold 5 of ../shared/data/esc50)."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from soundpost.device.audio import read_clip
from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.file_source import open_file
from soundpost.device.pipeline import Pipeline
from soundpost.train.checkpoint import load_packed_tensors
from soundpost.train.clips import load_waveforms, read_clip_set
from soundpost.train.evaluate import evaluate
from soundpost.train.loop import score_patches
from soundpost.train.mobilenet_v2 import MobileNetV2
from soundpost.train.windows import windows_of

pytestmark = pytest.mark.data

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[2] / "shared" / "data")
FOLD = 5


@pytest.fixture(scope="module")
def starter():
    return open_bundle(starter_bundle_path())


@pytest.fixture(scope="module")
def card(starter):
    """Clip top-1 of fold 5 as the model card states it, by form of the model."""
    rows = {}
    for line in starter[0].model_card.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] == "test":
            rows[cells[2]] = float(cells[3].removesuffix(" %")) / 100
    return rows


@pytest.fixture(scope="module")
def logits(starter):
    """Of every window of fold 5: float and int8, and the clip that each belongs to."""
    bundle, interpreter, _ = starter
    manifest = bundle.manifest
    clips = [clip for clip in read_clip_set(DATA / "esc50").clips if clip.fold == FOLD]
    windows = windows_of(
        load_waveforms(clips, 16_000, quiet=True), manifest.front_end, manifest.n_frames
    )
    network = MobileNetV2(len(manifest.labels))
    path = starter_bundle_path().with_name("starter.safetensors.xz")
    tensors, notes = load_packed_tensors(path)
    assert tuple(notes["labels"]) == manifest.labels
    network.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    )
    before = score_patches(network, windows.patches, torch.device("cpu"))
    after = np.stack([interpreter.run(patch).logits for patch in windows.patches])
    truth = np.array([manifest.labels.index(clip.label) for clip in clips])
    return before, after, windows.clip, truth


def clip_top1(values, clip, truth):
    scores = np.zeros((len(truth), values.shape[1]))
    np.add.at(scores, clip, 1 / (1 + np.exp(-values)))
    return float((scores.argmax(1) == truth).mean())


def test_reaches_what_its_card_states(card):
    result = evaluate(starter_bundle_path(), DATA / "esc50", FOLD, quiet=True)
    assert result.figures.n_clips == 278
    assert result.figures.top1 == pytest.approx(card["int8"], abs=0.005)
    # A random forest on MFCC statistics reaches 49.9 %.
    assert result.figures.top1 > 0.6


def test_int8_keeps_what_float_learnt(logits, card):
    before, after, clip, truth = logits
    agreement = float((before.argmax(1) == after.argmax(1)).mean())
    drop = clip_top1(before, clip, truth) - clip_top1(after, clip, truth)
    print(f"window agreement {agreement:.4f}, clip top-1 drop {100 * drop:.2f} points")
    assert agreement >= 0.97
    assert drop <= 0.010
    assert clip_top1(before, clip, truth) == pytest.approx(card["float (torch)"], abs=0.005)


def events_of(bundle, interpreter, path, block_s):
    with open_file(str(path), realtime=False, block_s=block_s) as source:
        pipeline = Pipeline(bundle, interpreter, source.rate_hz)
        found = [d for block in source.blocks() for w in pipeline.push(block) for d in w.detections]
        return found + [d for w in pipeline.finish() for d in w.detections]


@pytest.mark.parametrize("scene", ["scene00.flac", "scene07.flac"])
def test_events_do_not_depend_on_how_the_stream_is_cut(starter, scene):
    bundle, interpreter, _ = starter
    path = DATA / "scenes_mixed" / scene
    whole = events_of(bundle, interpreter, path, 5.0)
    assert any(d.phase == "end" for d in whole)
    for block_s in (0.02, 0.313):
        assert events_of(bundle, interpreter, path, block_s) == whole


def test_both_runtimes_report_the_same_events(starter):
    bundle, fast, _ = starter
    other, portable = bundle.load_interpreter("tflite-runtime"), bundle.load_interpreter("portable")
    assert portable.runtime.startswith("ai-edge-litert")
    shifted = total = 0
    for path in sorted((DATA / "scenes_mixed").glob("*.flac"))[:10]:
        expected = events_of(bundle, other, path, 0.5)
        # Onsets, offsets and scores, to the last bit.
        assert events_of(bundle, portable, path, 0.5) == expected
        first, second = (
            {(d.label, d.onset_sample) for d in found if d.phase == "start"}
            for found in (events_of(bundle, fast, path, 0.5), expected)
        )
        shifted += len(first ^ second)
        total += len(first | second)
    print(f"{total} events in ten scenes, {shifted} differ with XNNPACK's kernels")
    # They round a step of 1/16 logit apart: a score on its threshold may fall either way.
    assert total > 20
    assert shifted <= 0.25 * total


def test_an_alarm_over_a_real_scene_is_heard(starter):
    from soundpost.device.alarms import AlarmSettings, synthesise_alarm

    bundle, interpreter, _ = starter
    rng = np.random.default_rng(4)
    with (DATA / "esc50" / "clips.csv").open() as file:
        names = [row["filename"] for row in csv.DictReader(file) if row["fold"] == str(FOLD)]
    heard = 0
    for name in rng.choice(names, 10, replace=False):
        clip = read_clip(DATA / "esc50" / name)
        if clip.std() < 1e-4:
            clip = clip + rng.standard_normal(len(clip)).astype(np.float32) * 1e-3
        ground = np.resize(clip, 12 * 16_000)
        alarm = synthesise_alarm("smoke_alarm", rng, 12.0, 16_000, AlarmSettings.held_out()).samples
        sound = ground + alarm * (ground.std() / alarm.std())
        pipeline = Pipeline(bundle, interpreter, 16_000)
        from soundpost.device.audio import AudioBlock

        block = AudioBlock((sound / np.abs(sound).max()).astype(np.float32)[:, None], 0, 16_000)
        found = [d.label for w in pipeline.push(block) for d in w.detections if d.phase == "start"]
        heard += "smoke_alarm" in found
    assert heard >= 8
