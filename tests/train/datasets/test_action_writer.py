"""What is written in the published layout is read again by the reader of the published set."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import ActionSettings, read_actions
from soundpost.train.datasets.action_check import check_action_files
from soundpost.train.datasets.action_writer import (
    RecordingWriter,
    is_written,
    recording_path,
    write_settings,
)

SETTINGS = ActionSettings("world", {1: "dog", 2: "rain"}, {1: "anechoic"}, 5, ())


def frame(seed, n_microphones=5):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(36, 48, 12)).astype(np.float32),
        rng.uniform(-1, 1, (1024, n_microphones)).astype(np.float32),
        np.full((48, 64, 3), 40 * seed, np.uint8),
    )


def write(folder, seeds=(1, 2, 3)):
    with RecordingWriter(folder, SETTINGS, 1, 1, 2) as writer:
        for seed in seeds:
            writer.write(*frame(seed))


def test_a_set_that_is_written_is_read_again(tmp_path):
    write_settings(tmp_path, SETTINGS)
    write(tmp_path)
    actions, problems = read_actions(tmp_path)
    assert problems == ()
    assert actions.settings == SETTINGS
    assert check_action_files(actions, thorough=True, quiet=True) == []
    (recording,) = actions.recordings
    assert actions.media().clips[0].labels == ("rain",)
    frames = [frame(seed) for seed in (1, 2, 3)]
    assert_array_equal(recording.load_images(), [image for image, _, _ in frames])
    sound = np.concatenate([samples for _, samples, _ in frames])
    assert_allclose(recording.load_audio(settings=SETTINGS), sound, atol=2**-24)
    assert_allclose(recording.load_pictures().mean(axis=(1, 2, 3)), [40, 80, 120], atol=1)


def test_names_are_those_of_the_published_layout(tmp_path):
    write(tmp_path, (1,))
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    place = "Location_01/Subject_01/Action_02"
    assert found == [
        f"{place}/MFCC_Image/Data_1.mat",
        f"{place}/audio/A_000001.npy",
        f"{place}/video/I_000001.jpeg",
    ]


def test_equal_frames_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("a", "b")
    ]
    assert len(files[0]) == 9
    assert files[0] == files[1]


def test_a_recording_is_there_as_a_whole_or_not_at_all(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), RecordingWriter(tmp_path, SETTINGS, 1, 1, 2) as w:
        w.write(*frame(1))
        raise KeyboardInterrupt
    assert not is_written(tmp_path, 1, 1, 2)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    # What a killed run leaves is no recording, and does not end up in the next.
    left = recording_path(tmp_path, 1, 1, 2).with_name(".Action_02.part") / "audio"
    left.mkdir(parents=True)
    (left / "A_000099.npy").touch()
    write(tmp_path)
    assert is_written(tmp_path, 1, 1, 2)
    assert read_actions(tmp_path)[1] == ()


def test_a_recording_that_is_there_is_not_written_over(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=r"Action_02: is there already; expected .*: delete it"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("image", "samples", "picture"),
    [
        ((35, 48, 12), (1024, 5), (48, 64, 3)),
        ((36, 48, 12), (1000, 5), (48, 64, 3)),
        ((36, 48, 12), (1024, 128), (48, 64, 3)),
        ((36, 48, 12), (1024, 5), (24, 32, 3)),
        ((36, 48, 12), (1024, 5), (48, 64)),
    ],
)
def test_frames_of_other_shapes(tmp_path, image, samples, picture):
    shapes = ((image, np.float32), (samples, np.float32), (picture, np.uint8))
    arrays = [np.zeros(shape, dtype) for shape, dtype in shapes]
    with RecordingWriter(tmp_path, SETTINGS, 1, 1, 2) as writer:
        writer.write(*frame(1))
        with pytest.raises(
            InputError, match=r"Action_02: frame 2 has shapes .*; expected \(\(36, 48, 12\)"
        ):
            writer.write(*arrays)


def test_a_first_picture_without_colours(tmp_path):
    with (
        pytest.raises(InputError, match=r"frame 1 has shapes .*\(height, width, 3\)"),
        RecordingWriter(tmp_path, SETTINGS, 1, 1, 2) as writer,
    ):
        writer.write(*frame(1)[:2], np.zeros((48, 64), np.uint8))


@pytest.mark.parametrize("numbers", [(2, 1, 1), (1, 1, 3), (1, 0, 1)])
def test_numbers_that_have_no_name(tmp_path, numbers):
    with pytest.raises(InputError, match=r"expected numbers from 1 that the set has names for"):
        RecordingWriter(tmp_path, SETTINGS, *numbers)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "Location_01").write_text("in the way")
    with pytest.raises(InputError, match=r"Action_02: cannot be written .*free some space"):
        write(tmp_path)


def test_settings_are_kept(tmp_path):
    settings = replace(SETTINGS, broken_microphones=(2, 4), name="Außen")
    write_settings(tmp_path / "new", settings)
    write(tmp_path / "new")
    assert read_actions(tmp_path / "new")[0].settings == settings
