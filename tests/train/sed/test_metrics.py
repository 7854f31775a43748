import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import InputError
from soundpost.train.sed.decisions import Detected, FrameGrid, decide
from soundpost.train.sed.judged import join_events
from soundpost.train.sed.metrics import (
    PSDS_1,
    PSDS_2,
    clip_tag_figures,
    event_figures,
    onset_delays,
    psds_figures,
    sed_figures,
)
from soundpost.train.sed.scenes import Event, Scene
from soundpost.train.sed.score_library import score_library

LABELS = ("bell", "dog", "tap")
SECONDS = 6.0
GRID = FrameGrid(hop_s=0.1, window_s=0.1)


def scene(name, *events, labelling="strong", seconds=SECONDS):
    events = tuple(Event(*event) for event in events)
    return Scene(Path(name), labelling, seconds, events, frozenset(event.label for event in events))


def settings_of(label, onset=0.5):
    return ClassSettings(label, onset=onset, release=onset, smoothing="none", min_gap_s=0.0)


@st.composite
def event_lists(draw):
    """Events of a recording on a grid of 1/16 s: exact in binary, as sed_eval does not round."""
    events = []
    for label in LABELS:
        ends = draw(st.lists(st.integers(0, 96), min_size=0, max_size=6, unique=True).map(sorted))
        events += [
            Event(label, on / 16, off / 16) for on, off in zip(ends[::2], ends[1::2], strict=False)
        ]
    return events


RECORDINGS = st.lists(st.tuples(event_lists(), event_lists()), min_size=1, max_size=4)


def sed_eval_of(metrics_class, scenes, found, labels, **options):
    """The oracle: sed_eval, which shares no counting with sed_scores_eval."""
    score_library()
    import dcase_util
    import sed_eval

    metric = getattr(sed_eval.sound_event, metrics_class)(event_label_list=list(labels), **options)

    def container(name, events):
        return dcase_util.containers.MetaDataContainer(
            [
                {
                    "filename": name,
                    "event_label": event.label,
                    "onset": event.onset_s,
                    "offset": event.offset_s,
                }
                for event in events
            ]
        )

    extra = {"evaluated_length_seconds": SECONDS} if metrics_class.startswith("Segment") else {}
    for scene in scenes:
        name = str(scene.path)
        metric.evaluate(
            reference_event_list=container(name, scene.events),
            estimated_event_list=container(name, found[scene.path]),
            **extra,
        )
    per_label = metric.results_class_wise_metrics()
    return {label: per_label[label]["f_measure"]["f_measure"] for label in labels}


@given(RECORDINGS)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_event_and_segment_f1_are_those_of_sed_eval(recordings):
    scenes = [
        Scene(Path(f"{i}.wav"), "strong", SECONDS, tuple(reference))
        for i, (reference, _) in enumerate(recordings)
    ]
    found = {Path(f"{i}.wav"): events for i, (_, events) in enumerate(recordings)}
    if not any(scene.events for scene in scenes):
        with pytest.raises(InputError, match="has an event"):
            event_figures(scenes, found, LABELS)
        return
    figures = event_figures(scenes, found, LABELS)
    by_event = sed_eval_of(
        "EventBasedMetrics",
        scenes,
        found,
        LABELS,
        t_collar=0.2,
        percentage_of_length=0.2,
    )
    by_segment = sed_eval_of("SegmentBasedMetrics", scenes, found, LABELS, time_resolution=1.0)
    for label in LABELS:
        if not figures.n_reference[label]:
            assert math.isnan(figures.event_f1[label])
            continue
        # Without a found event sed_eval has no precision, and no F1.
        assert figures.event_f1[label] == pytest.approx(np.nan_to_num(by_event[label]), abs=1e-9)
        assert figures.segment_f1[label] == pytest.approx(
            np.nan_to_num(by_segment[label]), abs=1e-9
        )


