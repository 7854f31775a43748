"""The sensor's networks, taught by one that sees, to bundles: from a tiny set to a sensor's scores.

Sound of one second: a car hums low, a train high, of a bus nothing is heard. Both students are
trained for seconds and converted; the converted model is held against the float run on test clips.
"""

from __future__ import annotations

import json
import shutil
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from soundpost.device.bundle import read_bundle
from soundpost.device.command import Command
from soundpost.device.errors import ExportError, InputError
from soundpost.device.features import FrontEnd
from soundpost.export import frames as frames_module
from soundpost.export import pipeline
from soundpost.export.command import COMMAND as EXPORT
from soundpost.export.onnx_export import export_onnx
from soundpost.export.parity import ParityBounds
from soundpost.export.pipeline import ExportOptions
from soundpost.export.tag_windows import export_windows_of, read_roles
from soundpost.export.tagging_run import check_tags, choose_frame_classes, export_tagging_run
from soundpost.export.tflite import TFLiteModels
from soundpost.export.thresholds import ThresholdRule, choose_onset
from soundpost.train.commands import EVALUATE, TRAIN
from soundpost.train.datasets.segments import Folders
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings
from soundpost.train.multimodal.bundle_tags import evaluate_bundle_tags
from soundpost.train.multimodal.clip_media import read_media_set
from soundpost.train.multimodal.ensembles import tagging_figures
from soundpost.train.multimodal.tagging_run import load_tagging_run
from soundpost.train.run import initialise
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings

RATE_HZ = 16_000
TONES_HZ = {"Car": 400.0, "Train": 2_500.0}
SMALL = (
    "model.channels=[16, 16]", "model.visual_units=8", "data.seconds=1.0", "visual.backbone=stub",
    "visual.frames_per_second=2.0", "training.batch_size=8", "training.report_every=100",
)  # fmt: skip
WINDOWS = (
    "mobilenet_v2.width=0.35", "mobilenet_v2.patch_frames=50", "mobilenet_v2.windows=2",
    "mobilenet_v2.dropout=0.0", "training.epochs=24", "training.learning_rate=3e-3",
)  # fmt: skip
FRAMES = (
    "streaming.channels=[8, 8]", "streaming.pools=[8, 4]", "streaming.hidden_size=16",
    "streaming.dropout=0.0", "training.epochs=50", "training.learning_rate=2e-2",
)  # fmt: skip
OPTIONS = ExportOptions(version="0.2.0", licence="CC0-1.0")


