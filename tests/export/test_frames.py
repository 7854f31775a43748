"""One streaming student, trained for seconds on tones, converted and let through every gate."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import check_bundle, open_bundle, read_bundle
from soundpost.device.commands.replay import COMMAND as REPLAY
from soundpost.device.detection import ClassSettings
from soundpost.device.errors import BundleError, ExportError, InputError, UsageError
from soundpost.device.features import FrontEnd, log_mel
from soundpost.device.frame_detector import detect_offline
from soundpost.device.frame_interpreter import FrameInterpreter, load_frame_interpreter
from soundpost.device.interpreter import Quantisation, sigmoid
from soundpost.device.manifest import Manifest
from soundpost.device.pipeline import Pipeline
from soundpost.export import frames as frames_module
from soundpost.export.frame_bundle import (
    FrameBundleOptions,
    FrameExport,
    export_frames,
)
from soundpost.export.frames import (
    CHUNK_FRAMES,
    INTERFACE,
    SIGNATURE,
    FrameBounds,
    check_figures,
    check_frame_runtimes,
    check_size,
    check_states,
    chunks_of,
    convert_frames,
    draw_chunks,
    export_frames_onnx,
    measure_drift,
    roll_out,
    score_recording,
)
from soundpost.export.tflite import convert_to_tflite
from soundpost.train.evaluate import evaluate
from soundpost.train.sed.detector_choice import frames_of_median
from soundpost.train.sed.distil import DistilSettings, StreamingStudent, distil
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings

FloatArray = NDArray[np.float32]
RATE_HZ = 16_000
HOP_S = 0.01
OPTIONS = FrameBundleOptions("tones", "2026-11-21T10:00:00.000000Z", notes="Heard of: nothing.")
CLASSES = tuple(
    ClassSettings(
        label,
        onset=0.5,
        release=0.3,
        smoothing="median",
        smoothing_windows=9,
        min_duration_s=0.1,
        min_gap_s=0.2,
    )
    for label in ("high", "low")
)


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    path = Path(__file__).with_name("frame_scenes.py")
    specification = spec_from_file_location("frame_scenes", path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules["frame_scenes"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def student(scenes: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> StreamingStudent:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return distil(
            scenes.LABELS,
            scenes.batches,
            DistilSettings(epochs=3, learning_rate=2e-2, warmup_steps=4, average_decay=0.8),
            tmp_path_factory.mktemp("runs") / "tones",
            shape=StreamingSettings(channels=(8, 12, 16), hidden_size=24, dropout=0.05),
        )
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def training(scenes: ModuleType) -> list[FloatArray]:
    return [frames for frames, _ in scenes.features(20, 77)]


@pytest.fixture(scope="module")
def held_out(scenes: ModuleType) -> list[FloatArray]:
    return [frames for frames, _ in scenes.features(8, 78)]


@pytest.fixture(scope="module")
def exported(
    student: StreamingStudent,
    training: list[FloatArray],
    held_out: list[FloatArray],
    tmp_path_factory: pytest.TempPathFactory,
) -> FrameExport:
    out = tmp_path_factory.mktemp("bundles") / "tones.bundle"
    asked: list[FloatArray] = []

    def choose(interpreter: FrameInterpreter) -> tuple[ClassSettings, ...]:
        asked.append(score_recording(interpreter, held_out[0]))
        return CLASSES

    done = export_frames(
        student.network,
        student.labels,
        student.front_end,
        training,
        held_out,
        choose,
        out,
        OPTIONS,
        quiet=True,
    )
    # Thresholds are chosen on what the sensor will see: scores of the int8 model.
    int8 = score_recording(done.converted.interpreter(), held_out[0])
    np.testing.assert_array_equal(asked[0], int8)
    return done


def test_the_student_has_learnt_what_the_laws_are_about(
    student: StreamingStudent, scenes: ModuleType
) -> None:
    with torch.no_grad():
        for frames, targets in scenes.features(5, 99):
            logits = student.network.forward_sequence(torch.tensor(frames)[None])[0].numpy()
            assert ((logits > 0) == (targets > 0.5)).mean() > 0.97


# --- the conversion and its gates ----------------------------------------------------------------


def test_float_forms_equal_torch(exported: FrameExport) -> None:
    assert set(exported.converted.figures.float_error) == {"ONNX Runtime", "float32 TFLite"}
    assert max(exported.converted.figures.float_error.values()) <= 1e-4


def test_every_step_of_int8_is_near_the_float_student(
    exported: FrameExport, student: StreamingStudent, scenes: ModuleType
) -> None:
    """On sound that no gate has seen, against torch on the whole recording at once."""
    interpreter = exported.converted.interpreter()
    for frames, _ in scenes.features(4, 4_321):
        with torch.no_grad():
            logits = student.network.forward_sequence(torch.tensor(frames)[None])[0].numpy()
        differences = np.abs(sigmoid(score_recording(interpreter, frames)) - sigmoid(logits))
        assert differences.mean() < 0.01
        # The first and last of a chunk are no worse than those in its middle.
        by_place = differences[: len(differences) // 10 * 10].reshape(-1, 10, 2).mean(axis=(0, 2))
        assert by_place.max() < 0.01


def test_chunks_are_judged_one_after_the_other(exported: FrameExport) -> None:
    """Without the state, the middle of a tone is something else: the law above is about it."""
    interpreter = exported.converted.interpreter()
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    sound = (0.2 * np.sin(2 * np.pi * 400 * time_s)).astype(np.float32)
    frames = log_mel(sound, exported.manifest.front_end)
    chunk = chunks_of(frames, 10)[-1]
    n_frames = len(chunks_of(frames, 10)) * 10
    state = interpreter.initial_state()
    alone = interpreter.run(chunk, state).logits
    again = interpreter.run(chunk, state).logits
    np.testing.assert_array_equal(alone, again)
    carried = score_recording(interpreter, frames)[n_frames - 10 : n_frames]
    assert np.abs(carried - alone).max() > 0.2


def test_no_drift_in_ten_minutes(exported: FrameExport) -> None:
    drift = exported.converted.figures.drift
    assert drift.seconds == 600.0
    assert len(drift.by_minute) == 10
    assert max(drift.by_minute) < 0.01
    assert drift.decision_agreement > 0.99


def test_both_runtimes_hear_the_same(exported: FrameExport) -> None:
    agreement = exported.converted.figures.runtimes
    assert agreement is not None
    assert set(agreement.runtimes) == {"ai-edge-litert", "tflite-runtime"}
    assert agreement.mean_score < 0.01
    assert agreement.decision_agreement > 0.99


def test_the_states_are_those_of_the_middle_of_streams(
    student: StreamingStudent, training: list[FloatArray]
) -> None:
    """Each drawn state is the one that torch has before that chunk of the sound."""
    network = student.network
    some = training[:5]
    drawn = draw_chunks(network, some, student.front_end, 10, 0)
    known = {
        step.inputs[0].tobytes(): step.inputs
        for recording in some
        for step in roll_out(network, recording, 10)
    }
    *examples, pin = zip(drawn["chunk"], drawn["context"], drawn["hidden"], strict=True)
    for chunk, context, hidden in examples:
        expected = known[chunk.tobytes()]
        np.testing.assert_array_equal(context, expected[1])
        np.testing.assert_array_equal(hidden, expected[2])
    assert np.abs(drawn["hidden"]).max() > 0.5
    for array in pin[:2]:
        assert (array.min(), array.max()) == (-7.0, 5.0)
    same = draw_chunks(network, some, student.front_end, 10, 0)
    other = draw_chunks(network, some, student.front_end, 10, 1)
    assert all(np.array_equal(drawn[name], same[name]) for name in drawn)
    assert not np.array_equal(drawn["chunk"], other["chunk"])


def test_a_state_without_a_range_is_refused(
    exported: FrameExport, student: StreamingStudent, held_out: list[FloatArray]
) -> None:
    """What calibration with zeros gives: a scale that holds nothing."""
    context, hidden = exported.converted.states
    for scale, words in ((8e-9, r"state hidden holds up to 1e-06"), (1.0, "holds up to 1.3e.02")):
        broken = replace(hidden, input_quantisation=Quantisation(scale, 0))
        with pytest.raises(ExportError, match=words):
            check_states((context, broken), student.network, held_out, 10)


def test_another_network_drifts_and_is_refused(
    exported: FrameExport, student: StreamingStudent, held_out: list[FloatArray]
) -> None:
    """The gate sees a model that does not follow its float student."""
    torch.manual_seed(8)
    other = StreamingCRNN(2, student.network.settings).eval()
    drift = measure_drift(other, exported.converted.interpreter(), held_out, HOP_S, seconds=120.0)
    assert len(drift.by_minute) == 2
    assert drift.first > 0.1


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (FrameBounds(mean_difference=0.0), "scores differ from torch's by .* on average"),
        (FrameBounds(decision_agreement=1.1), "decides as torch does in"),
        (FrameBounds(drift=-1.0), "its state drifts: .* in the first minute"),
    ],
)
def test_each_bound_can_refuse(exported: FrameExport, bounds: FrameBounds, words: str) -> None:
    check_figures(exported.converted.figures, FrameBounds())
    with pytest.raises(ExportError, match=words):
        check_figures(exported.converted.figures, bounds)


def test_one_runtime_alone_is_no_comparison(
    exported: FrameExport, held_out: list[FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "available_runtimes", lambda: ["ai-edge-litert"])
    converted = exported.converted
    assert check_frame_runtimes(converted.models.int8, converted.states, held_out, HOP_S) is None


def test_a_model_of_more_than_300_000_bytes_is_refused() -> None:
    check_size(bytes(300_000))
    with pytest.raises(ExportError, match="has 300,001 bytes: expected at most 300,000"):
        check_size(bytes(300_001))


def test_no_bundle_is_made_of_a_model_that_is_too_large(
    exported: FrameExport,
    student: StreamingStudent,
    training: list[FloatArray],
    held_out: list[FloatArray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Converted once: it takes a quarter of a minute.
    models = exported.converted.models
    monkeypatch.setattr(frames_module, "convert_to_tflite", lambda *_, **__: models)
    n_bytes = len(models.int8)
    monkeypatch.setattr(frames_module, "MOST_BYTES", n_bytes - 1)
    network, front_end = student.network, student.front_end
    with pytest.raises(ExportError) as refused:
        convert_frames(network, front_end, training, held_out, quiet=True)
    found, expected = f"{n_bytes:,} bytes", f"expected at most {n_bytes - 1:,}"
    for words in (found, expected, "train with fewer model.channels or a smaller"):
        assert words in str(refused.value)


def test_the_default_student_of_ten_labels_fits(training: list[FloatArray]) -> None:
    """The shape that a recipe trains unless it says otherwise; what it has learnt takes no room."""
    network = StreamingCRNN(10).eval()
    chunks = draw_chunks(network, training[:2], FrontEnd(), CHUNK_FRAMES, 0)
    onnx_model = export_frames_onnx(network, CHUNK_FRAMES)
    models = convert_to_tflite(onnx_model, chunks, interface=INTERFACE, quiet=True)
    # A byte for each weight at least.
    assert sum(p.numel() for p in network.parameters()) < len(models.int8)
    check_size(models.int8)


def test_chunks_and_recordings_that_cannot_be_are_refused(
    student: StreamingStudent, training: list[FloatArray]
) -> None:
    network, front_end = student.network, student.front_end
    with pytest.raises(UsageError, match="chunks of 26 frames: expected 10 to 25"):
        convert_frames(network, front_end, training, training, chunk_frames=26)
    with pytest.raises(ExportError, match="is held out"):
        convert_frames(network, front_end, training, [])
    with pytest.raises(ExportError, match="10 chunks of training sound are too few"):
        draw_chunks(network, [training[0][:100]], front_end, 10, 0)


# --- the interpreter ------------------------------------------------------------------------------


def test_states_pass_through_real_values_where_scales_differ(exported: FrameExport) -> None:
    """The int8 state that goes in is the nearest to what came out, whatever the two scales are."""
    converted = exported.converted
    context, hidden = converted.states
    moved = replace(hidden, input_quantisation=hidden.input_quantisation)
    interpreter = load_frame_interpreter(converted.models.int8, SIGNATURE, (context, moved))
    (_, carried) = interpreter._carried
    for into, out_of in (
        (Quantisation(0.0078, 3), Quantisation(0.0078, 2)),
        (Quantisation(0.004, -9), Quantisation(0.0078, 2)),
        (Quantisation(), Quantisation(0.0078, 2)),
        (Quantisation(0.0078, 3), Quantisation()),
    ):
        carried.into, carried.out_of = into, out_of
        stored = np.arange(-128, 128, dtype=np.int8)
        real = 0.0078 * (stored.astype(float) - 2)
        found = carried.passed_on(real.astype(np.float32) if out_of.is_float else stored)
        if into.is_float:
            np.testing.assert_allclose(found, real, atol=1e-6)
        else:
            expected = np.clip(np.round(real / into.scale + into.zero_point), -128, 127)
            assert found.dtype == np.int8
            # Halves may go either way in float32.
            assert np.abs(found - expected).max() <= (0 if into.scale == 0.0078 else 1)


def test_a_manifest_of_other_states_is_refused(exported: FrameExport) -> None:
    model, (context, hidden) = exported.converted.models.int8, exported.converted.states
    for states, words in (
        ((context,), "3 inputs and 3 outputs: expected one of each and 1 states"),
        ((context, replace(hidden, shape=(1, 25))), r"hidden is \(1, 24\).* says \(1, 25\)"),
        ((context, replace(hidden, input="h")), r"no signature frames\(chunk, context, h\)"),
    ):
        with pytest.raises(BundleError, match=words):
            load_frame_interpreter(model, SIGNATURE, states)


def test_a_chunk_of_another_length_is_refused(exported: FrameExport) -> None:
    interpreter = exported.converted.interpreter()
    with pytest.raises(ValueError, match=r"chunk \(9, 64\): expected \(10, 64\)"):
        interpreter.run(np.zeros((9, 64), np.float32), interpreter.initial_state())


# --- the bundle -----------------------------------------------------------------------------------


def test_the_bundle_is_read_and_reproduces_in_both_runtimes(exported: FrameExport) -> None:
    bundle = read_bundle(exported.out)
    manifest = bundle.manifest
    assert manifest == replace(exported.manifest, sha256=manifest.sha256)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert (manifest.kind, manifest.n_frames, manifest.hop_samples) == ("frames", 10, 1_600)
    for runtime in ("ai-edge-litert", "tflite-runtime"):
        check = check_bundle(bundle, runtime=runtime)
        assert check.n_windows == 40
        assert check.score_error <= manifest.golden.scores <= 0.1
    for words in ("Over 600 s without a pause", "Heard of: nothing.", "| high | 0.500 |"):
        assert words in bundle.model_card


def test_a_golden_vector_needs_the_state(exported: FrameExport) -> None:
    """A runtime that forgot the state, or began with another, would be found out."""
    bundle = read_bundle(exported.out)
    assert bundle.manifest.frames is not None
    states = tuple(replace(state, initial=0.9) for state in bundle.manifest.frames.states)
    wrong = load_frame_interpreter(bundle.model, bundle.manifest.signature, states)
    with pytest.raises(BundleError, match="golden vector: scores differ"):
        check_bundle(bundle, wrong)


def test_medians_are_capped_by_the_look_ahead(student: StreamingStudent) -> None:
    """eq 7 of liang2021 in frames of 10 ms: odd, and 20 frames ahead at most."""
    lengths = {0.0: 1, 0.012: 1, 0.05: 5, 0.3: 31, 0.41: 41, 5.0: 41}
    for seconds, n_frames in lengths.items():
        assert frames_of_median(seconds, student.front_end, 20) == n_frames


def test_it_is_not_judged_on_clips(exported: FrameExport, tones: Path) -> None:
    with pytest.raises(InputError, match=r"is of kind 'frames', which tells when sounds begin"):
        evaluate(exported.out, tones, None, quiet=True)


# --- the whole chain ------------------------------------------------------------------------------


def test_events_begin_and_end_when_the_tones_do(
    exported: FrameExport,
    scenes: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`soundpost replay` of scenes that nothing was trained on: 100 ms for either end."""
    parser = argparse.ArgumentParser()
    REPLAY.add_arguments(parser)
    for seed in (501, 502, 503):
        sound, truth = scenes.tone_scene(np.random.default_rng(seed), 6.0)
        path = tmp_path / f"{seed}.wav"
        soundfile.write(path, sound, RATE_HZ)
        arguments = parser.parse_args([str(path), "--bundle", str(exported.out), "--json"])
        assert REPLAY.run(arguments) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert sorted(event["label"] for event in found) == sorted(row[0] for row in truth)
        for label, onset_s, offset_s in truth:
            (event,) = [event for event in found if event["label"] == label]
            assert abs(event["onset_s"] - onset_s) < 0.1
            assert abs(event["offset_s"] - offset_s) < 0.1


