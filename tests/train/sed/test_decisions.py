import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.detection import ClassSettings
from soundpost.device.detector import EventDetector
from soundpost.device.features import FrontEnd
from soundpost.train.sed.decisions import FrameGrid, decide, event_strength, events_of, runs

FRONT_END = FrontEnd()
GRID = FrameGrid.of(FRONT_END)

# Few levels, so that scores meet thresholds; thresholds between and on them.
LEVELS = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
SCORES = st.lists(st.lists(LEVELS, min_size=2, max_size=2), min_size=1, max_size=60)
THRESHOLDS = st.tuples(
    st.sampled_from([0.125, 0.2, 0.25, 0.5]), st.sampled_from([0.25, 0.3, 0.5, 0.75, 0.9])
).map(sorted)
SHORT = st.sampled_from([0.0, 0.01, 0.02, 0.03, 0.05, 0.08])


def test_frames_lie_around_the_middle_of_their_windows():
    edges = GRID.edges_s(998)
    # 16 kHz, window 400, hop 160: frame 0 is centred at 12.5 ms, half a hop to each side.
    assert edges[0] == pytest.approx(0.0075)
    assert edges[1] == pytest.approx(0.0175)
    assert (edges[0] + edges[1]) / 2 == pytest.approx(0.0125)
    assert len(edges) == 999


def test_runs_by_hand():
    found = runs(np.array([True, False, False, True, True, False, True]))
    assert found.tolist() == [[0, 1], [3, 5], [6, 7]]
    assert runs(np.zeros(4, bool)).shape == (0, 2)


@given(SCORES, THRESHOLDS, SHORT, SHORT)
@settings(deadline=None, max_examples=300)
def test_events_are_those_of_the_sensors_detector(scores, thresholds, min_duration_s, min_gap_s):
    release, onset = thresholds
    classes = [
        ClassSettings(
            label,
            onset=onset,
            release=release,
            smoothing="none",
            min_duration_s=min_duration_s,
            min_gap_s=min_gap_s,
        )
        for label in ("a", "b")
    ]
    scores = np.array(scores, np.float32)
    detector = EventDetector(
        classes, FRONT_END.window_length, FRONT_END.hop_length, FRONT_END.sample_rate_hz
    )
    messages = []
    for index, frame in enumerate(scores):
        messages += detector.update(index * FRONT_END.hop_length, frame)
    messages += detector.flush()
    expected = events_of(messages, FRONT_END.sample_rate_hz)
    found = decide(scores, classes, GRID)
    assert [event.label for event in found] == [event.label for event in expected]
    for name in ("onset_s", "offset_s", "decided_s", "score"):
        np.testing.assert_allclose(
            [getattr(event, name) for event in found],
            [getattr(event, name) for event in expected],
            atol=1e-9,
        )


def test_strength_by_hand():
    # Runs at release .3: frames 1-2 (highest .5), 4 (.9), 8-9 (.4). The gap of one frame is
    # bridged by min_gap 20 ms, that of three is not.
    scores = np.array([0, 0.5, 0.3, 0.1, 0.9, 0, 0, 0, 0.4, 0.3], np.float32)
    strength = event_strength(scores, 0.3, 0.01, 0.0, 0.02)
    expected = [0, 0.5, 0.5, 0.5, 0.9, 0, 0, 0, 0.4, 0.4]
    np.testing.assert_allclose(strength, expected, atol=1e-7)
    # An event of at least 20 ms: what begins at frame 4 alone is too short.
    strength = event_strength(scores, 0.3, 0.01, 0.02, 0.02)
    np.testing.assert_allclose(strength, [0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0.4, 0.4], atol=1e-7)


def test_when_a_start_is_known():
    scores = np.zeros((40, 1), np.float32)
    scores[10:30] = 0.4
    scores[17:20] = 0.9
    settings = ClassSettings("a", onset=0.8, release=0.3, smoothing="median", smoothing_windows=9)
    # Frame 17 decides; its last sample is at 17 x 10 + 25 ms.
    (event,) = decide(scores, [settings], GRID)
    assert (event.onset_s, event.offset_s) == pytest.approx((0.1075, 0.3075))
    assert event.decided_s == pytest.approx(0.195)
    # The median looks four frames ahead, at most as far as the cap.
    (event,) = decide(scores, [settings], GRID, look_ahead_frames=20)
    assert event.decided_s == pytest.approx(0.235)
    (event,) = decide(scores, [settings], GRID, look_ahead_frames=3)
    assert event.decided_s == pytest.approx(0.225)
    # Frames in tens: frame 17 comes with frame 19.
    (event,) = decide(scores, [settings], GRID, chunk_frames=10)
    assert event.decided_s == pytest.approx(0.215)


def test_scores_of_other_labels_are_refused():
    with pytest.raises(ValueError, match=r"expected \(n_frames, 1\)"):
        decide(np.zeros((5, 2), np.float32), [ClassSettings("a")], GRID)
