"""A trained student through the whole export: what the device then hears is what it learnt."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.device.bundle import check_bundle, open_bundle, read_bundle
from soundpost.device.errors import ExportError, InputError, UsageError
from soundpost.device.features import log_mel
from soundpost.device.interpreter import available_runtimes
from soundpost.export import pipeline
from soundpost.export.identity import created_at
from soundpost.export.parity import INT8_TFLITE, ParityBounds
from soundpost.export.pipeline import (
    ExportOptions,
    ExportResult,
    export_run,
    means_speech,
)
from soundpost.export.tflite import TFLiteModels
from soundpost.train.run import WEIGHTS, TrainedRun

OPTIONS = ExportOptions(
    version="0.3.0", licence="CC-BY-4.0", notes="Not fit for anything but this test."
)


@pytest.fixture(scope="module")
def converted() -> dict[bytes, TFLiteModels]:
    """Conversions done so far, by ONNX model: one takes half a minute."""
    return {}


@pytest.fixture(scope="module")
def exported(
    tone_run: TrainedRun,
    tones: Path,
    tmp_path_factory: pytest.TempPathFactory,
    converted: dict[bytes, TFLiteModels],
) -> ExportResult:
    real = pipeline.convert_to_tflite

    def kept(onnx_model: bytes, representative: np.ndarray, *, quiet: bool) -> TFLiteModels:
        converted[onnx_model] = real(onnx_model, representative, quiet=quiet)
        return converted[onnx_model]

    out = tmp_path_factory.mktemp("out") / "tones.bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "convert_to_tflite", kept)
        return export_run(tone_run.folder, tones, out, OPTIONS, quiet=True)


@pytest.fixture
def converted_once(
    exported: ExportResult, converted: dict[bytes, TFLiteModels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further exports of the same ONNX model take the models of the first."""
    del exported
    monkeypatch.setattr(
        pipeline, "convert_to_tflite", lambda onnx_model, *_, **__: converted[onnx_model]
    )


def test_the_bundle_knows_the_tones_in_both_runtimes(exported: ExportResult, tones: Path) -> None:
    best: dict[str, list[str]] = {}
    clips = sorted(tones.glob("*_5_*.wav"))
    names = [name for name in available_runtimes() if name != "tensorflow"]
    for runtime in names:
        bundle, interpreter, check = open_bundle(exported.out, runtime)
        assert check.score_error <= bundle.manifest.golden.scores
        labels = bundle.manifest.labels
        found = []
        for clip in clips:
            samples, _ = soundfile.read(clip, dtype="float32")
            features = log_mel(samples, bundle.manifest.front_end)
            scores = interpreter.run(features[: bundle.manifest.n_frames]).scores
            found.append(labels[int(scores.argmax())])
        best[runtime] = found
    truth = [clip.name.partition("_")[0] for clip in clips]
    first = best[names[0]]
    assert sum(a == b for a, b in zip(first, truth, strict=True)) >= len(truth) - 1
    assert all(found == first for found in best.values())


def test_the_manifest_says_what_the_run_was(exported: ExportResult, tone_run: TrainedRun) -> None:
    manifest = read_bundle(exported.out).manifest
    assert (manifest.name, manifest.version) == ("three-tones", "0.3.0")
    assert manifest.labels == ("high", "low", "middle") == tone_run.labels
    assert manifest.front_end == tone_run.front_end
    assert (manifest.window_samples, manifest.hop_samples) == (16_240, 4_000)
    assert manifest.weights == "int8"
    assert manifest.created == created_at(tone_run.folder / WEIGHTS)
    (data,) = manifest.training_data
    # Fold 5 reports and a quarter of the rest chose thresholds: neither trained.
    assert data.n_clips == sum(data.licences.values()) == tone_run.settings["data"]["n_train"]
    assert set(data.licences) == {"CC-BY-4.0", "CC0-1.0"}
    assert data.credits == ("A tone | by Zoë (CC-BY-4.0)",)
    for settings in manifest.classes:
        assert 0 < settings.release < settings.onset < 1


def test_int8_is_within_the_bounds(exported: ExportResult) -> None:
    row = exported.facts.parity.of(INT8_TFLITE)
    assert row.top1_agreement >= 0.97
    assert row.mean_difference < 0.02
    assert exported.facts.model_bytes < 1_000_000


