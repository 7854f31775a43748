"""A look at every file: all that is missing or broken, not the first alone."""

from dataclasses import replace

import pytest

from soundpost.train.datasets.audioset import read_audioset
from soundpost.train.datasets.catalogue import MediaClip, MediaSet
from soundpost.train.datasets.media_check import check_media
from soundpost.train.datasets.segments import Folders


def lines(media, *needs, **more):
    return [problem.line() for problem in check_media(media, needs, quiet=True, **more)]


@pytest.fixture
def one(layouts, tmp_path):
    """A set of one clip with sound and pictures, and the two seconds it is long."""
    path = layouts.write_video(tmp_path / "a.mp4", options={"movflags": "faststart"})
    clip = MediaClip("a", path, path, (), "train", seconds=2.0, source="t: line 1")
    return MediaSet(tmp_path, "one", (), (clip,))


def with_clip(media, **changes):
    return replace(media, clips=(replace(media.clips[0], **changes),))


def test_a_whole_set_is_in_order(one):
    assert lines(one, "audio", "video") == lines(one, "audio", "video", thorough=True) == []


def test_clips_without_sound_or_video_are_all_listed(layouts, tmp_path):
    folder = layouts.write_audioset(tmp_path)
    media = read_audioset(Folders(folder)).media
    table = f"{folder}/balanced_train_segments.csv"
    remedy = "add the file, or train on the clips that have all they need"
    assert lines(media, "audio", "video") == [
        f"{table}: line 5: --aE2O5G5WE_0.000_2.000 has no video; expected a video file of it in "
        f"{folder}: {remedy}",
        f"{table}: line 6: Y10I9JSvJuQ_30.000_32.000 has no sound; expected a sound file of it in "
        f"{folder}, or sound in its video: {remedy}",
        f"{table}: line 6: Y10I9JSvJuQ_30.000_32.000 has no video; expected a video file of it in "
        f"{folder}: {remedy}",
    ]
    assert [line.split(": ")[2][:17] for line in lines(media, "audio")] == ["Y10I9JSvJuQ_30.00"]
    assert lines(media) == []


def test_broken_files_of_several_clips_are_all_listed(one, tmp_path):
    clips = []
    for name, content in (("b", b"no video " * 99), ("c", b""), ("d", None)):
        path = tmp_path / f"{name}.mp4"
        if content is not None:
            path.write_bytes(content)
        clips.append(MediaClip(name, path, path, (), "train"))
    found = lines(replace(one, clips=(*clips, *one.clips)), "audio", "video")
    assert [line.removeprefix(f"{tmp_path}/").partition(";")[0] for line in found] == [
        "b.mp4: is not a container that can be read (invalid data found when processing input)",
        "c.mp4: is empty (0 bytes)",
        "d.mp4: no such file",
    ]


def test_a_stream_that_is_not_there(one, layouts, tmp_path):
    mute = layouts.write_video(tmp_path / "mute.mp4", sound=False)
    blind = layouts.write_sound(tmp_path / "blind.wav")
    assert lines(with_clip(one, audio=mute, video=blind)) == [
        f"{mute}: has no sound stream; expected sound for a: download it again, or take the clip "
        "out",
        f"{blind}: has no video stream; expected video for a: download it again, or take the clip "
        "out",
    ]


def test_a_file_of_another_length(one):
    path = one.clips[0].audio
    assert lines(with_clip(one, seconds=10.0)) == [
        f"{path}: is 2.00 s long; expected 10 s, the length of a: download it again, or take the "
        "clip out"
    ]
    assert lines(with_clip(one, seconds=0.5)) == [
        f"{path}: is 2.00 s long; expected 0.5 s, the length of a: cut it, or say that the files "
        "are whole videos (--whole-videos)"
    ]
    assert lines(with_clip(one, seconds=2.9)) == []


def test_a_part_behind_the_end_of_its_video(one):
    path = one.clips[0].audio
    assert lines(with_clip(one, start_s=0.4, end_s=2.4)) == []
    assert lines(with_clip(one, start_s=4.0, end_s=6.0)) == [
        f"{path}: is 2.00 s long; expected at least 6 s, where a ends: download the whole video"
    ]


def test_pictures_that_a_file_promises_and_does_not_hold(one, tmp_path, layouts):
    path = layouts.write_video(
        tmp_path / "long.mp4", 20.0, sound=False, options={"movflags": "faststart"}
    )
    content = path.read_bytes()
    # The last pictures are missing, and the container does not say so.
    path.write_bytes(content[: len(content) - len(content) // 4])
    media = with_clip(one, audio=None, video=path, seconds=20.0)
    assert lines(media) == []
    (line,) = lines(media, thorough=True)
    found = int(line.partition("holds ")[2].partition(" pictures")[0])
    assert 100 < found < 180
    assert line == (
        f"{path}: holds {found} pictures; expected the 200 that its container promises: copy or "
        "download it again"
    )


def test_sound_that_a_file_promises_and_does_not_hold(one, tmp_path, layouts):
    path = layouts.write_video(tmp_path / "long.mkv", 20.0, pictures=False)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    media = with_clip(one, audio=path, video=None, seconds=20.0)
    assert lines(media) == []
    (line,) = lines(media, thorough=True)
    found = float(line.partition("holds ")[2].partition(" s of")[0])
    # Samples of 16 bits: half of the file is half of the sound.
    assert found == pytest.approx(10.0, abs=0.2)
    assert line == (
        f"{path}: holds {found:.2f} s of sound; expected the 20.00 s that its container promises: "
        "copy or download it again"
    )


def test_damage_in_the_middle(one, tmp_path):
    content = bytearray(one.clips[0].audio.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = b"\xff" * 600
    path = tmp_path / "scratched.mp4"
    path.write_bytes(bytes(content))
    media = with_clip(one, audio=path, video=path)
    assert lines(media) == []
    (line,) = lines(media, thorough=True)
    assert line == (
        f"{path}: is damaged (invalid data found when processing input); expected a whole media "
        "file: copy or download it again"
    )


def test_a_file_of_several_clips_is_looked_at_once(one, monkeypatch):
    import soundpost.train.datasets.media_check as module

    looked = []
    probe = module.probe
    monkeypatch.setattr(module, "probe", lambda path: looked.append(path) or probe(path))
    assert lines(replace(one, clips=one.clips * 3), "audio", "video") == []
    assert looked == [one.clips[0].audio]
    path = one.clips[0].audio
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    whole = one.where(lambda clip: clip.id == "a")
    several = replace(whole, clips=one.clips * 3)
    assert len(lines(whole, thorough=True)) == len(lines(several, thorough=True)) > 0
