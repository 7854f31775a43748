"""Labels are found by name, and what is not found is named with the nearest."""

import pytest

from soundpost.device.errors import InputError
from soundpost.train.multimodal.label_names import (
    columns_of,
    nearest_label,
    require_same_labels,
    unknown_labels,
)

KNOWN = ("Dog bark", "speech", "smoke_alarm")


def test_columns_follow_the_names_and_not_the_order():
    assert columns_of(("smoke_alarm", "Dog bark"), KNOWN, "store").tolist() == [2, 0]


def test_a_label_may_be_called_otherwise():
    columns = columns_of(("dog_bark", "speech"), KNOWN, "store", {"dog_bark": "Dog bark"})
    assert columns.tolist() == [0, 1]


def test_missing_labels_are_named_with_the_nearest():
    with pytest.raises(InputError) as error:
        columns_of(("dog_bark", "speech", "xyz"), KNOWN, "store")
    message = str(error.value)
    assert message.startswith(
        "store: has no label 'dog_bark' (nearest: 'Dog bark'), 'xyz' (nothing"
    )
    assert "rename" in message
    assert "\n" not in message


def test_a_renaming_to_nothing_known_is_missing_too():
    with pytest.raises(InputError, match="'dog'"):
        columns_of(("dog",), KNOWN, "store", {"dog": "cat"})


def test_a_long_list_is_cut_short():
    assert unknown_labels([f"q{i}" for i in range(9)], KNOWN).endswith("4 more")


def test_case_and_underscores_make_no_name_far():
    assert nearest_label("SMOKE-ALARM", KNOWN) == "smoke_alarm"
    assert nearest_label("qqqq", KNOWN) is None


def test_sets_that_differ_say_what_in_both_directions():
    require_same_labels(("a", "b"), ("b", "a"), "store")
    with pytest.raises(InputError) as error:
        require_same_labels(("dog", "speech"), ("dogs", "speech"), "second")
    assert str(error.value).startswith(
        "second: lacks 'dog' (nearest: 'dogs') and has also 'dogs' (nearest: 'dog')"
    )
