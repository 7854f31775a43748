"""The streaming student learns what a trained pair says, and its detector is set on validation."""

import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from soundpost.device.features import FrontEnd
from soundpost.train.sed.detector_choice import choose_detector, windows_for
from soundpost.train.sed.event_filter import EventWindows
from soundpost.train.sed.feature_cache import FeatureCache, encode, open_features
from soundpost.train.sed.frame_grid import frame_targets
from soundpost.train.sed.judging import judge_on_device
from soundpost.train.sed.recipe import FilterSettings
from soundpost.train.sed.run import DetectionRun
from soundpost.train.sed.scenes import Event, Scene, SceneSet
from soundpost.train.sed.stream_teachers import teacher_posteriors
from soundpost.train.sed.streaming_run import load_streaming_run, read_scenes, score_student

CPU = torch.device("cpu")
FRONT_END = FrontEnd()


@pytest.fixture(scope="module")
def tone_pair():
    path = Path(__file__).with_name("tone_pair.py")
    specification = spec_from_file_location("tone_pair", path)
    module = module_from_spec(specification)
    sys.modules["tone_pair"] = module
    specification.loader.exec_module(module)
    return module


# --- what the teacher says ------------------------------------------------------------------------

LABELS = ("cat", "dog")
N_FRAMES = 98
# Of each recording: how it is labelled, its tags, the pair's clip scores, and which labels may have
# frames: those that it is tagged with; where no one tagged it, those of a clip score above 0.3.
RECORDINGS = [
    ("strong", {"cat"}, (0.2, 0.9), (True, False)),
    ("weak", {"dog"}, (0.9, 0.2), (False, True)),
    ("weak", set(), (0.9, 0.9), (False, False)),
    ("weak", {"cat", "dog"}, (0.2, 0.2), (True, True)),
    ("unlabelled", set(), (0.35, 0.25), (True, False)),
    ("unlabelled", set(), (0.25, 0.35), (False, True)),
    ("unlabelled", set(), (0.9, 0.9), (True, True)),
    ("unlabelled", set(), (0.2, 0.2), (False, False)),
] * 3


def heard(number):
    """Frame scores (n_frames, n_labels) of a recording, and a spike of a frame's length in both."""
    scores = np.full((N_FRAMES, 2), 0.15)
    scores[20 + number : 60, 0] = 0.8
    scores[30 + number : 55, 1] = 0.6 + 0.01 * number
    scores[80] = 0.9
    return scores


@pytest.fixture(scope="module")
def features(tone_pair):
    """Log-mel from which the pair below gives these scores: bands 0 and 1 frames, 2 and 3 clips."""
    values = np.full((len(RECORDINGS), N_FRAMES, 64), -6.0)
    scenes = []
    for number, (labelling, tags, clip_scores, _) in enumerate(RECORDINGS):
        scores = np.concatenate([heard(number), np.tile(clip_scores, (N_FRAMES, 1))], axis=1)
        values[number, :, :4] = np.log(scores / (1 - scores)) + 2.0
        events = (Event("cat", 0.2, 0.6),) if labelling == "strong" else ()
        path = Path(f"{number}.wav")
        scenes.append(Scene(path, labelling, 1.0, events, frozenset(tags)))
    codes = encode(values.astype(np.float32), FRONT_END)
    return FeatureCache(SceneSet(Path("x"), tuple(scenes), LABELS), FRONT_END, codes)


def trained(tone_pair, **decision):
    """A run of the pair: a median of five frames for the cat, none for the dog."""
    return DetectionRun(
        Path("run"),
        LABELS,
        tone_pair.recipe(),
        EventWindows("esp", {"cat": 0.05, "dog": 0.0}),
        tone_pair.band_pair((0, 1), (2, 3)),
        replace(FilterSettings(), **decision),
    )


def filtered(number):
    scores = heard(number)
    scores[:, 0] = median_filter(scores[:, 0], 5, mode="nearest")
    return scores


