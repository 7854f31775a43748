"""A set of clips, and what it says of what is wrong."""

from pathlib import Path

import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import Listing, MediaClip, MediaSet, Problem, once


def clip(name, split="train", labels=("a",), audio="x.wav", video=None, **more):
    return MediaClip(
        name,
        Path(audio) if audio else None,
        Path(video) if video else None,
        labels,
        split,
        **more,
    )


MEDIA = MediaSet(
    Path("set"),
    "set",
    ("a", "b"),
    (
        clip("1", seconds=10.0),
        clip("2", labels=("a", "b"), video="x.mp4", seconds=5.0),
        clip("3", "test", ("b",), audio=None),
    ),
)


def test_counts_and_seconds_by_split():
    assert MEDIA.splits() == ("train", "test")
    assert MEDIA.counts() == {"train": {"a": 2, "b": 1}, "test": {"b": 1}}
    assert MEDIA.seconds() == {"train": 15.0, "test": None}


def test_clips_of_a_split_and_clips_that_have_all():
    assert [c.id for c in MEDIA.of("train").clips] == ["1", "2"]
    assert [c.id for c in MEDIA.having("audio", "video").clips] == ["2"]
    assert [c.id for c in MEDIA.having().clips] == ["1", "2", "3"]
    with pytest.raises(InputError, match=r"set: has no split 'eval'; there are train, test"):
        MEDIA.of("eval")


def test_where_a_row_stands_does_not_make_another_clip():
    assert clip("1", source="t: line 1") == clip("1", source="t: line 9")


def test_who_trains_is_told_the_first_problem_and_how_many_there_are():
    problems = [Problem(f"t: line {n}", "found", "wanted", "mend it") for n in (1, 2, 3)]
    assert Listing(MEDIA).without_problems() is MEDIA
    with pytest.raises(InputError, match=r"^t: line 1: found; expected wanted: mend it$"):
        Listing(MEDIA, tuple(problems[:1])).without_problems()
    with pytest.raises(InputError, match=r"mend it \(and 2 more; soundpost dataset check lists"):
        Listing(MEDIA, tuple(problems)).without_problems()


def test_a_problem_as_an_error_keeps_its_parts():
    problem = Problem("a.mp4", "found", "wanted", "mend it")
    error = problem.error()
    assert isinstance(error, InputError)
    assert error.problem is problem
    assert str(error) == problem.line()


def test_a_clip_that_is_listed_twice():
    found = once(
        [
            clip("1", source="t: line 1"),
            clip("1", source="t: line 2"),
            clip("1", "test", source="u: line 1"),
            clip("2", source="t: line 3"),
        ]
    )
    assert [problem.line() for problem in found] == [
        "t: line 2: 1 is listed before, in t: line 1; expected every clip once: delete one row",
        "u: line 1: 1 is listed before, in t: line 1, for train; expected no clip on both sides of "
        "a split: delete one row",
    ]
