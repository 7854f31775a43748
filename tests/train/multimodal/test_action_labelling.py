"""What a run of perez2020 says of a set's clips: soft labels by clip id and seconds."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.frame_input import crop_frames
from soundpost.train.backbones.temporal_resnet import spread_frames
from soundpost.train.commands import TRAIN
from soundpost.train.datasets.acoustic_actions import read_actions
from soundpost.train.datasets.command import COMMAND as DATASET
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.action_networks import frame_input
from soundpost.train.multimodal.action_run import load_action_run
from soundpost.train.multimodal.clip_media import read_media_set
from soundpost.train.multimodal.distil_command import COMMAND
from soundpost.train.multimodal.soft_labelling import open_labeller
from soundpost.train.multimodal.soft_labels import SoftLabelStore

CPU = torch.device("cpu")
TAUGHT = """
name = "taught"
[model]
width = 0.35
dropout = 0.0
[data]
patch_frames = 50
[augment]
mix_probability = 0.0
[training]
epochs = 2
batch_size = 2
learning_rate = 3e-3
label_smoothing = 0.0
report_every = 2
"""


@pytest.fixture(scope="module")
def store(tiny, dualcam_run, hums, tmp_path_factory):
    """What the acoustic teacher says of every recording."""
    out = tmp_path_factory.mktemp("soft") / "dcn"
    assert tiny.run(
        COMMAND, dualcam_run, "--data", hums, "--kind", "actions", "--out", out, "--device", "cpu",
    ) == 0  # fmt: skip
    return out


def test_a_teacher_speaks_every_second(store, dualcam_run, hums):
    soft = SoftLabelStore(store)
    recordings = read_actions(hums)[0].recordings
    assert soft.clip_ids == {recording.id for recording in recordings}
    assert soft.labels == ("hum", "hiss")
    network = load_action_run(dualcam_run).network
    for recording in recordings[:2]:
        rows, edges = soft.rows(recording.id)
        assert edges.tolist() == [0.0, 1.0, 2.0]
        images = torch.from_numpy(recording.load_images()).view(2, 12, 36, 48, 12)
        with torch.no_grad():
            by_hand = network(images).softmax(1)
        np.testing.assert_allclose(rows, by_hand, atol=1e-3)
        np.testing.assert_allclose(rows.sum(1), 1.0, atol=2e-3)
        assert (rows.argmax(1) == recording.action - 1).all()


def test_a_student_speaks_of_the_sound(hearnet_run, hums):
    labeller = open_labeller(hearnet_run, "student", CPU)
    assert labeller.needs == ("audio",)
    read = read_media_set("actions", Folders(hums))
    said = labeller.label(read.clips.clips[0], read.media)
    # Two seconds are less than the five that a student is trained on.
    assert said.scores.shape == (1, 2)
    assert (said.hop_s, said.window_s) == (5.0, 5.0)


def test_a_teacher_that_sees_both_is_shown_the_same_moments(train_hums, hums, tmp_path):
    run = train_hums("perez2020_avnet", tmp_path / "av", "model.width=0.1", "training.epochs=1")
    labeller = open_labeller(run, "student", CPU)
    assert labeller.needs == ("video", "images")
    read = read_media_set("actions", Folders(hums))
    clip = read.clips.clips[1]
    said = labeller.label(clip, read.media)
    assert (said.scores.shape, said.hop_s, said.window_s) == ((2, 2), 1.0, 1.0)
    recording = read_actions(hums)[0].recordings[1]
    vectors = torch.from_numpy(labeller.visual.vectors(recording.load_pictures(12, 12)))
    images = torch.from_numpy(recording.load_images(12, 12))
    with torch.no_grad():
        second = labeller.run.network(vectors[None], images[None]).softmax(1)
    np.testing.assert_allclose(said.scores[1], second[0], atol=1e-5)


def test_a_teacher_that_sees_motion_is_shown_five_of_twelve(train_hums, hums, tmp_path):
    run = train_hums(
        "perez2020_temporal_resnet50", tmp_path / "run", "weights.backbone=none",
        "model.learns=all", "model.width=0.1", "model.frame_px=48", "training.epochs=1",
    )  # fmt: skip
    labeller = open_labeller(run, "student", CPU)
    assert labeller.needs == ("video",)
    read = read_media_set("actions", Folders(hums))
    said = labeller.label(read.clips.clips[2], read.media)
    recording = read_actions(hums)[0].recordings[2]
    shown = recording.load_pictures()[[12 + i for i in spread_frames(12)]]
    # 48 of the middle of what is 55 high.
    assert said.scores.shape == (2, 2)
    frames = crop_frames(torch.from_numpy(shown), frame_input(48))
    with torch.no_grad():
        second = labeller.run.network(frames[None]).softmax(1)
    np.testing.assert_allclose(said.scores[1], second[0], atol=1e-5)


def test_a_deployment_student_learns_from_it(tiny, store, dualcam_run, hums, tmp_path):
    """The sounds of a set as a folder of clips, each with the id that the set has for it."""
    clips = tmp_path / "clips"
    assert tiny.run(DATASET, "clips", "actions", hums, "--out", clips, "--quiet") == 0
    recipe = tmp_path / "taught.toml"
    recipe.write_text(TAUGHT)
    command = (
        TRAIN, recipe, "--data", clips, "--fold", 2, "--quiet", "--threads", 1, "--device", "cpu",
    )  # fmt: skip
    taught, alone = tmp_path / "taught", tmp_path / "alone"
    assert tiny.run(*command, "--out", taught, "--soft-labels", store) == 0
    assert tiny.run(*command, "--out", alone) == 0
    settings = json.loads((taught / "settings.json").read_text())
    weights = (dualcam_run / "model.safetensors").read_bytes()
    assert settings["soft_labels"] == [
        {"name": "dcn", "sha256": hashlib.sha256(weights).hexdigest()}
    ]
    # What the teacher says is part of what is learnt.
    first, without = (
        json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"]
        for run in (taught, alone)
    )
    assert abs(first - without) > 1e-4


def test_what_a_run_cannot_say(tiny, dualcam_run, hums, vehicles, tmp_path):
    with pytest.raises(UsageError, match="has one network, be it a teacher; leave --network out"):
        open_labeller(dualcam_run, "teacher", CPU)
    arguments = ("--out", tmp_path / "soft", "--device", "cpu")
    with pytest.raises(InputError, match=r"none of its \d+ clips has images, which dcn needs"):
        tiny.run(COMMAND, dualcam_run, "--data", vehicles, "--kind", "dcase2017", *arguments)
    read = read_media_set("actions", Folders(hums))
    labeller = open_labeller(dualcam_run, "student", CPU)
    short = replace(read.clips.clips[0], start_s=0.0, end_s=0.5)
    with pytest.raises(
        InputError, match=r"has 6 frames; expected 12 or more, for dcn is shown 1 s"
    ):
        labeller.label(short, read.media)
