"""A run teaches the sensor's clip student: `soundpost distil`, then `train --soft-labels`."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.commands import EVALUATE, TRAIN
from soundpost.train.multimodal import soft_labelling
from soundpost.train.multimodal.distil_command import COMMAND
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
from soundpost.train.multimodal.soft_labelling import open_labeller, part_starts
from soundpost.train.multimodal.soft_labels import SoftLabelStore

RECIPE = """
name = "taught"
[model]
width = 0.35
dropout = 0.0
[data]
patch_frames = 50
[augment]
mix_probability = 0.5
[training]
epochs = 3
batch_size = 8
learning_rate = 3e-3
label_smoothing = 0.0
report_every = 3
"""


@pytest.fixture(scope="module")
def clips(tiny, tmp_path_factory):
    """A folder with clips.csv: cars and trains in two folds; one clip is longer than the others."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(1)
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "label", "fold"])
        for i in range(16):
            label = ("Car", "Train")[i % 2]
            seconds = 1.6 if i == 3 else 1.0
            soundfile.write(folder / f"{i}.wav", tiny.sound_of([label], rng, seconds), 16_000)
            rows.writerow([f"{i}.wav", label, 1 + i // 8])
    return folder


@pytest.fixture(scope="module")
def soft(tiny, clips, yin_run, tmp_path_factory):
    """Soft labels of the clips by the tagging run's student."""
    store = tmp_path_factory.mktemp("soft") / "yin"
    assert tiny.run(
        COMMAND, yin_run, "--data", clips, "--kind", "esc50", "--out", store, "--device", "cpu"
    ) == 0  # fmt: skip
    return store


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "taught.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def train(tiny, recipe, clips):
    def run(out, *more):
        assert tiny.run(
            TRAIN, recipe, "--data", clips, "--out", out, "--fold", 2, "--quiet", "--threads", 1,
            "--device", "cpu", *more,
        ) == 0  # fmt: skip
        return out

    return run


@pytest.fixture(scope="module")
def taught(train, soft, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "taught", "--soft-labels", soft)


def test_a_run_says_what_it_hears_in_every_clip(soft, clips, yin_run):
    store = SoftLabelStore(soft)
    assert store.clip_ids == {f"{i}.wav" for i in range(16)}
    assert len(store.labels) == 17
    (teacher,) = store.teachers
    assert teacher.sha256 == file_sha256(yin_run / "model.safetensors")
    rows, edges = store.rows("0.wav")
    assert rows.shape == (1, 17)
    assert edges.tolist() == [0.0, 1.0]
    heard = np.stack([store.rows(f"{i}.wav")[0].mean(0) for i in range(16)])
    for label, own in (("Car", 0), ("Train", 1)):
        scores = heard[:, store.labels.index(label)]
        assert roc_auc_score(np.arange(16) % 2 == own, scores) >= 0.9


def test_a_longer_clip_is_heard_in_overlapping_parts(soft, clips, yin_run):
    # 1.6 s by a network of 1 s: from 0 and from 0.6 s, which part in the middle, at 0.8 s.
    rows, edges = SoftLabelStore(soft).rows("3.wav")
    assert edges.tolist() == pytest.approx([0.0, 0.8, 1.6])
    labeller = open_labeller(yin_run, "student", torch.device("cpu"))
    from soundpost.device.features import log_mel
    from soundpost.train.multimodal.mutual_networks import Inputs

    sound, _ = soundfile.read(clips / "3.wav", dtype="float32")
    for row, start in enumerate((0.0, 0.6)):
        part = sound[round(start * 16_000) :][:16_000]
        heard = torch.from_numpy(log_mel(part, labeller.recipe.front_end))
        with torch.no_grad():
            expected = labeller.network(Inputs((heard[None],))).logits.sigmoid().numpy()
        np.testing.assert_allclose(rows[row], expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("clip_s", "starts", "hop_s"),
    [
        (4.0, [0.0], 10.0),
        (10.0, [0.0], 10.0),
        (10.001, [0.0, 0.001], 0.001),
        (25.0, [0.0, 7.5, 15.0], 7.5),
    ],
)
def test_parts_cover_a_clip(clip_s, starts, hop_s):
    found, hop = part_starts(clip_s, 10.0)
    assert found == pytest.approx(starts)
    assert hop == pytest.approx(hop_s)


def test_a_job_that_was_stopped_goes_on(tiny, clips, yin_run, soft, tmp_path, monkeypatch, capsys):
    store = tmp_path / "store"
    arguments = (yin_run, "--data", clips, "--kind", "esc50", "--out", store, "--device", "cpu")
    label = soft_labelling.TaggingLabeller.label
    asked = []

    def stopping(self, clip, media):
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(clip.id)
        return label(self, clip, media)

    with monkeypatch.context() as patch:
        patch.setattr(soft_labelling.TaggingLabeller, "label", stopping)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(COMMAND, *arguments)
    capsys.readouterr()
    assert tiny.run(COMMAND, *arguments, "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["clips"], done["new"], done["left_out"]) == (16, 11, [])
    for name in ("soft_labels.json", "scores.f32", "clips.jsonl"):
        assert (store / name).read_bytes() == (soft / name).read_bytes()


def test_the_teacher_sees(tiny, vehicles, yin_run, tmp_path, capsys):
    store = tmp_path / "store"
    assert tiny.run(
        COMMAND, yin_run, "--data", vehicles, "--kind", "dcase2017", "--out", store, "--network",
        "teacher", "--device", "cpu", "--json",
    ) == 0  # fmt: skip
    done = json.loads(capsys.readouterr().out)
    # 16 videos to learn from, 4 to be judged on; four test clips have sound alone.
    assert (done["clips"], len(done["left_out"])) == (20, 4)
    kept = np.load(yin_run / "scores.npz")
    found = SoftLabelStore(store)
    for clip_id, scores in zip(
        kept["test_teacher_clips"], kept["test_teacher_scores"], strict=True
    ):
        # The run's features are stored in two bytes.
        np.testing.assert_allclose(found.rows(str(clip_id))[0][0], scores, atol=2e-2)


def test_one_split_can_be_labelled(tiny, vehicles, yin_run, tmp_path, capsys):
    assert tiny.run(
        COMMAND, yin_run, "--data", vehicles, "--kind", "dcase2017", "--out", tmp_path / "s",
        "--split", "testing", "--device", "cpu", "--json",
    ) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["clips"] == 8


def test_a_student_learns_from_them(taught, soft, settings_of):
    settings = settings_of(taught)
    (teacher,) = settings["soft_labels"]
    assert teacher["sha256"] == SoftLabelStore(soft).teachers[0].sha256
    assert settings["recipe"]["soft_labels"]["teacher_weight"] == 0.5
    # What the sensor runs is the same student as ever.
    assert settings["labels"] == ["Car", "Train"]
    assert f"from what yin ({teacher['sha256'][:12]})" in (taught / "report.md").read_text()


def test_soft_labels_alone_teach(train, tmp_path):
    # A teacher that takes cars for trains, under names of its own.
    store = tmp_path / "store"
    with SoftLabelWriter(store, Teacher("wrong", "0" * 64), ("auto", "rail")) as writer:
        for i in range(16):
            says_rail = np.array([0.05, 0.95] if i % 2 == 0 else [0.95, 0.05], np.float32)
            writer.add(f"{i}.wav", says_rail[None], 0.0, 1.6)
    run = train(
        tmp_path / "swapped", "soft_labels.teacher_weight=1.0",
        'soft_labels.rename={Car = "auto", Train = "rail"}', "training.epochs=8",
        "training.crops_per_clip=6", "augment.mix_probability=0.0", "training.average_decay=0.9",
        "training.warmup_epochs=1.0", "--soft-labels", store,
    )  # fmt: skip
    kept = np.load(run / "scores.npz")
    for label in range(2):
        assert roc_auc_score(kept["test_truth"] == label, kept["test_scores"][:, label]) <= 0.1


def test_without_weight_nothing_changes(train, soft, tmp_path):
    """The same draws and the same loss: the weights of a run without soft labels, bit for bit."""
    plain = train(tmp_path / "plain")
    taught = train(tmp_path / "taught", "soft_labels.teacher_weight=0.0", "--soft-labels", soft)
    expected, found = (load_file(run / "model.safetensors") for run in (plain, taught))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    settings = json.loads((plain / "settings.json").read_text())
    # Runs of before there were soft labels go on: nothing of them stands there.
    assert "soft_labels" not in settings
    assert "soft_labels" not in settings["recipe"]


def test_alarms_that_no_teacher_knows_are_learnt_from_their_labels(train, soft, tmp_path):
    run = train(
        tmp_path / "alarms", "data.alarms=2", "data.alarm_share=0.5", "training.epochs=1",
        "--soft-labels", soft,
    )  # fmt: skip
    assert json.loads((run / "settings.json").read_text())["labels"] == [
        "Car", "Train", "co_alarm", "smoke_alarm",
    ]  # fmt: skip


def test_a_clip_student_teaches_too(tiny, taught, clips, train, soft, tmp_path, capsys):
    store = tmp_path / "store"
    arguments = ("--data", clips, "--kind", "esc50", "--out", store, "--device", "cpu")
    assert tiny.run(COMMAND, taught, *arguments) == 0
    # Windows of 50 frames, 25 apart: two lie within the second, and with a third it is covered.
    rows, edges = SoftLabelStore(store).rows("0.wav")
    assert rows.shape == (3, 2)
    assert edges[0] == 0.0
    assert edges[-1] == pytest.approx(0.5 + 0.515)
    capsys.readouterr()
    assert tiny.run(EVALUATE, taught, "--data", clips, "--json", "--device", "cpu") == 0
    top1 = json.loads(capsys.readouterr().out)["top1"]
    said = SoftLabelStore(store)
    right = [said.rows(f"{i}.wav")[0].mean(0).argmax() == i % 2 for i in range(16)]
    assert np.mean(right) == pytest.approx(top1)
    # Both teachers, averaged.
    again = train(
        tmp_path / "both", "training.epochs=1", "--soft-labels", soft, "--soft-labels", store
    )
    assert len(json.loads((again / "settings.json").read_text())["soft_labels"]) == 2


# ------------------------------------------------------------------------------- bad input


def test_clips_that_no_teacher_heard_are_named(tiny, train, yin_run, clips, soft, tmp_path):
    store = tmp_path / "store"
    assert tiny.run(
        COMMAND, yin_run, "--data", clips, "--kind", "esc50", "--out", store, "--split", "2",
        "--device", "cpu",
    ) == 0  # fmt: skip
    with pytest.raises(InputError, match=r"8 of 8 clips have none, the first 0.wav; .*distil"):
        train(tmp_path / "run", "--soft-labels", store)


def test_labels_that_the_teacher_does_not_know_are_named(train, soft, tmp_path):
    with pytest.raises(InputError, match=r"has no label 'Car' \(nearest"):
        train(tmp_path / "a", 'soft_labels.rename={Car = "Kar"}', "--soft-labels", soft)
    with pytest.raises(ConfigError, match=r"the clips have no label 'Cat'; did you mean Car\?"):
        train(tmp_path / "b", 'soft_labels.rename={Cat = "Car"}', "--soft-labels", soft)
    with pytest.raises(ConfigError, match=r"teacher_weight is 2.0; expected 0 to 1"):
        train(tmp_path / "c", "soft_labels.teacher_weight=2.0", "--soft-labels", soft)


def test_another_teachers_store_is_not_written_into(tiny, taught, clips, soft):
    with pytest.raises(InputError, match="holds soft labels with teacher"):
        tiny.run(
            COMMAND, taught, "--data", clips, "--kind", "esc50", "--out", soft, "--device", "cpu"
        )


def test_what_is_no_teacher_is_refused(tiny, taught, clips, tmp_path, yin_run):
    rest = ("--data", clips, "--kind", "esc50", "--out", tmp_path / "s", "--device", "cpu")
    with pytest.raises(InputError, match="is not a run that tells what a clip is"):
        tiny.run(COMMAND, tmp_path, *rest)
    with pytest.raises(UsageError, match="is a clip student, which has no teacher"):
        tiny.run(COMMAND, taught, *rest, "--network", "teacher")
    with pytest.raises(InputError, match=r"none of its 16 clips has audio and video"):
        tiny.run(COMMAND, yin_run, *rest, "--network", "teacher")


def test_other_weights_of_the_backbone_are_refused(yin_run, monkeypatch):
    from soundpost.train.multimodal import tagging_inputs

    other = tagging_inputs.StubBackbone

    def another(*arguments):
        return other(seed=1)

    opened = tagging_inputs.open_visual
    monkeypatch.setattr(
        tagging_inputs,
        "open_visual",
        lambda *a, **k: replace(opened(*a, **k), backbone=tagging_inputs.FrozenBackbone(another())),
    )
    with pytest.raises(InputError, match="was trained with other weights of stub"):
        open_labeller(yin_run, "teacher", torch.device("cpu"))
