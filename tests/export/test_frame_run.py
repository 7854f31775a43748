"""A run of `streaming` to a bundle: what is chosen, judged, refused and credited on the way.

The student is trained, in seconds. The conversion is left out (test_frames.py has it): in the place
of the int8 model stands one made by hand, which hears the same sounds, and not as well.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.device.bundle import read_bundle
from soundpost.device.detection import ClassSettings
from soundpost.device.errors import ExportError, UsageError
from soundpost.device.features import FrontEnd
from soundpost.device.interpreter import sigmoid
from soundpost.device.manifest import TrainingData
from soundpost.export import frame_bundle
from soundpost.export.frame_run import (
    FrameRunExport,
    _check_drop,
    export_streaming_run,
    scene_training_data,
)
from soundpost.export.frames import ConvertedFrames, Drift, FrameFigures, score_recording
from soundpost.export.tflite import TFLiteModels
from soundpost.train.sed.detector_choice import choose_detector, windows_for
from soundpost.train.sed.feature_cache import open_features
from soundpost.train.sed.judging import Judged, judge_on_device
from soundpost.train.sed.scenes import Event, Scene, SceneSet
from soundpost.train.sed.streaming_run import load_streaming_run, read_scenes, score_student

FloatArray = NDArray[np.float32]
FRONT_END = FrontEnd()
CREDITS = """\
filename,label,fold,group,licence,attribution,split,recordings
a.wav,high,1,,CC0-1.0,A. Author,train,2
b.wav,high,1,,CC-BY-4.0,B. Author,train,1
c.wav,low,1,,CC-BY-4.0,B. Author,train,3
d.wav,low,1,,,F. Author,train,1
e.wav,low,1,,,,train,1
f.wav,low,2,,CC-BY-NC-4.0,E. Author,test,2
g.wav,low,2,,CC-BY-NC-4.0,E. Author,validation,2
"""
# What the recordings that were trained on are made of, each credit once.
LICENCES = {"CC-BY-4.0": 2, "CC0-1.0": 1, "not stated": 2}
NAMES = ("A. Author (CC0-1.0)", "B. Author (CC-BY-4.0)", "F. Author (licence not stated)")


def load(path: Path) -> ModuleType:
    specification = spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Trained:
    """Recordings and the run of a student that heard them."""

    data: Path
    run: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    data, runs = tmp_path_factory.mktemp("tones"), tmp_path_factory.mktemp("runs")
    path = Path(__file__).parents[1] / "train" / "sed" / "tone_pair.py"
    load(path).write_streaming_run(data, runs)
    (data / "attribution.csv").write_text(CREDITS, encoding="utf-8")
    return Trained(data, runs / "streaming")


@pytest.fixture(scope="module")
def converted() -> ConvertedFrames:
    """The student of tests/device/tiny_frames.py, as if the converter had made it."""
    tiny = load(Path(__file__).parents[1] / "device" / "tiny_frames.py")
    models = TFLiteModels(tiny.tiny_frames(quantised=False).model, tiny.tiny_frames().model)
    figures = FrameFigures({}, 0.0, 0.0, 1.0, None, Drift(600.0, (0.0,), 1.0))
    quantisation = tiny.frames_manifest().quantisation
    return ConvertedFrames(b"", models, 10, tiny.tiny_states(), quantisation, Counter(), 1, figures)


@pytest.fixture
def asked(converted: ConvertedFrames, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What conversions are asked for: student, front end, training and held-out recordings."""
    calls: list[Any] = []

    def convert(*given: Any, **_: Any) -> ConvertedFrames:
        calls.append(given)
        return converted

    monkeypatch.setattr(frame_bundle, "convert_frames", convert)
    return calls


def export(trained: Trained, out: Path, most: float, **other: Any) -> FrameRunExport:
    data = other.pop("data", None)
    return export_streaming_run(
        trained.run, data, out, most_event_f1_drop=most, quiet=True, **other
    )


def test_thresholds_are_chosen_on_validation_and_judged_on_test(
    trained: Trained, converted: ConvertedFrames, asked: list[Any], tmp_path: Path
) -> None:
    done = export(trained, tmp_path / "tones.bundle", 1.0)
    run = load_streaming_run(trained.run)
    sets = read_scenes(run.recipe, trained.data, quiet=True)
    assert sets.test is not None
    windows = windows_for(sets.train, run.recipe.detector)
    interpreter = converted.interpreter()
    chosen, int8, known = {}, {}, {}
    for name, scene_set in (
        ("train", sets.train), ("validation", sets.validation), ("test", sets.test),
    ):  # fmt: skip
        known[name] = open_features(scene_set, FRONT_END, run.recipe.batch.seconds, quiet=True)
    for name in ("validation", "test"):
        log_mel = known[name].log_mel(range(4)).numpy()
        int8[name] = [sigmoid(score_recording(interpreter, frames)) for frames in log_mel]
        choosing = known[name].scenes.scenes, int8[name], run.student.labels, windows, FRONT_END
        chosen[name] = choose_detector(*choosing, run.recipe.detector, quiet=True).classes
    classes = done.export.manifest.classes
    assert classes == chosen["validation"] != chosen["test"]

    scenes = sets.test.scenes
    assert done.judged_on == "test"
    float_scores = score_student(run.student.network, known["test"])
    for judged, scores, own in (
        (done.int8_judged, int8["test"], classes),
        (done.float_judged, float_scores, run.detector.classes),
    ):
        assert judged.classes == own
        assert judged.found == judge_on_device(scenes, scores, own, FRONT_END, 20, 10).found
        assert judged.found != judge_on_device(scenes, scores, own, FRONT_END, 0, 10).found

    # What sets the int8 ranges was trained on, what int8 is compared on was not.
    ((_, _, training, held_out),) = asked
    for given, name in ((training, "train"), (held_out, "validation")):
        expected = known[name].log_mel(range(len(given))).numpy()
        np.testing.assert_array_equal(np.stack(given), expected)
    assert (len(training), len(held_out)) == (16, 4)

    bundle = read_bundle(tmp_path / "tones.bundle")
    assert bundle.manifest.name == "tones"
    assert bundle.manifest.classes == classes
    assert bundle.manifest.training_data == (TrainingData(trained.data.name, 5, LICENCES, NAMES),)
    assert "On 4 test recordings" in bundle.model_card
    for name in NAMES:
        assert f"- {name}\n" in bundle.model_card
    figures = [100 * judged.figures.headline()["event_f1"] for judged in (
        done.float_judged, done.int8_judged,
    )]  # fmt: skip
    assert f"| {figures[0]:.1f} % | {figures[1]:.1f} % |" in bundle.model_card


