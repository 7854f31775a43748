"""Labels under other names are recognised; one unknown label is one problem."""

from pathlib import Path

import pytest

from soundpost.train.datasets.catalogue import MediaClip, MediaSet
from soundpost.train.datasets.labels import (
    LabelNames,
    UnknownLabels,
    agreed_names,
    compare_labels,
    nearest,
    read_label_names,
)

NAMES = LabelNames(("/m/09x0r", "/m/0bt9lr"), ("Speech", "Dog"))


def a_set(name, *labels, clips=()):
    return MediaSet(Path(name), name, labels, tuple(clips))


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("/m/09x0r", "Speech"),
        ("vacuum cleaner", "Vacuum_cleaner"),
        ("Vacuum-Cleaner", "Vacuum_cleaner"),
        ("Vaccum_cleaner", "Vacuum_cleaner"),
        ("speech", "Speech"),
        ("Saxophone", None),
        ("Cat", None),
    ],
)
def test_what_is_likely_meant(label, meant):
    assert nearest(label, ["Speech", "Vacuum_cleaner", "Car"], NAMES) == meant


def test_a_display_name_among_ids():
    assert nearest("Dog", NAMES.ids, NAMES) == "/m/0bt9lr"


def test_an_unknown_label_is_one_problem_however_often_it_stands():
    unknown = UnknownLabels(["Speech", "Dog"])
    assert unknown.keep_known(["Speech", "dogs", "Speech"], "t: line 1") == ("Speech",)
    assert unknown.keep_known(["dogs"], "t: line 2") == ()
    assert unknown.keep_known(["Zither"], "t: line 3") == ()
    assert unknown.keep_known([""], "t: line 4") == ()
    assert [problem.line() for problem in unknown.problems()] == [
        "t: line 1: label 'dogs' is not one of the set's 2, and in 1 more rows; expected 'Dog': "
        "correct the name",
        "t: line 3: label 'Zither' is not one of the set's 2; expected one of its labels: correct "
        "the name or take the row out",
        "t: line 4: an empty label; expected a label: write one, or none",
    ]


def test_a_class_under_two_names_in_two_sets():
    first = a_set("one", "Speech", "Vacuum cleaner", "Dog", "Car")
    second = a_set("two", "/m/09x0r", "Vacuum_cleaner", "Dog", "Cart")
    assert agreed_names(first, second, NAMES) == {
        "/m/09x0r": "Speech",
        "Vacuum_cleaner": "Vacuum cleaner",
    }
    assert [problem.line() for problem in compare_labels(first, second, NAMES)] == [
        "two: label '/m/09x0r'; expected 'Speech', as in one: rename it in one of the two "
        "(MediaSet.renamed)",
        "two: label 'Vacuum_cleaner'; expected 'Vacuum cleaner', as in one: rename it in one of "
        "the two (MediaSet.renamed)",
    ]


def test_a_name_is_given_to_one_label_alone():
    assert agreed_names(a_set("one", "Car alarm"), a_set("two", "car alarm", "Car_alarm")) == {
        "car alarm": "Car alarm"
    }


def test_sets_without_a_common_class():
    (problem,) = compare_labels(a_set("one", "Speech", "a", "b", "c"), a_set("two", "Zither"))
    assert problem.line() == (
        "two: no label in common with one ('Zither'); expected some of 'Speech', 'a', 'b', ...: "
        "compare sets that have classes in common"
    )
    assert compare_labels(a_set("one", "Speech", "Dog"), a_set("two", "Dog", "Zither")) == []


def test_a_set_takes_the_other_sets_names():
    clips = [MediaClip("a", None, None, ("speech", "Dog"), "train")]
    second = a_set("two", "speech", "Dog", clips=clips)
    renamed = second.renamed(agreed_names(a_set("one", "Speech", "Dog"), second))
    assert renamed.labels == ("Speech", "Dog")
    assert renamed.clips[0].labels == ("Speech", "Dog")


def test_display_names_with_commas(layouts, tmp_path):
    path = layouts.write_table(tmp_path / "class_labels_indices.csv", layouts.AUDIOSET_CLASSES)
    problems = []
    names = read_label_names(path, problems)
    assert names.by_id["/m/05x_td"] == "Air horn, truck horn"
    assert names.by_name["Dog"] == "/m/0bt9lr"
    assert problems == []
    path.write_text("mid,display_name\n")
    assert read_label_names(path, problems) is None
    assert "column index is missing" in problems[0].line()
