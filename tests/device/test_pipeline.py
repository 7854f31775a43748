"""A stream in any pieces gives what the whole file gives, computed step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from streams import Heard, cut, lengths_over, streamed, streamed_after

from soundpost.device.alarms import AlarmSettings, synthesise_alarm
from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import Bundle, pack_bundle, parse_bundle, starter_bundle_path
from soundpost.device.bundle import open_bundle as open_any_bundle
from soundpost.device.detection import ClassSettings
from soundpost.device.detector import EventDetector
from soundpost.device.errors import InputError
from soundpost.device.features import log_mel
from soundpost.device.interpreter import Interpreter
from soundpost.device.pipeline import Pipeline
from soundpost.device.soundscape import soundscape

FloatArray = NDArray[np.float32]
RATES_HZ = (8_000, 16_000, 44_100, 48_000)


@dataclass(frozen=True)
class Model:
    bundle: Bundle
    interpreter: Interpreter
    classes: tuple[ClassSettings, ...]

    def pipeline(self, rate_hz: int, channel: int = 0) -> Pipeline:
        return Pipeline(
            self.bundle, self.interpreter, rate_hz, classes=self.classes, channel=channel
        )


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    bundle, interpreter, _ = open_any_bundle(tiny_bundle)
    clap, alarm, drops = bundle.manifest.classes
    # The score only has to tell the tone from silence: the pattern decides.
    alarm = replace(alarm, onset=0.48, release=0.46)
    return Model(bundle, interpreter, (clap, alarm, drops))


@pytest.fixture(scope="module")
def quick(model: Model) -> Model:
    """Without the cadence, which costs more than all the rest of the tiny student."""
    clap, alarm, drops = model.classes
    return replace(model, classes=(clap, replace(alarm, cadence=None), drops))


def scene(rate_hz: int) -> FloatArray:
    """13 s with something for each label: noise, a smoke alarm, noise again up to the end."""
    rng = np.random.default_rng(5)
    seconds = 13.0
    sound = 1e-5 * rng.standard_normal(round(seconds * rate_hz))

    def add(start_s: float, part: NDArray[np.floating]) -> None:
        start = round(start_s * rate_hz)
        sound[start : start + len(part)] += part[: len(sound) - start]

    add(0.5, 0.3 * rng.standard_normal(round(0.8 * rate_hz)))
    settings = replace(AlarmSettings(), dry_share=1.0)
    add(2.0, synthesise_alarm("smoke_alarm", rng, 9.0, rate_hz, settings, phase_s=0.0).samples)
    add(12.0, 0.3 * rng.standard_normal(round(1.0 * rate_hz)))
    return np.clip(sound, -1, 1).astype(np.float32)


SCENES = {rate_hz: scene(rate_hz) for rate_hz in RATES_HZ}
# Noise, and the first beeps of the alarm.
BEGINNINGS = {rate_hz: SCENES[rate_hz][: 3 * rate_hz] for rate_hz in RATES_HZ}


def step_by_step(model: Model, samples: FloatArray, rate_hz: int) -> Heard:
    """Resample all, all features, all windows, detector."""
    manifest = model.bundle.manifest
    wide = samples
    if rate_hz != 16_000:
        wide = soxr.resample(samples, rate_hz, 16_000, quality="HQ")
    frames = log_mel(wide, manifest.front_end)
    length, hop = manifest.n_frames, manifest.hop_samples // 160
    detector = EventDetector(
        model.classes,
        manifest.window_samples,
        manifest.hop_samples,
        manifest.front_end.sample_rate_hz,
    )
    heard = Heard([], [], [])
    for start in range(0, len(frames) - length + 1, hop):
        scores = model.interpreter.run(frames[start : start + length]).scores
        heard.firsts.append(160 * start)
        heard.scores.append(scores.tolist())
        heard.detections += detector.update(160 * start, scores, frames[start : start + length])
    heard.detections += detector.flush()
    return heard


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_the_scene_holds_what_the_laws_are_about(model: Model, rate_hz: int) -> None:
    """Without which the other laws would hold of nothing."""
    heard = step_by_step(model, SCENES[rate_hz], rate_hz)
    assert {d.label for d in heard.detections} >= {"clap", "smoke_alarm"}


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_the_whole_file_in_one_block(model: Model, rate_hz: int) -> None:
    samples = SCENES[rate_hz]
    heard = streamed(model.pipeline(rate_hz), cut(samples, [], rate_hz))
    assert heard == step_by_step(model, samples, rate_hz)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@given(data=st.data())
@settings(max_examples=15)
def test_any_cut_gives_the_same_numbers(quick: Model, rate_hz: int, data: st.DataObject) -> None:
    samples = BEGINNINGS[rate_hz]
    longest = data.draw(st.sampled_from([rate_hz // 50, rate_hz // 4, 3 * rate_hz]))
    some = data.draw(st.lists(st.integers(0, longest), min_size=1, max_size=30))
    lengths = lengths_over(samples, some, rate_hz)
    heard = streamed(quick.pipeline(rate_hz), cut(samples, lengths, rate_hz))
    assert heard == step_by_step(quick, samples, rate_hz)
    assert {d.label for d in heard.detections} == {"clap", "smoke_alarm"}
    assert heard.firsts == [quick.bundle.manifest.hop_samples * k for k in range(len(heard.firsts))]


def test_the_starter_hears_the_same_in_blocks_and_step_by_step() -> None:
    bundle, interpreter, _ = open_any_bundle(starter_bundle_path())
    model = Model(bundle, interpreter, bundle.manifest.classes)
    samples = soundscape(0, 16_000)[0]
    heard = streamed(model.pipeline(16_000), cut(samples, [320] * 2_000, 16_000))
    assert heard == step_by_step(model, samples, 16_000)
    assert "smoke_alarm" in {d.label for d in heard.detections}


@given(held=st.lists(st.integers(1, 5_000), max_size=5))
@settings(max_examples=15)
def test_what_is_wanted_completes_the_next_window_and_no_less(
    quick: Model, held: list[int]
) -> None:
    """At the model's own rate, where no filter holds sound back; after anything heard before."""
    pipeline = quick.pipeline(16_000)
    first = 0

    def push(length: int) -> int:
        nonlocal first
        samples = np.zeros((length, 1), np.float32)
        first += length
        return len(list(pipeline.push(AudioBlock(samples, first - length, 16_000))))

    for length in held:
        push(length)
    for _ in range(3):
        wanted = pipeline.wanted
        assert push(wanted - 1) == 0 if wanted > 1 else True
        assert push(1) == 1


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_positions_at_the_rate_of_the_source(model: Model, rate_hz: int) -> None:
    pipeline = model.pipeline(rate_hz)
    heard = streamed(pipeline, cut(SCENES[rate_hz], [], rate_hz))
    starts = {(d.label, d.onset_sample): d for d in heard.detections if d.phase == "start"}
    hop_s = model.bundle.manifest.hop_samples / 16_000
    (alarm,) = [d for d in starts.values() if d.label == "smoke_alarm"]
    assert pipeline.to_source_sample(alarm.onset_sample) / rate_hz == pytest.approx(2.0, abs=0.05)
    claps = sorted(
        pipeline.to_source_sample(d.onset_sample) / rate_hz
        for d in starts.values()
        if d.label == "clap"
    )
    # A score stands for the hop in the middle of its window, smoothed over three.
    assert claps[0] == pytest.approx(0.5, abs=2 * hop_s)
    assert claps[-1] == pytest.approx(12.0, abs=2 * hop_s)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@given(before=st.integers(0, 5), lost_s=st.floats(0.001, 100.0), length=st.integers(50, 5_000))
