"""Scores to events to figures, of two recordings whose answer is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import median_filter

from soundpost.device.detection import ClassSettings
from soundpost.device.features import FrontEnd
from soundpost.train.sed.event_filter import detect, filter_frames, gate_and_filter
from soundpost.train.sed.judging import choose_published, judge_on_device, judge_published
from soundpost.train.sed.recipe import FilterSettings
from soundpost.train.sed.scenes import Event, Scene

FRONT_END = FrontEnd()
LABELS = ("cat", "dog")
# Frame i covers 10 ms from 10 i + 7.5 ms on.
SCENES = (
    Scene(Path("a.wav"), "strong", 2.0, (Event("dog", 0.5, 1.0),), frozenset({"dog"})),
    Scene(Path("b.wav"), "strong", 2.0, (Event("cat", 1.0, 1.6),), frozenset({"cat"})),
)


def scores(high):
    """What a model that is right and unsure says: `high` within events, 0.05 elsewhere."""
    frames = np.full((2, 198, 2), 0.05, np.float32)
    frames[0, 50:100, 1] = high
    frames[1, 100:160, 0] = high
    return frames


def test_an_unsure_model_is_read_with_thresholds_of_its_own():
    frames = scores(0.35)
    clips = np.array([[0.05, 0.25], [0.25, 0.05]], np.float32)
    decided = (SCENES, LABELS, frames, clips, (5, 5))
    at_one_half = judge_published(*decided, FilterSettings(), FRONT_END)
    assert at_one_half.figures.headline()["event_f1"] == 0
    # Of all pairs that find both events, and nothing else, the one nearest to one half.
    chosen = choose_published(*decided, FilterSettings(), FRONT_END, quiet=True)
    assert chosen == replace(FilterSettings(), threshold=0.3, tag_threshold=0.2)
    judged = judge_published(*decided, chosen, FRONT_END)
    figures = judged.figures.headline()
    assert [figures[name] for name in ("event_f1", "clip_f1", "map")] == [1, 1, 1]
    (event,) = judged.found[SCENES[0].path]
    assert (event.onset_s, event.offset_s) == pytest.approx((0.5075, 1.0075))
    # What hears the whole recording at once knows of no event while it lasts.
    assert math.isnan(figures["onset_delay_median_s"])


# Frame 50 is decided with frame 52, in the chunk that ends with frame 59, whose window ends at
# 59 x 10 + 25 ms; the cat's by frame 109: 115 ms after each onset. In chunks of 25 frames, with
# frames 74 and 124.
@pytest.mark.parametrize(("chunk_frames", "delays_s"), [(10, (0.115, 0.115)), (25, (0.265, 0.265))])
def test_the_sensor_knows_of_an_event_when_its_chunk_has_been_heard(chunk_frames, delays_s):
    classes = [ClassSettings(label, 0.5, 0.3, "median", 5, 0.0, 0.1) for label in LABELS]
    judged = judge_on_device(SCENES, scores(0.9), classes, FRONT_END, 20, chunk_frames)
    figures = judged.figures.headline()
    assert figures["event_f1"] == 1
    found = [judged.found[scene.path][0] for scene in SCENES]
    onsets = [scene.events[0].onset_s for scene in SCENES]
    delays = [one.decided_s - onset_s for one, onset_s in zip(found, onsets, strict=True)]
    assert delays == pytest.approx(delays_s)
    assert figures["onset_delay_median_s"] == pytest.approx(np.median(delays_s))
    assert figures["onset_delay_p90_s"] == pytest.approx(max(delays_s))


def test_events_and_scores_are_those_of_a_median_that_looks_ahead():
    """41 frames around each, 20 of them ahead: both ends of an event stay where they are.

    With nothing of the future in its window a median is late by ten frames at both ends.
    """
    classes = [ClassSettings(label, 0.5, 0.3, "median", 41, 0.0, 0.1) for label in LABELS]
    given_scores = scores(0.9)
    given_scores[0, 150, 1] = 0.95  # a spike, of which nothing is left
    judged = judge_on_device(SCENES, given_scores, classes, FRONT_END, 20, 10)
    for scene, of_scene, (onset_s, offset_s) in zip(
        SCENES, given_scores, ((0.5075, 1.0075), (1.0075, 1.6075)), strict=True
    ):
        (event,) = judged.found[scene.path]
        assert (event.onset_s, event.offset_s) == pytest.approx((onset_s, offset_s))
        # Away from the recording's ends, where a median lacks what lies beyond them.
        expected = median_filter(of_scene, (41, 1))[20:-20]
        np.testing.assert_array_equal(judged.scores[scene.path][20:-20], expected)


# Recording a: the dog's event, and a cat that the clip branch takes for granted although no frame
# has it. Recording b: the cat's event, and frames of a dog that the clip branch denies.
DENIED = slice(20, 60)
CLIPS = np.array([[0.9, 0.8], [0.8, 0.2]], np.float32)


def contradicting():
    frames = scores(0.9)
    frames[1, DENIED, 1] = 0.9
    return frames


@pytest.mark.parametrize("gate", [True, False])
def test_published_scores_are_filtered_and_gated_where_the_method_gates(gate):
    frames = contradicting()
    frames[0, 10, 1] = 0.95
    decided = (SCENES, LABELS, frames, CLIPS, (5, 5), FilterSettings(gate=gate), FRONT_END)
    judged = judge_published(*decided)
    denied = judged.scores[SCENES[1].path][:, 1]
    found = {event.label for event in judged.found[SCENES[1].path]}
    if gate:
        assert not denied.any()
        assert found == {"cat"}
    else:
        np.testing.assert_array_equal(denied, median_filter(frames[1, :, 1], 5, mode="nearest"))
        assert found == {"cat", "dog"}
    # A lone spike is filtered in either case, and so the dog's one event has one found.
    expected = median_filter(frames[0, :, 1], 5, mode="nearest")
    np.testing.assert_array_equal(judged.scores[SCENES[0].path][:, 1], expected)
    assert judged.scores[SCENES[0].path][10, 1] < 0.1
    assert len(judged.found[SCENES[0].path]) == 1


@pytest.mark.parametrize(("gate", "f1_of_the_cat"), [(True, 1.0), (False, 2 / 3)])
def test_a_tag_of_which_no_frame_is_left_is_withdrawn(gate, f1_of_the_cat):
    """Of the two recordings that are tagged cat one has a cat: precision 1/2, unless withdrawn."""
    decided = (SCENES, LABELS, contradicting(), CLIPS, (5, 5), FilterSettings(gate=gate), FRONT_END)
    clips = judge_published(*decided).figures.clips
    assert clips.f1 == pytest.approx({"cat": f1_of_the_cat, "dog": 1.0})
    # A curve is of the clip branch's scores: the cat that is there comes second of two.
    assert clips.average_precision == pytest.approx({"cat": 0.5, "dog": 1.0})


def test_thresholds_are_chosen_on_the_scores_that_they_will_judge():
    """A flicker that two medians remove and one does not: 1 0 1 becomes 1, and then nothing."""
    frames = scores(0.9)
    frames[0, 150, 1] = frames[0, 152, 1] = 0.6
    clips = np.array([[0.05, 0.9], [0.9, 0.05]], np.float32)
    decided = (SCENES, LABELS, frames, clips, (3, 3))
    chosen = choose_published(*decided, FilterSettings(), FRONT_END, quiet=True)
    # Scores that were not filtered before would want a threshold above the flicker.
    assert chosen == FilterSettings()
    assert judge_published(*decided, chosen, FRONT_END).figures.headline()["event_f1"] == 1


def test_without_a_gate_the_tags_choose_nothing():
    clips = np.zeros((2, 2), np.float32)
    ungated = FilterSettings(gate=False, tag_threshold=0.4)
    decided = (SCENES, LABELS, scores(0.35), clips, (5, 5))
    chosen = choose_published(*decided, ungated, FRONT_END, quiet=True)
    assert chosen == replace(ungated, threshold=0.3)
    assert judge_published(*decided, chosen, FRONT_END).figures.headline()["event_f1"] == 1


@settings(max_examples=60)
@given(
    arrays(np.float32, (30, 3), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    arrays(np.float32, (3,), elements=st.sampled_from([0.0, 0.375, 0.5, 0.875])),
    st.tuples(*[st.sampled_from([1, 3, 7])] * 3),
    st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
def test_the_order_of_gate_and_filter_makes_no_difference(frames, clips, windows, threshold):
    """Figure 4 gates first; we filter first, so that many thresholds share the work."""
    gated = gate_and_filter(frames, clips, windows)
    expected = filter_frames(gated >= threshold, windows).astype(bool) & (clips >= 0.5)
    found = detect(frames, clips, windows, threshold)
    np.testing.assert_array_equal(found.frames, expected)
    np.testing.assert_array_equal(found.tags, expected.any(axis=0))
