"""jia2019 end to end on tiny clips: labels by machine, pre-training, transfer, scratch."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.checkpoint import load_tensors
from soundpost.train.commands import EVALUATE, TRAIN
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal import machine_run, transfer_run
from soundpost.train.multimodal.clip_media import read_media_set
from soundpost.train.multimodal.distil_command import COMMAND
from soundpost.train.multimodal.machine_run import load_machine_run
from soundpost.train.multimodal.second_features import heard_seconds
from soundpost.train.multimodal.soft_labels import SoftLabelStore
from soundpost.train.multimodal.transfer_run import drawn_share, load_transfer_run

NETWORK = ("model.width=0.1", "model.embedding_size=16")
PRETRAIN = (
    *NETWORK, "data.kind=dcase2017", 'data.splits=["training"]', "data.validation_share=0.4",
    "training.epochs=12", "training.batch_size=4", "training.learning_rate=3e-3",
    "training.report_every=6",
)  # fmt: skip
VEHICLES = (
    "data.kind=dcase2017", 'data.train=["training"]', 'data.test=["testing"]', "data.seconds=1",
    "data.labels=several", "training.batch_size=8", "training.report_every=10",
)  # fmt: skip


@pytest.fixture(scope="module")
def train(tiny, vehicles):
    def run(recipe, out, *more, data=vehicles):
        return tiny.run(
            TRAIN, recipe, "--data", data, "--out", out, "--quiet", "--threads", 1, "--device",
            "cpu", *more,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def labels(tiny, vehicles, yin_run, tmp_path_factory):
    """Labels of the vehicles: what the stub sees and yin2021's student hears."""
    folder = tmp_path_factory.mktemp("labels")
    names = folder / "things.txt"
    names.write_text("sky\nCar\nroad\ntree\nwall\nhouse\n")
    assert tiny.run(
        COMMAND, "--seen-by", "stub", "--seen-labels", names, "--top-seen", 3, "--heard-by",
        yin_run, "--heard-per-clip", 1.5, "--n-folds", 4, "--data", vehicles, "--kind", "dcase2017",
        "--out", folder / "labels", "--device", "cpu", "--quiet",
    ) == 0  # fmt: skip
    return folder / "labels"


