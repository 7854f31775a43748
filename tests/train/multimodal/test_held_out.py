"""Clips that are held out: whole groups, every label, half of each at most."""

from collections import Counter

import numpy as np
import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.held_out import hold_out


def clip(number, *labels, group=""):
    return MediaClip(f"c{number}", None, None, labels, "train", group=group)


def counts(clips, numbers):
    return Counter(label for n in numbers for label in clips[n].labels)


def test_rare_labels_are_held_out_as_often_as_others():
    # 300, 60 and 20 clips of three labels.
    labels = ["a"] * 300 + ["b"] * 60 + ["c"] * 20
    clips = [clip(n, label) for n, label in enumerate(labels)]
    held = hold_out(clips, 24 / 380, seed=0)
    assert len(held) == 24
    assert counts(clips, held) == {"a": 8, "b": 8, "c": 8}
    assert held.tolist() == sorted(set(held.tolist()))


def test_half_of_a_labels_clips_stay():
    labels = ["a"] * 100 + ["b"] * 5
    clips = [clip(n, label) for n, label in enumerate(labels)]
    held = hold_out(clips, 0.3, seed=1)
    found = counts(clips, held)
    assert found["b"] == 2
    assert len(held) == round(0.3 * 105)


def test_groups_stay_together():
    rng = np.random.default_rng(0)
    clips = [clip(n, "ab"[rng.integers(2)], group=f"g{n // 4}") for n in range(200)]
    held = set(hold_out(clips, 0.2, seed=0).tolist())
    assert len(held) == 40
    for first in range(0, 200, 4):
        assert len(held & set(range(first, first + 4))) in (0, 4)


def test_clips_without_a_label_are_held_out_too():
    clips = [clip(n) if n % 2 else clip(n, "a") for n in range(40)]
    held = hold_out(clips, 0.25, seed=0)
    assert sum(not clips[n].labels for n in held) == 5


def test_the_seed_decides_which():
    clips = [clip(n, "a") for n in range(50)]
    first, again, other = (hold_out(clips, 0.2, seed).tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_clips_with_several_labels_count_for_each():
    clips = [clip(n, "a", "b") if n < 10 else clip(n, "ab"[n % 2]) for n in range(60)]
    held = hold_out(clips, 0.2, seed=0)
    found = counts(clips, held)
    assert abs(found["a"] - found["b"]) <= 1


def test_too_few_clips_are_one_line():
    with pytest.raises(InputError, match=r"none of the 1 training clips can be held out.*split"):
        hold_out([clip(0, "a")], 0.5, seed=0)