def test_known_tags_are_the_gate_and_where_none_are_the_clip_scores(tone_pair, features):
    teacher = trained(tone_pair, tag_threshold=0.3)
    assert teacher.recipe.filter.tag_threshold == 0.5
    posteriors = teacher_posteriors(teacher, features, CPU, quiet=True)
    assert posteriors.shape == (len(RECORDINGS), N_FRAMES, 2)
    for number, (*_, opened) in enumerate(RECORDINGS):
        # float16 has 11 bits.
        expected = filtered(number) * np.array(opened)
        np.testing.assert_allclose(posteriors[number], expected, atol=1e-3)
    # The spike is the dog's alone: a median removes the cat's.
    assert posteriors[6, 80] == pytest.approx([0.15, 0.9], abs=1e-3)


def test_a_pair_that_decides_without_a_gate_teaches_without_one(tone_pair, features):
    """Except by tags that are known: they are no pair's opinion."""
    teacher = trained(tone_pair, tag_threshold=0.3, gate=False)
    posteriors = teacher_posteriors(teacher, features, CPU, quiet=True)
    for number, (labelling, _, _, opened) in enumerate(RECORDINGS):
        gate = np.array((True, True) if labelling == "unlabelled" else opened)
        np.testing.assert_allclose(posteriors[number], filtered(number) * gate, atol=1e-3)


# --- what its student learns ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def streaming(tone_pair, tmp_path_factory):
    """The folder's sets, the run folder, and what the training returned."""
    folder, runs = tmp_path_factory.mktemp("tones"), tmp_path_factory.mktemp("runs")
    judged = tone_pair.write_streaming_run(folder, runs)
    return read_scenes(tone_pair.streaming_recipe(), folder, quiet=True), runs / "streaming", judged


def test_the_student_hears_what_its_teacher_told_it(tone_pair, streaming):
    sets, run, _ = streaming
    held_out = open_features(sets.validation, FRONT_END, tone_pair.SECONDS, quiet=True)
    scores = np.stack(score_student(load_streaming_run(run).student.network, held_out))
    truth = np.stack(
        [
            frame_targets(scene.events, sets.validation.labels, FRONT_END, held_out.n_frames)
            for scene in sets.validation.scenes
        ]
    )
    said = scores > 0.5
    assert said[truth == 1].mean() > 0.9
    assert said[truth == 0].mean() < 0.05


def without_scores(found):
    return {path: [replace(one, score=0.0) for one in events] for path, events in found.items()}


def scores_of(found):
    return [event.score for path in sorted(found) for event in found[path]]


def test_the_detector_is_set_on_validation_and_judged_as_the_sensor_decides(tone_pair, streaming):
    sets, run, judged = streaming
    read = load_streaming_run(run)
    windows = windows_for(sets.train, read.recipe.detector)
    chosen = {}
    for name, scene_set in (("validation", sets.validation), ("test", sets.test)):
        known = open_features(scene_set, FRONT_END, tone_pair.SECONDS, quiet=True)
        scores = score_student(read.student.network, known)
        choosing = scene_set.scenes, scores, read.student.labels, windows, FRONT_END
        chosen[name] = choose_detector(*choosing, read.recipe.detector, quiet=True)
        deciding = scene_set.scenes, scores, read.detector.classes, FRONT_END
        # 200 ms of the future, 100 ms at a time.
        expected = judge_on_device(*deciding, 20, 10)
        assert without_scores(judged[name].found) == without_scores(expected.found)
        # The last bits of a score hang on how a batch lies in memory.
        assert scores_of(judged[name].found) == pytest.approx(scores_of(expected.found), abs=1e-6)
        assert judged[name].figures.headline() == pytest.approx(
            expected.figures.headline(), nan_ok=True
        )
        deaf = judge_on_device(*deciding, 0, 10)
        assert deaf.found != expected.found
    assert read.detector == chosen["validation"] != chosen["test"]
    assert judged["validation"].figures.headline()["event_f1"] == 1
