"""Sound and pictures of a clip, from files and from a file per frame."""

from dataclasses import replace

import numpy as np
import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.clip_media import ActionMedia, FileMedia, lacks, read_media_set


def test_a_video_has_sound_and_pictures(tiny, vehicles):
    read = read_media_set("dcase2017", Folders(vehicles))
    assert isinstance(read.media, FileMedia)
    clip = next(clip for clip in read.clips.clips if clip.split == "training")
    sound = read.media.sound(clip, 16_000)
    assert len(sound) == round(tiny.seconds * 16_000)
    # Ten pictures a second, the i-th of its own grey: at 0 and at 0.5 s.
    pictures = read.media.pictures(clip, 2.0)
    assert pictures.shape == (2, 48, 64, 3)
    for picture, i in zip(pictures, (0, 5), strict=True):
        assert abs(float(picture.mean()) - tiny.layouts.grey_level(i)) < 4


@pytest.fixture
def recordings(tiny, tmp_path):
    return tiny.layouts.write_actions(tmp_path / "actions", n_frames=6)


def test_a_frame_is_shown_at_its_time(tiny, recordings):
    read = read_media_set("actions", Folders(recordings))
    assert isinstance(read.media, ActionMedia)
    clip = read.clips.clips[0]
    # Twelve frames a second, numbered from 1: at 0 s the first, at 0.25 s the fourth.
    pictures = read.media.pictures(clip, 4.0)
    assert len(pictures) == 2
    for picture, number in zip(pictures, (1, 4), strict=True):
        assert abs(float(picture.mean()) - tiny.layouts.grey_level(number)) < 4


def test_the_sound_is_that_of_a_microphone_that_works(tiny, recordings):
    read = read_media_set("actions", Folders(recordings))
    sound = read.media.sound(read.clips.clips[0], 12_288)
    blocks = [tiny.layouts.action_frame(1, 1, 1, number)[1][0] for number in range(1, 7)]
    np.testing.assert_allclose(sound, np.concatenate(blocks) / 2.0**31, atol=1e-6)
    # Half a second at another rate.
    assert len(read.media.sound(read.clips.clips[0], 16_000)) == 8_000


def test_acoustic_images_are_those_of_the_recording(tiny, recordings, vehicles):
    read = read_media_set("actions", Folders(recordings))
    clip = read.clips.clips[0]
    images = read.media.images(clip)
    assert images.shape == (6, 36, 48, 12)
    written = tiny.layouts.action_frame(1, 1, 1, 4)[0]
    np.testing.assert_array_equal(images[3], written)
    part = replace(clip, start_s=0.25, end_s=0.5)
    np.testing.assert_array_equal(read.media.images(part), images[3:6])
    with pytest.raises(InputError, match=r"clip .* has no acoustic images; add"):
        FileMedia().images(read_media_set("dcase2017", Folders(vehicles)).clips.clips[0])


def test_problems_of_the_tables_are_refused_or_told(tiny, vehicles, tmp_path):
    folder = tmp_path / "set"
    tiny.layouts.write_dcase2017(folder)
    with (folder / "training_set.csv").open("a") as table:
        table.write('aaaaaaaaaaa,0.000,2.000,"Spaceship",/m/0\n')
    with pytest.raises(InputError, match="Spaceship"):
        read_media_set("dcase2017", Folders(folder))
    read = read_media_set("dcase2017", Folders(folder), refuse=False)
    assert any("Spaceship" in line for line in read.problems)


def test_a_clip_without_a_file_says_which(vehicles):
    read = read_media_set("dcase2017", Folders(vehicles))
    clip = next(c for c in read.clips.clips if c.video is None)
    with pytest.raises(InputError, match=rf"line 5: clip {clip.id} has no video file; add it"):
        read.media.pictures(clip, 1.0)
    assert "has no audio file" in str(lacks(clip, "audio"))
