"""Folders of labelled clips as a set like the others."""

import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.clip_folders import list_clips


def test_esc50_as_published(layouts, tmp_path):
    media = list_clips(layouts.write_esc50(tmp_path)).media
    assert (media.name, media.labels) == ("esc50", ("chirping_birds", "dog"))
    dog, bird = media.clips
    assert (dog.id, dog.split, dog.labels, dog.group) == (
        *("1-100032-A-0.wav", "1", ("dog",), "100032"),
    )
    assert (bird.split, bird.seconds, bird.video) == ("2", 5.0, None)
    assert dog.audio == tmp_path / "audio" / dog.id


def test_a_folder_of_ones_own(layouts, tmp_path):
    layouts.write_sound(tmp_path / "kitchen" / "a.wav")
    layouts.write_table(tmp_path / "clips.csv", "filename,label,fold\nkitchen/a.wav,kettle,3\n")
    (clip,) = list_clips(tmp_path).media.clips
    assert (clip.id, clip.split, clip.seconds) == ("kitchen/a.wav", "3", None)


def test_a_folder_without_clips(tmp_path):
    with pytest.raises(InputError, match=r"found neither clips\.csv nor meta/esc50\.csv"):
        list_clips(tmp_path)
