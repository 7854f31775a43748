"""What is counted of models, against counts made another way."""

from __future__ import annotations

import gc
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import Bundle, open_bundle
from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.pipeline import Pipeline
from soundpost.device.recogniser import ScoredWindow
from soundpost.device.source_models import Agreement, ModelCounter, SourceModels
from soundpost.device.updates.live_sensor import N_BINS

RATE_HZ = 16_000
HOP = 160


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)[0]


def of_shape(bundle: Bundle, n_frames: int, hop_frames: int) -> Bundle:
    """The same labels in windows of another shape; its model is not run."""
    window = bundle.manifest.front_end.samples_of(n_frames)
    manifest = replace(bundle.manifest, window_samples=window, hop_samples=hop_frames * HOP)
    return replace(bundle, manifest=manifest)


SCORES = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=3, max_size=3)
WINDOWS = st.lists(SCORES, max_size=40)
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda two: (max(two), min(two)))


FAILING = st.sets(st.integers(0, 39))


def windows_of(
    bundle: Bundle, scores: list[list[float]], failing: Collection[int] = ()
) -> list[ScoredWindow]:
    """One after the other; those of these numbers have failed, with scores of 0."""
    hop = bundle.manifest.hop_samples
    return [
        ScoredWindow(
            hop * number,
            np.array(values, np.float32) * (number not in failing),
            (),
            9.0,
            "no numbers" if number in failing else None,
            processor_s=0.001,
        )
        for number, values in enumerate(scores)
    ]


@settings(max_examples=150, deadline=None)
@given(SHAPES, SHAPES, WINDOWS, WINDOWS, FAILING, FAILING, st.data())
def test_agreement_is_that_of_every_sample(
    bundle: Bundle,
    one: tuple[int, int],
    other: tuple[int, int],
    old_scores: list[list[float]],
    new_scores: list[list[float]],
    old_failing: set[int],
    new_failing: set[int],
    data: st.DataObject,
) -> None:
    """Against a table of what each model says of each sample, whichever comes first.

    Of samples for which one of them has failed, nothing is said: nobody agrees or differs.
    """
    old, new = of_shape(bundle, *one), of_shape(bundle, *other)
    classes = tuple(replace(known, onset=0.6, release=0.4) for known in bundle.manifest.classes)
    agreement = Agreement((old, classes), (new, classes))
    waiting = [
        windows_of(old, old_scores, old_failing),
        windows_of(new, new_scores, new_failing),
    ]
    said = []
    for of, windows in zip((old, new), waiting, strict=True):
        manifest = of.manifest
        length = manifest.window_samples + len(windows) * manifest.hop_samples
        table = np.full((length, 3), -1)
        for window in windows:
            begin = window.first_sample + (manifest.window_samples - manifest.hop_samples) // 2
            level = (window.scores >= 0.4).astype(int) + (window.scores >= 0.6)
            if window.failure is None:
                table[begin : begin + manifest.hop_samples] = level
        said.append(table)
    queues = [list(windows) for windows in waiting]
    while any(queues):
        which = data.draw(st.sampled_from([n for n in (0, 1) if queues[n]]))
        for found in agreement.add(which, queues[which].pop(0)):
            sample = int(found.at_s * RATE_HZ)
            assert all(table[sample].min() >= 0 for table in said)
    n_samples = min(len(table) for table in said)
    first, second = (table[:n_samples] for table in said)
    for place, label in enumerate(bundle.manifest.labels):
        known = (first[:, place] >= 0) & (second[:, place] >= 0)
        # 0: below release, 1: above it, 2: above onset, too.
        a, b = first[known, place], second[known, place]
        expected = [
            np.sum((np.maximum(a, b) == 2) & (np.minimum(a, b) >= 1)),
            np.sum((a == 2) & (b == 0)),
            np.sum((a == 0) & (b == 2)),
            np.sum(np.maximum(a, b) <= 1),
        ]
        found = np.array(agreement.by_label()[label]) * RATE_HZ
        np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(SHAPES, SHAPES, st.integers(0, 1), st.integers(0, 2_000))