def blocks(samples: FloatArray, length: int, first: int = 0) -> list[AudioBlock]:
    return [
        AudioBlock(samples[at : at + length, None], first + at, RATE_HZ)
        for at in range(0, len(samples), length)
    ]


@pytest.mark.parametrize("length", [160, 333, 1_600, 7_001, 10**9])
def test_a_stream_gives_what_the_offline_detector_gives(
    exported: FrameExport, scenes: ModuleType, length: int
) -> None:
    """Every frame, the last ones that fill no chunk too, through the same detector at once."""
    bundle, interpreter, _ = open_bundle(exported.out)
    assert isinstance(interpreter, FrameInterpreter)
    sound, _ = scenes.tone_scene(np.random.default_rng(31), 5.037)
    pipeline = Pipeline(bundle, interpreter, RATE_HZ, channel=0)
    found = [
        detection
        for block in blocks(sound, length)
        for window in pipeline.push(block)
        for detection in window.detections
    ]
    found += [detection for window in pipeline.finish() for detection in window.detections]
    frames = log_mel(sound, bundle.manifest.front_end)
    scores = sigmoid(score_recording(interpreter, frames))
    expected = detect_offline(scores, CLASSES, bundle.manifest.front_end, 20)
    assert found == expected
    assert {detection.phase for detection in found} == {"start", "end"}