def test_an_int8_model_that_is_worse_than_its_student_is_not_exported(
    trained: Trained, asked: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "tones.bundle"
    words = r"int8 model: event F1 on test recordings is .*%, the float student's .*%: expected at "
    with pytest.raises(ExportError, match=words + r"most 1\.5 points less; train longer"):
        export_streaming_run(trained.run, None, out, quiet=True)
    assert asked
    assert list(tmp_path.iterdir()) == []


def test_without_test_recordings_it_is_judged_on_validation(
    trained: Trained, asked: list[Any], tmp_path: Path
) -> None:
    data = tmp_path / "tones"
    shutil.copytree(trained.data, data, ignore=shutil.ignore_patterns("eval", "attribution.csv"))
    done = export(trained, tmp_path / "tones.bundle", 1.0, data=data, licence="CC0-1.0")
    assert done.judged_on == "validation"
    folder = data / "audio" / "validation"
    assert {scene.path.parent for scene in done.int8_judged.scenes} == {folder}
    card = read_bundle(tmp_path / "tones.bundle").model_card
    assert "On 4 validation recordings" in card
    # Nothing is known of where the recordings are from.
    assert done.export.manifest.training_data == (TrainingData("tones", 16, {"not stated": 16}),)
    assert done.export.manifest.licence == "CC0-1.0"


def test_other_recordings_than_those_trained_on_are_refused(
    trained: Trained, tmp_path: Path
) -> None:
    data = tmp_path / "tones"
    shutil.copytree(trained.data, data)
    table = data / "metadata" / "train" / "unlabel_in_domain.tsv"
    table.write_text("".join(f"{line}\n" for line in table.read_text().splitlines()[:-1]))
    with pytest.raises(UsageError, match=r"--data .*tones: its training recordings are not those"):
        export(trained, tmp_path / "tones.bundle", 1.0, data=data)


# --- the gate -------------------------------------------------------------------------------------


def judged_with(event_f1: float) -> Judged:
    """One that is judged, with this event F1."""
    scene = Scene(Path("a.wav"), "strong", 2.0, (Event("high", 0.5, 1.0),), frozenset({"high"}))
    scores = np.full((198, 1), 0.05, np.float32)
    scores[50:100] = 0.9
    classes = (ClassSettings("high", 0.5, 0.3, "median", 5, 0.0, 0.1),)
    judged = judge_on_device([scene], [scores], classes, FRONT_END, 20, 10)
    events = replace(judged.figures.events, event_f1={"high": event_f1})
    return replace(judged, figures=replace(judged.figures, events=events))


@pytest.mark.parametrize("int8", [0.786, 0.8, 0.9])
def test_int8_may_lose_a_point_and_a_half(int8: float) -> None:
    judged = {"float": judged_with(0.8), "int8": judged_with(int8)}
    assert judged["int8"].figures.headline()["event_f1"] == int8
    _check_drop(judged, "test", 0.015)


@pytest.mark.parametrize(
    ("int8", "told"), [(0.784, "is 78.4%, the float student's 80.0%"), (math.nan, "is nan%")]
)
def test_int8_may_not_lose_more_or_be_unknown(int8: float, told: str) -> None:
    judged = {"float": judged_with(0.8), "int8": judged_with(int8)}
    with pytest.raises(ExportError, match=f"event F1 on validation recordings {told}") as error:
        _check_drop(judged, "validation", 0.015)
    assert "expected at most 1.5 points less" in str(error.value)
    if not math.isnan(int8):
        _check_drop(judged, "validation", 0.017)


def test_a_student_without_a_figure_is_not_exported() -> None:
    with pytest.raises(ExportError, match="the float student's nan%"):
        _check_drop({"float": judged_with(math.nan), "int8": judged_with(0.8)}, "test", 1.0)


@pytest.mark.parametrize("most", [-0.01, 1.01, math.nan])
def test_a_drop_that_is_no_share_is_refused(most: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--most-event-drop .*: expected 0 to 100"):
        export_streaming_run(tmp_path, None, tmp_path / "x.bundle", most_event_f1_drop=most)


# --- the credits ----------------------------------------------------------------------------------


def test_licences_and_credits_are_those_of_the_training_sounds(tmp_path: Path) -> None:
    (tmp_path / "attribution.csv").write_text(CREDITS, encoding="utf-8")
    scenes = SceneSet(tmp_path, (Scene(tmp_path / "a.wav", "strong", 1.0),), ("high", "low"))
    assert scene_training_data(scenes) == TrainingData(tmp_path.name, 5, LICENCES, NAMES)
    (tmp_path / "attribution.csv").unlink()
    assert scene_training_data(scenes) == TrainingData(tmp_path.name, 1, {"not stated": 1})