@settings(max_examples=15)
def test_after_a_gap_everything_starts_afresh_at_its_own_place(
    quick: Model, rate_hz: int, before: int, lost_s: float, length: int
) -> None:
    model = quick
    samples = BEGINNINGS[rate_hz]
    # Silence before the gap, so that no event lasts over it.
    quiet = np.zeros(before * length + 1, np.float32)
    resumed = len(quiet) + round(lost_s * rate_hz) + 1
    blocks = cut(quiet, [length] * before, rate_hz)
    pipeline = model.pipeline(rate_hz)
    n_before = sum(1 for block in blocks for _ in pipeline.push(block))
    heard = streamed_after(pipeline, cut(samples, [length] * 5, rate_hz, resumed))
    assert pipeline.gaps == 1
    start = round(resumed * 16_000 / rate_hz)
    alone = step_by_step(model, samples, rate_hz)
    assert heard.firsts == [start + first for first in alone.firsts]
    assert heard.scores == alone.scores
    assert pipeline.windows == n_before + len(alone.firsts)
    assert [(d.label, d.phase, d.onset_sample - start) for d in heard.detections] == [
        (d.label, d.phase, d.onset_sample) for d in alone.detections
    ]


def test_each_jump_counts_once_and_a_stream_may_begin_anywhere(model: Model) -> None:
    pipeline = model.pipeline(16_000)
    quiet = np.zeros((1_000, 1), np.float32)
    for first in (7_000, 8_000, 9_000, 12_000, 13_000, 500, 1_500):
        list(pipeline.push(AudioBlock(quiet, first, 16_000)))
    assert pipeline.gaps == 2


