"""The sensor's detector, set on two recordings whose answer is known."""

import logging
from pathlib import Path

import numpy as np

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
