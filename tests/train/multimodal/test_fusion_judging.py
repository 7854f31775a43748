"""Weights, thresholds and figures of the branches, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from soundpost.device.errors import InputError
from soundpost.train.multimodal.fusion_judging import (
    Decision,
    branch_figures,
    choose,
    figures_to_dict,
    judge_part,
    write_scores,
)
from soundpost.train.multimodal.word_vectors import ObjectEvents

LABELS = ("bus", "train", "car")
OBJECTS = ObjectEvents(("coach", "engine"), LABELS, np.array([0, -1]))


@pytest.fixture
def clips():
    """Sound tells the train, pictures tell the bus; of the car both know a little."""
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 3)) < 0.4).astype(np.float32)
    noise = 0.35 * rng.random((2, 200, 3)).astype(np.float32)
    tells = np.array([[0.05, 0.6, 0.3], [0.6, 0.05, 0.1]], np.float32)
    audio, video = noise + tells[:, None] * truth
    return audio, video, truth


def decision(clips):
    weights, thresholds = choose(*clips, 0.8, seed=0)
    return Decision(weights, thresholds, OBJECTS, 10)


def test_the_better_branch_weighs_more(clips):
    found = decision(clips)
    assert_allclose(found.weights, [0.8, 0.2, 0.2])
    audio, video, _ = clips
    fused = found.fused(audio, video)
    assert_allclose(fused[:, 0], 0.2 * audio[:, 0] + 0.8 * video[:, 0], rtol=1e-5)
    assert_allclose(fused[:, 1], 0.8 * audio[:, 1] + 0.2 * video[:, 1], rtol=1e-5)


def test_fusion_is_better_than_either(clips):
    audio, video, truth = clips
    part = judge_part(tuple(map(str, range(200))), truth, audio, video, decision(clips))
    f1 = {branch: figures.f1 for branch, figures in part.figures.items()}
    assert f1["fused"] > max(f1["audio"], f1["video"])


def test_figures_are_those_of_scikit_learn(clips):
    audio, _, truth = clips
    found = decision(clips)
    thresholds = found.thresholds["audio"]
    figures = branch_figures(audio, truth, LABELS, thresholds)
    said = audio >= thresholds
    assert figures.n_clips == 200
    assert figures.f1 == pytest.approx(f1_score(truth, said, average="micro"))
    assert figures.precision == pytest.approx(precision_score(truth, said, average="micro"))
    assert figures.recall == pytest.approx(recall_score(truth, said, average="micro"))
    assert figures.mean_average_precision == pytest.approx(average_precision_score(truth, audio))
    assert_allclose(list(figures.label_f1.values()), f1_score(truth, said, average=None))


def test_labels_that_no_clip_has_are_not_judged(clips):
    audio, _, truth = clips
    truth = truth.copy()
    truth[:, 2] = 0
    figures = branch_figures(audio, truth, LABELS, np.full(3, 0.5))
    assert figures.label_f1.keys() == figures.average_precision.keys() == {"bus", "train"}
    with pytest.raises(InputError, match=r"200 clips: no label that some have and some have not"):
        branch_figures(audio, np.zeros_like(truth), LABELS, np.full(3, 0.5))


def test_a_decision_is_read_as_it_was_written(clips, tmp_path):
    found = decision(clips)
    found.write(tmp_path)
    again = Decision.read(tmp_path)
    assert again.labels == LABELS
    assert_array_equal(again.weights, found.weights)
    assert again.thresholds.keys() == found.thresholds.keys()
    for branch, values in found.thresholds.items():
        assert_array_equal(again.thresholds[branch], values)
    assert again.objects.objects == OBJECTS.objects
    assert_array_equal(again.objects.event, OBJECTS.event)
    assert again.top_objects == 10
    (tmp_path / "fusion.json").write_text("{}")
    with pytest.raises(InputError, match=r"fusion.json: cannot be read .*train again"):
        Decision.read(tmp_path)


def test_scores_and_figures_are_kept(clips, tmp_path):
    audio, video, truth = clips
    ids = tuple(f"c{i}" for i in range(200))
    judged = {"testing": judge_part(ids, truth, audio, video, decision(clips))}
    write_scores(tmp_path, judged)
    kept = np.load(tmp_path / "scores.npz")
    assert_array_equal(kept["testing_audio_scores"], audio)
    assert_array_equal(kept["testing_truth"], truth)
    assert tuple(kept["testing_clips"]) == ids
    table = json.loads(json.dumps(figures_to_dict(judged)))
    assert table["testing"].keys() == {"audio", "video", "fused"}
    assert table["testing"]["fused"]["n_clips"] == 200
