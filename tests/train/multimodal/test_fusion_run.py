"""`soundpost train li2018`, `evaluate` and `distil`, on a tiny set in its published layout.

Cars and trains are heard, buses are red, and trucks are neither heard nor seen.
"""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone
from soundpost.train.commands import EVALUATE, TRAIN
from soundpost.train.datasets.action_files import picture_bytes
from soundpost.train.multimodal import fusion_run
from soundpost.train.multimodal.distil_command import COMMAND as DISTIL
from soundpost.train.multimodal.fusion_run import load_fusion_run
from soundpost.train.multimodal.mil_crnn import clip_features
from soundpost.train.multimodal.soft_labels import SoftLabelStore
from soundpost.train.multimodal.tagging_sets import TaggingBatches

KINDS = ("Car", "Train", "Bus", "Truck")
RED, GREY = (230, 20, 20), (90, 90, 90)
SMALL = (
    "data.seconds=1.0", 'data.test=["testing"]', "data.validation_share=0.25",
    "front_end.hop_length=400", "model.channels=[8, 8]", "model.time_pools=[5, 1]",
    "model.mel_pools=[5, 4]", "model.gru_units=8", "visual.features=stub", "visual.objects=stub",
    "visual.frames_per_second=5.0", "training.epochs=10", "training.batch_size=4",
    "training.learning_rate=0.3", "training.clip_value=0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def street(tiny, tmp_path_factory):
    """32 videos to learn from and 12 to judge on; the file of objects' names, and of words."""
    folder = tmp_path_factory.mktemp("street")
    rng = np.random.default_rng(0)
    for part, n in (("training", 32), ("testing", 12)):
        rows = []
        for i in range(n):
            label = KINDS[i % 4]
            name = f"{part[:5]}{i:06d}"
            rows.append(f'{name},0.000,1.000,"{label}"\n')
            tiny.layouts.write_video(
                folder / "video" / f"{name}_0.000_1.000.mkv", 1.0,
                samples=tiny.sound_of([label] if label in ("Car", "Train") else [], rng),
                colour=RED if label == "Bus" else GREY,
            )  # fmt: skip
        tiny.layouts.write_table(folder / f"{part}_set.csv", "".join(rows))
    # What the stub takes red pictures for is called a bus, and what it takes grey ones for a wall.
    red, grey = (np.full((1, 48, 64, 3), colour, np.uint8) for colour in (RED, GREY))
    stub = FrozenBackbone(StubBackbone())
    tells = (stub.scores(red) - stub.scores(grey))[0].argsort(descending=True)[:300].tolist()
    names = ["bus" if i in tells else "wall" for i in range(1000)]
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    words = ("bus", "wall", "car", "train", "truck")
    vectors = np.eye(5).astype(int).tolist()
    (folder / "glove.txt").write_text(
        "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in zip(words, vectors, strict=True))
    )
    return folder


@pytest.fixture(scope="module")
def train(tiny, street):
    def run(out, *more, data=street):
        return tiny.run(
            TRAIN, "li2018", *SMALL, f"visual.word_vectors={street / 'glove.txt'}",
            f"visual.object_names={street / 'names.txt'}", "--data", data, "--out", out, "--quiet",
            "--threads", 1, "--device", "cpu", *more,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "li"
    assert train(run) == 0
    return run


def lines_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return [{k: v for k, v in line.items() if k != "clips_per_s"} for line in lines]


def figures_of(run):
    return json.loads((run / "figures.json").read_text())


def test_a_folder_becomes_a_run(finished, settings_of):
    assert {path.name for path in finished.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "best.safetensors",
        "fusion.json", "model.safetensors", "scores.npz", "figures.json", "report.md",
        "curves.png", "key_frames.png", "labels_validation.png", "labels_testing.png",
    }  # fmt: skip
    settings = settings_of(finished)
    assert settings["schema"] == "soundpost.fusion_run/1"
    # A quarter of 32 is held out, and not learnt from.
    assert settings["data"]["train"]["n_clips"] == 24
    assert settings["data"]["validation"]["n_clips"] == 8
    assert settings["data"]["testing"]["n_clips"] == 12
    assert settings["backbones"]["features"]["name"] == "stub"
    figures = figures_of(finished)
    assert figures.keys() == {"validation", "testing"}
    assert figures["testing"].keys() == {"audio", "video", "fused"}
    report = (finished / "report.md").read_text()
    row = r"\| testing \| fused \| 12 \| [.\d]+% \| [.\d]+% \| [.\d]+% \| [.\d]+ \| 60.9% \|"
    assert re.search(row, report)
    assert "| dcase2017 evaluation | audio | – | – | – | – | – | 50.6% |" in report
    assert re.search(r"^\| bus \| [.\d]+% \| Bus \| 1.00 \|$", report, re.MULTILINE)


def test_what_is_seen_makes_the_fusion_better(finished):
    decided = json.loads((finished / "fusion.json").read_text())
    weights = dict(zip(decided["labels"], decided["video_weights"], strict=True))
    assert weights["Bus"] == 0.8
    assert weights["Car"] == pytest.approx(0.2)
    judged = figures_of(finished)["testing"]
    assert judged["video"]["label_f1"]["Bus"] == 1.0
    assert judged["fused"]["label_f1"]["Bus"] > judged["audio"]["label_f1"]["Bus"]
    assert judged["fused"]["f1"] > max(judged["audio"]["f1"], judged["video"]["f1"])
    # One of the two tones is learnt in so short a time.
    assert judged["audio"]["average_precision"]["Car"] >= 0.9


def test_the_scores_kept_are_those_of_the_networks_kept(finished, street):
    from soundpost.train.datasets.media import read_audio, read_frames_per_second

    run = load_fusion_run(finished)
    kept = np.load(finished / "scores.npz")
    video = street / "video" / "testi000002_0.000_1.000.mkv"
    row = kept["testing_clips"].tolist().index("testi000002_0.000_1.000")
    heard = clip_features(read_audio(video, 20_000, 0.0, 1.0), run.recipe.front_end)
    with torch.no_grad():
        audio = run.network(torch.from_numpy(heard)[None]).clips.sigmoid().numpy()[0]
    np.testing.assert_allclose(audio, kept["testing_audio_scores"][row], atol=5e-3)
    # All pictures are the same, so that any four are key frames.
    picture = read_frames_per_second(video, 5.0, 0.0, 1.0)[:1]
    objects = FrozenBackbone(StubBackbone()).scores(picture).softmax(1).numpy()[0]
    names = (street / "names.txt").read_text().split()
    likeliest = np.argsort(-objects)[:10]
    buses = sum(objects[k] for k in likeliest if names[k] == "bus") / objects[likeliest].sum()
    scores = dict(zip(run.labels, kept["testing_video_scores"][row], strict=True))
    assert scores["Bus"] == pytest.approx(buses, abs=1e-5)
    fused = dict(zip(run.labels, kept["testing_fused_scores"][row], strict=True))
    heard_bus = audio[run.labels.index("Bus")]
    assert fused["Bus"] == pytest.approx(0.2 * heard_bus + 0.8 * buses, abs=5e-3)


def test_the_network_that_is_kept_is_that_of_the_best_epoch(finished):
    lines = lines_of(finished)
    assert len(lines) == 10
    best, kept = (load_file(finished / n) for n in ("best.safetensors", "model.safetensors"))
    for name, value in kept.items():
        assert torch.equal(value, best[f"student.{name}"]), name
    found = figures_of(finished)["validation"]["audio"]
    assert round(found["f1"], 6) == max(line["validation_f1"] for line in lines)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(finished, train, tmp_path, monkeypatch):
    run = tmp_path / "stopped"
    for last in (1, 4):

        class Stopping(TaggingBatches):
            stop = last

            def batch(self, epoch, number):
                if epoch == self.stop and number == 1:
                    raise KeyboardInterrupt
                return super().batch(epoch, number)

        with monkeypatch.context() as patch:
            patch.setattr(fusion_run, "TaggingBatches", Stopping)
            with pytest.raises(KeyboardInterrupt):
                train(run)
        assert len(lines_of(run)) == last
    assert train(run) == 0
    assert lines_of(run) == lines_of(finished)
    found, expected = (load_file(r / "model.safetensors") for r in (run, finished))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert figures_of(run) == figures_of(finished)


def test_the_rate_falls_on_a_plateau_of_the_validation_split(train, tmp_path, settings_of):
    run = tmp_path / "run"
    # At such a rate the loss goes up and down.
    rates = ("training.patience_epochs=1", "training.learning_rate=2.0")
    own = 'data.validation=["testing"]'
    assert train(run, *rates, own, "training.epochs=6") == 0
    data = settings_of(run)["data"]
    assert (data["train"]["n_clips"], data["validation"]["n_clips"]) == (32, 12)
    lines = lines_of(run)
    rate, lowest = 2.0, float("inf")
    for line in lines:
        assert line["learning_rate"] == pytest.approx(rate)
        if line["validation_loss"] >= lowest:
            rate *= 0.8
        lowest = min(lowest, line["validation_loss"])
    assert rate < 2.0


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_run_is_judged_as_its_report_says(finished, street, tiny, capsys, part):
    assert tiny.run(
        EVALUATE, finished, "--data", street, "--part", part, "--json", "--device", "cpu"
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    split = {"test": "testing", "validation": "validation"}[part]
    assert found["splits"] == {split: figures_of(finished)[split]}
    assert tiny.run(EVALUATE, finished, "--data", street, "--device", "cpu") == 0
    assert re.search(r"^testing, fused: 12 clips: F1 ", capsys.readouterr().out, re.MULTILINE)


def test_it_is_judged_on_the_set_that_it_is_given(
    finished, street, relabelled, tiny, tmp_path, capsys
):
    # Every clip is called as the one before it: the same scores against that truth.
    names = [(KINDS[(i + 1) % 4],) for i in range(12)]
    other = relabelled(street, tmp_path / "other", "testing", names)
    assert tiny.run(EVALUATE, finished, "--data", other, "--device", "cpu", "--json") == 0
    found = json.loads(capsys.readouterr().out)["splits"]["testing"]
    kept, labels = np.load(finished / "scores.npz"), load_fusion_run(finished).labels
    order = [int(clip_id[5:11]) for clip_id in kept["testing_clips"]]
    truth = np.array([[label in names[clip] for label in labels] for clip in order])
    some = truth.any(0)
    for branch in ("audio", "video", "fused"):
        scores = kept[f"testing_{branch}_scores"]
        expected = average_precision_score(truth[:, some], scores[:, some])
        assert found[branch]["mean_average_precision"] == pytest.approx(expected, abs=1e-4)
    assert found["audio"]["f1"] < figures_of(finished)["testing"]["audio"]["f1"]


@pytest.mark.parametrize(("network", "branch"), [("student", "audio"), ("teacher", "fused")])
def test_a_run_says_what_it_hears_and_sees(finished, street, tiny, tmp_path, network, branch):
    store = tmp_path / "soft"
    assert tiny.run(
        DISTIL, finished, "--data", street, "--kind", "dcase2017", "--split", "testing",
        "--network", network, "--out", store, "--device", "cpu",
    ) == 0  # fmt: skip
    labels = SoftLabelStore(store)
    kept = np.load(finished / "scores.npz")
    assert labels.teachers[0].name == f"li, {branch}"
    assert labels.labels == load_fusion_run(finished).labels
    ids = kept["testing_clips"].tolist()
    said = np.stack([labels.rows(clip)[0][0] for clip in ids])
    # Log-mel is kept in two bytes each.
    np.testing.assert_allclose(said, kept[f"testing_{branch}_scores"], atol=5e-3)


@pytest.fixture(scope="module")
def eye(tiny, tmp_path_factory):
    """A run that tells red pictures from grey ones, and what they are called."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("validation", 2)):
        for name, colour in (("bus", RED), ("wall", GREY)):
            (folder / split / name).mkdir(parents=True)
            for number in range(n):
                noise = rng.integers(-9, 9, (48, 64, 3))
                picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                (folder / split / name / f"{number}.jpeg").write_bytes(picture_bytes(picture))
    run = tmp_path_factory.mktemp("runs") / "eye"
    assert tiny.run(
        TRAIN, "pictures", "training.epochs=6", "training.batch_size=8", "--data", folder, "--out",
        run, "--quiet", "--threads", 1, "--device", "cpu", "training.bfloat16=false",
    ) == 0  # fmt: skip
    return run


def test_a_run_of_ours_can_be_what_sees(eye, train, street, tiny, tmp_path, capsys):
    run, moved = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(eye, moved)
    sees = (f"visual.features={moved}", f"visual.objects={moved}", "visual.object_names=")
    assert train(run, *sees, "training.epochs=1") == 0
    decided = json.loads((run / "fusion.json").read_text())
    assert decided["objects"] == ["bus", "wall"]
    figures = figures_of(run)["testing"]
    assert figures["video"]["label_f1"]["Bus"] == 1.0
    moved.rename(tmp_path / "gone")
    evaluate = (EVALUATE, run, "--data", street, "--device", "cpu", "--json")
    with pytest.raises(InputError, match=r"elsewhere: is not a run folder"):
        tiny.run(*evaluate)
    capsys.readouterr()
    assert tiny.run(*evaluate, "--weights", eye) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["testing"] == figures


# ------------------------------------------------------------------------------- bad input


def test_missing_weights_say_which_whence_and_their_hash(train, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"^inception_v4: no weights at .*a756a086851c8d5a.*https"):
        train(tmp_path / "run", "visual.objects=inception_v4")
    with pytest.raises(InputError, match=r"glove.840B.300d.txt: no such file .*c06db255e6509539"):
        train(tmp_path / "run", "visual.word_vectors=")
    assert not (tmp_path / "run").exists()


def test_clips_without_pictures_are_named_or_left_out(train, street, tmp_path, settings_of):
    folder = tmp_path / "lacking"
    shutil.copytree(street, folder, ignore=shutil.ignore_patterns("features"))
    path = folder / "video" / "testi000005_0.000_1.000.mkv"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"testi000005_0.000_1.000.mkv: .*expected"):
        train(tmp_path / "run", "training.epochs=1", data=folder)
    path.unlink()
    with pytest.raises(InputError, match=r"testi000005.* has no audio file.*1 of the 12 clips"):
        train(tmp_path / "run", "training.epochs=1", data=folder)
    assert train(tmp_path / "run", "training.epochs=1", "data.problems=skip", data=folder) == 0
    assert settings_of(tmp_path / "run")["data"]["testing"]["n_clips"] == 11


def test_another_recipe_in_the_same_folder_is_refused(finished, train):
    with pytest.raises(ConfigError, match="holds a run with another recipe"):
        train(finished, "fusion.better_weight=0.9")


def test_splits_that_are_not_there_are_named(train, tmp_path):
    with pytest.raises(InputError, match=r"has no split 'evaluation'; there are training, testing"):
        train(tmp_path / "run", 'data.test=["testing", "evaluation"]')


def test_options_of_others_are_refused(finished, street, train, tiny, tmp_path):
    with pytest.raises(UsageError, match=r"--teacher RUN is not used .*visual\.features"):
        train(tmp_path / "run", "--teacher", tmp_path)
    with pytest.raises(UsageError, match=r"--fold: is not used .*it is for clip students"):
        tiny.run(EVALUATE, finished, "--data", street, "--fold", 1)
    with pytest.raises(UsageError, match=r"--weights .*: is no folder; .*sees with two networks"):
        tiny.run(EVALUATE, finished, "--data", street, "--weights", finished / "no")
    with pytest.raises(UsageError, match="only runs of some families are judged together"):
        tiny.run(EVALUATE, finished, finished, "--data", street)


def test_a_run_that_is_not_finished_says_so(finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(InputError, match="is not a run folder"):
        load_fusion_run(run)
    (run / "settings.json").write_bytes((finished / "settings.json").read_bytes())
    with pytest.raises(InputError, match="training is not finished"):
        load_fusion_run(run)
