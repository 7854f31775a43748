"""Spans in which a bundle's own labels say that someone speaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.bundle import read_bundle
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.spoken import SpokenSpans


@given(
    windows=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 1, width=32)), max_size=20),
    first=st.integers(0, 40_000),
    length=st.integers(1, 20_000),
)
def test_a_span_is_spoken_where_it_meets_a_window_that_is(
    windows: list[tuple[int, float]], first: int, length: int, tiny_bundle: Path
) -> None:
    manifest = replace(read_bundle(tiny_bundle).manifest, speech_labels=("clap",))
    at = manifest.labels.index("clap")
    # The source has twice the rate.
    spans = SpokenSpans(2 * manifest.front_end.sample_rate_hz, manifest)
    expected = False
    for number, score in sorted(windows):
        scores = np.ones(len(manifest.labels), np.float32)
        scores[at] = score
        begin = number * manifest.hop_samples
        spans.scored(ScoredWindow(begin, scores, (), 0.0), 0)
        heard = set(range(2 * begin, 2 * (begin + manifest.window_samples), 2))
        spoken = np.float32(score) >= manifest.classes[at].release
        expected |= spoken and bool(heard & set(range(first + first % 2, first + length, 2)))
    if length > 1:
        assert spans.within(first, first + length) == expected


def test_what_is_too_old_is_forgotten_and_others_are_no_speech(tiny_bundle: Path) -> None:
    manifest = read_bundle(tiny_bundle).manifest
    rate_hz = manifest.front_end.sample_rate_hz
    none = SpokenSpans(rate_hz, manifest)
    none.scored(ScoredWindow(0, np.ones(3, np.float32), (), 0.0), 0)
    assert not none.within(0, 10**9)
    spans = SpokenSpans(rate_hz, replace(manifest, speech_labels=("clap",)))
    spans.scored(ScoredWindow(0, np.ones(3, np.float32), (), 0.0), 0)
    assert spans.within(0, 1)
    # The end of a stream has no scores.
    spans.scored(ScoredWindow(0, np.zeros(0, np.float32), (), 0.0), 10**6)
    assert not spans.within(0, 10**9)
