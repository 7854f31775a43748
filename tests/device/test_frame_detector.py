"""Frames in any cut give what the whole recording gives, which a loop in plain Python gives too."""

from __future__ import annotations

import statistics
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.device.detection import ClassSettings, Detection
from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd
from soundpost.device.frame_detector import FrameDetector, detect_offline, median_span, smooth

FloatArray = NDArray[np.float32]
FRONT_END = FrontEnd()
RATE, HOP, WINDOW = 16_000, 160, 400
PLAIN = ClassSettings("dog", 0.5, 0.3, "none", 1, 0.0, 0.0)

CLASSES = st.builds(
    ClassSettings,
    label=st.just("dog"),
    onset=st.sampled_from([0.5, 0.7]),
    release=st.sampled_from([0.2, 0.5]),
    smoothing=st.sampled_from(["median", "none"]),
    smoothing_windows=st.integers(1, 12),
    min_duration_s=st.sampled_from([0.0, 0.02, 0.05]),
    min_gap_s=st.sampled_from([0.0, 0.02, 0.05]),
)
# Few values, so that thresholds are met exactly, and long enough for a 10 s update not to be due.
SCORES = st.lists(
    st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.7, 0.9]).map(np.float32), min_size=1, max_size=60
)


def middle_of(frame: int) -> int:
    return frame * HOP + WINDOW // 2


