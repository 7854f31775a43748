"""DCASE 2017 task 4: two kinds of tables, names with commas, files named by their segment."""

import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.dcase2017_task4 import CLASSES, read_dcase2017
from soundpost.train.datasets.segments import Folders


@pytest.fixture
def folder(layouts, tmp_path):
    return layouts.write_dcase2017(tmp_path)


def lines(listing):
    return [problem.line() for problem in listing.problems]


def test_seventeen_classes():
    assert len(CLASSES.ids) == len(set(CLASSES.ids)) == len(set(CLASSES.names)) == 17
    # Rows of the published testing_set.csv.
    assert CLASSES.by_id["/m/04qvtq"] == "Police car (siren)"
    assert CLASSES.by_id["/t/dd00134"] == "Car passing by"
    assert CLASSES.by_id["/m/012ndj"] == "Fire engine, fire truck (siren)"
    assert CLASSES.by_id["/m/06_fw"] == "Skateboard"


def test_both_tables_and_the_files(folder):
    listing = read_dcase2017(Folders(folder))
    assert listing.problems == ()
    first, second, third = listing.media.clips
    assert listing.media.labels == CLASSES.names
    assert (first.id, first.split) == ("-5QrBL6MzLg_60.000_62.000", "training")
    assert first.labels == ("Train horn", "Train")
    assert first.audio.name == "Y-5QrBL6MzLg_60.000_62.000.wav"
    assert first.video.name == "-5QrBL6MzLg_60000_62000.mp4"
    assert second.labels == ("Fire engine, fire truck (siren)",)
    assert (third.split, third.labels) == ("evaluation", ("Air horn, truck horn", "Car"))
    assert third.audio == third.video
    assert {clip.seconds for clip in listing.media.clips} == {2.0}


@pytest.mark.parametrize(
    "row",
    [
        '26dNsDuIt9Q,340.000,350.000,"Air horn, truck horn,Train horn","/m/05x_td,/m/0284vy3"',
        "26dNsDuIt9Q,340.000,350.000,Air horn, truck horn,Train horn,/m/05x_td,/m/0284vy3",
        "26dNsDuIt9Q, 340.000, 350.000, Air horn, truck horn, Train horn",
        '26dNsDuIt9Q, 340.000, 350.000, "Air horn, truck horn,Train horn"',
        "26dNsDuIt9Q\t340.000\t350.000\tAir horn, truck horn,Train horn",
        "Y26dNsDuIt9Q_340.000_350.000.wav\t340.000\t350.000\tAir horn, truck horn,Train horn",
        '26dNsDuIt9Q,340.000,350.000,"/m/05x_td,/m/0284vy3"',
    ],
)
def test_every_form_of_a_row_says_the_same(tmp_path, row):
    (tmp_path / "testing_set.csv").write_text(row + "\n")
    listing = read_dcase2017(Folders(tmp_path))
    assert listing.problems == ()
    (clip,) = listing.media.clips
    assert (clip.id, clip.group) == ("26dNsDuIt9Q_340.000_350.000", "26dNsDuIt9Q")
    assert clip.labels == ("Air horn, truck horn", "Train horn")


@pytest.mark.parametrize("name", ["Y10I9JSvJuQ_30.000_40.000", "YY10I9JSvJuQ_30.000_40.000"])
def test_an_id_may_begin_with_the_letter_that_names_begin_with(tmp_path, name):
    table = tmp_path / "groundtruth_weak_label_evaluation_set.csv"
    table.write_text(f"{name}.wav\t30.000\t40.000\tTrain horn\n")
    assert read_dcase2017(Folders(tmp_path)).media.clips[0].group == "Y10I9JSvJuQ"


def test_all_that_is_wrong_with_the_rows_is_listed(folder):
    table = folder / "testing_set.csv"
    table.write_text(
        "06RreMb5qbE,0.000,10.000,Car,/m/07jdr\n"
        "0HvYkBXQ44A,30.000,40.000,Civil defence siren\n"
        "0HvYkBXQ44A,30.000\n"
        "0H_WUo2srs0,40.000,30.000,Car\n"
        "0H_WUo2srs0.wav,40.000,50.000,Car\n"
        "-sfn1NDHWJI,30.000,32.000,Truck\n"
    )
    assert lines(read_dcase2017(Folders(folder))) == [
        f"{table}: line 1: labels Car, but ids of Train; expected names and ids of the same "
        "classes: correct one of them",
        f"{table}: line 3: has 2 cells; expected a video or file, its start and end, and labels: "
        "correct the row",
        f"{table}: line 4: from '40.000' to '30.000'; expected two times in seconds, the end after "
        "the start: correct the times",
        f"{table}: line 5: file name '0H_WUo2srs0.wav'; expected one such as "
        "Y-BJNMHMZDcU_50.000_60.000.wav: video, start, end: take the row as published",
        f"{table}: line 2: label 'Civil defence siren' is not one of the set's 17; expected "
        "'Civil defense siren': correct the name",
        f"{table}: line 6: -sfn1NDHWJI_30.000_32.000 is listed before, in "
        f"{folder}/training_set.csv: line 2, for training; expected no clip on both sides of a "
        "split: delete one row",
    ]


def test_two_tables_of_a_part_that_do_not_agree(folder):
    truth = folder / "groundtruth_weak_label_training_set.csv"
    truth.write_text(
        "-5QrBL6MzLg_60.000_62.000.wav\t60.000\t62.000\tTrain horn\n"
        "-E0shPRxAbo_30.000_32.000.wav\t30.000\t32.000\tTrain\n"
    )
    training = folder / "training_set.csv"
    listing = read_dcase2017(Folders(folder))
    assert lines(listing) == [
        f"{truth}: line 1: -5QrBL6MzLg_60.000_62.000 has the labels Train horn; expected Train "
        f"horn, Train, as in {training}: line 1: correct one of the two tables",
        f"{training}: line 2: -sfn1NDHWJI_30.000_32.000 and 0 more are not in {truth}; expected "
        "the same clips in both tables of a part: download both again; the clips of either are "
        "used",
        f"{truth}: line 2: -E0shPRxAbo_30.000_32.000 and 0 more are not in {training}; expected "
        "the same clips in both tables of a part: download both again; the clips of either are "
        "used",
    ]
    assert [clip.group for clip in listing.media.of("training").clips] == [
        "-5QrBL6MzLg",
        "-sfn1NDHWJI",
        "-E0shPRxAbo",
    ]
    assert listing.media.clips[0].labels == ("Train horn", "Train")


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(InputError, match=r"has none of training_set\.csv, groundtruth_weak"):
        read_dcase2017(Folders(tmp_path))
