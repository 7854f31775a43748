"""`soundpost distil --seen-by --heard-by`: labels by machine from runs and named networks."""

import csv
import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.published import PUBLISHED
from soundpost.train.backbones.vggish import VGGish, VGGishSettings
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal import label_networks
from soundpost.train.multimodal.clip_media import read_media_set
from soundpost.train.multimodal.distil_command import COMMAND
from soundpost.train.multimodal.label_models import PictureModel
from soundpost.train.multimodal.label_networks import open_audio, open_visual, read_labels
from soundpost.train.multimodal.machine_label_command import parse_folds
from soundpost.train.multimodal.machine_targets import read_machine_targets
from soundpost.train.multimodal.soft_labelling import open_labeller

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Names of what the stub sees."""
    path = tmp_path_factory.mktemp("names") / "things.txt"
    path.write_text("".join(f"thing {k}\n" for k in range(12)))
    return path


@pytest.fixture
def label(tiny, vehicles, yin_run, things, capsys):
    """Runs the command on the vehicles; what it printed as JSON."""

    def run(out, *more, heard_by=yin_run):
        capsys.readouterr()
        assert tiny.run(
            COMMAND, "--seen-by", "stub", "--seen-labels", things, "--heard-by", heard_by,
            "--data", vehicles, "--kind", "dcase2017", "--out", out, "--device", "cpu",
            "--n-folds", 4, "--json", *more,
        ) == 0  # fmt: skip
        return json.loads(capsys.readouterr().out)

    return run


def rows_of(folder):
    """Labels by clip and source, as the tables have them."""
    found = defaultdict(list)
    for path in sorted(folder.glob("fold_?.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[row["clip_id"], row["source"]].append((row["label"], float(row["score"])))
    return found


def test_labels_are_what_the_networks_say(label, vehicles, yin_run, things, tmp_path):
    done = label(tmp_path / "labels")
    assert (done["clips"], done["new"]) == (24, 24)
    assert done["heard_by"]["sha256"] == file_sha256(yin_run / "model.safetensors")
    # Four sounds of the test have no video.
    assert len(done["problems"]) == 4
    assert all("visual: has no video" in problem for problem in done["problems"])
    found = rows_of(tmp_path / "labels")
    read = read_media_set("dcase2017", Folders(vehicles))
    labeller = open_labeller(yin_run, "student", CPU)
    seeing = open_visual("stub", things, "", CPU)
    assert isinstance(seeing, PictureModel)
    threshold = done["rules"]["audio_threshold"]
    for clip in read.clips.clips:
        for source, network, top, least in (
            ("audio", labeller, 5, threshold),
            ("visual", seeing, 10, 0.0),
        ):
            if source == "visual" and clip.video is None:
                assert (clip.id, source) not in found
                continue
            means = network.label(clip, read.media).scores.astype(float).mean(0)
            best = [k for k in np.argsort(-means, kind="stable")[:top] if means[k] >= least]
            assert [name for name, _ in found[clip.id, source]] == [network.labels[k] for k in best]
            np.testing.assert_allclose([score for _, score in found[clip.id, source]], means[best],
                                       atol=1e-5)  # fmt: skip


def test_the_threshold_leaves_three_heard_labels_a_clip(label, tmp_path):
    label(tmp_path / "labels")
    heard = [len(names) for (_, source), names in rows_of(tmp_path / "labels").items()
             if source == "audio"]  # fmt: skip
    assert sum(heard) / 24 == pytest.approx(3.0, abs=0.03)


def test_folds_are_shared_and_the_threshold_stays(label, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    label(whole)
    shared = tmp_path / "shared"
    first = label(shared, "--folds", "2-3")

    def unasked(*_arguments, **_options):
        raise AssertionError("the threshold is known")

    from soundpost.train.multimodal import labelling

    monkeypatch.setattr(labelling, "find_audio_threshold", unasked)
    second = label(shared, "--folds", "0-1")
    assert first["clips"] + second["clips"] == 24
    assert {path.name: path.read_bytes() for path in shared.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_rules_can_be_given(label, tmp_path):
    done = label(
        tmp_path / "labels", "--top-seen", 2, "--top-heard", 1, "--heard-threshold", 0.0,
        "--seen-threshold", 0.4, "--split", "training", "--pictures-per-second", 5,
    )  # fmt: skip
    assert done["clips"] == 16
    assert done["rules"] == {
        "frames_per_s": 5.0, "top_visual": 2, "top_audio": 1, "visual_threshold": 0.4,
        "audio_threshold": 0.0, "n_folds": 4,
    }  # fmt: skip
    found = rows_of(tmp_path / "labels")
    assert all(len(names) == 1 for (_, source), names in found.items() if source == "audio")
    seen = [names for (_, source), names in found.items() if source == "visual"]
    assert seen
    assert all(1 <= len(names) <= 2 and names[-1][1] >= 0.4 for names in seen)


def test_a_person_is_told_what_comes_next(tiny, vehicles, yin_run, tmp_path, capsys):
    assert tiny.run(
        COMMAND, "--heard-by", yin_run, "--data", vehicles, "--kind", "dcase2017", "--out",
        tmp_path / "labels", "--n-folds", 2, "--device", "cpu", "--quiet",
    ) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "labels by machine of 24 clips, 24 of them new" in said
    assert f"data.kind=dcase2017 data.labels={tmp_path / 'labels'}" in said
    targets = read_machine_targets(tmp_path / "labels")
    assert {source for source, _ in targets.classes} == {"audio"}


@pytest.fixture
def small_vggish(monkeypatch):
    """Builds VGGish with few hidden units, which is taken for the published one."""

    def build(n_classes):
        torch.manual_seed(0)
        return VGGish(n_classes, VGGishSettings(hidden_units=16))

    monkeypatch.setitem(PUBLISHED, "vggish", replace(PUBLISHED["vggish"], build=build))
    return build


def test_vggish_hears_with_a_classifier_of_ones_own(label, things, small_vggish, tmp_path):
    weights = tmp_path / "vggish.safetensors"
    save_file(small_vggish(12).state_dict(), weights)
    done = label(
        tmp_path / "labels", "--heard-weights", weights, "--heard-labels", things,
        "--split", "testing", heard_by="vggish",
    )  # fmt: skip
    assert done["heard_by"] == {"name": "vggish", "sha256": file_sha256(weights)}
    names = {name for (_, source), of in rows_of(tmp_path / "labels").items() for name, _ in of
             if source == "audio"}  # fmt: skip
    assert names <= {f"thing {k}" for k in range(12)}
    assert names


# ------------------------------------------------------------------------------- bad input


def test_two_jobs_at_once_are_refused(tiny, vehicles, yin_run, tmp_path, things):
    rest = ("--data", vehicles, "--kind", "dcase2017", "--out", tmp_path / "s", "--device", "cpu")
    with pytest.raises(UsageError, match="are two jobs; leave one of them out"):
        tiny.run(COMMAND, yin_run, "--heard-by", yin_run, *rest)
    with pytest.raises(UsageError, match="give a RUN for soft labels, or --seen-by and --heard-by"):
        tiny.run(COMMAND, *rest)
    with pytest.raises(UsageError, match="--top-seen is for labels by machine"):
        tiny.run(COMMAND, yin_run, "--top-seen", 3, *rest)
    with pytest.raises(UsageError, match="give one of them"):
        tiny.run(COMMAND, "--heard-by", yin_run, "--heard-per-clip", 2, "--heard-threshold", 0.5,
                 *rest)  # fmt: skip
    with pytest.raises(UsageError, match="--heard-per-clip 0: expected more than 0"):
        tiny.run(COMMAND, "--heard-by", yin_run, "--heard-per-clip", 0, *rest)
    with pytest.raises(UsageError, match="--weights is for RUN"):
        tiny.run(COMMAND, "--heard-by", yin_run, "--weights", things, *rest)
    assert not (tmp_path / "s").exists()


def test_networks_that_do_not_fit_are_named(yin_run, things, small_vggish, tmp_path):
    with pytest.raises(UsageError, match=r"--seen-by resnet: no such run or network; give a run's"):
        open_visual("resnet", things, "", CPU)
    with pytest.raises(UsageError, match="--heard-by resnet50: no such run or network"):
        open_audio("resnet50", things, "", CPU)
    with pytest.raises(UsageError, match="--seen-labels FILE is missing"):
        open_visual("stub", None, "", CPU)
    with pytest.raises(UsageError, match="a run knows its labels; leave it out"):
        open_audio(str(yin_run), things, "", CPU)
    with pytest.raises(UsageError, match="needs audio of a clip; give a run that looks at"):
        open_visual(str(yin_run), None, "", CPU)
    with pytest.raises(UsageError, match="its published weights end at the embedding"):
        open_audio("vggish", things, "", CPU)
    published = tmp_path / "published.safetensors"
    save_file(small_vggish(None).state_dict(), published)
    with pytest.raises(InputError, match=r"classifier\.weight is missing"):
        open_audio("vggish", things, str(published), CPU)


def test_a_teacher_that_sees_can_label_what_is_seen(yin_run):
    seeing = open_visual(str(yin_run), None, "", CPU, network="teacher")
    assert seeing.needs == ("audio", "video")
    assert label_networks.open_audio(str(yin_run), None, "", CPU).needs == ("audio",)


def test_lists_of_names_are_checked(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Dog\nCar horn\n\n")
    assert read_labels("x", path, "--seen-labels") == ("Dog", "Car horn")
    path.write_text("Dog\n\nCat\n")
    with pytest.raises(InputError, match="line 2 is empty"):
        read_labels("x", path, "--seen-labels")
    path.write_text("Dog\nCat\nDog\n")
    with pytest.raises(InputError, match="line 3: 'Dog' stands in line 1 too"):
        read_labels("x", path, "--seen-labels")
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_labels("x", path, "--seen-labels")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels("x", tmp_path / "gone.txt", "--seen-labels")


def test_folds_are_written_as_one_or_from_to():
    assert parse_folds("7") == range(7, 8)
    assert parse_folds("0-1023") == range(1024)
    for bad in ("", "a", "3-1", "-2", "1-"):
        with pytest.raises(UsageError, match="expected a fold, or the first and the last"):
            parse_folds(bad)
