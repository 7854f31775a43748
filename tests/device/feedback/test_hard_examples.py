"""Scores to candidates: a peak in the margin, not a passage through it; short events; shadow."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.bundle import read_bundle
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.feedback.hard_examples import MAX_EXCURSION_S, Candidate, HardExamples
from soundpost.device.identifiers import uuid7
from soundpost.device.manifest import Manifest
from soundpost.device.pipeline import ScoredWindow

SOURCE_HZ = 48_000
CLAP, ALARM, WATER = range(3)


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    found = read_bundle(tiny_bundle).manifest
    onsets = (0.5, 0.05, 0.9)
    classes = [
        replace(known, onset=onset, release=onset / 2)
        for known, onset in zip(found.classes, onsets, strict=True)
    ]
    return replace(found, classes=tuple(classes))


def finder(manifest: Manifest, **settings: object) -> HardExamples:
    wanted = FeedbackSettings(**{"apart_s": 0.0, **settings})  # type: ignore[arg-type]
    return HardExamples(wanted, SOURCE_HZ, manifest, manifest.classes)


def hear(
    one: HardExamples, manifest: Manifest, label: int, scores: list[float], first: int = 0
) -> list[Candidate]:
    """Candidates of windows whose other labels score nothing, a silent one at the end."""
    found = []
    for number, score in enumerate([*scores, 0.0]):
        row = np.zeros(3, np.float32)
        row[label] = score
        window = ScoredWindow(first + number * manifest.hop_samples, row, (), 0.0)
        found += one.scored(window)
    return found


def middle(manifest: Manifest, number: int) -> int:
    """Of a window, at the source's rate."""
    scale = SOURCE_HZ / manifest.front_end.sample_rate_hz
    return round((number * manifest.hop_samples + manifest.window_samples / 2) * scale)


def test_a_peak_near_the_threshold_is_one_and_a_passage_is_none(manifest: Manifest) -> None:
    (found,) = hear(finder(manifest), manifest, CLAP, [0.1, 0.42, 0.55, 0.45, 0.1])
    assert (found.label, found.reason, found.threshold) == ("clap", "uncertain", 0.5)
    assert found.score == pytest.approx(0.55)
    assert found.sample == middle(manifest, 2)
    assert found.top[0] == "clap"
    # On the way up to 0.95 and down the score is as near, and there is no doubt.
    assert hear(finder(manifest), manifest, CLAP, [0.1, 0.45, 0.95, 0.45, 0.1]) == []
    assert hear(finder(manifest), manifest, CLAP, [0.1, 0.3, 0.37, 0.2]) == []


@pytest.mark.parametrize(("label", "onset"), [(CLAP, 0.5), (ALARM, 0.05), (WATER, 0.9)])
def test_the_margin_is_as_wide_on_both_sides_of_any_threshold(
    manifest: Manifest, label: int, onset: float
) -> None:
    """In logits, by hand: the odds of the edges are e^0.5 times those of the threshold."""
    odds = onset / (1 - onset)
    for times, hard in [(exp(0.49), 1), (exp(0.51), 0), (exp(-0.49), 1), (exp(-0.51), 0)]:
        score = odds * times / (1 + odds * times)
        assert len(hear(finder(manifest), manifest, label, [score])) == hard, (score, times)


@given(
    scores=st.lists(st.floats(0, 1, width=32), max_size=40),
    label=st.sampled_from([CLAP, ALARM, WATER]),
)
def test_against_runs_by_hand(scores: list[float], label: int, manifest: Manifest) -> None:
    """One for each run above the lower edge whose highest score is below the upper."""
    one = finder(manifest)
    onset = manifest.classes[label].onset

    def distance(score: float) -> float:
        score = min(max(score, 1e-6), 1 - 1e-6)
        return log(score / (1 - score)) - log(onset / (1 - onset))

    expected = []
    run: list[int] = []
    # Shorter than the longest excursion: the tiny student's hop is short.
    for number, score in enumerate([*scores, 0.0]):
        if distance(score) >= -0.5:
            run.append(number)
        elif run:
            peak = max(run, key=lambda at: (scores[at], -at))
            if distance(scores[peak]) <= 0.5:
                expected.append((middle(manifest, peak), np.float32(scores[peak])))
            run = []
    assert len(scores) * manifest.hop_samples / 16_000 < MAX_EXCURSION_S
    found = hear(one, manifest, label, scores)
    assert [known.sample for known in found] == [sample for sample, _ in expected]
    assert [known.score for known in found] == pytest.approx([score for _, score in expected])