@given(RECORDINGS)
@settings(deadline=None, max_examples=8)
def test_a_perfect_detector_gives_one_everywhere(recordings):
    references = [reference for reference, _ in recordings]
    # An event that begins where the clip does, and one that ends where it ends.
    references.append([Event("bell", 0.0, 0.5), Event("tap", 5.5, SECONDS)])
    scenes, scores = [], {}
    for index, events in enumerate(references):
        frames = np.zeros((60, len(LABELS)), np.float32)
        rounded = []
        for event in events:
            on, off = round(event.onset_s * 10), round(event.offset_s * 10)
            if off > on and not frames[max(0, on - 1) : off + 1, LABELS.index(event.label)].any():
                frames[on:off, LABELS.index(event.label)] = 1.0
                rounded.append((event.label, on / 10, off / 10))
        scenes.append(scene(f"{index}.wav", *rounded))
        scores[scenes[-1].path] = frames
    figures = sed_figures(scenes, scores, GRID, [settings_of(label) for label in LABELS])
    headline = figures.headline()
    for name in ("event_f1", "segment_f1", "clip_f1", "map", "psds_1", "psds_2"):
        assert headline[name] == pytest.approx(1.0), name
    assert headline["mauc"] == pytest.approx(1.0) or math.isnan(headline["mauc"])
    assert headline["false_alarms_per_hour"] == 0.0
    # One frame of 100 ms is heard before its event is known.
    assert headline["onset_delay_median_s"] == pytest.approx(0.1)


def test_counted_by_hand():
    # Offset collar of a 2 s event: 400 ms. Found: dog 1 on time; dog 2 with its onset 250 ms late;
    # a false bell far from any; the tap ends 450 ms late.
    scenes = [
        scene("a.wav", ("dog", 1.0, 2.0), ("tap", 3.0, 5.0)),
        scene("b.wav", ("dog", 2.0, 3.0), ("bell", 0.0, 1.0)),
    ]
    found = {
        Path("a.wav"): [Event("dog", 1.2, 2.2), Event("tap", 3.0, 5.45)],
        Path("b.wav"): [Event("dog", 2.25, 3.0), Event("bell", 4.0, 5.0)],
    }
    figures = event_figures(scenes, found, LABELS)
    assert figures.event_f1 == {"dog": pytest.approx(0.5), "tap": 0.0, "bell": 0.0}
    # Seconds of the tap: 3, 4 in the reference, 3, 4, 5 found: 2 x 2 / (2 + 3).
    assert figures.segment_f1["tap"] == pytest.approx(0.8)
    # Seconds of dogs: 1 and 2 in the reference; found 1 and 2 (of a), 2 (of b): 2 x 2 / (2 + 3).
    assert figures.segment_f1["dog"] == pytest.approx(0.8)
    assert figures.false_alarms == {"bell": 1, "dog": 0, "tap": 0}
    assert figures.false_alarms_per_hour() == pytest.approx(1 / (12 / 3600))
    assert figures.macro(figures.event_f1) == pytest.approx(0.5 / 3)
    # The bell was missed; the others began 0.2, 0 and 0.25 s late.
    assert (figures.all_delays.n_heard, figures.all_delays.n_missed) == (3, 1)
    assert figures.all_delays.median_s == pytest.approx(0.2)


def test_false_alarms_of_a_label_without_a_reference_event_count():
    scenes = [scene("a.wav", ("dog", 1.0, 2.0))]
    found = {Path("a.wav"): [Event("dog", 1.0, 2.0), Event("tap", 1.0, 2.0)]}
    figures = event_figures(scenes, found, LABELS)
    assert figures.false_alarms == {"bell": 0, "dog": 0, "tap": 1}
    assert math.isnan(figures.event_f1["tap"])
    assert figures.macro(figures.event_f1) == 1.0


def test_delay_ends_with_the_decision():
    scenes = [scene("a.wav", ("dog", 1.0, 2.0), ("dog", 3.0, 4.0), ("tap", 3.0, 4.0))]
    found = {
        Path("a.wav"): [
            # Too early to be an answer to the dog at 1 s, and no dog is heard there later.
            Detected("dog", 0.7, 1.9, 0.9, 0.8),
            Detected("dog", 2.9, 4.0, 0.9, 3.4),
            # The second start inside the event does not count.
            Detected("dog", 4.0 - 0.1, 4.1, 0.9, 4.2),
            Detected("tap", 3.1, 3.9, 0.9, 3.2),
        ]
    }
    assert onset_delays(scenes, found) == {
        "dog": [math.inf, pytest.approx(0.4)],
        "tap": [pytest.approx(0.2)],
    }