def test_what_waits_for_a_model_that_is_silent_has_a_bound(
    bundle: Bundle, one: tuple[int, int], other: tuple[int, int], ahead: int, n_windows: int
) -> None:
    """The other one's windows come all after these: only the last of them are still compared."""
    both = of_shape(bundle, *one), of_shape(bundle, *other)
    classes = bundle.manifest.classes
    agreement = Agreement((both[0], classes), (both[1], classes))

    def windows(which: int, seconds: float) -> list[ScoredWindow]:
        n_of_it = round(seconds * RATE_HZ / both[which].manifest.hop_samples)
        return windows_of(both[which], [[0.9, 0.0, 0.0]] * n_of_it)

    heard_s = n_windows * both[ahead].manifest.hop_samples / RATE_HZ
    for which in (ahead, 1 - ahead):
        for window in windows(which, heard_s):
            agreement.add(which, window)
    compared_s = sum(agreement.by_label()[bundle.manifest.labels[0]])
    # Windows stand for their middles: at either end a part may be of one model only.
    longest_s = max(known.manifest.window_samples for known in both) / RATE_HZ
    assert min(heard_s, 10.0) - 2 * longest_s <= compared_s <= 10.0 + 2 * longest_s


def test_agreement_speaks_of_the_labels_that_both_know(bundle: Bundle, frames_bundle: Path) -> None:
    manifest = replace(
        bundle.manifest,
        labels=("hoot", "clap"),
        classes=(ClassSettings("hoot"), ClassSettings("clap")),
    )
    other = replace(bundle, manifest=manifest)
    agreement = Agreement((bundle, bundle.manifest.classes), (other, manifest.classes))
    agreement.add(0, ScoredWindow(0, np.array([1, 0, 0], np.float32), (), 0.0))
    agreement.add(1, ScoredWindow(0, np.array([0, 1], np.float32), (), 0.0))
    hop_s = bundle.manifest.hop_samples / RATE_HZ
    assert agreement.by_label() == {"clap": pytest.approx((hop_s, 0, 0, 0))}
    # Another stream: what waited was of the one before.
    agreement.add(0, ScoredWindow(5 * 800, np.array([1, 0, 0], np.float32), (), 0.0))
    agreement.begin_stream()
    agreement.add(1, ScoredWindow(5 * 800, np.array([0, 1], np.float32), (), 0.0))
    assert agreement.by_label() == {"clap": pytest.approx((hop_s, 0, 0, 0))}
    frames, _, _ = open_bundle(frames_bundle)
    nothing = Agreement((bundle, bundle.manifest.classes), (frames, frames.manifest.classes))
    nothing.add(0, ScoredWindow(0, np.array([1, 0, 0], np.float32), (), 0.0))
    nothing.add(1, ScoredWindow(0, np.array([1, 0], np.float32), (), 0.0))
    assert nothing.by_label() == {}


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)),
    st.sets(st.integers(0, 9)),
)
def test_a_tally_is_the_sum_of_its_windows(
    bundle: Bundle, scores: list[list[float]], failing: set[int]
) -> None:
    counter = ModelCounter("porch", bundle)
    start = Detection("clap", "start", 0.9, 0.5, 0, None, 100)
    for number, window in enumerate(windows_of(bundle, scores)):
        failure = "no numbers" if number in failing else None
        counter.count(replace(window, detections=(start,), failure=failure))
        counter.count(ScoredWindow(0, np.zeros(0, np.float32), (replace(start, phase="end"),), 0.0))
    tally = counter.tally()
    good = [values for number, values in enumerate(scores) if number not in failing]
    assert (tally.windows, tally.failed) == (len(scores), len(scores) - len(good))
    assert tally.heard_s == pytest.approx(len(scores) * bundle.manifest.hop_samples / RATE_HZ)
    assert tally.compute_s == pytest.approx(0.001 * len(scores))
    assert tally.events == ({"clap": len(scores)} if scores else {})
    table = np.array(good, np.float32).reshape(-1, 3)
    assert tally.spread == (pytest.approx(np.ptp(table, axis=0).max()) if good else 0.0)
    for place, label in enumerate(bundle.manifest.labels):
        column = np.array([values[place] for values in good], np.float32)
        expected, _ = np.histogram(column, np.linspace(0, 1, N_BINS + 1, dtype=np.float32))
        # A score of exactly an edge may be rounded to either side of it.
        assert np.abs(np.cumsum(expected - np.array(tally.scores[label]))).max() <= np.sum(
            np.isclose(column[:, None] * N_BINS % 1, [0, 1], atol=1e-5)
        )


def noise(seconds: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.3 * rng.standard_normal(len(time_s)) * (time_s % 2 > 1)).astype(np.float32)