@pytest.fixture(scope="module")
def pretrained(train, labels, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "jia"
    assert train("jia2019_mobilenet_v2", run, *PRETRAIN, f"data.labels={labels}") == 0
    return run


@pytest.fixture(scope="module")
def transferred(train, pretrained, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "transferred"
    assert train(
        "jia2019_esc50", run, *VEHICLES, "training.epochs=60", "training.learning_rate=3e-2",
        "--init", pretrained,
    ) == 0  # fmt: skip
    return run


@pytest.fixture(scope="module")
def clips(tiny, tmp_path_factory):
    """A folder with clips.csv: cars and trains of 1.6 s in two folds."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(1)
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "label", "fold"])
        for i in range(16):
            label = ("Car", "Train")[i % 2]
            soundfile.write(folder / f"{i}.wav", tiny.sound_of([label], rng, 1.6), 16_000)
            rows.writerow([f"{i}.wav", label, 1 + i // 8])
    return folder


def lines_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return [{k: v for k, v in line.items() if k != "clips_per_s"} for line in lines]


def same_weights(run, other):
    found, expected = (load_file(one / "model.safetensors") for one in (run, other))
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], value) for name, value in expected.items())


# ------------------------------------------------------------------------------- pre-training


def test_labels_become_a_run(pretrained, settings_of):
    assert {path.name for path in pretrained.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "figures.json", "report.md", "curves.png", "labels_validation.png",
    }  # fmt: skip
    settings = settings_of(pretrained)
    data = settings["data"]
    # Of the training split, a quarter or so is kept; the testing split is not learnt from.
    assert data["n_train"] + data["n_validation"] == 16
    assert 2 <= data["n_validation"] <= 8
    assert data["n_silent"] == 0
    # "Car" is seen and heard: two classes.
    assert ["visual", "Car"] in settings["classes"]
    assert ["audio", "Car"] in settings["classes"]
    assert {"Car", "Car (seen)"} <= set(settings["labels"])
    lines = lines_of(pretrained)
    assert [line["learning_rate"] for line in lines] == pytest.approx(
        [3e-3 * 0.9**k for k in range(12)]
    )
    assert [line["epoch"] for line in lines if "student_map" in line] == [5, 11]
    report = (pretrained / "report.md").read_text()
    # Published figures after transfer stand there.
    assert "| ESC-50 | 83.8% | – | 89.4% | – |" in report
    assert "million multiply-adds a second" in report
    # Nowhere is a path of where things lay.
    assert "labels" not in settings["recipe"]["data"]


def test_a_stopped_pretraining_goes_on_to_the_same_weights(
    train, labels, pretrained, tmp_path, monkeypatch
):
    class Stopping(machine_run.MachineBatches):
        def batch(self, epoch, number):
            if epoch == 2:
                raise KeyboardInterrupt
            return super().batch(epoch, number)

    run = tmp_path / "stopped"
    arguments = ("jia2019_mobilenet_v2", run, *PRETRAIN, f"data.labels={labels}")
    with monkeypatch.context() as patch:
        patch.setattr(machine_run, "MachineBatches", Stopping)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments)
    assert len(lines_of(run)) == 2
    assert train(*arguments) == 0
    assert same_weights(run, pretrained)
    assert lines_of(run) == lines_of(pretrained)


@pytest.mark.parametrize("network", ["vggish", "vggish_bn", "vggish_fc", "resnet50"])
def test_every_network_can_be_trained(train, labels, tmp_path, network):
    run = tmp_path / "run"
    short = ("training.epochs=1", "data.validation_share=0.0")
    assert train(f"jia2019_{network}", run, *PRETRAIN, *short, "model.width=0.05",
                 f"data.labels={labels}") == 0  # fmt: skip
    trained = load_machine_run(run)
    assert trained.recipe.model.network == network
    assert json.loads((run / "figures.json").read_text()) == {"validation": None}


def clip_of(name, group):
    return MediaClip(name, audio=None, video=None, labels=("hum",), split="train", group=group)


def test_clips_of_one_video_are_watched_by_or_learnt_from_together():
    ids = [f"{video}_{second}" for video in range(60) for second in range(5)]
    clips = [clip_of(name, name.split("_")[0]) for name in ids]
    kept = machine_run.kept_back(clips, 0.2).reshape(60, 5)
    assert (kept.any(1) == kept.all(1)).all()
    assert 0.05 <= kept.mean() <= 0.4
    # Where there are three groups a fifth of the clips is drawn from each.
    places = [clip_of(name, f"place {number % 3}") for number, name in enumerate(ids)]
    kept = machine_run.kept_back(places, 0.2)
    assert all(0.1 <= kept[place::3].mean() <= 0.3 for place in range(3))
    assert not machine_run.kept_back(clips, 0.0).any()


def test_labels_that_tell_nothing_apart_are_learnt_and_not_watched(
    train, vehicles, tmp_path, caplog
):
    ids = sorted(path.stem for path in (vehicles / "video").glob("train*.mkv"))
    labels = tmp_path / "labels"
    labels.mkdir()
    header = {"schema": "soundpost.machine_labels/1", "rules": {"n_folds": 1}}
    (labels / "labelling.json").write_text(json.dumps(header))
    lines = ["clip_id,label,score,source,model", *(f"{one},sky,0.5,visual,ab" for one in ids)]
    (labels / "fold_0.csv").write_text("\n".join(lines) + "\n")
    run = tmp_path / "run"
    assert train("jia2019_mobilenet_v2", run, *PRETRAIN, "training.epochs=1",
                 f"data.labels={labels}") == 0  # fmt: skip
    assert "all have the same labels: the training is not watched" in caplog.text
    assert json.loads((run / "figures.json").read_text()) == {"validation": None}
    assert not (run / "labels_validation.png").exists()


def test_a_clip_student_begins_with_it(train, pretrained, clips, tmp_path):
    run = tmp_path / "student"
    assert train(
        "finetune", run, *NETWORK, "training.epochs=1", "training.learning_rate=1e-12",
        "training.warmup_epochs=0.0", "training.average_decay=0.0", "training.batch_size=4",
        "training.weight_decay=0.0", "data.validation_fraction=0.0", "--fold", 2, "--init",
        pretrained, data=clips,
    ) == 0  # fmt: skip
    found, notes = load_tensors(run / "model.safetensors")
    given, known = load_tensors(pretrained / "model.safetensors")
    assert notes["labels"] == ["Car", "Train"]
    for name, value in given.items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        if name.startswith("classifier"):
            # The rows of what is heard, not of what is seen.
            rows = [known["labels"].index(label) for label in notes["labels"]]
            torch.testing.assert_close(found[name], value[rows], atol=1e-6, rtol=0)
        else:
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


def test_it_labels_clips_by_the_second(tiny, pretrained, clips, tmp_path):
    store = tmp_path / "store"
    assert tiny.run(
        COMMAND, pretrained, "--data", clips, "--kind", "esc50", "--out", store, "--device", "cpu",
        "--quiet",
    ) == 0  # fmt: skip
    rows, edges = SoftLabelStore(store).rows("3.wav")
    # 1.6 s: the rest is half a second or more, and counts.
    assert edges.tolist() == [0.0, 1.0, 2.0]
    run = load_machine_run(pretrained)
    sound, _ = soundfile.read(clips / "3.wav", dtype="float32")
    patches = torch.from_numpy(heard_seconds(sound, run.recipe.front_end)).view(2, 1, 100, 64)
    with torch.no_grad():
        np.testing.assert_allclose(rows, run.network(patches)[0].sigmoid().numpy(), atol=1e-5)


# ------------------------------------------------------------------------------- transfer


def test_a_transfer_becomes_a_run(transferred, pretrained, settings_of):
    assert {path.name for path in transferred.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "scores.npz", "figures.json", "report.md", "curves.png", "labels_test.png",
    }  # fmt: skip
    settings = settings_of(transferred)
    assert settings["init"]["name"] == "jia"
    # The network is that of the run, whatever the recipe says.
    assert settings["recipe"]["model"] == {
        "kind": "transfer", "network": "mobilenet_v2", "width": 0.1, "embedding_size": 16,
    }  # fmt: skip
    figures = json.loads((transferred / "figures.json").read_text())["test"]
    kept = np.load(transferred / "scores.npz")
    truth, scores = kept["test_truth"], kept["test_scores"]
    some = truth.any(0)
    expected = average_precision_score(truth[:, some], scores[:, some], average="macro")
    assert figures["map"] == pytest.approx(expected, abs=1e-6)
    # The labels of the clips that are learnt from are learnt.
    losses = [line["labels"] for line in lines_of(transferred)]
    assert losses[-1] < 0.7 * losses[0]
    report = (transferred / "report.md").read_text()
    assert "on the embeddings of jia, the classifier alone" in report
    assert "| published: MobileNet_v2 | 83.8% | – | 89.4% | – |" in report
    assert "| published: human | 81.3% | – | – | – |" in report


def test_the_encoder_is_the_pretrained_one_and_the_scores_those_of_all_of_it(
    transferred, pretrained, vehicles
):
    run, begun = load_transfer_run(transferred), load_machine_run(pretrained)
    for name, value in run.network.encoder.state_dict().items():
        assert torch.equal(value, begun.network.state_dict()[name]), name
    # By hand from a clip's file: the embedding of its second, and the classifier.
    kept = np.load(transferred / "scores.npz")
    read = read_media_set("dcase2017", Folders(vehicles))
    for clip in read.clips.of("testing").clips[:3]:
        sound = read.media.sound(clip, 16_000)
        patch = torch.from_numpy(heard_seconds(sound, run.recipe.front_end))[None, None]
        with torch.no_grad():
            embedding = begun.network.embed(patch)
            said = run.network.classifier(embedding[None]).sigmoid()[0].numpy()
        row = kept["test_clips"].tolist().index(clip.id)
        np.testing.assert_allclose(kept["test_scores"][row], said, atol=2e-2)


def test_a_stopped_transfer_goes_on_to_the_same_weights(
    train, pretrained, transferred, tmp_path, monkeypatch
):
    class Stopping(transfer_run.TransferBatches):
        def batch(self, epoch, number):
            if epoch == 25:
                raise KeyboardInterrupt
            return super().batch(epoch, number)

    run = tmp_path / "stopped"
    arguments = (
        "jia2019_esc50", run, *VEHICLES, "training.epochs=60", "training.learning_rate=3e-2",
        "--init", pretrained,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(transfer_run, "TransferBatches", Stopping)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments)
    assert train(*arguments) == 0
    assert same_weights(run, transferred)
    assert lines_of(run) == lines_of(transferred)


def test_without_a_pretrained_run_all_layers_learn(train, tmp_path, settings_of):
    run = tmp_path / "scratch"
    assert train(
        "jia2019_esc50_scratch", run, *VEHICLES, *NETWORK, "training.epochs=16",
        "training.batch_size=4", "training.learning_rate=3e-3",
    ) == 0  # fmt: skip
    assert settings_of(run)["init"] is None
    assert "from random weights, all layers" in (run / "report.md").read_text()
    # Every kernel moved from where the seed put it.
    trained = load_transfer_run(run)
    torch.manual_seed(0)
    drawn = transfer_run.clip_network(trained.recipe, len(trained.labels)).state_dict()
    for name, value in trained.network.state_dict().items():
        assert value.dim() < 2 or not torch.equal(value, drawn[name]), name
    figures = json.loads((run / "figures.json").read_text())["test"]
    assert figures["average_precision"]["Car"] >= 0.9


def test_a_pretrained_network_can_learn_too(train, pretrained, tmp_path):
    run = tmp_path / "finetuned"
    assert train("jia2019_esc50", run, *VEHICLES, "transfer.learns=all", "training.epochs=1",
                 "--init", pretrained) == 0  # fmt: skip
    assert "from the weights of jia, all layers" in (run / "report.md").read_text()
    found = load_transfer_run(run).network.encoder.state_dict()
    given = load_machine_run(pretrained).network.state_dict()
    # One epoch of two steps of 2e-4, each weight by as much at most.
    moved = (found["embedding.weight"] - given["embedding.weight"]).abs().max()
    assert 0 < float(moved) <= 2 * 2e-4 * 1.01


def test_a_fold_is_held_out_of_clips_with_one_label(
    train, tiny, pretrained, clips, tmp_path, settings_of, capsys
):
    run = tmp_path / "fold"
    assert train(
        "jia2019_esc50", run, "data.seconds=2", "training.epochs=60", "training.batch_size=4",
        "training.learning_rate=1e-2", "--init", pretrained, "--fold", 2, data=clips,
    ) == 0  # fmt: skip
    recipe = settings_of(run)["recipe"]
    assert (recipe["data"]["train"], recipe["data"]["test"]) == (["1"], ["2"])
    kept = np.load(run / "scores.npz")
    # One label of each clip: a softmax.
    np.testing.assert_allclose(kept["test_scores"].sum(1), 1, rtol=1e-5)
    top1 = (kept["test_scores"].argmax(1) == kept["test_truth"].argmax(1)).mean()
    figures = json.loads((run / "figures.json").read_text())["test"]
    assert figures["top1"] == pytest.approx(top1)
    capsys.readouterr()
    assert tiny.run(EVALUATE, run, run, "--data", clips, "--json", "--device", "cpu") == 0
    judged = json.loads(capsys.readouterr().out)
    # A mean of a run and itself is the run; embeddings were stored in four bytes.
    assert judged["map"] == pytest.approx(figures["map"], abs=1e-4)
    store = tmp_path / "store"
    assert tiny.run(COMMAND, run, "--data", clips, "--kind", "esc50", "--out", store, "--split",
                    "2", "--device", "cpu", "--quiet") == 0  # fmt: skip
    row = kept["test_clips"].tolist().index("8.wav")
    soft, edges = SoftLabelStore(store).rows("8.wav")
    assert edges.tolist() == [0.0, 2.0]
    np.testing.assert_allclose(soft[0], kept["test_scores"][row], atol=2e-2)


def test_a_share_of_the_clips_is_learnt_from(train, pretrained, tmp_path, settings_of):
    run = tmp_path / "few"
    assert train("jia2019_esc50", run, *VEHICLES, "training.epochs=1", "data.share=0.25",
                 "--init", pretrained) == 0  # fmt: skip
    data = settings_of(run)["data"]
    assert (data["n_train"], data["n_listed"]) == (4, 16)
    assert "4 clips (25% of 16)" in (run / "report.md").read_text()


def test_a_larger_share_has_the_smaller_one_and_each_seed_its_own():
    ids = [f"clip{i}" for i in range(200)]
    tenth, half = (set(drawn_share(ids, share, 0).tolist()) for share in (0.1, 0.5))
    assert len(tenth) == 20
    assert tenth < half
    assert drawn_share(ids, 1.0, 0).tolist() == list(range(200))
    assert set(drawn_share(ids, 0.1, 1).tolist()) != tenth
    assert len(drawn_share(ids, 1e-6, 0)) == 1


# ------------------------------------------------------------------------------- bad input


def test_labels_that_are_missing_or_of_other_clips_are_named(train, labels, clips, tmp_path):
    with pytest.raises(UsageError, match=r"data\.labels is missing: give the folder that"):
        train("jia2019_mobilenet_v2", tmp_path / "a", *PRETRAIN)
    with pytest.raises(InputError, match=r"24 of its 24 clips are not in .*clips"):
        train("jia2019_mobilenet_v2", tmp_path / "b", *PRETRAIN, "data.kind=esc50",
              f"data.labels={labels}", data=clips)  # fmt: skip
    with pytest.raises(InputError, match="is no header of machine labels"):
        train("jia2019_mobilenet_v2", tmp_path / "c", *PRETRAIN, f"data.labels={clips}")
    with pytest.raises(InputError, match="has no split 'train'"):
        train("jia2019_mobilenet_v2", tmp_path / "d", *PRETRAIN, 'data.splits=["train"]',
              f"data.labels={labels}")  # fmt: skip


def test_another_run_in_the_same_folder_is_refused(train, labels, pretrained):
    with pytest.raises(ConfigError, match="holds a run with another recipe"):
        train("jia2019_mobilenet_v2", pretrained, *PRETRAIN, "training.epochs=5",
              f"data.labels={labels}")  # fmt: skip


def test_a_transfer_needs_a_run_to_begin_with(train, pretrained, yin_run, clips, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="--init RUN is missing: give a run of a pre-training"):
        train("jia2019_esc50", run, *VEHICLES)
    with pytest.raises(UsageError, match="--init starter: no such folder"):
        train("jia2019_esc50", run, *VEHICLES, "--init", "starter")
    with pytest.raises(InputError, match="give a run of a pre-training recipe"):
        train("jia2019_esc50", run, *VEHICLES, "--init", yin_run)
    with pytest.raises(ConfigError, match=r"model\.network is vggish, but --init is a run of mob"):
        train("jia2019_esc50", run, *VEHICLES, "model.network=vggish", "--init", pretrained)
    with pytest.raises(ConfigError, match=r"model\.network is empty and there is no --init RUN"):
        train("jia2019_esc50", run, *VEHICLES, "transfer.learns=all")
    with pytest.raises(UsageError, match=r"--fold is missing; give one to hold out .* of 1, 2"):
        train("jia2019_esc50", run, "--init", pretrained, data=clips)
    with pytest.raises(UsageError, match="--fold 3: there is no such fold"):
        train("jia2019_esc50", run, "--init", pretrained, "--fold", 3, data=clips)
    with pytest.raises(UsageError, match="--fold 1: the recipe says what is held out"):
        train("jia2019_esc50", run, *VEHICLES, "--init", pretrained, "--fold", 1)
    with pytest.raises(UsageError, match="--teacher RUN is not used by its recipes"):
        train("jia2019_esc50", run, *VEHICLES, "--teacher", pretrained)
    with pytest.raises(InputError, match=r"labels; expected one: set data\.labels=several"):
        train("jia2019_esc50", run, *VEHICLES, "data.labels=one", "--init", pretrained)
    assert not run.exists()


def test_runs_of_other_clips_are_not_averaged(tiny, transferred, clips, pretrained):
    with pytest.raises(UsageError, match="was trained without validation clips"):
        tiny.run(EVALUATE, transferred, "--data", clips, "--part", "validation", "--device", "cpu")
    with pytest.raises(UsageError, match=r"--fold: is not used for .*it is for clip students"):
        tiny.run(EVALUATE, transferred, "--data", clips, "--fold", 1, "--device", "cpu")
    broken = transferred.parent / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "settings.json").write_bytes((transferred / "settings.json").read_bytes())
    with pytest.raises(InputError, match="training is not finished"):
        load_transfer_run(broken)
