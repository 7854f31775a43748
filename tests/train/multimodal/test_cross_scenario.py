"""Who is trained and tested on what, and the means of the published tables."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.multimodal.cross_scenario import (
    ALL,
    ActionClips,
    CrossScenario,
    cross_scenario,
    scenario_table,
    split_recordings,
)


def make_clips(n_recordings=10, n_actions=3, scenarios=("s1", "s2", "s3"), per_recording=4):
    actions, names, recordings = [], [], []
    for scenario in scenarios:
        for action in range(n_actions):
            for recording in range(n_recordings):
                for _ in range(per_recording):
                    actions.append(action)
                    names.append(scenario)
                    recordings.append(f"{scenario}/{action}/{recording}")
    return ActionClips(np.array(actions), tuple(names), tuple(recordings))


@given(
    n_recordings=st.integers(3, 30),
    n_actions=st.integers(1, 4),
    per_recording=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_recordings_are_split_whole_and_every_part_has_every_action(
    n_recordings, n_actions, per_recording, seed
):
    clips = make_clips(n_recordings, n_actions, ("s1", "s2"), per_recording)
    chosen = np.arange(len(clips.actions))
    parts = split_recordings(clips, chosen, seed)
    everything = [*parts.train.tolist(), *parts.validation.tolist(), *parts.test.tolist()]
    assert sorted(everything) == chosen.tolist()
    of_recording = defaultdict(set)
    for name, part in (("train", parts.train), ("val", parts.validation), ("test", parts.test)):
        for clip in part:
            of_recording[clips.recordings[clip]].add(name)
        assert {(clips.scenarios[i], int(clips.actions[i])) for i in part} == {
            (s, a) for s in ("s1", "s2") for a in range(n_actions)
        }
    assert all(len(names) == 1 for names in of_recording.values())


def test_ten_recordings_are_split_eight_one_one():
    clips = make_clips()
    parts = split_recordings(clips, np.arange(len(clips.actions)), 0)
    # 9 strata of 10 recordings of 4 clips.
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (288, 36, 36)


def test_a_split_depends_on_its_seed_and_on_nothing_else():
    clips = make_clips()
    chosen = np.arange(120)
    same = [split_recordings(clips, chosen, 1).test for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], split_recordings(clips, chosen, 2).test)


def test_too_few_recordings_are_refused():
    with pytest.raises(InputError, match="scenario s1: action 0 has 2 recordings"):
        split_recordings(make_clips(2), np.arange(8), 0)


def test_a_network_is_tested_on_its_own_held_out_clips_and_on_all_of_the_others():
    clips = make_clips()
    scenarios = np.array(clips.scenarios)
    calls = []

    def fit(train, validation):
        tested = []
        calls.append((train, validation, tested))

        def predict(judged):
            tested.append(judged)
            # Right in its own scenario, always "0" elsewhere: a third of the clips.
            at_home = scenarios[judged] == scenarios[train[0]]
            return np.where(at_home, clips.actions[judged], 0)

        return predict

    result = cross_scenario(clips, fit, seed=0)
    assert len(calls) == 4
    for (train, validation, tested), own in zip(calls[:3], ("s1", "s2", "s3"), strict=True):
        assert set(scenarios[train]) == set(scenarios[validation]) == {own}
        for judged, name in zip(tested, ("s1", "s2", "s3"), strict=True):
            assert set(scenarios[judged]) == {name}
            assert len(judged) == (12 if name == own else 120)
            assert not set(judged) & (set(train) | set(validation))
    train, _, (judged,) = calls[3]
    assert set(scenarios[train]) == set(scenarios[judged]) == {"s1", "s2", "s3"}
    assert not set(judged) & set(train)
    assert result.accuracy["s1", "s1"] == 1.0
    assert result.accuracy["s1", "s2"] == pytest.approx(1 / 3)
    assert result.mean(crossed=False) == 1.0
    assert result.mean(crossed=True) == pytest.approx(1 / 3)
    assert list(result.accuracy) == [
        *((a, b) for a in ("s1", "s2", "s3") for b in ("s1", "s2", "s3")),
        (ALL, ALL),
    ]


def published(*values):
    cells = [(a, b) for a in "123" for b in "123"]
    return CrossScenario({**dict(zip(cells, values[:9], strict=True)), (ALL, ALL): values[9]})


# Table 3, HearNet.
G = published(0.6548, 0.4286, 0.1627, 0.4100, 0.3214, 0.1627, 0.3307, 0.2976, 0.5, 0.6966)
D = published(0.7857, 0.4325, 0.1825, 0.5542, 0.2619, 0.1825, 0.3770, 0.3056, 0.6190, 0.7009)


def test_means_of_the_published_table():
    # (.4286 + .1627 + .4100 + .1627 + .3307 + .2976) / 6; (.6548 + .3214 + .5) / 3
    assert G.mean(crossed=True) == pytest.approx(0.29872, abs=1e-5)
    assert D.mean(crossed=True) == pytest.approx(0.33905, abs=1e-5)
    assert G.mean(crossed=False) == pytest.approx(0.49207, abs=1e-5)


def test_the_table_has_the_published_rows_and_the_means():
    lines = scenario_table({"G": G, "D": D}).splitlines()
    assert lines[0] == "| train set | test set | G | D |"
    assert lines[2] == "| 1 | 1 | 0.6548 | 0.7857 |"
    assert lines[11] == "| all | all | 0.6966 | 0.7009 |"
    assert lines[13] == "| mean | other scenarios | 0.2987 | 0.3391 |"
    assert len({line.count("|") for line in lines}) == 1
