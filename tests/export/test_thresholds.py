"""Thresholds by the stated rule, against a search through every possible threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from soundpost.device.detector import EventDetector
from soundpost.export.thresholds import (
    ThresholdRule,
    choose_classes,
    choose_onset,
    clip_peaks,
)

RULE = ThresholdRule()


def figures(peaks: np.ndarray, positive: np.ndarray, onset: float) -> tuple[float, float, float]:
    """F-score, share of false clips and recall, counted one by one."""
    hits = sum(1 for p, t in zip(peaks, positive, strict=True) if t and p >= onset)
    false = sum(1 for p, t in zip(peaks, positive, strict=True) if not t and p >= onset)
    missed = sum(1 for p, t in zip(peaks, positive, strict=True) if t and p < onset)
    others = int((~positive).sum())
    score = 2 * hits / (2 * hits + false + missed) if hits else 0.0
    return score, false / others if others else 0.0, hits / max(1, hits + missed)


clips = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, n, elements=st.floats(np.float32(0.0625), 0.9375, width=32)),
        arrays(np.bool_, n),
    )
)


@given(clips)
def test_no_threshold_does_better(case: tuple[np.ndarray, np.ndarray]) -> None:
    peaks, positive = case
    onset = choose_onset(peaks, positive, RULE)
    if not positive.any():
        assert onset == RULE.fallback_onset
        return
    found, share, _ = figures(peaks, positive, onset)
    assert share <= RULE.max_false_share
    for other in (peaks - 1e-6).tolist():
        score, other_share, _ = figures(peaks, positive, other)
        if other_share <= RULE.max_false_share:
            assert score <= found + 1e-9


def test_onset_lies_between_the_clips_it_separates() -> None:
    peaks = np.array([0.1, 0.2, 0.2, 0.8, 0.9], np.float32)
    onset = choose_onset(peaks, np.array([0, 0, 0, 1, 1], bool), RULE)
    # Half-way between 0.2 and 0.8 in logits is 0.5.
    assert onset == pytest.approx(0.5, abs=1e-6)


def test_onset_stays_within_its_bounds() -> None:
    positive = np.array([0, 1], bool)
    assert choose_onset(np.array([0.001, 0.002]), positive, RULE) == RULE.lowest_onset
    assert choose_onset(np.array([0.998, 0.999]), positive, RULE) == RULE.highest_onset


def test_clips_are_heard_as_the_detector_hears_them() -> None:
    rng = np.random.default_rng(4)
    n_clips, n_windows, labels = 60, 12, ["dog", "smoke_alarm", "rain"]
    clip_labels = rng.integers(-1, 3, n_clips)
    scores = rng.uniform(0.02, 0.4, (n_clips * n_windows, 3)).astype(np.float32)
    clips = np.repeat(np.arange(n_clips), n_windows)
    for clip, label in enumerate(clip_labels):
        if label >= 0:
            start = clip * n_windows + rng.integers(n_windows - 4)
            scores[start : start + 4, label] = rng.uniform(0.5, 0.95, 4)
    classes = choose_classes(scores, clips, clip_labels, labels, RULE)
    assert [settings.label for settings in classes] == labels
    assert [settings.cadence for settings in classes] == [None, "T3", None]
    assert classes[1].smoothing == "none"
    # A fresh detector per clip starts an event exactly where the clip's peak reaches the onset.
    for index in (0, 2):
        settings = classes[index]
        assert 0.2 < settings.onset < 0.8
        peaks = clip_peaks(scores[:, index : index + 1], clips, settings)[:, 0]
        for clip in range(n_clips):
            detector = EventDetector([settings], 16_240, 4_000, 16_000)
            started = False
            for i, score in enumerate(scores[clips == clip, index]):
                found = detector.update(4_000 * i, np.array([score], np.float32))
                started |= any(detection.phase == "start" for detection in found)
            if abs(peaks[clip] - settings.onset) > 1e-5:
                assert started == (peaks[clip] >= settings.onset)


def test_release_is_one_logit_below_onset() -> None:
    scores = np.array([[0.2], [0.8]], np.float32)
    rule = ThresholdRule(smoothing="none")
    (settings,) = choose_classes(scores, np.array([0, 1]), np.array([-1, 0]), ["dog"], rule)
    assert settings.onset == pytest.approx(0.5, abs=1e-4)
    assert settings.release == pytest.approx(1 / (1 + np.e), abs=1e-4)


def test_a_clip_may_have_several_labels() -> None:
    rng = np.random.default_rng(4)
    n_clips, labels = 30, ["dog", "rain"]
    matrix = rng.random((n_clips, 2)) < 0.4
    scores = (rng.uniform(0.1, 0.4, (n_clips, 2)) + 0.4 * matrix).astype(np.float32)
    clips = np.arange(n_clips)
    found = choose_classes(scores, clips, matrix, labels, RULE)
    for k, settings in enumerate(found):
        # Clips with the label score 0.5 at least, the others 0.4 at most.
        assert ((scores[:, k] >= settings.onset) == matrix[:, k]).all()
    # Of one label each, both forms say the same.
    one = rng.integers(-1, 2, n_clips)
    assert choose_classes(scores, clips, one, labels, RULE) == choose_classes(
        scores, clips, one[:, None] == np.arange(2), labels, RULE
    )