def heard_by(models: SourceModels, pipeline: Pipeline, samples: NDArray[np.float32]) -> None:
    """As a source's thread does."""
    models.opened()
    hear(models, pipeline, samples, 0)


def hear(
    models: SourceModels, pipeline: Pipeline, samples: NDArray[np.float32], first: int
) -> None:
    """The part of a stream that begins with this sample."""
    for start in range(0, len(samples), 400):
        block = AudioBlock(samples[start : start + 400][:, None], first + start, RATE_HZ)
        for window in pipeline.push(block):
            models.scored(window, pipeline.bundle, pipeline.detector.classes)
        models.heard(block, pipeline)


def test_a_model_agrees_with_itself(bundle: Bundle) -> None:
    models = SourceModels("porch")
    classes = tuple(
        replace(known, onset=0.52, release=0.5, cadence=None) for known in bundle.manifest.classes
    )
    assert models.shadow() is None
    models.begin_shadow(bundle, bundle.load_interpreter(), classes)
    pipeline = Pipeline(bundle, bundle.load_interpreter(), RATE_HZ, classes=classes, channel=0)
    heard_by(models, pipeline, noise(8.0))
    shadow = models.shadow()
    assert shadow is not None
    # Windows that were half heard when it began are the old one's alone.
    late = shadow.old.windows - shadow.new.windows
    assert 0 <= late <= 3
    assert pipeline.windows - 1 <= shadow.old.windows <= pipeline.windows
    assert pipeline.windows > 100
    for label, counts in shadow.new.scores.items():
        assert np.abs(np.array(counts) - shadow.old.scores[label]).sum() == late
    assert sum(shadow.new.events.values()) > 0
    assert shadow.new.compute_s > 0
    for both, only_old, only_new, neither in shadow.agreement.values():
        assert only_old == only_new == 0.0
        assert both + neither == pytest.approx(shadow.new.heard_s)
    assert any(seconds[0] > 0 for seconds in shadow.agreement.values())
    models.end_shadow()
    assert models.shadow() is None


class Broken:
    """An interpreter that fails, or gives no numbers."""

    def __init__(self, bundle: Bundle, how: str) -> None:
        real = bundle.load_interpreter()
        self.n_labels, self.input_shape, self._real, self._how = (
            real.n_labels,
            real.input_shape,
            real,
            how,
        )

    def run(self, patch: NDArray[np.float32]) -> object:
        if self._how == "raises":
            raise RuntimeError("failed to invoke")
        outputs = self._real.run(patch)  # type: ignore[call-arg]
        if self._how == "shape":
            return replace(outputs, logits=outputs.logits[:0])
        return replace(outputs, logits=np.full_like(outputs.logits, np.nan))


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_a_tried_model_that_fails_ends_nothing(bundle: Bundle, how: str) -> None:
    models = SourceModels("porch")
    classes = bundle.manifest.classes
    models.begin_shadow(bundle, Broken(bundle, how), classes)  # type: ignore[arg-type]
    pipeline = Pipeline(bundle, bundle.load_interpreter(), RATE_HZ, channel=0)
    heard_by(models, pipeline, noise(3.0))
    shadow = models.shadow()
    assert shadow is not None
    assert shadow.new.windows == shadow.new.failed > 20
    assert shadow.old.failed == 0
    assert models.fault is None
    # That it gives no scores is one thing, what the other one hears meanwhile another.
    assert all(sum(seconds) == 0.0 for seconds in shadow.agreement.values())


def test_what_runs_waits_for_no_model_that_breaks_in_every_block(bundle: Bundle) -> None:
    """Its scores are too few, which only the detector notices: no window comes out at all."""
    models = SourceModels("porch")
    models.begin_shadow(bundle, Broken(bundle, "shape"), bundle.manifest.classes)  # type: ignore[arg-type]
    pipeline = Pipeline(bundle, bundle.load_interpreter(), RATE_HZ, channel=0)
    heard_by(models, pipeline, np.zeros(25 * RATE_HZ, np.float32))
    shadow = models.shadow()
    assert shadow is not None
    assert shadow.new.windows == shadow.new.failed > 20
    assert shadow.old.windows > 400
    kept = [one for one in gc.get_objects() if type(one).__name__ == "_Span"]
    hops_s = len(kept) * bundle.manifest.hop_samples / RATE_HZ
    assert 0.0 < hops_s <= 10.0 + 2 * bundle.manifest.window_samples / RATE_HZ


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_a_model_that_fails_is_told_until_it_does_not(bundle: Bundle, how: str) -> None:
    now_s = 100.0
    models = SourceModels("porch", clock=lambda: now_s)
    broken = Broken(bundle, how)
    pipeline = Pipeline(bundle, broken, RATE_HZ, channel=0)  # type: ignore[arg-type]
    heard_by(models, pipeline, noise(2.0))
    tally = models.tally()
    assert tally.windows == tally.failed == pipeline.windows > 20
    assert "tiny 1.2.0-rc.1: the model" in (models.fault or "")
    now_s += 61.0
    assert models.fault is None