def test_one_start_answers_one_event():
    # It begins within the first dog and within the collar of the second.
    scenes = [scene("a.wav", ("dog", 1.0, 2.0), ("dog", 2.1, 3.0))]
    found = {Path("a.wav"): [Event("dog", 1.95, 3.0)]}
    assert onset_delays(scenes, found) == {"dog": [pytest.approx(0.95), math.inf]}


def test_reference_events_that_touch_or_overlap_are_one():
    events = [Event("dog", 2.0, 3.0), Event("tap", 2.5, 3.0), Event("dog", 0.0, 1.0)]
    assert join_events(events) == (events[2], events[0], events[1])
    events += [Event("dog", 2.5, 2.8), Event("dog", 3.0, 4.0)]
    assert join_events(events) == (
        Event("dog", 0.0, 1.0),
        Event("dog", 2.0, 4.0),
        Event("tap", 2.5, 3.0),
    )


def test_clip_figures_by_hand():
    tags = [frozenset({"dog"}), frozenset({"dog", "tap"}), frozenset(), frozenset({"tap"})]
    #                   bell  dog  tap
    scores = np.array([[0.1, 0.9, 0.1], [0.1, 0.4, 0.8], [0.6, 0.6, 0.2], [0.1, 0.1, 0.7]])
    figures = clip_tag_figures(tags, scores, 0.5, LABELS)
    # Dog said for 0 and 2, true of 0 and 1: precision and recall one half.
    assert figures.f1 == {"dog": pytest.approx(0.5), "tap": pytest.approx(1.0)}
    # Dogs stand first and third by score: (1 / 1 + 2 / 3) / 2; of four pairs one is in wrong order.
    assert figures.average_precision["dog"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures.auc["dog"] == pytest.approx(3 / 4)
    assert figures.auc["tap"] == 1.0


@pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning:psds_eval", "ignore:.*:DeprecationWarning:psds_eval"
)
@pytest.mark.parametrize("scenario", [PSDS_1, PSDS_2], ids=lambda scenario: scenario.name)
def test_psds_is_that_of_psds_eval(scenario):
    from psds_eval import PSDSEval

    rng = np.random.default_rng(11)
    levels = np.linspace(0.1, 0.9, 9)
    scenes, scores = [], {}
    for index in range(60):
        frames = np.zeros((60, len(LABELS)), np.float32)
        events = []
        for k, label in enumerate(LABELS):
            if rng.random() < 0.7:
                on, n = rng.integers(0, 40), rng.integers(5, 20)
                events.append((label, on / 10, (on + n) / 10))
                shift = rng.integers(-2, 3)
                stretch = slice(max(0, on + shift), on + n)
                frames[stretch, k] = rng.choice(levels[2:])
                # Now and then another label is heard instead, and sometimes out of nowhere.
                if rng.random() < 0.1:
                    frames[stretch, (k + 1) % 3] = rng.choice(levels)
                if rng.random() < 0.05:
                    frames[50:55, k] = rng.choice(levels)
        scenes.append(scene(f"{index}.wav", *events))
        scores[scenes[-1].path] = frames
    figures = psds_figures(scenes, scores, GRID, LABELS, scenario)

    oracle = PSDSEval(
        dtc_threshold=scenario.detection,
        gtc_threshold=scenario.reference,
        cttc_threshold=scenario.cross_trigger or 0.3,
        ground_truth=pd.DataFrame(
            [
                {
                    "filename": str(s.path),
                    "onset": e.onset_s,
                    "offset": e.offset_s,
                    "event_label": e.label,
                }
                for s in scenes
                for e in s.events
            ]
        ),
        metadata=pd.DataFrame([{"filename": str(s.path), "duration": s.seconds} for s in scenes]),
    )
    # Every threshold that makes a difference: between the levels.
    for threshold in levels - 0.05:
        rows = [
            {
                "filename": str(s.path),
                "onset": round(event.onset_s, 6),
                "offset": round(event.offset_s, 6),
                "event_label": event.label,
            }
            for s in scenes
            for event in decide(
                scores[s.path], [settings_of(label, threshold) for label in LABELS], GRID
            )
        ]
        oracle.add_operating_point(
            pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
        )
    expected = oracle.psds(
        alpha_ct=scenario.cross_weight,
        alpha_st=scenario.spread_weight,
        max_efpr=scenario.max_rate_per_hour,
    )
    assert 0.05 < figures.score < 0.95
    assert figures.score == pytest.approx(expected.value, abs=1e-6)