def test_a_gap_begins_a_new_state(exported: FrameExport, scenes: ModuleType) -> None:
    """What follows a gap is scored as if nothing had been before."""
    bundle, interpreter, _ = open_bundle(exported.out)
    assert isinstance(interpreter, FrameInterpreter)
    sound, _ = scenes.tone_scene(np.random.default_rng(32), 3.0)
    alone = Pipeline(bundle, interpreter, RATE_HZ, channel=0)
    expected = [w.scores.tolist() for block in blocks(sound, 800) for w in alone.push(block)]
    pipeline = Pipeline(bundle, interpreter, RATE_HZ, channel=0)
    for block in blocks(np.full(16_000, 0.3, np.float32), 800):
        list(pipeline.push(block))
    found = [window for block in blocks(sound, 800, 160_000) for window in pipeline.push(block)]
    assert pipeline.gaps == 1
    assert [window.scores.tolist() for window in found] == expected
    assert found[0].first_sample == 160_000


def test_the_first_message_comes_within_half_a_second(
    exported: FrameExport, scenes: ModuleType
) -> None:
    """Blocks of a tenth of a second, as a microphone hands them over; in the median of 20 tones."""
    bundle, interpreter, _ = open_bundle(exported.out)
    late_s = []
    for seed in range(600, 610):
        sound, truth = scenes.tone_scene(np.random.default_rng(seed), 4.0)
        onsets = {label: onset_s for label, onset_s, _ in truth}
        pipeline = Pipeline(bundle, interpreter, RATE_HZ, channel=0)
        for block in blocks(sound, 1_600):
            heard_s = (block.first_sample + len(block.samples)) / RATE_HZ
            for window in pipeline.push(block):
                for detection in window.detections:
                    if detection.phase == "start":
                        late_s.append(heard_s - onsets[detection.label])
    assert len(late_s) == 20
    assert np.median(late_s) <= 0.5
    # Measured: 0.3 s, of which 0.1 are the shortest event, 0.1 the block and 0.04 the median.
    assert np.median(late_s) <= 0.35
