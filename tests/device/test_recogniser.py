"""One model goes on where another stops: no window lost or doubled, and no event cut in two."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import AnyInterpreter, Bundle, open_bundle
from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.pipeline import Pipeline
from soundpost.device.recogniser import ScoredWindow, span

FloatArray = NDArray[np.float32]
RATES_HZ = (16_000, 48_000)
SECONDS = 5.0
CUTS = st.lists(st.integers(1, 9_000), min_size=1, max_size=40)


@dataclass(frozen=True)
class Model:
    bundle: Bundle
    classes: tuple[ClassSettings, ...]

    def interpreter(self) -> AnyInterpreter:
        return self.bundle.load_interpreter()


@pytest.fixture(scope="module")
def models(tiny_bundle: Path, frames_bundle: Path) -> dict[str, Model]:
    """Two kinds; the labels of the first heard in any noise, so that there are events."""
    window, _, _ = open_bundle(tiny_bundle)
    clap, alarm, drops = window.manifest.classes
    noisy = tuple(
        replace(known, onset=0.52, release=0.5, cadence=None, min_duration_s=0.0, min_gap_s=0.4)
        for known in (clap, alarm, drops)
    )
    frames, _, _ = open_bundle(frames_bundle)
    longer = replace(
        window,
        manifest=replace(
            window.manifest,
            name="often",
            hop_samples=2 * window.manifest.front_end.hop_length,
        ),
        sha256="0" * 64,
    )
    return {
        "window": Model(window, noisy),
        "often": Model(longer, noisy),
        "frames": Model(frames, frames.manifest.classes),
    }


def sound(rate_hz: int) -> FloatArray:
    """Noise that comes and goes, and a low hum across its pauses."""
    rng = np.random.default_rng(11)
    time_s = np.arange(round(SECONDS * rate_hz)) / rate_hz
    samples = 1e-4 * rng.standard_normal(len(time_s))
    loud = ((time_s % 1.7) > 0.4) & ((time_s % 1.7) < 1.2)
    samples += 0.3 * rng.standard_normal(len(time_s)) * loud
    hum = sum(np.sin(2 * np.pi * hz * time_s) for hz in range(150, 1_500, 60))
    samples += 0.03 * hum * ((time_s > 1.0) & (time_s < 3.3))
    return np.clip(samples, -1, 1).astype(np.float32)


SOUNDS = {rate_hz: sound(rate_hz) for rate_hz in RATES_HZ}


def blocks_of(samples: FloatArray, lengths: list[int], rate_hz: int) -> list[AudioBlock]:
    """Blocks of these lengths over and over, to the end."""
    found, position = [], 0
    while position < len(samples):
        length = lengths[len(found) % len(lengths)]
        part = samples[position : position + length]
        found.append(AudioBlock(part[:, None], position, rate_hz))
        position += len(part)
    return found


@dataclass
class Run:
    """Windows with the bundle that scored each."""

    windows: list[tuple[Bundle, ScoredWindow]]

    @property
    def scored(self) -> list[tuple[Bundle, ScoredWindow]]:
        return [(bundle, window) for bundle, window in self.windows if len(window.scores)]

    @property
    def detections(self) -> list[Detection]:
        return [found for _, window in self.windows for found in window.detections]

    def spans(self) -> list[tuple[float, float]]:
        return [span(bundle, window) for bundle, window in self.scored]


def run(
    rate_hz: int,
    blocks: list[AudioBlock],
    first: Model,
    changes: dict[int, Model],
    warm: bool = True,
) -> Run:
    """What is heard where each of the models takes over before the block of that number."""
    pipeline = Pipeline(
        first.bundle, first.interpreter(), rate_hz, classes=first.classes, channel=0
    )
    heard = Run([])
    for number, block in enumerate(blocks):
        if number in changes:
            model = changes[number]
            assert pipeline.retune(model.bundle, model.interpreter(), model.classes) == []
        heard.windows += ((pipeline.bundle, window) for window in pipeline.push(block))
    heard.windows += ((pipeline.bundle, window) for window in pipeline.finish())
    assert pipeline.windows == len(heard.scored)
    return heard


def assert_whole(detections: list[Detection]) -> None:
    """Each label's events: a start, updates, an end, and again."""
    lasting: set[str] = set()
    for found in detections:
        if found.phase == "start":
            assert found.label not in lasting
            lasting.add(found.label)
        else:
            assert found.label in lasting
        if found.phase == "end":
            lasting.remove(found.label)
    assert lasting == set()


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("kind", ["window", "frames"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_same_model_takes_over_as_if_nothing_had_happened(
    models: dict[str, Model], kind: str, rate_hz: int, data: st.DataObject
) -> None:
    blocks = blocks_of(SOUNDS[rate_hz], data.draw(CUTS), rate_hz)
    model = models[kind]
    at = data.draw(st.sets(st.integers(0, len(blocks) - 1), min_size=1, max_size=4))
    plain = run(rate_hz, blocks, model, {})
    changed = run(rate_hz, blocks, model, dict.fromkeys(at, model))
    assert [window.first_sample for _, window in changed.scored] == [
        window.first_sample for _, window in plain.scored
    ]
    for (_, one), (_, other) in zip(changed.scored, plain.scored, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
    assert changed.detections == plain.detections
    assert len([found for found in plain.detections if found.phase == "start"]) >= 3


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_of_any_two_models_tile_the_sound(
    models: dict[str, Model], rate_hz: int, data: st.DataObject
) -> None:
    """None lost, none doubled, and every event has one start and one end."""
    blocks = blocks_of(SOUNDS[rate_hz], data.draw(CUTS), rate_hz)
    kinds = st.sampled_from(sorted(models))
    first = models[data.draw(kinds)]
    at = data.draw(st.dictionaries(st.integers(0, len(blocks) - 1), kinds, min_size=1, max_size=4))
    heard = run(rate_hz, blocks, first, {number: models[kind] for number, kind in at.items()})
    spans = heard.spans()
    assert spans[0][0] < 0.2
    for one, other in pairwise(spans):
        # To a sample of the front end: half a window may be no whole number of them.
        assert other[0] == pytest.approx(one[1], abs=1.1 / 16_000)
    longest = max(bundle.manifest.window_samples for bundle, _ in heard.scored) / 16_000
    assert spans[-1][1] > SECONDS - 2 * longest
    assert_whole(heard.detections)


def test_each_change_comes_within_a_window_and_its_warm_up(models: dict[str, Model]) -> None:
    rate_hz = 16_000
    blocks = blocks_of(SOUNDS[rate_hz], [800], rate_hz)
    for first in models.values():
        for second in models.values():
            if second is first:
                continue
            heard = run(rate_hz, blocks, first, {20: second})
            begun = next(
                window.first_sample for bundle, window in heard.scored if bundle is second.bundle
            )
            assert 1.0 - 0.2 < begun / rate_hz < 1.0 + 1.5
            after = heard.scored[[bundle for bundle, _ in heard.scored].index(second.bundle) :]
            assert all(bundle is second.bundle for bundle, _ in after)


def test_an_event_that_lasts_goes_on_and_ends_once(models: dict[str, Model]) -> None:
    """The hum lasts from 1.0 to 3.3 s; the other model of its kind has another hop."""
    rate_hz = 16_000
    model = models["frames"]
    label = model.classes[1].label
    blocks = blocks_of(SOUNDS[rate_hz], [400], rate_hz)
    other = replace(
        model,
        classes=tuple(replace(known, onset=0.62, release=0.41) for known in model.classes),
    )
    heard = run(rate_hz, blocks, model, {80: other})
    found = [one for one in heard.detections if one.label == label]
    plain = [one for one in run(rate_hz, blocks, model, {}).detections if one.label == label]
    spanning = [one for one in found if one.phase == "end" and one.onset_sample < 80 * 400]
    assert any(
        one.offset_sample is not None and one.offset_sample > 80 * 400 + 1_600 for one in spanning
    )
    assert [one.onset_sample for one in found] == [one.onset_sample for one in plain]


def test_labels_that_the_next_model_lacks_end_with_the_old_one(models: dict[str, Model]) -> None:
    rate_hz = 16_000
    blocks = blocks_of(SOUNDS[rate_hz], [400], rate_hz)
    heard = run(rate_hz, blocks, models["window"], {80: models["frames"]})
    kinds = [bundle.manifest.kind for bundle, _ in heard.windows]
    switch = kinds.index("frames")
    before = [found for _, window in heard.windows[:switch] for found in window.detections]
    assert_whole(before)
    assert before[-1].phase == "end"
    assert before[-1].label in models["window"].bundle.manifest.labels


@pytest.mark.parametrize("kind", ["window", "frames"])
@settings(max_examples=20, deadline=None)
@given(lost=st.integers(1, 40_000), at=st.integers(30, 80), back=st.integers(0, 12))
def test_a_change_across_lost_sound_is_that_of_no_change(
    models: dict[str, Model], kind: str, lost: int, at: int, back: int
) -> None:
    rate_hz = 16_000
    model = models[kind]
    blocks = blocks_of(SOUNDS[rate_hz], [800], rate_hz)
    blocks = [
        block if number < at else replace(block, first_sample=block.first_sample + lost)
        for number, block in enumerate(blocks)
    ]
    plain = run(rate_hz, blocks, model, {})
    changed = run(rate_hz, blocks, model, {at - back: model})
    assert [window.first_sample for _, window in changed.scored] == [
        window.first_sample for _, window in plain.scored
    ]
    assert changed.detections == plain.detections


class Failing:
    """An interpreter whose model fails in some of its windows."""

    def __init__(self, real: AnyInterpreter, failing: set[int], how: str) -> None:
        self.real, self.failing, self.how = real, failing, how
        self.count = 0
        self.n_labels, self.input_shape = real.n_labels, real.input_shape

    def run(self, patch: FloatArray) -> object:
        self.count += 1
        outputs = self.real.run(patch)  # type: ignore[call-arg]
        if self.count - 1 not in self.failing:
            return outputs
        if self.how == "raises":
            raise RuntimeError("node 3 failed to\ninvoke")
        return replace(outputs, logits=np.full_like(outputs.logits, np.nan))


@pytest.mark.parametrize("how", ["raises", "nan"])
@settings(max_examples=20, deadline=None)
@given(failing=st.sets(st.integers(0, 90)))
def test_windows_without_usable_scores_are_told_and_end_nothing(
    models: dict[str, Model], how: str, failing: set[int]
) -> None:
    rate_hz = 16_000
    model = models["window"]
    interpreter = Failing(model.interpreter(), failing, how)
    pipeline = Pipeline(
        model.bundle,
        interpreter,  # type: ignore[arg-type]
        rate_hz,
        classes=model.classes,
        channel=0,
    )
    blocks = blocks_of(SOUNDS[rate_hz], [800], rate_hz)
    windows = [window for block in blocks for window in pipeline.push(block)]
    windows += pipeline.finish()
    plain = run(rate_hz, blocks, model, {}).scored
    scored = [window for window in windows if len(window.scores)]
    assert len(scored) == len(plain)
    for number, (window, (_, other)) in enumerate(zip(scored, plain, strict=True)):
        assert (window.failure is not None) == (number in failing)
        expected = np.zeros_like(other.scores) if number in failing else other.scores
        np.testing.assert_array_equal(window.scores, expected)
        assert "\n" not in (window.failure or "")
    assert_whole([found for window in windows for found in window.detections])


class Sluggish:
    """An interpreter that is made to wait, as on a busy machine, or computes in vain."""

    def __init__(self, interpreter: AnyInterpreter, wait_s: float, burn_s: float) -> None:
        self._interpreter, self._wait_s, self._burn_s = interpreter, wait_s, burn_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._interpreter, name)

    def run(self, patch: FloatArray) -> Any:
        time.sleep(self._wait_s)
        end_s = time.thread_time() + self._burn_s
        while time.thread_time() < end_s:
            pass
        return self._interpreter.run(patch)  # type: ignore[call-arg]


def test_processor_time_is_what_was_computed_not_what_was_waited(models: dict[str, Model]) -> None:
    model = models["window"]
    blocks = blocks_of(SOUNDS[16_000], [8_000], 16_000)[:3]

    def spent(wait_s: float, burn_s: float) -> list[ScoredWindow]:
        interpreter: Any = Sluggish(model.interpreter(), wait_s, burn_s)
        pipeline = Pipeline(model.bundle, interpreter, 16_000, classes=model.classes, channel=0)
        return [window for block in blocks for window in pipeline.push(block)][1:]

    waited, burnt = spent(0.03, 0.0), spent(0.0, 0.03)
    assert len(waited) == len(burnt) > 5
    assert all(window.seconds >= 0.03 for window in (*waited, *burnt))
    assert statistics.median(window.processor_s for window in waited) < 0.015
    assert all(window.processor_s >= 0.03 for window in burnt)