def onsets_of(bundle: Bundle, onset: float) -> tuple[ClassSettings, ...]:
    return tuple(
        replace(known, onset=onset, release=onset - 0.02, min_gap_s=0.1, cadence=None)
        for known in bundle.manifest.classes
    )


@pytest.mark.parametrize("side", ["running", "tried", "both"])
def test_other_thresholds_begin_the_comparison_anew(bundle: Bundle, side: str) -> None:
    """What is compared then is what two models that had them from the beginning would hear."""
    before, after = onsets_of(bundle, 0.52), onsets_of(bundle, 0.999)
    samples = noise(16.0)
    half = len(samples) // 2
    models = SourceModels("porch")
    models.begin_shadow(bundle, bundle.load_interpreter(), before)
    pipeline = Pipeline(bundle, bundle.load_interpreter(), RATE_HZ, classes=before, channel=0)
    models.opened()
    hear(models, pipeline, samples[:half], 0)
    first = models.shadow()
    assert first is not None
    assert sum(seconds[0] for seconds in first.agreement.values()) > 0.0
    # The same settings, if in another object: nothing has changed.
    pipeline.retune(bundle, pipeline.interpreter, onsets_of(bundle, 0.52))
    models.retune_shadow(list(onsets_of(bundle, 0.52)))
    hear(models, pipeline, samples[half : half + 1600], half)
    second = models.shadow()
    assert second is not None
    assert second.new.windows > first.new.windows
    assert second.old.windows > first.old.windows
    if side != "tried":
        pipeline.retune(bundle, pipeline.interpreter, after)
    if side != "running":
        models.retune_shadow(after)
    hear(models, pipeline, samples[half + 1600 :], half + 1600)
    third = models.shadow()
    assert third is not None
    left_s = (len(samples) - half - 1600) / RATE_HZ
    for tally, changed in ((third.old, side != "tried"), (third.new, side != "running")):
        # With windows that had been begun before.
        assert left_s - 1.0 < tally.heard_s < left_s + 0.5
        assert bool(tally.events) == (not changed)
    for both, only_old, only_new, neither in third.agreement.values():
        assert both == 0.0
        assert (only_old == 0.0) or side == "tried"
        assert (only_new == 0.0) or side == "running"
        assert only_old + only_new + neither == pytest.approx(
            min(third.old.heard_s, third.new.heard_s), abs=0.3
        )
    assert any(sum(seconds[1:3]) > 0.0 for seconds in third.agreement.values()) == (side != "both")


def test_what_a_model_counts_begins_with_it(bundle: Bundle, frames_bundle: Path) -> None:
    models = SourceModels("porch")
    models.begin_shadow(bundle, bundle.load_interpreter(), bundle.manifest.classes)
    assert models.scored_with is None
    assert models.tally_of(bundle.sha256) is None
    pipeline = Pipeline(bundle, bundle.load_interpreter(), RATE_HZ, channel=0)
    heard_by(models, pipeline, noise(2.0))
    assert models.scored_with == bundle.sha256
    other, interpreter, _ = open_bundle(frames_bundle)
    after = Pipeline(other, interpreter, RATE_HZ, channel=0)
    heard_by(models, after, noise(2.0))
    assert models.scored_with == other.sha256
    assert models.tally_of(bundle.sha256) is None
    assert models.tally_of(other.sha256) == models.tally()
    assert models.tally().windows == after.windows
    assert set(models.tally().scores) == set(other.manifest.labels)
    shadow = models.shadow()
    assert shadow is not None
    # Compared with another model: both counts begin anew.
    assert shadow.old.windows <= after.windows
    assert set(shadow.old.scores) == set(other.manifest.labels)
    assert shadow.new.windows <= pipeline.windows + 1