def medians(scores: list[float], known: ClassSettings, look_ahead: int) -> list[float]:
    """What a label's thresholds are compared with, from the definition."""
    n = 1 if known.smoothing == "none" else known.smoothing_windows
    smoothed = []
    for t in range(len(scores)):
        around = scores[max(0, t - n // 2) : t + min((n - 1) // 2, look_ahead) + 1]
        smoothed.append(float(np.float32(statistics.median(map(float, around)))))
    return smoothed


def oracle(
    scores: list[float], known: ClassSettings, look_ahead: int
) -> list[tuple[int, int, float]]:
    """(onset sample, offset sample, score) of each event, from the definitions."""
    smoothed = medians(scores, known, look_ahead)
    # Runs of frames at or above release that hold one at or above onset, or continue an event.
    runs: list[tuple[int, int]] = []
    for t, value in enumerate(smoothed):
        if value >= known.release:
            if runs and runs[-1][1] == t:
                runs[-1] = (runs[-1][0], t + 1)
            else:
                runs.append((t, t + 1))
    gap = round(known.min_gap_s * RATE)
    events: list[tuple[int, int]] = []
    open_ = False
    for start, stop in runs:
        # A gap that lasts as long as min_gap_s ends the event at the first frame that completes it.
        open_ = open_ and (start - events[-1][1]) * HOP < max(gap, 1)
        if open_:
            events[-1] = (events[-1][0], stop)
        elif max(smoothed[start:stop]) >= known.onset:
            events.append((start, stop))
            open_ = True
    return [
        (middle_of(a) - HOP // 2, middle_of(b) - HOP // 2, max(smoothed[a:b]))
        for a, b in events
        if (b - a) * HOP >= round(known.min_duration_s * RATE)
    ]


def ends(found: list[Detection]) -> list[tuple[int, int | None, float]]:
    return [(d.onset_sample, d.offset_sample, d.score) for d in found if d.phase == "end"]


@given(scores=SCORES, known=CLASSES, look_ahead=st.integers(0, 8))
@settings(max_examples=300, deadline=None)
def test_events_are_those_of_the_definitions(
    scores: list[float], known: ClassSettings, look_ahead: int
) -> None:
    found = detect_offline(np.array(scores, np.float32)[:, None], [known], FRONT_END, look_ahead)
    assert ends(found) == oracle(scores, known, look_ahead)
    assert [d.phase for d in found] == ["start", "end"] * (len(found) // 2)


@given(scores=SCORES, known=CLASSES, look_ahead=st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_smoothed_scores_are_those_of_the_definition(
    scores: list[float], known: ClassSettings, look_ahead: int
) -> None:
    found = smooth(np.array(scores, np.float32)[:, None], [known], look_ahead)
    assert found[:, 0].tolist() == medians(scores, known, look_ahead)


@given(
    columns=st.lists(st.tuples(SCORES, CLASSES), min_size=1, max_size=3),
    look_ahead=st.integers(0, 8),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_any_cut_gives_what_the_whole_gives(
    columns: list[tuple[list[float], ClassSettings]], look_ahead: int, cuts: list[int]
) -> None:
    n_frames = max(len(scores) for scores, _ in columns)
    matrix = np.zeros((n_frames, len(columns)), np.float32)
    for index, (scores, _) in enumerate(columns):
        matrix[: len(scores), index] = scores
    classes = [replace(known, label=f"label {i}") for i, (_, known) in enumerate(columns)]
    detector = FrameDetector(classes, FRONT_END, look_ahead)
    found: list[Detection] = []
    edges = [0, *sorted(cut for cut in cuts if cut < n_frames), n_frames]
    for start, stop in pairwise(edges):
        found += detector.update(start * HOP, matrix[start:stop])
    found += detector.flush()
    assert found == detect_offline(matrix, classes, FRONT_END, look_ahead)


@given(scores=SCORES, known=CLASSES, look_ahead=st.integers(0, 8))
@settings(max_examples=100, deadline=None)
def test_a_decision_needs_no_frame_past_its_look_ahead(
    scores: list[float], known: ClassSettings, look_ahead: int
) -> None:
    """What a detection says it was decided by is enough to decide it."""
    matrix = np.array(scores, np.float32)[:, None]
    for detection in detect_offline(matrix, [known], FRONT_END, look_ahead):
        if detection.phase == "start" and detection.window_end_sample < middle_of(len(scores) - 1):
            detector = FrameDetector([known], FRONT_END, look_ahead)
            n_frames = FRONT_END.frames_of(detection.window_end_sample)
            assert detection in detector.update(0, matrix[:n_frames])
    ahead = median_span(known, look_ahead)[1]
    assert ahead <= look_ahead


def test_a_start_comes_as_soon_as_the_median_can_know() -> None:
    """Steps at frame 50: a centred median of 11 knows of it at frame 50 with 5 more; worked out."""
    scores = np.zeros((100, 1), np.float32)
    scores[50:80] = 0.9
    known = replace(PLAIN, smoothing="median", smoothing_windows=11)
    start, end = detect_offline(scores, [known], FRONT_END, 20)
    # Of frames 45 to 55, six are loud: the median of frame 50 is too.
    assert start.onset_sample == 50 * 160 + 120
    assert start.window_end_sample == 55 * 160 + 400
    assert end.offset_sample == 79 * 160 + 280
    # With two frames of look-ahead, 45 to 52 hold three; 53's window, 48 to 55, holds six.
    # 50's: 3 of 8, 51's (46 to 53): 4 of 8, the mean of 0 and 0.9; 52's (47 to 54): 5 of 8.
    start, end = detect_offline(scores, [replace(known, onset=0.46)], FRONT_END, 2)
    assert start.onset_sample == 51 * 160 + 120
    assert start.window_end_sample == 54 * 160 + 400
    assert start.score == pytest.approx(0.9)


def test_a_gap_ends_what_lies_too_far_back_and_bridges_what_does_not() -> None:
    known = replace(PLAIN, min_gap_s=0.5, smoothing="median", smoothing_windows=5)
    loud = np.full((50, 1), 0.9, np.float32)
    detector = FrameDetector([known], FRONT_END, 20)
    assert [d.phase for d in detector.update(0, loud)] == ["start"]
    # 0.3 s were lost: one event. The frames before the loss that waited for more are decided.
    assert detector.update(50 * HOP + 4_800, loud) == []
    # 0.6 s were lost: it ended with the last frame before, and another begins right after.
    lost_at = 100 * HOP + 4_800
    found = detector.update(lost_at + 9_600, loud)
    assert [d.phase for d in found] == ["end", "start"]
    assert found[0].offset_sample == lost_at + (WINDOW - HOP) // 2
    assert found[1].onset_sample == lost_at + 9_600 + (WINDOW - HOP) // 2
    # A count that goes back is another stream.
    assert [d.phase for d in detector.update(0, loud[:5])] == ["end", "start"]


def test_long_events_are_reported_every_ten_seconds() -> None:
    scores = np.full((2_500, 1), 0.9, np.float32)
    found = detect_offline(scores, [PLAIN], FRONT_END, 0)
    assert [d.phase for d in found] == ["start", "update", "update", "end"]
    assert found[1].window_end_sample - found[0].window_end_sample == 10 * RATE


@given(before=SCORES, after=SCORES, known=CLASSES, other=CLASSES, look_ahead=st.integers(0, 8))
@settings(max_examples=150, deadline=None)
def test_other_settings_begin_afresh_and_leave_the_others_alone(
    before: list[float],
    after: list[float],
    known: ClassSettings,
    other: ClassSettings,
    look_ahead: int,
) -> None:
    cat = replace(known, label="cat")
    first = np.repeat(np.array(before, np.float32)[:, None], 2, 1)
    second = np.repeat(np.array(after, np.float32)[:, None], 2, 1)
    detector = FrameDetector([known, cat], FRONT_END, look_ahead)
    found = detector.update(0, first)
    found += detector.set_classes([other, cat])
    found += detector.update(len(first) * HOP, second)
    found += detector.flush()
    whole = detect_offline(np.concatenate([first, second])[:, :1], [cat], FRONT_END, look_ahead)
    assert [d for d in found if d.label == "cat"] == whole
    if other != known:
        expected = ends(detect_offline(first[:, :1], [known], FRONT_END, look_ahead))
        shift = len(first) * HOP
        expected += [
            (onset + shift, (offset or 0) + shift, score)
            for onset, offset, score in ends(
                detect_offline(second[:, :1], [other], FRONT_END, look_ahead)
            )
        ]
        assert ends([d for d in found if d.label == "dog"]) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"smoothing": "mean"}, "smoothing is 'mean'.*median or none"),
        ({"cadence": "T3"}, "cadence is 'T3'.*confirms no cadence"),
    ],
)
def test_what_is_not_done_on_frames_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        FrameDetector([replace(PLAIN, **change)], FRONT_END, 0)  # type: ignore[arg-type]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="look_ahead_frames -1"):
        FrameDetector([PLAIN], FRONT_END, -1)
    with pytest.raises(InputError, match="settings twice"):
        FrameDetector([PLAIN, PLAIN], FRONT_END, 0)
    with pytest.raises(InputError, match="same labels"):
        FrameDetector([PLAIN], FRONT_END, 0).set_classes([replace(PLAIN, label="cat")])
