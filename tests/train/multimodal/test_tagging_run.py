"""`soundpost train yin2021` and `soundpost evaluate`, on a tiny set in its published layout."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.commands import EVALUATE, TRAIN
from soundpost.train.multimodal.mutual_networks import Inputs
from soundpost.train.multimodal.tagging_run import load_tagging_run


@pytest.fixture
def train(tiny, vehicles):
    def run(recipe, out, *more, data=vehicles):
        return tiny.run(
            TRAIN, recipe, *tiny.small, "--data", data, "--out", out, "--quiet", "--threads", 1,
            "--device", "cpu", *more,
        )  # fmt: skip

    return run


def lines_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return [{k: v for k, v in line.items() if k != "clips_per_s"} for line in lines]


def test_a_folder_becomes_a_run(yin_run, settings_of):
    assert {path.name for path in yin_run.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "teacher.safetensors", "scores.npz", "figures.json", "report.md", "curves.png",
        "labels_test.png",
    }  # fmt: skip
    report = (yin_run / "report.md").read_text()
    # Published figures of the row stand beside those of both networks.
    row = r"\| mAP \| [.\d]+ \| [.\d]+ \| 0.6421 \|"
    assert re.search(row, report)
    assert "| F1 | " in report
    assert "| 0.6080 |" in report
    assert "student 8 and teacher 4 clips" in report
    figures = json.loads((yin_run / "figures.json").read_text())["test"]
    assert figures["student"]["n_clips"] == 8
    # Tones are learnt in seconds; of a bus nothing is heard, which is what tells it.
    assert figures["student"]["average_precision"]["Car"] >= 0.9
    assert figures["student"]["average_precision"]["Train"] >= 0.9
    settings = settings_of(yin_run)
    assert settings["schema"] == "soundpost.tagging_run/1"
    assert settings["backbone"]["name"] == "stub"
    assert len(settings["backbone"]["fingerprint"]) == 32
    assert settings["data"]["train"]["n_clips"] == 16
    assert {"git", "torch", "labels", "path"} <= settings.keys()


def test_the_scores_kept_are_those_of_the_networks_kept(yin_run, vehicles):
    run = load_tagging_run(yin_run)
    kept = np.load(yin_run / "scores.npz")
    features = vehicles / "features"
    assert features.is_dir()
    # By hand, from a clip's file to its scores: what the student hears is the device's log-mel.
    from soundpost.device.features import log_mel
    from soundpost.train.datasets.media import read_audio

    video = vehicles / "video" / "testi000000_0.000_1.000.mkv"
    heard = torch.from_numpy(log_mel(read_audio(video, 16_000, 0.0, 1.0), run.recipe.front_end))
    with torch.no_grad():
        said = run.student(Inputs((heard[None],))).logits.sigmoid().numpy()
    row = kept["test_student_clips"].tolist().index("testi000000_0.000_1.000")
    np.testing.assert_allclose(said[0], kept["test_student_scores"][row], atol=5e-3)
    assert kept["test_student_truth"][row].sum() == 1


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(yin_run, train, tmp_path, monkeypatch):
    from soundpost.train.multimodal import tagging_run
    from soundpost.train.multimodal.tagging_sets import TaggingBatches

    class Stopping(TaggingBatches):
        def batch(self, epoch, number):
            if epoch == 2:
                raise KeyboardInterrupt
            return super().batch(epoch, number)

    run = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(tagging_run, "TaggingBatches", Stopping)
        with pytest.raises(KeyboardInterrupt):
            train("yin2021", run)
    assert len(lines_of(run)) == 2
    assert train("yin2021", run) == 0
    for name in ("model.safetensors", "teacher.safetensors"):
        found, expected = load_file(run / name), load_file(yin_run / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    assert lines_of(run) == lines_of(yin_run)


def test_several_runs_are_averaged(yin_run, train, tmp_path, tiny, vehicles, capsys):
    second = tmp_path / "second"
    train("yin2021", second, "training.seed=1")
    capsys.readouterr()
    assert tiny.run(EVALUATE, yin_run, second, "--data", vehicles, "--json", "--device", "cpu") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == [str(yin_run), str(second)]
    # An oracle of its own: scikit-learn on the mean of the scores that the runs kept.
    from sklearn.metrics import average_precision_score

    kept = [np.load(run / "scores.npz") for run in (yin_run, second)]
    mean = (kept[0]["test_student_scores"] + kept[1]["test_student_scores"]) / 2
    truth = kept[0]["test_student_truth"]
    some = truth.any(0)
    expected = average_precision_score(truth[:, some], mean[:, some], average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    assert not np.array_equal(kept[0]["test_student_scores"], kept[1]["test_student_scores"])


def test_one_run_is_judged_as_its_report_says(yin_run, tiny, vehicles, capsys):
    assert tiny.run(EVALUATE, yin_run, "--data", vehicles, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    figures = json.loads((yin_run / "figures.json").read_text())["test"]["student"]
    assert f"mAP {figures['mean_average_precision']:.4f}" in printed
    assert re.search(r"^Train +4 ", printed, re.MULTILINE)


def test_a_trained_teacher_need_not_learn_again(train, tmp_path, capsys):
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    # Half of the clips to be judged on have no video.
    assert train("yin2021_fusion", teacher, "data.problems=skip") == 0
    figures = json.loads((teacher / "figures.json").read_text())
    assert figures["test"]["student"]["n_clips"] == 4
    assert train("yin2021_distillation", run, "--teacher", teacher) == 0
    assert [line["stage"] for line in lines_of(run)] == ["student"] * 6
    given, kept = load_file(teacher / "model.safetensors"), load_file(run / "teacher.safetensors")
    for key, value in given.items():
        assert torch.equal(kept[key], value), key
    assert "The teacher is that of another run" in (run / "report.md").read_text()
    with pytest.raises(UsageError, match="this method's teacher learns together"):
        train("yin2021", tmp_path / "no", "--teacher", teacher)
    with pytest.raises(UsageError, match=r"its model is .*, expected .*yin2021_fusion"):
        train("yin2021_distillation", tmp_path / "no", "model.width=0.5", "--teacher", teacher)
    # It has learnt from what this student is to be judged on.
    turned = ('data.train=["testing"]', 'data.test=["training"]', "data.problems=skip")
    with pytest.raises(UsageError, match=r"its training clips is .*yin2021_fusion"):
        train("yin2021_distillation", tmp_path / "no", *turned, "--teacher", teacher)


def test_plain_students_take_no_pictures(train, tmp_path):
    run = tmp_path / "plain"
    assert train("yin2021_plain", run, "visual.backbone=vgg16") == 0
    figures = json.loads((run / "figures.json").read_text())["test"]
    assert figures.keys() == {"student"}


def test_the_validation_split_is_what_is_watched(train, tmp_path):
    run = tmp_path / "run"
    split = 'data.validation=["testing"]'
    assert train("yin2021_plain", run, split, "training.epochs=2", "training.report_every=1") == 0
    assert [line["judged"] for line in lines_of(run)] == ["validation", "validation"]
    assert (run / "labels_validation.png").is_file()


# ------------------------------------------------------------------------------- bad input


def test_missing_weights_say_which_whence_and_their_hash(train, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        train("yin2021", tmp_path / "run", "visual.backbone=vgg16")
    line = str(error.value)
    assert "vgg16: no weights at" in line
    assert "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0" in line
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in line
    assert not (tmp_path / "run").exists()


@pytest.fixture
def lacking(vehicles, tmp_path):
    """The set with one video that is gone and one that is damaged."""
    folder = tmp_path / "lacking"
    (folder / "video").mkdir(parents=True)
    (folder / "audio").mkdir()
    for path in sorted(vehicles.rglob("*")):
        kept = path.name != "train000001_0.000_1.000.mkv"
        if path.is_file() and "features" not in path.parts and kept:
            (folder / path.relative_to(vehicles)).write_bytes(path.read_bytes())
    damaged = folder / "video" / "train000002_0.000_1.000.mkv"
    damaged.write_bytes(damaged.read_bytes()[:300])
    return folder


def test_clips_that_cannot_be_used_end_the_run_in_one_line(train, lacking, tmp_path):
    with pytest.raises(InputError, match=r"train000002_0.000_1.000.mkv: .*expected"):
        train("yin2021", tmp_path / "run", data=lacking)
    (lacking / "video" / "train000002_0.000_1.000.mkv").unlink()
    with pytest.raises(InputError) as error:
        train("yin2021", tmp_path / "run", data=lacking)
    line = str(error.value)
    assert "line 2: clip train000001_0.000_1.000 has no audio file" in line
    assert "so it is with 2 of the 16 clips of training: data.problems=skip" in line


def test_clips_that_cannot_be_used_are_left_out_if_asked(train, lacking, tmp_path, caplog):
    run = tmp_path / "run"
    assert train("yin2021", run, "data.problems=skip", "training.epochs=1", data=lacking) == 0
    settings = json.loads((run / "settings.json").read_text())
    assert settings["data"]["train"]["n_clips"] == 14
    assert "train000002_0.000_1.000: left out" in caplog.text
    # It is known to be damaged, and not opened again.
    caplog.clear()
    again = tmp_path / "again"
    assert train("yin2021", again, "data.problems=skip", "training.epochs=1", data=lacking) == 0
    assert "left out" in caplog.text
    assert "train000002_0.000_1.000: left out" not in caplog.text


def test_another_recipe_in_the_same_folder_is_refused(yin_run, train):
    with pytest.raises(ConfigError, match="holds a run with another recipe"):
        train("yin2021", yin_run, "training.epochs=7")


def test_splits_that_are_not_there_are_named(train, tmp_path):
    with pytest.raises(InputError, match=r"has no split 'evaluation'; there are training, testing"):
        train("yin2021", tmp_path / "run", 'data.test=["evaluation"]')


def test_options_of_other_recipes_are_refused(train, tmp_path, tiny, yin_run, vehicles):
    with pytest.raises(
        UsageError, match="--fold K is not used by its recipes; it is for clip students"
    ):
        train("yin2021", tmp_path / "run", "--fold", 1)
    with pytest.raises(UsageError, match="--soft-labels STORE is not used"):
        train("yin2021", tmp_path / "run", "--soft-labels", tmp_path)
    with pytest.raises(UsageError, match="its recipe has no validation clips"):
        tiny.run(EVALUATE, yin_run, "--data", vehicles, "--part", "validation", "--device", "cpu")
    with pytest.raises(UsageError, match=r"--fold: is not used for .*it is for clip students"):
        tiny.run(EVALUATE, yin_run, "--data", vehicles, "--fold", 1)


def test_a_run_that_is_not_finished_says_so(yin_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(InputError, match="is not a run folder"):
        load_tagging_run(run)
    (run / "settings.json").write_bytes((yin_run / "settings.json").read_bytes())
    with pytest.raises(InputError, match="training is not finished"):
        load_tagging_run(run)
