"""Gaps are told once, to the sample, however blocks cut them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.audio import AudioBlock
from soundpost.device.gaps import GapLog, Missing, by_place


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=10),
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_a_gap_is_one_however_blocks_cut_it(
    pattern: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Sound and silence in turn on channels 1 and 2 of three."""
    expected, lacks = [], []
    for sound, silence in pattern:
        lacks += [False] * sound
        expected.append(Missing(len(lacks), silence, 1, 2, "lost"))
        lacks += [True] * silence
    lacks.append(False)
    log, first, number = GapLog(), 0, 0
    while first < len(lacks):
        end = min(len(lacks), first + cuts[number % len(cuts)])
        marks, start = [], None
        for place in range(first, end + 1):
            missing = place < end and lacks[place]
            if missing and start is None:
                start = place
            elif not missing and start is not None:
                marks.append(Missing(start, place - start, 1, 2, "lost"))
                start = None
        samples = np.zeros((end - first, 3), np.float32)
        log.add(AudioBlock(samples, first, 16_000, missing=tuple(marks)))
        first, number = end, number + 1
    assert [*log.gaps, *log.open_gaps()] == expected
    assert log.count == len(expected)


def test_a_jump_is_a_gap_of_all_channels() -> None:
    log = GapLog()
    samples = np.zeros((10, 2), np.float32)
    log.add(AudioBlock(samples, 5, 16_000))
    log.add(AudioBlock(samples, 15, 16_000))
    log.add(AudioBlock(samples, 30, 16_000, missing=(Missing(35, 5, 0, 1, "silent"),)))
    assert list(log.gaps) == [Missing(0, 5, 0, 2, "jump"), Missing(25, 5, 0, 2, "jump")]
    assert log.open_gaps() == [Missing(35, 5, 0, 1, "silent")]
    log.add(AudioBlock(samples, 40, 16_000))
    assert list(log.gaps)[2:] == [Missing(35, 5, 0, 1, "silent")]


@given(
    st.lists(
        st.tuples(st.integers(-80, 40), st.integers(1, 40), st.integers(0, 40), st.integers(1, 20)),
        max_size=15,
    )
)
def test_what_is_told_twice_counts_once(steps: list[tuple[int, int, int, int]]) -> None:
    """Numbering that goes back, forth or on: of each sample, what was told first stands."""
    log, at = GapLog(), 0
    lacks = np.zeros((2_000, 2), int)
    told = 0
    for step, length, mark, n_marked in steps:
        first = max(0, at + step)
        at = first + length
        marks = ()
        low, high = min(mark, length), min(mark + n_marked, length)
        if low < high:
            marks = (Missing(first + low, high - low, 0, 1, "lost"),)
        log.add(AudioBlock(np.zeros((length, 2), np.float32), first, 16_000, missing=marks))
        lacks[told:first] = 1
        lacks[max(told, first + low) : max(told, first + high), 0] = 1
        told = max(told, at)
    found = np.zeros_like(lacks)
    for gap in [*log.gaps, *log.open_gaps()]:
        assert gap.length > 0
        assert gap.first_sample + gap.length <= told
        channels = slice(gap.first_channel, gap.first_channel + gap.n_channels)
        found[gap.first_sample : gap.first_sample + gap.length, channels] += 1
    np.testing.assert_array_equal(found, lacks)


def test_neighbours_that_lack_the_same_are_told_together() -> None:
    parts = [Missing(9, 2, 4, 4, "lost"), Missing(3, 2, 0, 2, "lost"), Missing(9, 2, 8, 1, "lost")]
    assert by_place([*parts, Missing(9, 2, 10, 1, "lost")]) == [
        Missing(3, 2, 0, 2, "lost"),
        Missing(9, 2, 4, 5, "lost"),
        Missing(9, 2, 10, 1, "lost"),
    ]


def test_whom_a_gap_concerns() -> None:
    gap = Missing(0, 1, 4, 2, "lost")
    assert [gap.concerns(channel) for channel in (3, 4, 5, 6)] == [False, True, True, False]
    assert gap.concerns("mix")
