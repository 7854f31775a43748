"""Windows by hand from equation 7; filters against a slow median written out."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.sed.event_filter import (
    FIXED_S,
    detect,
    event_specific_window_s,
    event_windows,
    events_of,
    filter_frames,
    odd_frames,
    segments_to_inflection,
)
from soundpost.train.sed.scenes import Event, Scene


def scene(*events, labelling="strong"):
    return Scene(Path("a.wav"), labelling, 10.0, tuple(events))


def lasting(label, *durations):
    return [Event(label, 0.5, 0.5 + d) for d in durations]


def test_equation_7_by_hand():
    # Sorted: 1 1 1 5 9. Ranks scaled: 0 1/4 1/2 3/4 1; durations scaled: 0 0 0 1/2 1. Above the
    # diagonal: 0 .25 .5 .25 0: the third segment. W = 1/3 * (1 + 1 + 1) / 3 = 1/3 s; the mean of
    # all is 17/5, a third of it 17/15 s.
    durations = [5.0, 1.0, 9.0, 1.0, 1.0]
    assert segments_to_inflection(durations) == 3
    assert event_specific_window_s(durations) == pytest.approx(1 / 3)
    average = event_windows([scene(*lasting("dog", *durations))], ["dog"], "average")
    assert average.window_s["dog"] == pytest.approx(17 / 15)


def test_without_a_tail_every_segment_counts():
    assert segments_to_inflection([2.0, 2.0, 2.0]) == 3
    assert segments_to_inflection([4.0]) == 1
    # Scaled durations 0 .9 .95 1, ranks 0 1/3 2/3 1: none lies above the diagonal.
    assert segments_to_inflection([1.0, 10.0, 10.5, 11.0]) == 4


durations_lists = st.lists(st.floats(0.01, 10), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(durations=durations_lists, scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_windows_scale_with_time_and_never_exceed_the_average(durations, scale):
    window = event_specific_window_s(durations)
    assert min(durations) / 3 - 1e-9 <= window <= np.mean(durations) / 3 + 1e-9
    longer = event_specific_window_s([d * scale for d in durations])
    assert longer == pytest.approx(window * scale)
    assert event_specific_window_s(durations[::-1]) == window


def test_only_strong_scenes_count_and_a_class_without_one_says_so(caplog):
    scenes = [
        scene(*lasting("cat", 1.5), *lasting("dog", 3.0)),
        scene(*lasting("rain", 9.0), labelling="weak"),
    ]
    with caplog.at_level(logging.WARNING):
        windows = event_windows(scenes, ["cat", "dog", "rain"])
    # 1.5 / 3, 3 / 3, and the median of both
    assert windows.window_s == pytest.approx({"cat": 0.5, "dog": 1.0, "rain": 0.75})
    assert windows.fallbacks == ("rain",)
    assert "no strongly labelled example of rain" in caplog.text


def test_without_any_strong_scene_there_is_a_default(caplog):
    windows = event_windows([], ["cat"])
    assert windows.window_s == {"cat": FIXED_S}
    assert "for no class has any" in caplog.text


def test_no_filter_is_a_window_of_one_frame():
    windows = event_windows([], ["cat"], "none")
    assert windows.frames(["cat"], 0.01) == (1,)
    with pytest.raises(ConfigError, match="expected esp, average, fixed, none"):
        event_windows([], ["cat"], "median")


@pytest.mark.parametrize(
    ("window_s", "frames"), [(0.0, 1), (0.019, 1), (0.02, 3), (0.33, 33), (0.34, 35), (0.45, 45)]
)
def test_windows_are_the_nearest_odd_number(window_s, frames):
    assert odd_frames(window_s, 0.01) == frames


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_frames=st.integers(1, 60),
    windows=st.lists(st.integers(0, 12).map(lambda n: 2 * n + 1), min_size=1, max_size=3),
)
def test_median_equals_one_written_out(seed, n_frames, windows):
    frames = np.random.default_rng(seed).random((n_frames, len(windows))).astype(np.float32)
    expected = np.empty_like(frames)
    for k, window in enumerate(windows):
        for i in range(n_frames):
            around = np.clip(np.arange(i - window // 2, i + window // 2 + 1), 0, n_frames - 1)
            expected[i, k] = np.median(frames[around, k])
    np.testing.assert_array_equal(filter_frames(frames, windows), expected)
    # A running median and a threshold commute, as long as the window is odd.
    np.testing.assert_array_equal(
        filter_frames(frames >= 0.5, windows).astype(bool), expected >= 0.5
    )


def test_detection_gates_filters_and_withdraws_tags():
    frames = np.zeros((20, 4), np.float32)
    frames[5:12, 0] = 0.9
    frames[8, 0] = 0.1  # a gap shorter than the window is closed
    frames[3, 1] = 0.9  # a lone frame goes, and its tag with it
    frames[:, 2] = 0.9  # not tagged
    frames[10:14, 3] = 0.9  # no filter
    clips = np.array([0.8, 0.8, 0.4, 0.6], np.float32)
    found = detect(frames, clips, (5, 5, 5, 1))
    assert np.flatnonzero(found.frames[:, 0]).tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert np.flatnonzero(found.frames[:, 3]).tolist() == [10, 11, 12, 13]
    assert found.tags.tolist() == [True, False, False, True]
    assert not found.frames[:, 1:3].any()


def test_events_stand_where_their_frames_are():
    front_end = FrontEnd()
    decisions = np.zeros((998, 2), bool)
    decisions[100:150, 1] = True
    decisions[0, 0] = decisions[997, 0] = True
    first, dog, last = events_of(decisions, ("cat", "dog"), front_end)
    # 25 ms windows every 10 ms: frame i is centred at 0.01 i + 0.0125 and covers 5 ms either way.
    assert (dog.label, dog.onset_s, dog.offset_s) == pytest.approx(("dog", 1.0075, 1.5075))
    assert (first.onset_s, first.offset_s) == pytest.approx((0.0075, 0.0175))
    assert last.offset_s == pytest.approx(9.9875)


def test_the_baseline_has_one_window_and_no_gate():
    windows = event_windows([], ("cat", "dog"), "fixed")
    assert windows.window_s == {"cat": 0.45, "dog": 0.45}
    assert windows.fallbacks == ()
    # The cat's frames are there, its tag is not; of the dog it is the other way round.
    frames = np.zeros((40, 2), np.float32)
    frames[10:30, 0] = 0.9
    clips = np.array([0.1, 0.8], np.float32)
    ungated = detect(frames, clips, (3, 3), gate=False)
    assert ungated.frames.sum(axis=0).tolist() == [20, 0]
    assert ungated.tags.tolist() == [False, True]
    gated = detect(frames, clips, (3, 3))
    assert not gated.frames.any()
    assert not gated.tags.any()
