"""Who learns from which seconds: shares, seeds and scenarios of the paper."""

from pathlib import Path

import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import ActionRecording, ActionSet, ActionSettings
from soundpost.train.datasets.action_splits import action_parts, cross_scenario, split_parts


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
    split = split_parts(PARTS, 42)
    sides = (split.train, split.validation, split.test)
    # 1,134 parts: 907.2, 113.4 and what is left.
    assert [len(side) for side in sides] == [907, 113, 114]
    assert sorted(part.id for side in sides for part in side) == sorted(p.id for p in PARTS)


def test_a_seed_decides():
    assert split_parts(PARTS, 1) == split_parts(PARTS, 1)
    assert split_parts(PARTS, 1) != split_parts(PARTS, 2)


def test_recordings_may_be_kept_together():
    split = split_parts(PARTS, 0, by="recording")
    ids = [{part.recording.id for part in side} for side in (split.train, split.validation)]
    ids.append({part.recording.id for part in split.test})
    assert [len(side) for side in ids] == [302, 37, 39]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    # As published they are not.
    mixed = split_parts(PARTS, 0)
    assert {p.recording.id for p in mixed.train} & {p.recording.id for p in mixed.test}


def test_across_scenarios_all_data_of_the_others_is_judged_on():
    split, others = cross_scenario(PARTS, 2, seed=0)
    n = len(split.train) + len(split.validation) + len(split.test)
    assert n == 378
    assert {part.recording.location for part in split.train + split.test} == {2}
    assert {location: len(parts) for location, parts in others.items()} == {1: 378, 3: 378}


def test_a_scenario_that_is_not_there():
    with pytest.raises(InputError, match=r"location 4 has no parts; expected one of 1, 2, 3"):
        cross_scenario(PARTS, 4, seed=0)
