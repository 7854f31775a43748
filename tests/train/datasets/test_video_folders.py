"""Videos that nobody labelled, cut into clips of 3 to 5 s."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.datasets.command import COMMAND
from soundpost.train.datasets.segments import Folders
from soundpost.train.datasets.video_folders import clip_spans, read_videos
from soundpost.train.multimodal.clip_media import read_media_set

_specification = spec_from_file_location("layouts", Path(__file__).parent / "layouts.py")
layouts = module_from_spec(_specification)
_specification.loader.exec_module(layouts)


@given(st.floats(0.2, 4_000))
def test_parts_are_equal_cover_the_file_and_are_5_s_at_most(seconds):
    spans = clip_spans(seconds)
    starts, ends = np.array(spans).T
    lengths = ends - starts
    assert starts[0] == 0
    assert seconds - 1e-3 <= ends[-1] <= seconds
    np.testing.assert_array_equal(starts[1:], ends[:-1])
    assert np.ptp(lengths) <= 2.1e-3
    assert lengths.max() <= 5.1 + 1e-3
    assert len(spans) == 1 or lengths.min() > 2.4


@pytest.mark.parametrize(("seconds", "n"), [(3.0, 1), (5.02, 1), (5.2, 2), (8.0, 2), (60.0, 12)])
def test_as_few_parts_as_are_5_s_at_most(seconds, n):
    assert len(clip_spans(seconds)) == n


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video of 7 s, a silent one of 2 s below, one that is damaged and something else."""
    made = tmp_path_factory.mktemp("videos")
    samples = np.concatenate([layouts.tone(3.5, 440), layouts.tone(3.5, 880)])
    layouts.write_video(made / "long.mkv", 7.0, samples=samples)
    (made / "more").mkdir()
    layouts.write_video(made / "more" / "mute.mp4", 2.0, sound=False)
    (made / "broken.mp4").write_bytes(b"no container" * 100)
    (made / "notes.txt").write_text("nothing")
    return made


def test_clips_are_parts_of_their_files(folder):
    listing = read_videos(folder)
    clips = listing.media.clips
    assert [clip.id for clip in clips] == [
        "long.mkv_0.000_3.500", "long.mkv_3.500_7.000", "more/mute.mp4_0.000_2.000",
    ]  # fmt: skip
    assert [clip.has("audio") for clip in clips] == [True, True, False]
    assert all(clip.has("video") and not clip.labelled for clip in clips)
    assert [clip.group for clip in clips] == ["long.mkv", "long.mkv", "more/mute.mp4"]
    (problem,) = listing.problems
    assert Path(problem.where).name == "broken.mp4"


def test_each_clip_has_its_own_part_of_the_sound(folder):
    read = read_media_set("videos", Folders(folder), refuse=False)
    for clip, hz in zip(read.clips.clips[:2], (440, 880), strict=True):
        samples = read.media.sound(clip, 16_000)
        assert len(samples) == 56_000
        peak = np.abs(np.fft.rfft(samples)).argmax() / 3.5
        assert peak == pytest.approx(hz, abs=1)


def test_what_cannot_be_used_is_listed(folder, tmp_path, tiny_command, capsys):
    assert tiny_command(COMMAND, "check", "videos", folder, "--quiet") == 3
    said = capsys.readouterr().out
    assert "broken.mp4" in said
    assert "mute.mp4_0.000_2.000 has no sound" in said
    with pytest.raises(InputError, match=r"holds no video; expected files of \.3gp"):
        read_videos(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_videos(tmp_path / "gone")


@pytest.fixture
def tiny_command():
    """What a sub-command's exit code is, in this process."""
    import argparse

    def run(command, *arguments):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args([str(argument) for argument in arguments]))

    return run