def test_the_end_of_the_stream_ends_what_still_lasts(model: Model) -> None:
    pipeline = model.pipeline(16_000)
    noise = np.random.default_rng(2).standard_normal((32_000, 1)).astype(np.float32) * 0.3
    windows = list(pipeline.push(AudioBlock(noise, 0, 16_000)))
    assert [(d.label, d.phase) for w in windows for d in w.detections] == [("clap", "start")]
    (last,) = pipeline.finish()
    (end,) = last.detections
    assert (end.label, end.phase) == ("clap", "end")
    assert end.offset_sample is not None
    # The last score stands for a hop in the middle of the last three windows.
    assert 32_000 - 2 * model.bundle.manifest.window_samples <= end.offset_sample <= 32_000
    assert last.scores.shape == (0,)
    assert list(pipeline.finish()) == []


def test_a_clip_of_one_window_is_scored_although_the_resampler_holds_it_back(model: Model) -> None:
    length = model.bundle.manifest.window_samples * 3
    samples = SCENES[48_000][24_000 : 24_000 + length]
    pipeline = model.pipeline(48_000)
    assert list(pipeline.push(AudioBlock(samples[:, None], 0, 48_000))) == []
    assert len(list(pipeline.finish())) == pipeline.windows == 1


def test_an_empty_stream_ends_without_a_window(model: Model) -> None:
    for rate_hz in RATES_HZ:
        assert list(model.pipeline(rate_hz).finish()) == []


@pytest.mark.parametrize(("n_frames", "hop_frames"), [(75, 75), (60, 60), (10, 5), (55, 11)])
def test_no_window_waits_for_a_frame_that_it_does_not_need(
    tiny: ModuleType, monkeypatch: pytest.MonkeyPatch, n_frames: int, hop_frames: int
) -> None:
    monkeypatch.setattr(tiny, "N_FRAMES", n_frames)
    student = tiny.tiny_student()
    manifest = replace(tiny.tiny_manifest(), hop_samples=160 * hop_frames)
    raw = pack_bundle(manifest, student.model, tiny.tiny_golden(student, manifest), "card")
    bundle = parse_bundle(raw, "x")
    pipeline = Pipeline(bundle, bundle.load_interpreter(), 16_000)
    sound = np.random.default_rng(3).uniform(-1, 1, (100_000, 1)).astype(np.float32)
    position = 0
    for number in range(4):
        due = manifest.window_samples + number * manifest.hop_samples
        early = list(pipeline.push(AudioBlock(sound[position : due - 1], position, 16_000)))
        assert early == []
        (window,) = pipeline.push(AudioBlock(sound[due - 1 : due], due - 1, 16_000))
        assert window.first_sample == number * manifest.hop_samples
        assert window.seconds > 0.0
        position = due


def test_one_channel_is_heard_alone_and_mix_is_the_mean(model: Model) -> None:
    samples = SCENES[16_000]
    other = np.random.default_rng(4).uniform(-1, 1, len(samples)).astype(np.float32)
    both = np.stack([other, samples], axis=1)
    expected = step_by_step(model, samples, 16_000)
    chosen = streamed(model.pipeline(16_000, channel=1), [AudioBlock(both, 0, 16_000)])
    assert chosen == expected
    mixed = Pipeline(model.bundle, model.interpreter, 16_000, classes=model.classes)
    twice = np.stack([samples, samples], axis=1)
    assert streamed(mixed, [AudioBlock(twice, 0, 16_000)]) == expected
    with pytest.raises(InputError, match="no channel 2"):
        list(model.pipeline(16_000, channel=2).push(AudioBlock(both, 0, 16_000)))
