"""Files of segments are found by any of the names they usually get."""

import pytest

from soundpost.train.datasets.media_files import MediaFiles


@pytest.mark.parametrize(
    ("stem", "has_times"),
    [
        ("Y-5QrBL6MzLg_60.000_70.000", True),
        ("-5QrBL6MzLg_60.000_70.000", True),
        ("-5QrBL6MzLg_60000_70000", True),
        ("-5QrBL6MzLg_60_70", True),
        ("-5QrBL6MzLg_000060", True),
        ("Y-5QrBL6MzLg_60", True),
        ("Y-5QrBL6MzLg", False),
        ("-5QrBL6MzLg", False),
    ],
)
def test_usual_names(tmp_path, stem, has_times):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = tmp_path / "deep" / "er" / f"{stem}.FLAC"
    path.touch()
    files = MediaFiles([tmp_path])
    found = files.find_sound("-5QrBL6MzLg", 60.0, 70.0)
    assert (found.path, found.has_times) == (path, has_times)
    assert files.find_video("-5QrBL6MzLg", 60.0, 70.0) is None


@pytest.mark.parametrize(
    "name", ["-5QrBL6MzLg_60.000_70.000.txt", "-5QrBL6MzLg_30_40.wav", "5QrBL6MzLg_60_70.wav"]
)
def test_other_files_are_not_taken(tmp_path, name):
    (tmp_path / name).touch()
    assert MediaFiles([tmp_path]).find_sound("-5QrBL6MzLg", 60.0, 70.0) is None


def test_a_name_that_tells_the_segment_comes_first(tmp_path):
    for name in ("abcdefghijk.mp4", "abcdefghijk_3500_5500.mp4"):
        (tmp_path / name).touch()
    found = MediaFiles([tmp_path]).find_video("abcdefghijk", 3.5, 5.5)
    assert found.path.name == "abcdefghijk_3500_5500.mp4"


def test_links_are_followed_once(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "abcdefghijk.wav").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "audio").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "set")
    found = MediaFiles([tmp_path / "set"]).find_sound("abcdefghijk", 0.0, 10.0)
    assert found.path == tmp_path / "set" / "audio" / "abcdefghijk.wav"
