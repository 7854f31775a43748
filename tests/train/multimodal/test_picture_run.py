"""A network that tells what is in a picture, and as the frozen backbone of another run."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundpost.device.errors import InputError, UsageError
from soundpost.train.commands import EVALUATE, TRAIN
from soundpost.train.datasets.action_files import picture_bytes
from soundpost.train.multimodal import picture_run
from soundpost.train.multimodal.picture_recipe import PictureAugment
from soundpost.train.multimodal.picture_run import (
    PictureBatches,
    change,
    load_picture_run,
    picture_backbone,
    picture_figures,
)

CHANGES = (
    "training.epochs=4", "training.batch_size=8", "training.bfloat16=false",
    "training.learning_rate=5e-3", "training.report_every=2", "augment.shift_px=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Squares and stripes, anywhere, in any grey."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, n in (("train", 12), ("validation", 6)):
        for name in ("square", "stripes"):
            (folder / split / name).mkdir(parents=True)
            for number in range(n):
                picture = np.full((120, 160, 3), 60, np.uint8)
                picture += rng.integers(0, 20, picture.shape, dtype=np.uint8)
                top, left = rng.integers(10, 70), rng.integers(10, 110)
                shape = picture[top : top + 32, left : left + 32]
                shape[:: 1 if name == "square" else 8] = rng.integers(140, 240)
                path = folder / split / name / f"{number:03d}.jpeg"
                path.write_bytes(picture_bytes(picture))
    return folder


def train(tiny, pictures, run, *more):
    return tiny.run(
        TRAIN, "pictures", *CHANGES, *more, "--data", pictures, "--out", run, "--quiet",
        "--threads", 1, "--device", "cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def eye(tiny, pictures, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "eye"
    assert train(tiny, pictures, run) == 0
    return run


def test_it_learns_to_tell_them(eye):
    figures = json.loads((eye / "figures.json").read_text())
    assert figures["n_pictures"] == 12
    assert figures["accuracy"] > 0.8
    assert {"curves.png", "confusion.png", "report.md"} <= {path.name for path in eye.iterdir()}
    report = (eye / "report.md").read_text()
    assert "Trained on 24 pictures" in report
    assert f"{figures['accuracy']:.1%} named rightly" in report


def test_figures_are_counts():
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    figures = picture_figures(scores, np.array([0, 0, 1, 2]), ("a", "b", "c"))
    assert figures.accuracy == 0.75
    assert figures.recall == {"a": 0.5, "b": 1.0, "c": 1.0}
    assert figures.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    tiny, pictures, eye, tmp_path, monkeypatch
):
    class Stopping(PictureBatches):
        def batch(self, epoch, number):
            if epoch == 2:
                raise KeyboardInterrupt
            return super().batch(epoch, number)

    run = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(picture_run, "PictureBatches", Stopping)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, pictures, run)
    assert train(tiny, pictures, run) == 0
    found, expected = (load_file(one / "model.safetensors") for one in (run, eye))
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_changes_are_a_mirror_a_shift_and_a_factor():
    frame = np.arange(3 * 6 * 8, dtype=np.uint8).reshape(3, 6, 8) + 40
    still = PictureAugment(flip=False, brightness=0.0, shift_px=0)
    np.testing.assert_array_equal(change(frame, still, np.random.default_rng(0)), frame)
    mirrored = PictureAugment(flip=True, brightness=0.0, shift_px=0)
    found = {change(frame, mirrored, np.random.default_rng(i)).tobytes() for i in range(20)}
    assert found == {frame.tobytes(), frame[:, :, ::-1].tobytes()}
    wide = np.pad(frame, ((0, 0), (2, 2), (2, 2)), mode="edge")
    views = {
        wide[:, top : top + 6, left : left + 8].tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    shifting = PictureAugment(False, 0.0, 2)
    places = [views[change(frame, shifting, np.random.default_rng(i)).tobytes()] for i in range(40)]
    assert {top for top, _ in places} == {left for _, left in places} == set(range(5))
    factors = []
    for i in range(20):
        changed = change(frame, PictureAugment(False, 0.5, 0), np.random.default_rng(i))
        factors.append(float((changed[frame < 120] / frame[frame < 120]).mean()))
        np.testing.assert_allclose(changed, np.clip(frame * factors[-1], 0, 255), atol=2)
    assert 0.49 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.5


def test_its_folder_stands_as_a_backbone(tiny, eye, vehicles, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    shutil.copytree(eye, moved)
    backbone, labels = picture_backbone(eye)
    assert labels == backbone.names == ("square", "stripes")
    assert picture_backbone(moved)[0].fingerprint() == backbone.fingerprint()
    frames = np.random.default_rng(0).integers(0, 255, (2, 120, 160, 3), np.uint8)
    assert backbone.embed(frames).shape == (2, 128)
    run = tmp_path / "run"
    common = ("--data", vehicles, "--quiet", "--device", "cpu")
    # Half of the clips to be judged have no video.
    seeing = [*tiny.small, "training.epochs=1", f"visual.backbone={eye}", "data.problems=skip"]
    assert tiny.run(TRAIN, "yin2021_visual", *seeing, *common, "--out", run) == 0
    settings = json.loads((run / "settings.json").read_text())
    assert settings["visual_size"] == 128
    assert settings["backbone"]["name"] == "pictures"
    # Of a backbone that was moved one says where it is.
    assert tiny.run(EVALUATE, run, "--data", vehicles, "--device", "cpu", "--weights", moved) == 0
    capsys.readouterr()


def test_it_is_not_judged_on_clips(tiny, eye, vehicles):
    with pytest.raises(
        UsageError, match=r"runs of this kind are not judged on clips; its report\.md says"
    ):
        tiny.run(EVALUATE, eye, "--data", vehicles)


def test_what_cannot_be_used_says_so(tiny, pictures, eye, tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        load_picture_run(tmp_path)
    with pytest.raises(UsageError, match="--teacher RUN is not used"):
        train(tiny, pictures, tmp_path / "run", "--teacher", eye)
    (tmp_path / "few" / "train" / "a").mkdir(parents=True)
    (tmp_path / "few" / "train" / "b").mkdir()
    with pytest.raises(InputError, match="0 pictures in train; expected two or more"):
        train(tiny, tmp_path / "few", tmp_path / "run")
