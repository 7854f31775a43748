"""Published tables: cells as they are meant, and every fault named with its line."""

import pytest

from soundpost.train.datasets.tables import Line, read_columns, read_lines, read_span


def lines_of(problems):
    return [problem.line() for problem in problems]


def test_cells_of_both_delimiters():
    assert Line("", 'a, 1.0, 2.0, "x,y"').cells() == ["a", "1.0", "2.0", "x,y"]
    assert Line("", "a\t1.0\tx, y").cells() == ["a", "1.0", "x, y"]


def test_comments_and_empty_lines_are_not_of_the_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeff# made in 2017\n\nx,1\n#y,2\n", encoding="utf-8")
    problems = []
    assert [(line.where, line.text) for line in read_lines(path, problems, comment="#")] == [
        (f"{path}: line 3", "x,1")
    ]
    assert problems == []


def test_columns_by_name_in_any_order(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("event_label\tonset\tfilename\nDog\t1.5\ta.wav\nCat\n")
    problems = []
    rows = list(read_columns(path, ("filename", "event_label"), problems))
    assert rows == [
        (f"{path}: line 2", {"event_label": "Dog", "onset": "1.5", "filename": "a.wav"}),
        (f"{path}: line 3", {"event_label": "Cat", "onset": "", "filename": ""}),
    ]
    assert problems == []


def test_a_table_that_is_not_there(tmp_path):
    problems = []
    assert read_lines(tmp_path / "a.csv", problems) == []
    assert lines_of(problems) == [
        f"{tmp_path}/a.csv: cannot be read (No such file or directory); expected a table: check "
        "the path"
    ]


def test_a_table_of_another_encoding(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("filename\nKüche.wav\n".encode("latin-1"))
    problems = []
    assert list(read_columns(path, ("filename",), problems)) == []
    assert lines_of(problems) == [
        f"{path}: is not UTF-8 text (invalid start byte); expected UTF-8: save it as UTF-8"
    ]


@pytest.mark.parametrize("text", ["", "file\tlabels\na.wav\tDog\n"])
def test_a_missing_column(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    problems = []
    assert list(read_columns(path, ("filename", "event_labels"), problems)) == []
    assert lines_of(problems) == [
        f"{path}: line 1: column filename is missing; expected the columns filename, event_labels: "
        "take the table as published, with its first line"
    ]


def test_a_row_of_too_many_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("filename\na.wav\tDog\nb.wav\n")
    problems = []
    assert [cells["filename"] for _, cells in read_columns(path, ("filename",), problems)] == [
        "b.wav"
    ]
    assert lines_of(problems) == [
        f"{path}: line 2: has 2 cells; expected 1, as in line 1: correct the row"
    ]


@pytest.mark.parametrize(
    ("start", "end"), [("30", "30"), ("-1", "9"), ("x", "9"), ("1", ""), ("0", "nan"), ("0", "inf")]
)
def test_times_that_are_no_span(start, end):
    problems = []
    assert read_span("t: line 4", start, end, problems) is None
    assert lines_of(problems) == [
        f"t: line 4: from {start!r} to {end!r}; expected two times in seconds, the end after the "
        "start: correct the times"
    ]
    assert read_span("", "30.000", " 40", problems) == (30.0, 40.0)
