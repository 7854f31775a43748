import math
from pathlib import Path

import numpy as np
import pytest

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import InputError
from soundpost.train.sed.decisions import FrameGrid, decide
from soundpost.train.sed.metrics import event_figures
from soundpost.train.sed.scenes import Event, Scene
from soundpost.train.sed.thresholds import choose_thresholds, trade_off

GRID = FrameGrid(hop_s=0.02, window_s=0.02)
N_FRAMES = 500
LABELS = ("dog", "tap")


def classes(**changes):
    return [ClassSettings(label, smoothing="none", min_gap_s=0.1, **changes) for label in LABELS]


def strong(name, *events):
    return Scene(Path(name), "strong", N_FRAMES * 0.02, tuple(events))


@pytest.fixture(scope="module")
def noisy():
    """Ten recordings whose scores rise around events, and now and then elsewhere."""
    rng = np.random.default_rng(5)
    scenes, scores = [], {}
    for index in range(10):
        frames = rng.uniform(0.0, 0.25, (N_FRAMES, 2)).astype(np.float32)
        events = []
        for k, label in enumerate(LABELS):
            for start in (50, 250):
                on, n = start + rng.integers(0, 50), rng.integers(20, 90)
                height = rng.uniform(0.4, 1.0)
                shape = np.interp(np.arange(n), [0, 5, n - 8, n], [0.3, height, height, 0.2])
                frames[on : on + n, k] = shape + rng.uniform(-0.1, 0.0, n)
                if rng.random() < 0.7:
                    events.append(Event(label, on * 0.02, (on + n) * 0.02))
        scenes.append(strong(f"{index}.wav", *events))
        scores[scenes[-1].path] = np.clip(frames, 0, 1)
    return scenes, scores


def f1_of(scenes, scores, settings):
    found = {scene.path: decide(scores[scene.path], settings, GRID) for scene in scenes}
    return event_figures(scenes, found, LABELS).event_f1


def test_no_pair_of_a_grid_is_better(noisy):
    scenes, scores = noisy
    releases = (0.1, 0.3, 0.5, 0.7)
    chosen = choose_thresholds(scenes, scores, GRID, classes(), releases)
    # What is promised is what the detector then does.
    reached = f1_of(scenes, scores, [choice.settings for choice in chosen])
    for choice in chosen:
        assert reached[choice.settings.label] == pytest.approx(choice.event_f1)
        assert choice.settings.release in releases
        assert choice.settings.release <= choice.settings.onset <= 1
        assert choice.n_reference > 5
    assert all(0.4 < f1 < 1 for f1 in reached.values())
    for release in releases:
        for onset in np.arange(release, 0.97, 0.1):
            tried = f1_of(scenes, scores, classes(onset=float(onset), release=release))
            assert all(tried[label] <= reached[label] + 1e-9 for label in LABELS)


def test_the_middle_of_what_separates():
    # Dogs score .8, what is none .4: every onset threshold between is perfect.
    frames = np.zeros((N_FRAMES, 2), np.float32)
    frames[100:200, 0], frames[300:400, 0] = 0.8, 0.4
    scenes = [strong("a.wav", Event("dog", 2.0, 4.0))]
    dog, tap = choose_thresholds(scenes, {Path("a.wav"): frames}, GRID, classes(onset=0.7))
    assert dog.event_f1 == 1.0
    # Of the releases up to .8, that in the middle is .35, and onset lies between .4 and .8.
    assert dog.settings.release == 0.35
    assert dog.settings.onset == pytest.approx(0.6)
    # Other settings stay, and so do those of a label without an event, which says so.
    assert dog.settings.min_gap_s == 0.1
    assert tap.settings == classes(onset=0.7)[1]
    assert tap.n_reference == 0
    assert math.isnan(tap.event_f1)


def test_scores_that_find_nothing():
    scenes = [strong("a.wav", Event("dog", 2.0, 4.0))]
    scores = {Path("a.wav"): np.zeros((N_FRAMES, 2), np.float32)}
    dog, _ = choose_thresholds(scenes, scores, GRID, classes())
    assert (dog.settings, dog.event_f1, dog.n_reference) == (classes()[0], 0.0, 1)


def test_what_a_threshold_costs():
    # A dog's score climbs from 0 to 1 in the first 100 frames of its event; two false ones reach .5
    # and .3 in a recording of 10 s.
    frames = np.zeros((N_FRAMES, 2), np.float32)
    frames[100:200, 0] = np.arange(1, 101) / 100
    frames[300:310, 0], frames[400:410, 0] = 0.5, 0.3
    scenes = [strong("a.wav", Event("dog", 2.0, 4.0))]
    points = trade_off(
        scenes, {Path("a.wav"): frames}, GRID, classes(release=0.01), (0.25, 0.405, 0.805)
    )
    dogs = [point for point in points if point.label == "dog"]
    assert [point.onset for point in dogs] == [0.25, 0.405, 0.805]
    # Precision 1/3, 1/2, 1 at recall 1.
    assert [point.event_f1 for point in dogs] == pytest.approx([0.5, 2 / 3, 1.0])
    assert [point.false_alarms_per_hour for point in dogs] == pytest.approx([720, 360, 0])
    # The 25th, 41st and 81st frame of the event decide, 20 ms each.
    assert [point.onset_delay_median_s for point in dogs] == pytest.approx([0.5, 0.82, 1.62])
    everything = [point for point in points if point.label is None]
    assert [point.event_f1 for point in everything] == [point.event_f1 for point in dogs]
    assert [point.n_missed for point in everything] == [0, 0, 0]
    assert all(math.isnan(point.event_f1) for point in points if point.label == "tap")


def test_the_release_threshold_goes_along_below_it():
    frames = np.zeros((N_FRAMES, 2), np.float32)
    frames[100:200, 0] = 0.2
    scenes = [strong("a.wav", Event("dog", 2.0, 4.0))]
    points = trade_off(scenes, {Path("a.wav"): frames}, GRID, classes(release=0.4), (0.1, 0.3))
    assert [p.event_f1 for p in points if p.label == "dog"] == [1.0, 0.0]


def test_bad_input_is_named():
    scenes = [strong("a.wav", Event("dog", 2.0, 4.0))]
    scores = {Path("a.wav"): np.zeros((N_FRAMES, 2), np.float32)}
    with pytest.raises(InputError, match="validation set is empty"):
        choose_thresholds([], {}, GRID, classes())
    with pytest.raises(InputError, match="validation set is empty"):
        trade_off([], {}, GRID, classes())
    with pytest.raises(InputError, match=r"a\.wav: no scores"):
        choose_thresholds(scenes, {}, GRID, classes())
    with pytest.raises(InputError, match=r"releases \[0.5, 1.5\]: expected"):
        choose_thresholds(scenes, scores, GRID, classes(), (0.5, 1.5))
