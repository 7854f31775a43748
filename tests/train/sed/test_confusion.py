from pathlib import Path

import numpy as np

from soundpost.train.sed.confusion import active_segments, segment_confusion
from soundpost.train.sed.scenes import Event, Scene

LABELS = ("bell", "dog", "tap")


def test_counted_by_hand():
    scene = Scene(
        Path("a.wav"),
        "strong",
        5.0,
        (Event("dog", 0.0, 2.0), Event("tap", 1.0, 2.0), Event("bell", 3.0, 4.0)),
    )
    found = {
        Path("a.wav"): [
            Event("dog", 0.0, 1.0),
            Event("bell", 1.5, 2.0),
            Event("tap", 2.1, 2.5),
        ]
    }
    # Second 0: dog is dog. 1: dog and tap are missed, bell is false: two confusions. 2: a tap out
    # of nothing. 3: the bell is missed. 4: silence, which is counted nowhere.
    expected = np.array(
        [
            # bell dog tap nothing
            [0, 0, 0, 1],
            [1, 1, 0, 0],
            [1, 0, 0, 0],
            [0, 0, 1, 0],
        ]
    )
    np.testing.assert_array_equal(segment_confusion([scene], found, LABELS), expected)


def test_segments_end_where_events_do():
    active = active_segments([Event("dog", 0.3, 1.0), Event("tap", 1.999, 2.001)], 3, LABELS)
    assert active[:, 1].tolist() == [True, False, False]
    assert active[:, 2].tolist() == [False, True, True]


def test_perfect_detection_is_diagonal():
    events = (Event("dog", 0.5, 3.5), Event("bell", 2.0, 2.5))
    scene = Scene(Path("a.wav"), "strong", 5.0, events)
    counts = segment_confusion([scene], {scene.path: events}, LABELS)
    assert np.diag(counts).tolist() == [1, 4, 0, 0]
    assert counts.sum() == 5
