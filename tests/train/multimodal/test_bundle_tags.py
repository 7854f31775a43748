"""A bundle judged on labelled clips: students made by hand, every score by two lines of numpy."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import average_precision_score

from soundpost.device.bundle import open_bundle, score_features, write_bundle
from soundpost.device.errors import InputError, UsageError
from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.commands import EVALUATE
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.bundle_tags import clip_score, evaluate_bundle_tags
from soundpost.train.multimodal.clip_media import read_media_set

DEVICE_TESTS = Path(__file__).parents[2] / "device"
FRONT_END = FrontEnd()


def load(name):
    specification = spec_from_file_location(name, DEVICE_TESTS / f"{name}.py")
    module = module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Of each kind one: tests/device/tiny_student.py and tiny_frames.py."""
    folder = tmp_path_factory.mktemp("bundles")
    window, frames = load("tiny_student"), load("tiny_frames")
    student, manifest = window.tiny_student(), window.tiny_manifest()
    golden = window.tiny_golden(student, manifest)
    write_bundle(folder / "window.bundle", manifest, student.model, golden, "# tiny\n")
    other = frames.tiny_frames()
    other_manifest = frames.frames_manifest()
    other_golden = frames.frames_golden(other, other_manifest)
    write_bundle(folder / "frames.bundle", other_manifest, other.model, other_golden, "# tiny\n")
    return {
        "window": (folder / "window.bundle", student),
        "frames": (folder / "frames.bundle", other),
    }


def write_clips(folder, labels, seconds=0.4):
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["filename,label,fold"]
    for i in range(12):
        n = 80 if i == 3 else round(seconds * 16_000)
        soundfile.write(folder / f"{i}.wav", rng.uniform(-0.3, 0.3, n) / (1 + i % 4), 16_000)
        rows.append(f"{i}.wav,{labels[i % len(labels)]},{1 + i // 6}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


def judged(path, folder, splits=()):
    read = read_media_set("esc50", Folders(folder))
    return evaluate_bundle_tags(path, read, splits, quiet=True)


def test_windows_are_averaged_in_probability(bundles, tmp_path):
    path, student = bundles["window"]
    clips = write_clips(tmp_path / "clips", ("clap", "water drops"))
    found = judged(path, clips)
    assert found.labels == ("clap", "water drops")
    assert found.clip_ids == tuple(f"{i}.wav" for i in range(12))
    for i in (0, 3, 7):
        sound, _ = soundfile.read(clips / f"{i}.wav", dtype="float32")
        # Half a window is filled up with silence.
        sound = np.pad(sound, (0, max(0, FRONT_END.samples_of(10) - len(sound))))
        features = log_mel(sound, FRONT_END)
        logits = [
            student.outputs(features[start : start + 10], "logits")
            for start in range(0, len(features) - 9, 5)
        ]
        # Within the step of the output's scale, 16 / 255 logits.
        np.testing.assert_allclose(found.scores[i], sigmoid(logits).mean(0)[[0, 2]], atol=0.01)
    truth = np.array([[i % 2 == 0, i % 2 == 1] for i in range(12)])
    expected = average_precision_score(truth, found.scores, average="macro")
    assert found.figures.mean_average_precision == pytest.approx(expected)


def test_frames_are_weighted_by_themselves(bundles, tmp_path):
    path, _ = bundles["frames"]
    clips = write_clips(tmp_path / "clips", ("high", "low"))
    found = judged(path, clips, ["2"])
    assert found.clip_ids == tuple(f"{i}.wav" for i in range(6, 12))
    bundle, interpreter, _ = open_bundle(path)
    sound, _ = soundfile.read(clips / "6.wav", dtype="float32")
    logits = score_features(log_mel(sound, FRONT_END), bundle.manifest, interpreter)
    p = sigmoid(logits)
    np.testing.assert_allclose(found.scores[0], (p**2).sum(0) / p.sum(0), rtol=1e-5)


def test_a_clip_of_one_frame_is_that_frame():
    logits = np.array([[-3.0, 2.0]], np.float32)
    for frames in (False, True):
        np.testing.assert_allclose(clip_score(logits, frames=frames), sigmoid(logits)[0], rtol=1e-6)


def test_the_command_says_what_is_left_out(bundles, tmp_path, tiny, capsys):
    path, _ = bundles["window"]
    clips = write_clips(tmp_path / "clips", ("clap", "water drops", "yodel"))
    arguments = (path, "--data", clips, "--kind", "esc50")
    assert tiny.run(EVALUATE, *arguments, "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert table["unknown"] == ["yodel"]
    assert table["n_clips"] == 12
    assert set(table["average_precision"]) == {"clap", "water drops"}
    assert tiny.run(EVALUATE, *arguments, "--split", "1") == 0
    printed = capsys.readouterr().out
    assert "6 clips: mAP" in printed
    assert "labels that the bundle does not know: yodel" in printed


def test_what_cannot_be_judged_is_refused(bundles, tmp_path, tiny):
    path, _ = bundles["window"]
    clips = write_clips(tmp_path / "clips", ("yodel", "zither"))
    with pytest.raises(InputError, match=r"none of its labels \(yodel, zither ...\) is known to"):
        judged(path, clips)
    with pytest.raises(
        UsageError, match=r"--split: is not used for .*it is for a bundle and --kind KIND"
    ):
        tiny.run(EVALUATE, path, "--data", clips, "--split", "1")
    with pytest.raises(UsageError, match=r"--fold: is not used for .*it is for clip students"):
        tiny.run(EVALUATE, path, "--data", clips, "--kind", "esc50", "--fold", 1)
    with pytest.raises(UsageError, match="--data is missing"):
        tiny.run(EVALUATE, path, "--kind", "esc50")
