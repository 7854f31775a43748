"""Word vectors: files as GloVe publishes them, and cosines that a person can work out."""

import logging
from math import sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose

from soundpost.device.errors import InputError
from soundpost.train.multimodal.word_vectors import (
    map_objects,
    name_vectors,
    read_word_vectors,
    synonyms,
)

# Rows of three numbers. The second is one of glove.840B's words with spaces in it.
ROWS = """, 0.5 0.5 0.5
at name@domain.com 1.0 2.0 3.0
the 0.1 0.2 0.3
cat 1.0 0.0 0.0
tabby 0.0 1.0 0.0
siren 0.0 0.0 -2.5e-1
Mustang 1 1 0
mustang 0 1 1
cat 9.0 9.0 9.0
naïve 0.25 0.5 0.75
half 2.0 0.0 0.0
track 0.0 2.0 0.0
"""


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(ROWS, encoding="utf-8")
    return path


def read(path, *names):
    return read_word_vectors(path, names, quiet=True)


def test_only_the_rows_of_needed_words_are_kept(glove):
    found = read(glove, "tabby, tabby cat", "naïve siren", "unheard-of")
    assert set(found) == {"tabby", "cat", "naïve", "siren"}
    assert found["cat"].tolist() == [1.0, 0.0, 0.0]
    assert found["siren"].tolist() == [0.0, 0.0, -0.25]
    assert found["naïve"].dtype == np.float32
    # A word with a space in it is not the word before the space.
    assert read(glove, "at") == {}


def test_reading_ends_when_all_words_are_found(glove):
    damaged = glove.read_text(encoding="utf-8") + "broken 1.0\n"
    glove.write_text(damaged, encoding="utf-8")
    assert set(read(glove, "the cat")) == {"the", "cat"}
    with pytest.raises(InputError, match=r"glove\.txt: line 13: has 1 numbers; expected 3"):
        read(glove, "zebra")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a word and its numbers"),
        ("400000 300\nthe 0.1 0.2\n", r"line 1: has 1 numbers; expected a GloVe text file.*counts"),
        ("the 0.1 0.2\ncat 0.1 x.2\n", r"line 2: could not convert string to float.*x\.2"),
        ("the 0.1 0.2\ncat 0.1 nan\n", r"line 2: has a number that is not finite"),
        ("PK\x03\x04\n", r"line 1: has 0 numbers"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"vectors\.txt: {message}"):
        read(path, "cat")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"glove\.txt: word vectors cannot be read \(No such file"):
        read(tmp_path / "glove.txt", "cat")


def test_descriptions_are_synonyms_of_words():
    assert synonyms("tabby, tabby cat") == [["tabby"], ["tabby", "cat"]]
    assert synonyms("Fire engine, fire truck (siren)") == [
        ["Fire", "engine"],
        ["fire", "truck", "siren"],
    ]
    assert synonyms("half-track, jack-o'-lantern") == [["half-track"], ["jack-o", "lantern"]]
    assert synonyms("car_passing_by, ") == [["car", "passing", "by"]]


def test_a_name_of_several_words_is_their_mean(glove):
    vectors = read(glove, "tabby, tabby cat", "half-track", "Mustang, MUSTANG", "dragon")
    # tabby = y; tabby cat = (x + y) / 2, of length 1 after scaling.
    expected = [[0, 1, 0], [1 / sqrt(2), 1 / sqrt(2), 0]]
    assert_allclose(name_vectors("tabby, tabby cat", vectors), expected, atol=1e-7)
    # An unknown word is left out of the mean, an unknown compound is taken apart.
    assert_allclose(name_vectors("dragon cat", vectors), [[1, 0, 0]], atol=1e-7)
    assert_allclose(name_vectors("half-track", vectors), [[1 / sqrt(2)] * 2 + [0]], atol=1e-7)
    # As written first, then in lower case.
    pony = name_vectors("Mustang, MUSTANG", vectors) * sqrt(2)
    assert_allclose(pony, [[1, 1, 0], [0, 1, 1]], atol=1e-6)
    assert len(name_vectors("dragon, dragons", vectors)) == 0


def axes(**numbers):
    return {word: np.array(vector, np.float32) for word, vector in numbers.items()}


VECTORS = axes(
    tabby=[0.6, 0.8, 0],
    cat=[1, 0, 0],
    lorry=[0, 0.1, 1],
    truck=[0, 0, 3],
    horn=[0, 1, 0],
    meow=[5, 0, 0],
)


def test_each_object_speaks_for_its_nearest_event():
    found = map_objects(["tabby, cat", "lorry", "tabby"], ["horn", "meow", "truck horn"], VECTORS)
    # "cat" is the meow's own direction; of "tabby" alone the horn is nearest, .8 against .6.
    # "truck horn" = (0, 1, 3) / 2: lorry (0, .1, 1): 3.1 / sqrt(10 * 1.01); horn: .1 / sqrt(1.01)
    assert found.event.tolist() == [1, 2, 0]
    assert_allclose(found.cosines[0], [0.8, 1.0, 0.8 / sqrt(10)], atol=1e-6)
    assert_allclose(found.cosines[1], [0.1 / sqrt(1.01), 0.0, 3.1 / sqrt(10.1)], atol=1e-6)
    assert (found.unknown_objects, found.unknown_events) == ((), ())


def test_of_equal_events_the_first_and_far_ones_only_if_wanted():
    vectors = axes(box=[1, 1], bell=[1, 0], whistle=[0, 1], anti=[-1, -1])
    assert map_objects(["box"], ["whistle", "bell"], vectors).event.tolist() == [0]
    assert map_objects(["anti"], ["whistle", "bell"], vectors).event.tolist() == [0]
    # The cosine is 1 / sqrt(2) = .7071.
    assert map_objects(["box"], ["bell"], vectors, 0.70).event.tolist() == [0]
    assert map_objects(["box"], ["bell"], vectors, 0.71).event.tolist() == [-1]


def test_names_without_a_known_word_are_said_and_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        found = map_objects(["cat", "dugong, Dugong dugon"], ["Skateboard", "meow"], VECTORS)
    assert found.event.tolist() == [1, -1]
    assert found.unknown_objects == ("dugong, Dugong dugon",)
    assert found.unknown_events == ("Skateboard",)
    assert np.isneginf(found.cosines[1]).all()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "no word vector for 1 of 2 object names, which are left out: dugong, Dugong dugon",
        "no word vector for 1 of 2 event names, which are left out: Skateboard",
    ]


def test_a_file_for_another_language_is_refused():
    with pytest.raises(InputError, match=r"no event has a word with a vector \(the first is 'Hupe"):
        map_objects(["cat"], ["Hupe", "Sirene"], VECTORS)
    with pytest.raises(InputError, match=r"no object has a word with a vector"):
        map_objects([], ["horn"], VECTORS)