def test_a_score_that_stays_is_one_every_so_often(manifest: Manifest) -> None:
    hop_s = manifest.hop_samples / 16_000
    n = round(35 / hop_s)
    found = hear(finder(manifest), manifest, CLAP, [0.5] * n)
    assert len(found) in (3, 4)


def test_one_of_a_label_within_the_time_apart(manifest: Manifest) -> None:
    one = finder(manifest, apart_s=1_000.0)
    assert len(hear(one, manifest, CLAP, [0.5, 0.0, 0.5, 0.0, 0.5])) == 1
    assert one.duplicates == 2
    # Another label goes its own way.
    assert len(hear(one, manifest, WATER, [0.9], 100 * manifest.hop_samples)) == 1


def test_a_gap_ends_what_was_half_heard(manifest: Manifest) -> None:
    one = finder(manifest)
    row = np.array([0.5, 0, 0], np.float32)
    assert one.scored(ScoredWindow(0, row, (), 0.0)) == []
    later = 50 * manifest.hop_samples
    assert one.scored(ScoredWindow(later, np.zeros(3, np.float32), (), 0.0)) == []


def test_scores_that_are_no_numbers_or_of_another_bundle_are_nothing(manifest: Manifest) -> None:
    assert hear(finder(manifest), manifest, CLAP, [float("nan"), float("inf")]) == []
    one = finder(manifest)
    assert one.scored(ScoredWindow(0, np.full(5, 0.5, np.float32), (), 0.0)) == []


def event(label: str, lasted_s: float) -> SoundEvent:
    onset = datetime(2026, 11, 20, tzinfo=timezone.utc)
    return SoundEvent(
        id=uuid7(),
        device="porch-pi",
        source="mic0",
        label=label,
        phase="end",
        score=0.8,
        threshold=0.5,
        onset=onset,
        offset=onset + timedelta(seconds=lasted_s),
        time_synced=True,
        stream=uuid7(),
        sample=96_000,
        rate_hz=SOURCE_HZ,
        model=ModelRef("tiny", "1.0.0", "0" * 64),
    )


def test_an_event_that_is_over_at_once(manifest: Manifest) -> None:
    (found,) = finder(manifest).ended(event("clap", 0.2))
    assert (found.reason, found.score, found.sample) == ("short", 0.8, 96_000 + 4_800)
    assert finder(manifest).ended(event("clap", 0.4)) == []
    assert finder(manifest).ended(replace(event("clap", 0.2), phase="start", offset=None)) == []
    assert finder(manifest, short_s=0).ended(event("clap", 0.2)) == []
    assert finder(manifest).ended(event("gone", 0.2)) == []


def test_an_alarm_that_ends_with_the_groups_that_began_it(manifest: Manifest) -> None:
    """T3 repeats every four seconds (three of 0.5 s on, 0.5 s off, then 1.5 s): two, not three."""
    assert len(finder(manifest).ended(event("smoke_alarm", 6.5))) == 1
    assert finder(manifest).ended(event("smoke_alarm", 10.5)) == []


def test_models_that_disagree(manifest: Manifest) -> None:
    (found,) = finder(manifest).compared(7, "clap", 0.8, 0.1)
    assert (found.reason, found.score, found.new_score, found.sample) == (
        "disagreement",
        0.8,
        0.1,
        7,
    )
    assert finder(manifest, shadow=False).compared(7, "clap", 0.8, 0.1) == []
    assert finder(manifest).compared(7, "new label", 0.0, 0.9) == []
