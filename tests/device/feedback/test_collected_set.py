"""The folder that a person labels: nothing is doubled, lost, or written over."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.device.feedback.collected_set import COLUMNS, CollectedSet, fold_of, group_of
from soundpost.device.feedback.example import Example

Make = Callable[..., tuple[Example, bytes]]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_row_says_why(tmp_path: Path, make_example: Make) -> None:
    example, content = make_example(
        "water drops", reason="disagreement", new_score=0.125, score=0.61, threshold=0.5
    )
    into = CollectedSet(tmp_path / "set")
    into.add(example, content)
    assert into.save() == 1
    (row,) = rows_of(tmp_path / "set" / "clips.csv")
    assert tuple(row) == COLUMNS
    assert (tmp_path / "set" / row["filename"]).read_bytes() == content
    assert row["filename"].startswith(f"porch-pi/{example.time:%Y%m%dT%H%M%S}Z")
    assert (row["label"], row["suggested"], row["review"]) == ("", "water drops", "")
    assert (row["reason"], row["score"], row["threshold"], row["new_score"]) == (
        *("disagreement", "0.61", "0.5", "0.125"),
    )
    assert (row["device"], row["source"], row["id"]) == ("porch-pi", "mic0", example.id)
    assert row["model"] == "tiny 1.0.0 aaaaaaaaaaaa"
    assert row["time"].startswith(f"{example.time:%Y-%m-%dT%H:%M:%S}")
    assert row["group"] == "porch-pi/mic0/2026-11-20T10"


def test_features_have_a_table_of_their_own(tmp_path: Path, make_example: Make) -> None:
    into = CollectedSet(tmp_path)
    into.add(*make_example(what="features", content=b"PK features"))
    into.save()
    assert not (tmp_path / "clips.csv").exists()
    (row,) = rows_of(tmp_path / "features.csv")
    assert row["filename"].endswith(".npz")
    assert into.rows() == []


def test_content_that_is_another_is_refused(tmp_path: Path, make_example: Make) -> None:
    example, _ = make_example()
    into = CollectedSet(tmp_path)
    with pytest.raises(InputError, match="are not those of its record"):
        into.add(example, b"x" * example.n_bytes)
    assert example.id not in into
    assert list(tmp_path.iterdir()) == []


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["collect", "label", "delete row", "add row", "add column"]),
        st.integers(0, 9),
    ),
    max_size=12,
)


@given(actions=ACTIONS)
def test_what_a_person_wrote_stays_whatever_comes(
    actions: list[tuple[str, int]], make_example: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a model of the table: rows in their order, each file once, none of ours missing."""
    folder = tmp_path_factory.mktemp("set")
    path = folder / "clips.csv"
    pool = [make_example() for _ in range(10)]
    expected: list[dict[str, str]] = []
    taken: list[str] = []
    for action, number in actions:
        if action == "collect":
            into = CollectedSet(folder)
            example, content = pool[number]
            assert (example.id in into) == (example.id in taken)
            if example.id not in into:
                into.add(example, content)
                taken.append(example.id)
            into.save()
            there = {row["id"] for row in expected}
            # One whose row was deleted comes again: its file is still there.
            new = sorted(key for key in taken if key not in there)
            found = rows_of(path)
            columns = list(expected[0]) if expected else list(COLUMNS)
            assert found[: len(expected)] == [
                {**dict.fromkeys(found[0], ""), **row} for row in expected
            ]
            assert [row["id"] for row in found[len(expected) :]] == new
            assert list(found[0])[: len(columns)] == columns
            expected = found
            continue
        if not expected:
            continue
        row = expected[number % len(expected)]
        if action == "label":
            row["label"] = row["fold"] = f'dog "{number}",\n'
        elif action == "delete row" and len(expected) > 1:
            expected.remove(row)
        elif action == "add row":
            expected.append({**dict.fromkeys(row, ""), "filename": f"mine-{len(expected)}.wav"})
        elif action == "add column":
            expected = [{**known, f"note {number}": "x"} for known in expected]
        write(path, expected)
    into = CollectedSet(folder)
    into.save()
    assert Counter(row["id"] for row in into.rows() if row["id"]) == Counter(taken)


def test_a_crash_before_the_rows_loses_nothing(tmp_path: Path, make_example: Make) -> None:
    example, content = make_example()
    CollectedSet(tmp_path).add(example, content)
    into = CollectedSet(tmp_path)
    assert example.id in into
    assert into.save() == 1
    assert into.save() == 0


def test_a_set_of_a_persons_own_can_be_added_to(tmp_path: Path, make_example: Make) -> None:
    (tmp_path / "clips.csv").write_text("﻿filename,label,fold\nbell.wav,bell,1\n", encoding="utf-8")
    into = CollectedSet(tmp_path)
    into.add(*make_example())
    into.save()
    own, new = rows_of(tmp_path / "clips.csv")
    assert (own["filename"], own["label"], own["fold"], own["id"]) == ("bell.wav", "bell", "1", "")
    assert new["suggested"] == "clap"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name,label\nx,y\n", "line 1: column filename is missing"),
        (b"filename,label,fold\na.wav,dog,1,2\n", "line 2: has more values than columns"),
        (b"filename,label,fold\n\xff,dog,1\n", "is no table in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_gone_on_with_is_left_as_it_is(
    tmp_path: Path, text: bytes, message: str
) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        CollectedSet(tmp_path)
    assert path.read_bytes() == text


def test_groups_are_hours_of_a_microphone_and_folds_are_even(make_example: Make) -> None:
    begin = datetime(2026, 11, 20, tzinfo=timezone.utc)
    groups = set()
    for minutes in range(0, 600, 20):
        example, _ = make_example(time=begin + timedelta(minutes=minutes))
        groups.add(group_of(example))
    assert len(groups) == 10
    counts = Counter(fold_of(f"porch-pi/mic0/{hour}") for hour in range(2_000))
    assert set(counts) == {1, 2, 3, 4, 5}
    # Chi-squared over 4 degrees of freedom.
    assert sum((n - 400) ** 2 / 400 for n in counts.values()) < 20
