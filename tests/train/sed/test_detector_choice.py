"""The sensor's detector, set on two recordings whose answer is known."""

import logging
from pathlib import Path

import numpy as np
import pytest

from soundpost.device.features import FrontEnd
from soundpost.train.sed.detector_choice import choose_detector, windows_for
from soundpost.train.sed.judging import judge_on_device
from soundpost.train.sed.scenes import Event, Scene, SceneSet
from soundpost.train.sed.streaming_recipe import DetectorChoice

FRONT_END = FrontEnd()
LABELS = ("cat", "dog")
# Frame i covers 10 ms from 10 i + 7.5 ms on; the dog barks twice, 150 ms apart.
SCENES = (
    Scene(
        Path("a.wav"),
        "strong",
        2.0,
        (Event("dog", 0.5, 1.0), Event("dog", 1.15, 1.6)),
        frozenset({"dog"}),
    ),
    Scene(Path("b.wav"), "strong", 2.0, (Event("cat", 1.0, 1.6),), frozenset({"cat"})),
)


def test_a_label_that_was_not_learnt_is_named_and_the_others_are_set(caplog):
    scores = np.full((2, 198, 2), 0.05, np.float32)
    scores[0, 50:100, 1] = scores[0, 115:160, 1] = 0.35
    choice = DetectorChoice()
    windows = windows_for(SceneSet(Path("x"), SCENES, LABELS), choice)
    with caplog.at_level(logging.WARNING):
        found = choose_detector(SCENES, scores, LABELS, windows, FRONT_END, choice, quiet=True)
    (line,) = caplog.messages
    assert "no threshold finds a validation event of cat: the model has not learnt it" in line
    cat, dog = found.classes
    assert (cat.label, cat.onset, dog.label) == ("cat", 0.5, "dog")
    assert 0.05 < dog.onset <= 0.35
    # A longer gap would have made one event of the two.
    assert dog.min_gap_s < 0.15
    judged = judge_on_device(
        SCENES, scores, found.classes, FRONT_END, found.look_ahead_frames, found.chunk_frames
    )
    assert judged.figures.events.event_f1["dog"] == 1
    assert judged.figures.events.event_f1["cat"] == 0


# A spike, and what is shorter than half of the window of 41 frames: a window without the 20 ahead
# has 21, and would let 15 pass.
@pytest.mark.parametrize("length", [1, 15])
def test_thresholds_are_chosen_on_what_the_median_leaves(length):
    """Two barks, one of them faint, and clicks between the two in height.

    Filtered, every click is gone: a threshold below the faint bark finds both and nothing else.
    Unfiltered that would be 2 of 6, an F1 of 1/2, and one above the clicks 1 of 1, an F1 of 2/3.
    """
    scenes = (
        Scene(Path("a.wav"), "strong", 3.0, (Event("dog", 0.5, 1.8),), frozenset({"dog"})),
        Scene(Path("b.wav"), "strong", 3.0, (Event("dog", 1.0, 2.3),), frozenset({"dog"})),
        Scene(Path("c.wav"), "strong", 3.0),
    )
    scores = np.full((3, 298, 1), 0.05, np.float32)
    scores[0, 50:180] = 0.9
    scores[1, 100:230] = 0.35
    for frame in (20, 90, 160, 230):  # further apart than the longest gap that is bridged
        scores[2, frame : frame + length] = 0.6
    choice = DetectorChoice()
    windows = windows_for(SceneSet(Path("x"), scenes, ("dog",)), choice)
    found = choose_detector(scenes, scores, ("dog",), windows, FRONT_END, choice, quiet=True)
    (dog,) = found.classes
    # A third of 1.3 s is more than 20 frames to either side.
    assert dog.smoothing_windows == 41
    assert (found.look_ahead_frames, found.chunk_frames) == (20, 10)
    assert 0.05 < dog.onset <= 0.35
    judged = judge_on_device(scenes, scores, found.classes, FRONT_END, 20, 10)
    assert judged.figures.events.event_f1["dog"] == 1
