from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.clips import Clip, ClipSet
from soundpost.train.dataset import split_clips, synthesise_alarms, targets_of
from soundpost.train.recipe import DataSettings


def clip_set(rows):
    clips = tuple(
        Clip(Path(f"{i}.wav"), label, fold, group) for i, (label, fold, group) in enumerate(rows)
    )
    return ClipSet(Path("clips"), clips, tuple(sorted({c.label for c in clips})))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(10, 60))
def test_no_group_crosses_a_split(seed, n_groups):
    rng = np.random.default_rng(seed)
    fold_of = rng.integers(1, 5, n_groups)
    rows = [
        (f"label{rng.integers(3)}", int(fold_of[g]), f"g{g}")
        for g in rng.integers(0, n_groups, 150)
    ]
    clips = clip_set(rows)
    held_out = clips.folds()[0]
    # A quarter of fewer than four groups is none.
    assume(len({clip.group for clip in clips.clips if clip.fold != held_out}) >= 4)
    split = split_clips(clips, held_out, DataSettings(validation_fraction=0.25), seed)
    groups = [{c.group for c in part} for part in (split.train, split.validation, split.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert len(split.train) + len(split.validation) + len(split.test) == len(rows)


def test_a_group_in_two_folds_is_refused():
    with pytest.raises(InputError, match=r"group g stands in fold 1 and outside"):
        split_clips(clip_set([("a", 1, "g"), ("a", 2, "g"), ("b", 2, "h")]), 1, DataSettings(), 0)


def test_an_absent_fold_is_named():
    with pytest.raises(InputError, match=r"no fold 7; give --fold one of 1, 2"):
        split_clips(clip_set([("a", 1, "g"), ("b", 2, "h")]), 7, DataSettings(), 0)


def test_alarm_targets():
    labels = ("co_alarm", "dog", "smoke_alarm")
    sounds, targets = synthesise_alarms(labels, DataSettings(alarms=2, beepers=3), 16_000, 0)
    assert len(sounds) == 7
    np.testing.assert_array_equal(targets.sum(0), [2, 0, 2])
    np.testing.assert_array_equal(targets[4:], 0)


def test_targets():
    clips = clip_set([("a", 1, "x"), ("b", 1, "y")]).clips
    np.testing.assert_array_equal(targets_of(clips, ["b", "a"]), [[0, 1], [1, 0]])
