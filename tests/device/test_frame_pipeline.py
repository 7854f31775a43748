"""A model that remembers: a stream in any pieces gives what the whole file gives."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from streams import Heard, cut, lengths_over, streamed

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import open_bundle, pack_bundle, parse_bundle
from soundpost.device.features import FrontEnd, log_mel
from soundpost.device.frame_detector import detect_offline
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import sigmoid
from soundpost.device.pipeline import Pipeline

FloatArray = NDArray[np.float32]
RATES_HZ = (8_000, 16_000, 48_000)


@pytest.fixture(scope="module")
def pipelines(frames_bundle: Path) -> Pipelines:
    bundle, interpreter, _ = open_bundle(frames_bundle)
    assert isinstance(interpreter, FrameInterpreter)
    return Pipelines(bundle, interpreter)


@dataclass(frozen=True)
class Pipelines:
    bundle: object
    interpreter: FrameInterpreter

    def of(self, rate_hz: int) -> Pipeline:
        return Pipeline(self.bundle, self.interpreter, rate_hz, channel=0)  # type: ignore[arg-type]


def sound(rate_hz: int, seconds: float = 3.037) -> FloatArray:
    """A low tone from 0.5 to 1.3 s, noise from 1.8 s to the end."""
    rng = np.random.default_rng(5)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = 1e-5 * rng.standard_normal(len(time_s))
    bands = sum(np.sin(2 * np.pi * hz * time_s) for hz in range(150, 1_500, 60))
    samples += 0.04 * bands * ((time_s >= 0.5) & (time_s < 1.3))
    samples += 0.3 * rng.standard_normal(len(time_s)) * (time_s >= 1.8)
    return np.clip(samples, -1, 1).astype(np.float32)


SOUNDS = {rate_hz: sound(rate_hz) for rate_hz in RATES_HZ}


def step_by_step(pipelines: Pipelines, samples: FloatArray, rate_hz: int) -> Heard:
    """Resample all, all features, chunk after chunk, all frames through the detector at once."""
    manifest = pipelines.of(rate_hz).bundle.manifest
    if rate_hz != 16_000:
        samples = soxr.resample(samples, rate_hz, 16_000, quality="HQ")
    frames, n = log_mel(samples, manifest.front_end), manifest.n_frames
    padded = np.concatenate([frames, np.full((-len(frames) % n, 64), -7.0, np.float32)])
    state, scores = pipelines.interpreter.initial_state(), []
    for start in range(0, len(padded), n):
        outputs = pipelines.interpreter.run(padded[start : start + n], state)
        state = outputs.state
        scores.append(sigmoid(outputs.logits))
    scores[-1] = scores[-1][: len(frames) - (len(scores) - 1) * n]
    assert manifest.frames is not None
    return Heard(
        [n * 160 * index for index in range(len(scores))],
        [part.max(axis=0).tolist() for part in scores],
        detect_offline(
            np.concatenate(scores),
            manifest.classes,
            manifest.front_end,
            manifest.frames.look_ahead_frames,
        ),
    )


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_the_scene_holds_what_the_laws_are_about(pipelines: Pipelines, rate_hz: int) -> None:
    found = step_by_step(pipelines, SOUNDS[rate_hz], rate_hz).detections
    low = [d for d in found if d.label == "low" and d.phase == "end"]
    assert abs(low[0].onset_sample / 16_000 - 0.5) < 0.05
    assert {d.label for d in found if d.phase == "end"} >= {"low"} | (
        {"high"} if rate_hz > 8_000 else set()
    )


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_cut_gives_the_same_numbers(
    pipelines: Pipelines, rate_hz: int, data: st.DataObject
) -> None:
    samples = SOUNDS[rate_hz]
    longest = data.draw(st.sampled_from([rate_hz // 50, rate_hz // 4, 3 * rate_hz]))
    some = data.draw(st.lists(st.integers(0, longest), min_size=1, max_size=30))
    lengths = lengths_over(samples, some, rate_hz)
    heard = streamed(pipelines.of(rate_hz), cut(samples, lengths, rate_hz))
    assert heard == step_by_step(pipelines, samples, rate_hz)


@pytest.mark.parametrize("n_frames", [1, 25, 53, 75])
def test_chunks_of_any_length(
    frames: ModuleType, monkeypatch: pytest.MonkeyPatch, n_frames: int
) -> None:
    """Those too that are longer than what the front end gives at once."""
    monkeypatch.setattr(frames, "N_FRAMES", n_frames)
    student, manifest = frames.tiny_frames(), frames.frames_manifest()
    raw = pack_bundle(manifest, student.model, frames.frames_golden(student, manifest), "card")
    bundle = parse_bundle(raw, "tiny")
    interpreter = bundle.load_interpreter()
    assert isinstance(interpreter, FrameInterpreter)
    samples = SOUNDS[16_000]
    some = Pipelines(bundle, interpreter)
    expected = step_by_step(some, samples, 16_000)
    assert expected.detections
    for length in (160, 1_777, 48_000):
        heard = streamed(some.of(16_000), cut(samples, [length] * 400, 16_000))
        assert heard == expected


@given(n_samples=st.integers(0, 5_000))
@settings(max_examples=40, deadline=None)
def test_a_recording_of_any_length_is_heard_to_its_last_frame(
    pipelines: Pipelines, n_samples: int
) -> None:
    """Frames that fill no chunk any more are judged too, and silence after them is not."""
    samples = SOUNDS[16_000][32_000 : 32_000 + n_samples]
    pipeline = pipelines.of(16_000)
    heard = streamed(pipeline, cut(samples, [777] * 10, 16_000))
    n_frames = FrontEnd().frames_of(n_samples)
    assert pipeline.windows == -(-n_frames // 10)
    if n_frames:
        assert heard == step_by_step(pipelines, samples, 16_000)
        for detection in heard.detections:
            assert detection.window_end_sample <= n_samples


@given(held=st.lists(st.integers(1, 5_000), max_size=5))
@settings(max_examples=15, deadline=None)
def test_what_is_wanted_completes_the_next_chunk_and_no_less(
    pipelines: Pipelines, held: list[int]
) -> None:
    pipeline = pipelines.of(16_000)
    first = 0

    def push(length: int) -> int:
        nonlocal first
        first += length
        block = AudioBlock(np.zeros((length, 1), np.float32), first - length, 16_000)
        return len(list(pipeline.push(block)))

    for length in held:
        push(length)
    for _ in range(3):
        wanted = pipeline.wanted
        assert push(wanted - 1) == 0 if wanted > 1 else True
        assert push(1) == 1


def test_what_follows_a_gap_is_heard_as_if_nothing_had_been_before(pipelines: Pipelines) -> None:
    samples = SOUNDS[16_000]
    alone = streamed(pipelines.of(16_000), cut(samples, [800] * 100, 16_000))
    pipeline = pipelines.of(16_000)
    before = [
        window for block in cut(samples, [800] * 100, 16_000) for window in pipeline.push(block)
    ]
    after = [
        window
        for block in cut(samples, [800] * 100, 16_000, first=160_000)
        for window in pipeline.push(block)
    ]
    assert pipeline.gaps == 1
    assert [window.scores.tolist() for window in before] == alone.scores[: len(before)]
    assert [window.scores.tolist() for window in after] == alone.scores[: len(after)]
    assert after[0].first_sample == 160_000
    # The noise that was lost in the middle ended with the gap.
    phases = [d.phase for window in after for d in window.detections if d.label == "low"]
    assert phases[0] == "end"


def test_a_model_serves_two_streams_in_turn(pipelines: Pipelines) -> None:
    """The state is the stream's, not the model's: a source that is opened again begins afresh."""
    samples = SOUNDS[16_000]
    alone = streamed(pipelines.of(16_000), cut(samples, [1_600] * 40, 16_000))
    one, two = pipelines.of(16_000), pipelines.of(16_000)
    found: list[list[list[float]]] = [[], []]
    for block in cut(samples, [1_600] * 40, 16_000):
        for index, pipeline in enumerate((one, two)):
            found[index] += [window.scores.tolist() for window in pipeline.push(block)]
    assert found[0] == found[1] == alone.scores[: len(found[0])]


def test_positions_at_the_rate_of_the_source(pipelines: Pipelines) -> None:
    pipeline = pipelines.of(48_000)
    found = streamed(pipeline, cut(SOUNDS[48_000], [4_800] * 40, 48_000)).detections
    (start, *_) = [d for d in found if d.label == "low"]
    assert abs(pipeline.to_source_sample(start.onset_sample) / 48_000 - 0.5) < 0.05


def test_replay_prints_what_the_stream_gives(
    pipelines: Pipelines, frames_bundle: Path, tmp_path: Path, frames: ModuleType
) -> None:
    path, table = tmp_path / "x.wav", tmp_path / "scores.csv"
    soundfile.write(path, SOUNDS[16_000], 16_000, subtype="FLOAT")
    command = [sys.executable, "-m", "soundpost.device", "replay", str(path), "--json"]
    command += ["--bundle", str(frames_bundle), "--scores", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = step_by_step(pipelines, SOUNDS[16_000], 16_000)
    ends = [d for d in expected.detections if d.phase == "end"]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["label"], row["onset_s"]) for row in found] == [
        (d.label, round(d.onset_sample / 16_000, 3)) for d in ends
    ]
    rows = table.read_text().splitlines()
    assert rows[0] == "window_start_s," + ",".join(frames.LABELS)
    assert len(rows) == 1 + len(expected.firsts)


def test_a_sensor_publishes_start_and_end(
    running: ModuleType, frames_bundle: Path, tmp_path: Path
) -> None:
    """`soundpost run` plays a file in real time over a broker of its own."""
    path = tmp_path / "x.wav"
    # Without the noise that the file would end in.
    soundfile.write(path, SOUNDS[16_000][: round(1.79 * 16_000)], 16_000, subtype="FLOAT")
    options = ["run", "--bundle", str(frames_bundle), "--device-id", "porch-pi"]
    options += ["--set", "broker.port=0", "--source", f"file:{path}"]
    sensor = running.Sensor(options, tmp_path, {})
    try:
        assert sensor.end() == 0
        begin, *events, totals = sensor.out
    finally:
        sensor.process.kill()
        sensor.process.wait()
    assert "with tiny-frames 1.0.0 (2 labels)" in begin
    # The edges of the tone are heard as "high" too.
    found = [line.split()[1:4] for line in events if " low " in line]
    assert found == [["mic0", "low", "start"], ["mic0", "low", "end"]]
    assert totals.startswith("mic0: 1.8 s heard, 18 windows scored, ")
