"""DCASE 2018 task 4: weak, strong and unlabelled tables."""

import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.dcase2018_task4 import LABELS, read_dcase2018
from soundpost.train.datasets.segments import Folders


@pytest.fixture
def folder(layouts, tmp_path):
    return layouts.write_dcase2018(tmp_path)


def test_weak_strong_and_unlabelled(folder):
    listing = read_dcase2018(Folders(folder))
    assert listing.problems == ()
    media = listing.media
    assert media.labels == LABELS
    assert len(LABELS) == len(set(LABELS)) == 10
    found = {clip.id: (clip.split, clip.labels, clip.labelled) for clip in media.clips}
    assert found == {
        "Y-BJNMHMZDcU_50.000_52.000.wav": ("weak", ("Alarm_bell_ringing", "Dog"), True),
        "Y0lNm9pXXHxA_0.000_2.000.wav": ("weak", ("Cat", "Speech"), True),
        "Y-0X1juZHG6I_30.000_32.000.wav": ("unlabel_in_domain", (), False),
        "Y0eh_N-cmcuI_350.000_352.000.wav": (
            "test",
            ("Alarm_bell_ringing", "Running_water"),
            True,
        ),
        # Nothing happens in it, which somebody has heard.
        "Y00pbt6aJV8Y_350.000_352.000.wav": ("test", (), True),
        # eval was first published without labels.
        "YSb0169-lqLs_0.000_2.000.wav": ("eval", (), False),
    }
    assert all(clip.audio.name == clip.id for clip in media.clips)
    assert [clip.group for clip in media.having("video").clips] == ["-BJNMHMZDcU"]
    assert media.clips[1].group == "0lNm9pXXHxA"


def test_tables_named_tsv_below_dataset(folder):
    (folder / "dataset").mkdir()
    (folder / "metadata").rename(folder / "dataset" / "metadata")
    train = folder / "dataset" / "metadata" / "train"
    (train / "weak.csv").rename(train / "weak.tsv")
    assert len(read_dcase2018(Folders(folder)).media.of("weak").clips) == 2


def test_all_that_is_wrong_is_listed(folder):
    weak = folder / "metadata" / "train" / "weak.csv"
    weak.write_text(
        "filename\tevent_labels\n"
        "Y-BJNMHMZDcU_50.000_52.000.wav\tAlarm bell ringing,,Dog\n"
        "recording1.wav\tDog\n"
        "Y00pbt6aJV8Y_350.000_352.000.wav\tVacuum_cleaner\n"
    )
    (folder / "metadata" / "eval" / "eval.csv").write_text("file\na\n")
    test = folder / "metadata" / "test" / "test.csv"
    listing = read_dcase2018(Folders(folder))
    assert [problem.line() for problem in listing.problems] == [
        f"{weak}: line 3: file name 'recording1.wav'; expected one such as "
        "Y-BJNMHMZDcU_50.000_60.000.wav: video, start, end: take the row as published",
        f"{folder}/metadata/eval/eval.csv: line 1: column filename is missing; expected the "
        "columns filename: take the table as published, with its first line",
        f"{weak}: line 2: label 'Alarm bell ringing' is not one of the set's 10; expected "
        "'Alarm_bell_ringing': correct the name",
        f"{weak}: line 2: an empty label; expected a label: write one, or none",
        f"{test}: line 5: Y00pbt6aJV8Y_350.000_352.000.wav is listed before, in {weak}: line 4, "
        "for weak; expected no clip on both sides of a split: delete one row",
    ]
    assert listing.media.clips[0].labels == ("Dog",)


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(InputError, match=r"has none of metadata/train/weak\.csv, "):
        read_dcase2018(Folders(tmp_path))
