"""Who learns from which seconds: shares, seeds and scenarios of the paper."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import ActionRecording, ActionSet, ActionSettings
from soundpost.train.datasets.action_splits import SplitRule, action_parts, draw_sides


def published(n_frames=400):
    """The 378 recordings of the published set: 3 places, 9 subjects, 14 actions."""
    recordings = tuple(
        ActionRecording(location, subject, action, None, None, None, n_frames)
        for location in (1, 2, 3)
        for subject in range(1, 10)
        for action in range(1, 15)
    )
    return ActionSet(Path("set"), ActionSettings(), recordings)


PARTS = action_parts(published())


def test_three_parts_of_ten_seconds_of_each_recording():
    assert len(PARTS) == 3 * 378
    assert [(part.first, part.n_frames) for part in PARTS[:3]] == [(0, 120), (120, 120), (240, 120)]
    assert PARTS[1].id == "Location_01/Subject_01/Action_01#10-20"
    assert len({part.id for part in PARTS}) == len(PARTS)


@pytest.mark.parametrize(
    ("n_frames", "limit_s", "n"), [(359, 30.0, 2), (360, 30.0, 3), (720, 30.0, 3), (720, None, 6)]
)
def test_only_whole_parts_count(n_frames, limit_s, n):
    assert len(action_parts(published(n_frames), limit_s=limit_s)) == n * 378


def test_parts_that_are_longer_than_all_recordings():
    with pytest.raises(
        InputError, match=r"set: no recording holds a part of 40 s, the longest is 33\.3"
    ):
        action_parts(published(), 40.0, None)
    with pytest.raises(InputError, match=r"parts of 0\.01 s; expected at least one frame"):
        action_parts(published(), 0.01)


def test_eighty_ten_ten():
    split = SplitRule(seed=42).split(PARTS)
    sides = (split.train, split.validation, split.test)
    # 1,134 parts: 907.2, 113.4 and what is left.
    assert [len(side) for side in sides] == [907, 113, 114]
    assert sorted(part.id for side in sides for part in side) == sorted(p.id for p in PARTS)


def test_a_seed_decides():
    first, again, other = (SplitRule(seed=seed).split(PARTS) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_recordings_may_be_kept_together():
    split = SplitRule("recording").split(PARTS)
    ids = [{part.recording.id for part in side} for side in (split.train, split.validation)]
    ids.append({part.recording.id for part in split.test})
    assert [len(side) for side in ids] == [302, 37, 39]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    # As published they are not.
    mixed = SplitRule().split(PARTS)
    assert {p.recording.id for p in mixed.train} & {p.recording.id for p in mixed.test}


def test_across_scenarios_all_data_of_the_others_is_judged_on():
    split, others = SplitRule().across(PARTS, 2)
    n = len(split.train) + len(split.validation) + len(split.test)
    assert n == 378
    assert {part.recording.location for part in split.train + split.test} == {2}
    assert {location: len(parts) for location, parts in others.items()} == {1: 378, 3: 378}


def test_a_scenario_that_is_not_there():
    with pytest.raises(InputError, match=r"location 4 has no parts; expected one of 1, 2, 3"):
        SplitRule().across(PARTS, 4)


BY_SUBJECT = SplitRule("subject", 0, (7, 8), (9,))


def subjects(parts):
    return {part.recording.subject for part in parts}


def test_subjects_are_held_out_whole():
    split = BY_SUBJECT.split(PARTS)
    assert subjects(split.train) == {1, 2, 3, 4, 5, 6}
    assert subjects(split.validation) == {7, 8}
    assert subjects(split.test) == {9}
    # 14 actions in 3 places, 3 parts each.
    assert len(split.test) == 126
    assert len(split.train) == 6 * 126
    # They are named, not drawn.
    assert SplitRule("subject", 5, (7, 8), (9,)).split(PARTS) == split


def test_by_subject_only_the_test_subjects_are_judged_elsewhere():
    split, others = BY_SUBJECT.across(PARTS, 2)
    assert {part.recording.location for part in split.train + split.test} == {2}
    assert subjects(split.test) == {9}
    assert others.keys() == {1, 3}
    for location, parts in others.items():
        assert {part.recording.location for part in parts} == {location}
        assert subjects(parts) == {9}
        assert len(parts) == 42


def test_a_subject_that_is_not_there():
    with pytest.raises(InputError, match="subject 12 has no parts; expected some of 1, 2, 3, 4"):
        SplitRule("subject", 0, (), (12,)).split(PARTS)


SIDES = ("train", "validation", "test")


@given(
    n_keys=st.integers(1, 40),
    order=st.lists(st.integers(0, 10_000), min_size=1, max_size=120),
    seed=st.integers(0, 9),
)
def test_what_has_one_key_stands_on_one_side(n_keys, order, seed):
    keys = [f"k{number % n_keys}" for number in order]
    sides = draw_sides(keys, seed)
    of = {key: {side for k, side in zip(keys, sides, strict=True) if k == key} for key in keys}
    assert all(len(side) == 1 for side in of.values())
    # Of the keys, however often each comes: 80 and 10 in a hundred, rounded down, and the rest.
    n = len(of)
    found = [
        sum(side == {name} for side in of.values()) for name in ("train", "validation", "test")
    ]
    assert found == [8 * n // 10, n // 10, n - 8 * n // 10 - n // 10]
