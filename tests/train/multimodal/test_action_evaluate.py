"""`soundpost evaluate` of runs of perez2020: figures again, the table of scenarios, layers."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from soundpost.device.errors import InputError, UsageError
from soundpost.train.commands import EVALUATE
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal import layer_features
from soundpost.train.multimodal.action_run import load_action_run
from soundpost.train.multimodal.clip_media import read_media_set
from soundpost.train.multimodal.frozen_features import frozen_features
from soundpost.train.multimodal.layer_features import set_features, split_clips


@pytest.fixture(scope="module")
def scenario_runs(train_hums, tmp_path_factory):
    """HearNet in both scenarios with two seeds, and its like that is taught nothing yet."""
    folder = tmp_path_factory.mktemp("scenarios")
    made = []
    for name, seed, location in (
        ("plain", 0, 1), ("plain", 0, 2), ("plain", 1, 1), ("plain", 1, 2), ("other", 0, 1),
    ):  # fmt: skip
        changes = ["training.epochs=1", "model.width=0.05", f"data.location={location}"]
        if name == "other":
            changes += ["name=other", "distillation.imitation=0.25"]
        out = folder / f"{name}_{location}_{seed}"
        made.append(train_hums("perez2020_hearnet", out, *changes, f"training.seed={seed}"))
    return made


def judge(tiny, capsys, *arguments):
    # What a training said before, for a fixture.
    capsys.readouterr()
    assert tiny.run(EVALUATE, *arguments, "--device", "cpu", "--quiet") == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("which", ["dualcam_run", "hearnet_run"])
def test_a_run_prints_its_figures_again(which, request, tiny, hums, capsys):
    run = request.getfixturevalue(which)
    written = json.loads((run / "figures.json").read_text())
    found = json.loads(judge(tiny, capsys, run, "--data", hums, "--json"))
    assert found == written
    line = judge(tiny, capsys, run, "--data", hums)
    assert line.startswith(f"accuracy by scenarios of training and test: all_all {1:.4f}")


def test_it_is_judged_on_the_set_that_it_is_given(tiny, hums, hearnet_run, tmp_path, capsys):
    # Hums that are called hisses, and hisses hums: whoever tells them apart is always wrong.
    other = tmp_path / "set"
    shutil.copytree(hums, other)
    for subject in other.glob("Location_*/Subject_*"):
        (subject / "Action_01").rename(subject / "moved")
        (subject / "Action_02").rename(subject / "Action_01")
        (subject / "moved").rename(subject / "Action_02")
    line = judge(tiny, capsys, hearnet_run, "--data", other)
    assert line.startswith(f"accuracy by scenarios of training and test: all_all {0:.4f}")


def test_a_set_with_other_actions_is_refused(tiny, hums, hearnet_run, tmp_path, capsys):
    other = tmp_path / "set"
    shutil.copytree(hums, other)
    table = json.loads((other / "actions.json").read_text())
    table["actions"]["2"] = "whistle"
    (other / "actions.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="its 2 actions are not the 2 of"):
        judge(tiny, capsys, hearnet_run, "--data", other)


def test_runs_become_the_table_of_scenarios(tiny, scenario_runs, tmp_path, capsys):
    out = tmp_path / "table"
    printed = judge(tiny, capsys, *scenario_runs, "--out", out)
    lines = printed.splitlines()
    assert lines[0] == "| train set | test set | hearnet | published | other | published |"
    # What the runs wrote, of two seeds.
    values = [
        json.loads((run / "figures.json").read_text())["accuracy"]["1_2"]
        for run in scenario_runs[::2]
    ]
    deviation = abs(values[0] - values[1]) / 2**0.5
    cell = f"{(values[0] + values[1]) / 2:.4f} ± {deviation:.4f}"
    assert lines[3] == f"| 1 | 2 | {cell} | 0.4286 | {values[2]:.4f} | 0.4286 |"
    # The other was not trained in the second scenario, so that it has no mean.
    assert lines[7].split("|")[5].strip() == "–"
    assert {path.name for path in out.iterdir()} == {
        "scenarios.md", "scenarios.json", "scenarios.png",
    }  # fmt: skip
    assert printed.splitlines()[3] in (out / "scenarios.md").read_text()
    figures = json.loads((out / "scenarios.json").read_text())
    assert figures["hearnet"]["seeds"].keys() == {"0", "1"}
    assert (out / "scenarios.png").read_bytes()[:4] == b"\x89PNG"


def test_on_a_folder_the_table_has_what_is_judged_there(tiny, scenario_runs, hums, capsys):
    runs = scenario_runs[:2]
    assert judge(tiny, capsys, *runs) == judge(tiny, capsys, *runs, "--data", hums)


def test_runs_that_are_no_table_are_refused(tiny, scenario_runs, train_hums, tmp_path, capsys):
    first = scenario_runs[0]
    with pytest.raises(InputError, match=r"another run of perez2020_hearnet has seed 0 and scen"):
        judge(tiny, capsys, first, first)
    changes = ("training.epochs=1", "model.width=0.05", "data.location=2")
    longer = train_hums("perez2020_hearnet", tmp_path / "a", *changes, "training.batch_size=4")
    with pytest.raises(
        InputError, match=r"a: has training.batch_size 4, not 8, unlike .*differ in"
    ):
        judge(tiny, capsys, first, longer)
    subjects = ("data.split_by=subject", "data.test_subjects=[2]", "name=x")
    other = train_hums("perez2020_hearnet", tmp_path / "b", *changes, *subjects)
    with pytest.raises(InputError, match=r"b: has data.split_by subject, not part, unlike"):
        judge(tiny, capsys, first, other)


def test_a_run_that_is_not_finished_has_no_figures(tiny, hearnet_run, tmp_path, capsys):
    begun = tmp_path / "begun"
    shutil.copytree(hearnet_run, begun)
    (begun / "figures.json").unlink()
    with pytest.raises(InputError, match=r"figures.json: cannot be read .*train it again"):
        judge(tiny, capsys, begun, begun)


def test_options_that_say_nothing_are_refused(tiny, hearnet_run, yin_run, vehicles, capsys, hums):
    with pytest.raises(UsageError, match=r"--fold: is not used for .*it is for clip students"):
        judge(tiny, capsys, hearnet_run, "--fold", 1)
    with pytest.raises(UsageError, match=r"--kind: is not used .*it is for --layers"):
        judge(tiny, capsys, hearnet_run, "--data", hums, "--kind", "actions")
    with pytest.raises(UsageError, match=r"--kind is missing: --layers judges them on a labelled"):
        judge(tiny, capsys, hearnet_run, "--data", hums, "--layers")
    with pytest.raises(UsageError, match=r"--layers: is not used .*runs of perez2020"):
        judge(tiny, capsys, yin_run, "--data", vehicles, "--layers")
    with pytest.raises(UsageError, match=r"--data is missing: give the labelled clips that"):
        judge(tiny, capsys, yin_run)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Clips of two kinds of tone, in five folds."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(3)
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "label", "fold"])
        for i in range(40):
            n = np.arange(24_000 if i else 120_000)
            hz = (400.0, 3_000.0)[i % 2] * rng.uniform(0.9, 1.1)
            samples = 0.3 * np.sin(2 * np.pi * hz * n / 16_000) + 0.02 * rng.standard_normal(len(n))
            soundfile.write(folder / f"{i}.wav", samples, 16_000)
            rows.writerow([f"{i}.wav", ("low", "high")[i % 2], 1 + i % 5])
    return folder


def test_layers_tell_what_they_heard(tiny, hearnet_run, tones, tmp_path, capsys, monkeypatch):
    arguments = (hearnet_run, "--layers", "--data", tones, "--kind", "esc50")
    lines = judge(tiny, capsys, *arguments, "--out", tmp_path / "t").splitlines()
    assert lines[0].endswith(
        "32 clips train the classifiers, 4 choose their settings, 4 are judged"
    )
    layers = [line.split("|")[1].strip() for line in lines[3:9]]
    assert layers == ["fc1", "conv5", "conv4", "conv3", "conv2", "conv1"]
    # A hum and a hiss were learnt: low and high tones lie apart in the first layers at least.
    assert float(lines[8].split("|")[4]) == 1.0
    assert {path.name for path in (tmp_path / "t").iterdir()} == {
        "layers.md", "layers.json", "layers.png",
    }  # fmt: skip

    # What was heard once is kept.
    def never(*_arguments):
        raise AssertionError("heard again")

    monkeypatch.setattr(layer_features, "clip_waveforms", never)
    assert judge(tiny, capsys, *arguments).splitlines() == lines[:-1]


def test_features_of_a_long_clip_are_the_mean_over_its_parts(hearnet_run, tones, tmp_path):
    run = load_action_run(hearnet_run)
    read = read_media_set("esc50", Folders(tones))
    long, short = read.clips.clips[:2]
    assert (long.id, short.id) == ("0.wav", "1.wav")
    found = set_features(run, [long, short], read.media, tmp_path, torch.device("cpu"), True)
    # 7.5 s: the first five and the last five.
    sound = read.media.sound(long, 22_050)
    halves = np.stack([sound[:110_250], sound[-110_250:]])
    halves *= 256 / np.abs(halves).max(1, keepdims=True)
    by_hand = frozen_features(run.network, torch.from_numpy(halves))
    for layer in ("conv1", "fc1"):
        expected = by_hand[layer].mean(0)
        np.testing.assert_allclose(found[layer][0], expected, rtol=1e-3, atol=1e-3)
        assert not np.allclose(found[layer][1], expected, rtol=1e-2)


def test_teachers_have_no_layers_that_listen(tiny, dualcam_run, tones, capsys):
    with pytest.raises(UsageError, match="is a run of dualcamnet, which takes more than sound"):
        judge(tiny, capsys, dualcam_run, "--layers", "--data", tones, "--kind", "esc50")


def clip(i, split, group=""):
    return MediaClip(f"{i}", None, None, ("a",), split, group=group)


def test_a_sets_own_splits_come_first():
    clips = [clip(i, ("train", "validation", "test")[i % 3]) for i in range(30)]
    parts = split_clips(clips)
    assert parts.validation.tolist() == list(range(1, 30, 3))
    # Without one for validation a tenth of the groups are drawn from train, and test stays.
    clips = [clip(i, "test" if i % 5 == 0 else "train", f"place {i // 5}") for i in range(100)]
    clips.append(clip(100, "unused"))
    parts = split_clips(clips)
    assert parts.test.tolist() == list(range(0, 100, 5))
    held = {clips[i].group for i in parts.validation}
    assert len(held) == 2
    assert not held & {clips[i].group for i in parts.train}
    assert len(parts.train) + len(parts.validation) == 80
    # Folds are no such splits: groups are drawn.
    clips = [clip(i, f"{1 + i % 5}", f"author {i // 2}") for i in range(100)]
    parts = split_clips(clips)
    assert [len(side) for side in (parts.train, parts.validation, parts.test)] == [80, 10, 10]