def test_one_label_alone_has_a_psds():
    scenes = [scene("a.wav", ("dog", 1.0, 2.0)), scene("b.wav")]
    frames = np.zeros((60, 3), np.float32)
    frames[10:20, 1] = 0.8
    scores = {Path("a.wav"): frames, Path("b.wav"): np.zeros((60, 3), np.float32)}
    assert psds_figures(scenes, scores, GRID, LABELS, PSDS_2).score == pytest.approx(1.0)


GOOD = [scene("a.wav", ("dog", 1.0, 2.0))]
ZEROS = np.zeros((60, 3), np.float32)


@pytest.mark.parametrize(
    ("scenes", "scores", "message"),
    [
        ([], {}, r"the validation set is empty"),
        ([scene("a.wav")], {Path("a.wav"): ZEROS}, r"none of the 1 recordings to judge has an ev"),
        (GOOD, {}, r"^a\.wav: no scores; run the model"),
        ([*GOOD, scene("b.wav"), scene("c.wav")], {}, r"^a\.wav and 2 more: no scores"),
        ([*GOOD, *GOOD], {Path("a.wav"): ZEROS}, r"a\.wav: stands twice"),
        (
            [scene("w.wav", labelling="weak")],
            {Path("w.wav"): ZEROS},
            r"w\.wav: has weak labels; events are judged",
        ),
        (
            [scene("a.wav", ("cat", 1.0, 2.0))],
            {Path("a.wav"): ZEROS},
            r"label cat, which the model does not know \(bell, dog, tap\)",
        ),
        (
            [scene("a.wav", ("dog", 2.0, 1.0))],
            {Path("a.wav"): ZEROS},
            r"event dog from 2 to 1 s; expected 0 <= onset < offset",
        ),
        (GOOD, {Path("a.wav"): ZEROS[:, :2]}, r"shape \(60, 2\); expected \(n_frames, 3\)"),
        (GOOD, {Path("a.wav"): ZEROS + np.nan}, r"scores that are not numbers"),
        (GOOD, {Path("a.wav"): ZEROS[:30]}, r"30 frames of 100 ms end at 3.00 s, the rec.* 6.00 s"),
    ],
)
def test_bad_input_is_named(scenes, scores, message):
    with pytest.raises(InputError, match=message):
        sed_figures(scenes, scores, GRID, [settings_of(label) for label in LABELS])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, r"^a\.wav: no found events"),
        ({Path("a.wav"): [Event("cat", 0, 1)]}, r"unknown label cat"),
        ({Path("a.wav"): [Event("dog", 1, 1)]}, r"found dog from 1 to 1 s"),
        (
            {Path("a.wav"): [Event("dog", 1, 2), Event("dog", 2, 3)]},
            r"found events of dog touch or overlap at 2 s",
        ),
    ],
)
def test_bad_found_events_are_named(found, message):
    with pytest.raises(InputError, match=message):
        event_figures(GOOD, found, LABELS)


def test_clip_scores_take_the_place_of_frames():
    scenes = [scene("a.wav", ("dog", 1.0, 2.0)), scene("b.wav", ("tap", 1.0, 2.0))]
    frames = np.zeros((60, 3), np.float32)
    frames[10:20, 1] = 0.9
    scores = {Path("a.wav"): frames, Path("b.wav"): frames}
    classes = [settings_of(label) for label in LABELS]
    # The frames hear a dog in both: one half right, F1 2/3, and no tap.
    by_frames = sed_figures(scenes, scores, GRID, classes).clips
    assert by_frames.f1 == {"dog": pytest.approx(2 / 3), "tap": 0.0}
    assert by_frames.auc["dog"] == pytest.approx(0.5)
    tags = {Path("a.wav"): np.array([0, 0.8, 0.1]), Path("b.wav"): np.array([0, 0.2, 0.3])}
    by_tags = sed_figures(
        scenes, scores, GRID, classes, clip_scores=tags, clip_threshold=0.25
    ).clips
    assert by_tags.f1 == {"dog": 1.0, "tap": 1.0}
    assert by_tags.auc["dog"] == 1.0
    tags[Path("b.wav")] = np.zeros(2)
    with pytest.raises(InputError, match=r"b\.wav: clip scores of shape \(2,\); expected \(3,\)"):
        sed_figures(scenes, scores, GRID, classes, clip_scores=tags)