def test_the_card_states_figures_parity_and_credits(exported: ExportResult) -> None:
    card = read_bundle(exported.out).model_card
    for line in (
        "# three-tones 0.3.0",
        "Licence of the weights: CC-BY-4.0.",
        "Not fit for anything but this test.",
        "| fold held out for the report | 5 |",
        "- A tone | by Zoë (CC-BY-4.0)",
    ):
        assert line in card.splitlines()
    for engine in ("torch", "ONNX Runtime", "float32 TFLite", "int8 TFLite"):
        assert f"\n| {engine} |" in card
    rows = [line.count("|") for line in card.splitlines() if line.startswith("| ")]
    assert set(rows) <= {3, 7, 8}


@pytest.mark.usefixtures("converted_once")
def test_the_same_run_gives_the_same_bytes(
    exported: ExportResult, tone_run: TrainedRun, tones: Path, tmp_path: Path
) -> None:
    again = export_run(tone_run.folder, tones, tmp_path / "again.bundle", OPTIONS, quiet=True)
    assert again.out.read_bytes() == exported.out.read_bytes()


@pytest.mark.usefixtures("converted_once")
def test_past_the_bound_nothing_is_written(
    tone_run: TrainedRun, tones: Path, tmp_path: Path
) -> None:
    strict = replace(OPTIONS, bounds=ParityBounds(top1_agreement=1.01))
    with pytest.raises(ExportError, match=r"agrees with torch in .*worst on '(high|low|middle)'"):
        export_run(tone_run.folder, tones, tmp_path / "x.bundle", strict, quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("converted_once")
def test_another_folder_of_clips_is_refused(
    tone_run: TrainedRun, tones: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tones, other)
    lines = (other / "clips.csv").read_text(encoding="utf-8").splitlines()
    (other / "clips.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="give --data the folder that it was trained with"):
        export_run(tone_run.folder, other, tmp_path / "x.bundle", OPTIONS, quiet=True)


def test_a_run_without_validation_clips_is_refused(
    tone_run: TrainedRun, tones: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tone_run.folder, run)
    settings = json.loads((run / "settings.json").read_text())
    data = settings["data"]
    data |= {"validation": [], "n_validation": 0, "n_train": data["n_train"] + data["n_validation"]}
    (run / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"data\.validation_fraction=0\.2"):
        export_run(run, tones, tmp_path / "x.bundle", OPTIONS, quiet=True)


def test_a_place_that_cannot_hold_the_bundle_is_refused_at_once(
    tone_run: TrainedRun, tones: Path, tmp_path: Path
) -> None:
    for out in (tmp_path, tmp_path / "none" / "x.bundle"):
        with pytest.raises(UsageError, match="--out"):
            export_run(tone_run.folder, tones, out, OPTIONS, quiet=True)


@pytest.mark.parametrize("options", [{"version": "1.0"}, {"name": "\x00"}])
def test_a_version_that_no_manifest_takes_is_refused_at_once(
    tone_run: TrainedRun, tones: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(options))}"):
        export_run(
            tone_run.folder, tones, tmp_path / "x.bundle", replace(OPTIONS, **options), quiet=True
        )


def test_created_follows_source_date_epoch(
    tone_run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795168801")
    assert created_at(tone_run.folder / WEIGHTS) == "2026-11-20T10:00:01.000000Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'soon'"):
        created_at(tone_run.folder / WEIGHTS)


def test_the_bundle_command_reads_what_was_exported(exported: ExportResult) -> None:
    command = [sys.executable, "-m", "soundpost.device", "bundle", "check", str(exported.out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "in order. three-tones 0.3.0, 3 labels" in done.stdout
    assert check_bundle(read_bundle(exported.out)).feature_error == 0.0


@pytest.mark.parametrize(
    ("label", "speech"),
    [
        ("speech", True),
        ("Male speech, man speaking", True),
        ("human_voice", True),
        ("conversation-2", True),
        ("speechless", False),
        ("crying_baby", False),
        ("dog", False),
    ],
)
def test_labels_of_speech_are_known_by_their_words(label: str, speech: bool) -> None:
    assert means_speech(label) == speech