def load(path: Path) -> ModuleType:
    specification = spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run_command(command: Command, *arguments: object) -> int:
    parser = ArgumentParser()
    command.add_arguments(parser)
    parse = parser.parse_intermixed_args if command.intermixed else parser.parse_args
    return command.run(parse([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def vehicles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DCASE 2017 task 4 as published: videos to learn from, sounds to choose by and to judge on."""
    folder = tmp_path_factory.mktemp("dcase17")
    layouts = load(Path(__file__).parents[1] / "train" / "datasets" / "layouts.py")
    rng = np.random.default_rng(0)
    kinds: tuple[tuple[str, ...], ...] = (("Car",), ("Train",), ("Bus",))
    (folder / "audio").mkdir()
    for part, n in (("training", 32), ("testing", 21), ("evaluation", 21)):
        rows = []
        for i in range(n):
            # Every seventh clip has two labels.
            labels = ("Car", "Train") if i % 7 == 6 else kinds[i % 3]
            time_s = np.arange(RATE_HZ) / RATE_HZ
            sound = 0.01 * rng.standard_normal(RATE_HZ)
            for label in labels:
                if label in TONES_HZ:
                    hz = TONES_HZ[label] * rng.uniform(0.93, 1.07)
                    sound += rng.uniform(0.05, 0.3) * np.sin(2 * np.pi * hz * time_s)
            stem = f"{part[:5]}{i:06d}_0.000_1.000"
            rows.append(f'{stem[:11]},0.000,1.000,"{",".join(labels)}"\n')
            if part == "training":
                path = folder / "video" / f"{stem}.mkv"
                layouts.write_video(path, 1.0, samples=sound.astype(np.float32))
            else:
                soundfile.write(folder / "audio" / f"Y{stem}.wav", sound, RATE_HZ)
        layouts.write_table(folder / f"{part}_set.csv", "".join(rows))
    return folder


def make(vehicles: Path, folder: Path, recipe: str, changes: tuple[str, ...]) -> tuple[Path, Path]:
    run, bundle = folder / recipe, folder / f"{recipe}.bundle"
    assert run_command(
        TRAIN, recipe, *SMALL, *changes, "--data", vehicles, "--out", run, "--quiet",
        "--threads", 1, "--device", "cpu",
    ) == 0  # fmt: skip
    return run, bundle


@pytest.fixture(scope="module")
def converted() -> dict[bytes, TFLiteModels]:
    """Conversions done so far, by ONNX model: one takes half a minute."""
    return {}


@pytest.fixture(scope="module", autouse=True)
def converts_once(converted: dict[bytes, TFLiteModels]) -> Iterator[None]:
    real = pipeline.convert_to_tflite

    def kept(onnx_model: bytes, *given: Any, **how: Any) -> TFLiteModels:
        if onnx_model not in converted:
            converted[onnx_model] = real(onnx_model, *given, **how)
        return converted[onnx_model]

    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, frames_module):
            patch.setattr(module, "convert_to_tflite", kept)
        yield


@pytest.fixture(scope="module")
def windows(vehicles: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("windows")
    run, bundle = make(vehicles, folder, "yin2021_mobilenet_v2", WINDOWS)
    assert run_command(EXPORT, run, "--out", bundle, "--quiet", "--version", "0.2.0") == 0
    return run, bundle


@pytest.fixture(scope="module")
def frames(vehicles: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("frames")
    run, bundle = make(vehicles, folder, "yin2021_streaming", FRAMES)
    assert run_command(EXPORT, run, "--out", bundle, "--quiet", "--version", "0.2.0") == 0
    return run, bundle


def bundle_scores(bundle: Path, vehicles: Path) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    read = read_media_set("dcase2017", Folders(vehicles))
    judged = evaluate_bundle_tags(bundle, read, ["evaluation"], quiet=True)
    return judged.scores, judged.clip_ids, list(judged.labels)


@pytest.mark.parametrize("kind", ["windows", "frames"])
def test_the_bundle_says_what_the_run_says(
    kind: str, vehicles: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run, bundle = request.getfixturevalue(kind)
    scores, clip_ids, labels = bundle_scores(bundle, vehicles)
    kept = np.load(run / "scores.npz")
    assert clip_ids == tuple(kept["test_student_clips"])
    assert tuple(labels) == load_tagging_run(run).labels
    # Every clip and label, float in torch against int8: of 256 steps over ±8 logits.
    differences = np.abs(scores - kept["test_student_scores"])
    assert differences.mean() < 0.02
    assert differences.max() < 0.15
    # `soundpost evaluate` of either says so.
    capsys.readouterr()
    assert run_command(
        EVALUATE, bundle, "--data", vehicles, "--kind", "dcase2017", "--split", "evaluation",
        "--json", "--quiet",
    ) == 0  # fmt: skip
    int8 = json.loads(capsys.readouterr().out)
    assert run_command(EVALUATE, run, "--data", vehicles, "--json", "--device", "cpu") == 0
    before = json.loads(capsys.readouterr().out)
    assert int8["n_clips"] == before["n_clips"] == 21
    assert abs(int8["mean_average_precision"] - before["mean_average_precision"]) <= 0.02
    assert before["mean_average_precision"] > 0.9
    assert int8["runtime"]


def graph(network: MobileNetV2) -> tuple[list[Any], list[Any]]:
    """Operators in their order, with what goes in, comes out and is set, and all that is held."""
    found = onnx.load_from_string(export_onnx(network, 50, 64)).graph
    nodes = [
        (
            node.op_type,
            list(node.input),
            list(node.output),
            [attribute.SerializeToString() for attribute in node.attribute],
        )
        for node in found.node
    ]
    return nodes, [one.SerializeToString() for one in found.initializer]


def test_a_student_of_windows_is_exported_as_it_is(windows: tuple[Path, Path]) -> None:
    """What learnt beside a teacher gives the graph of one that learnt from labels alone."""
    run, bundle = windows
    loaded = load_tagging_run(run)
    network = loaded.device_network
    assert isinstance(network, MobileNetV2)
    plain = MobileNetV2(len(loaded.labels), MobileNetV2Settings(0.35, 128, 0.0))
    alone = load_file(run / "device.safetensors")
    plain.load_state_dict(alone)
    # After the weights, for what two layers have alike is held once.
    assert graph(network) == graph(plain.eval())
    assert all(torch.equal(alone[name], value) for name, value in network.state_dict().items())
    # The heads that only the losses see stay in the run.
    everything = load_file(run / "model.safetensors")
    assert {name.partition(".")[0] for name in everything} == {"network", "project", "imagine"}
    manifest = read_bundle(bundle).manifest
    assert (manifest.kind, manifest.name, manifest.version) == (
        "window", "yin2021_mobilenet_v2", "0.2.0"
    )  # fmt: skip
    assert manifest.labels == loaded.labels
    assert manifest.front_end == FrontEnd()
    assert manifest.n_frames == 50
    (data,) = manifest.training_data
    assert (data.n_clips, dict(data.licences)) == (32, {"not stated": 32})
    for line in (
        "| method | mutual, pictures through stub |",
        "| clips trained on | 32 |",
        "| clips for thresholds | 21 |",
        "| clips held out for the report | 21 |",
    ):
        assert line in read_bundle(bundle).model_card.splitlines()


def test_other_students_start_from_it(windows: tuple[Path, Path]) -> None:
    run, _ = windows
    labels = ("Bus", "Elsewhere", "Train")
    network = MobileNetV2(3, MobileNetV2Settings(0.35, 128, 0.0))
    assert initialise(network, labels, str(run / "device.safetensors")) == 2
    own = load_tagging_run(run)
    before = own.device_network.classifier.weight[own.labels.index("Train")]
    assert torch.equal(network.classifier.weight[2], before)


def test_a_student_of_frames_is_exported_as_it_is(frames: tuple[Path, Path]) -> None:
    run, bundle = frames
    loaded = load_tagging_run(run)
    shape = StreamingSettings((8, 8), (8, 4), 16, 0.0)
    plain = StreamingCRNN(len(loaded.labels), shape, FrontEnd())
    plain.load_state_dict(load_file(run / "device.safetensors"))
    kept = loaded.device_network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in plain.state_dict().items())
    read = read_bundle(bundle)
    assert read.manifest.kind == "frames"
    assert read.manifest.labels == loaded.labels
    for settings in read.manifest.classes:
        assert 0 < settings.release < settings.onset < 1
        assert (settings.smoothing, settings.smoothing_windows) == ("median", 21)
    assert "On 21 test clips." in read.model_card
    assert "- method: mutual, pictures through stub" in read.model_card
    row = next(line for line in read.model_card.splitlines() if line.startswith("| mAP |"))
    before, after = (float(cell) for cell in row.strip("|").split("|")[1:])
    figures = json.loads((run / "figures.json").read_text())["test"]["student"]
    assert before == pytest.approx(figures["mean_average_precision"], abs=2e-3)
    assert before - after <= 0.01


def test_past_a_bound_nothing_is_written(
    windows: tuple[Path, Path], frames: tuple[Path, Path], tmp_path: Path
) -> None:
    strict = replace(OPTIONS, bounds=ParityBounds(top1_agreement=1.01, accuracy_drop=-0.5))
    with pytest.raises(ExportError, match=r"agrees with torch in .*worst on '(Car|Train|Bus)"):
        export_tagging_run(windows[0], None, tmp_path / "x.bundle", strict, quiet=True)
    with pytest.raises(ExportError, match=r"mAP of clips falls by .* expected at most -50"):
        export_tagging_run(frames[0], None, tmp_path / "x.bundle", strict, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_windows_are_those_of_the_clips_in_their_roles(
    windows: tuple[Path, Path], vehicles: Path
) -> None:
    run = load_tagging_run(windows[0])
    roles = read_roles(run, vehicles, quiet=True)
    found = export_windows_of(roles, 50)
    # 98 frames hold windows of 50 from 0 and from 25.
    assert found.validation.patches.shape == (42, 50, 64)
    assert found.test is not None
    truth = found.test.clip_labels
    assert truth.shape == (21, 17)
    assert truth.sum(axis=1).tolist() == [2 if i % 7 == 6 else 1 for i in range(21)]
    # Ranges are set by clips that were trained on, of every label that has some.
    assert set(np.unique(found.training.window_labels)) == {
        run.labels.index(label) for label in ("Car", "Train", "Bus")
    }
    ids = [{role.of.clips[i].id for i in role.clips} for role in (roles.training, roles.test)]
    assert not ids[0] & ids[1]


# ------------------------------------------------------------------------------------ by hand


def test_thresholds_of_frames_follow_the_rule_for_clips() -> None:
    rng = np.random.default_rng(0)
    has = rng.random((12, 2)) < 0.5
    scores = []
    for row in has:
        clip = np.full((60, 2), 0.1, np.float32)
        clip[20:50] += 0.7 * row
        # A click that no median of 21 frames lets through.
        clip[5:9] = 0.99
        scores.append(clip)
    classes = choose_frame_classes(scores, has, ("a", "b"), ThresholdRule())
    peaks = np.where(has, np.float32(0.8), np.float32(0.1))
    for k, settings in enumerate(classes):
        expected = choose_onset(peaks[:, k], has[:, k], ThresholdRule())
        assert settings.onset == pytest.approx(expected, abs=1e-6)
        assert 0.1 < settings.release < settings.onset < 0.8


def test_a_label_that_int8_loses_is_named() -> None:
    truth = np.zeros((12, 2), np.float32)
    truth[:6, 0] = truth[6:, 1] = 1
    good = np.where(truth > 0, 0.9, 0.1).astype(np.float32)
    bad = good.copy()
    bad[:3, 1] = 0.95
    before, after = (tagging_figures(scores, truth, ("a", "b")) for scores in (good, bad))
    generous = ParityBounds(accuracy_drop=1.0)
    with pytest.raises(ExportError, match=r"average precision of 'b' falls by 0.[0-9]+ from 1.000"):
        check_tags(before, after, truth, ("a", "b"), generous)
    # Of fewer clips than that, one that changes place is a larger step.
    check_tags(before, after, truth, ("a", "b"), replace(generous, class_clips=7))
    with pytest.raises(ExportError, match="mAP of clips falls by"):
        check_tags(before, after, truth, ("a", "b"), ParityBounds())
    check_tags(before, before, truth, ("a", "b"), ParityBounds(accuracy_drop=0.0))


# ---------------------------------------------------------------------------------- bad input


def test_a_student_that_no_sensor_runs_is_refused(vehicles: Path, tmp_path: Path) -> None:
    run = tmp_path / "paper"
    assert run_command(
        TRAIN, "yin2021_plain", *SMALL, "training.epochs=1", 'data.validation=["testing"]',
        "--data", vehicles, "--out", run, "--quiet", "--threads", 1, "--device", "cpu",
    ) == 0  # fmt: skip
    with pytest.raises(InputError, match=r"no sensor runs; train with model.student=mobilenet_v2"):
        export_tagging_run(run, None, tmp_path / "x.bundle", OPTIONS, quiet=True)


def test_another_data_set_is_refused(
    windows: tuple[Path, Path], vehicles: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(vehicles, other)
    lines = (other / "evaluation_set.csv").read_text().splitlines(keepends=True)
    (other / "evaluation_set.csv").write_text("".join(lines[:-1]))
    with pytest.raises(
        InputError, match=r"has 17 labels and \(32, 21, 20\) clips .* \(32, 21, 21\)"
    ):
        export_tagging_run(windows[0], other, tmp_path / "x.bundle", OPTIONS, quiet=True)
