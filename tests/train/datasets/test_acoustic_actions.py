"""The acoustic-image action set: recordings of three kinds of files, as published."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.io import savemat

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import (
    ACTIONS,
    LOCATIONS,
    ActionSettings,
    list_actions,
    read_actions,
    read_settings,
)


@pytest.fixture
def folder(layouts, tmp_path):
    return layouts.write_actions(tmp_path / "set")


def lines(folder):
    return [problem.line() for problem in read_actions(folder)[1]]


def test_what_is_known_of_the_published_set(tmp_path):
    settings = read_settings(tmp_path)
    assert settings == ActionSettings()
    assert len(ACTIONS) == len(set(ACTIONS.values())) == 14
    # From the authors' readme.
    assert (ACTIONS[1], ACTIONS[9], ACTIONS[14]) == ("clapping", "hammering", "stick dropping")
    assert LOCATIONS == {1: "anechoic chamber", 2: "open space office", 3: "outdoor terrace"}
    good = settings.good_microphones()
    assert len(good) == 126
    assert not {79, 105} & set(good)


def test_recordings_in_order(folder):
    actions, problems = read_actions(folder)
    assert problems == ()
    assert [recording.id for recording in actions.recordings] == [
        "Location_01/Subject_01/Action_01",
        "Location_02/Subject_01/Action_03",
    ]
    assert [recording.n_frames for recording in actions.recordings] == [3, 3]
    assert actions.recordings[0].seconds == 0.25


def test_the_same_as_clips(folder):
    media = list_actions(folder).media
    assert (media.name, media.labels) == ("tiny", ("clap", "speak"))
    assert media.splits() == ("anechoic", "office")
    clip = media.clips[1]
    assert (clip.labels, clip.location, clip.subject) == (("speak",), "office", "01")
    assert clip.has("audio", "video", "images")
    assert clip.images == folder / clip.id / "MFCC_Image"


def test_frames_are_loaded(folder, layouts):
    actions, _ = read_actions(folder)
    recording = actions.recordings[1]
    frames = [layouts.action_frame(2, 1, 3, number) for number in (1, 2, 3)]
    images = recording.load_images()
    assert (images.shape, images.dtype) == ((3, 36, 48, 12), np.float32)
    assert_array_equal(images, [image for image, _, _ in frames])
    sound = recording.load_audio(settings=actions.settings)
    assert (sound.shape, sound.dtype) == ((3 * 1024, 4), np.float32)
    stored = np.concatenate([block for _, block, _ in frames], axis=1)
    assert_allclose(sound.T, stored / 2.0**31, atol=1e-7)
    pictures = recording.load_pictures()
    assert (pictures.shape, pictures.dtype) == ((3, 48, 64, 3), np.uint8)
    assert_allclose(
        pictures.mean(axis=(1, 2, 3)), [layouts.grey_level(i) for i in (1, 2, 3)], atol=1
    )
    assert recording.load_pictures(size=(6, 8)).shape == (3, 6, 8, 3)


def test_part_of_the_frames_and_of_the_microphones(folder):
    actions, _ = read_actions(folder)
    recording, settings = actions.recordings[0], actions.settings
    assert_array_equal(recording.load_images(1, 2), recording.load_images()[1:])
    whole = recording.load_audio(settings=settings)
    assert_array_equal(recording.load_audio(2, 1, [2, 0], settings), whole[2048:][:, [2, 0]])
    assert recording.load_pictures(0, 1).shape[0] == 1


@pytest.mark.parametrize(("microphone", "found"), [(3, "broken"), (4, "not there")])
def test_a_microphone_that_hears_nothing(folder, microphone, found):
    actions, _ = read_actions(folder)
    with pytest.raises(
        InputError,
        match=rf"microphone {microphone} is {found}; expected one of 0 to 3, and none of \[3\]",
    ):
        actions.recordings[0].load_audio(0, 1, [0, microphone], actions.settings)


@pytest.mark.parametrize(("first", "n"), [(-1, 2), (0, 4), (3, 1), (1, 0)])
def test_frames_that_are_not_there(folder, first, n):
    recording = read_actions(folder)[0].recordings[0]
    with pytest.raises(InputError, match=r"Action_01: frames .* expected a part of the 3 that are"):
        recording.load_images(first, n)


def test_the_set_as_it_is_downloaded(layouts, tmp_path):
    """Two trees, subjects by number and name, actions counted from 0."""
    made = layouts.write_actions(tmp_path / "made", settings=False)
    raw = tmp_path / "raw"
    for tree, kinds in (("matfiles", ("MFCC_Image",)), ("sync", ("audio", "video"))):
        place = raw / tree / "Location_2" / "01_anna" / "data_002"
        place.mkdir(parents=True)
        for kind in kinds:
            (made / "Location_02/Subject_01/Action_03" / kind).rename(place / kind)
    actions, problems = read_actions(raw)
    assert problems == ()
    (recording,) = actions.recordings
    assert recording.id == "Location_02/Subject_01/Action_03"
    assert actions.media().clips[0].labels == ("speaking",)
    assert recording.load_images(0, 1).shape == (1, 36, 48, 12)
    assert recording.load_pictures().shape[0] == 3


def test_numbers_may_have_any_number_of_digits(folder):
    (folder / "Location_01").rename(folder / "Location_1")
    (folder / "Location_1/Subject_01/Action_01").rename(folder / "Location_1/Subject_01/Action_001")
    assert [recording.location for recording in read_actions(folder)[0].recordings] == [1, 2]


def test_all_that_is_missing_is_listed(folder, layouts):
    first = folder / "Location_01/Subject_01/Action_01"
    second = folder / "Location_02/Subject_01/Action_03"
    (first / "video" / "I_000002.jpeg").unlink()
    (first / "audio" / "A_000003.npy").unlink()
    for path in (second / "MFCC_Image").iterdir():
        path.unlink()
    (second / "MFCC_Image").rmdir()
    layouts.write_actions(folder, [(1, 2, 2), (3, 1, 1)], settings=False)
    layouts.write_actions(folder, [(1, 2, 1)], settings=False)
    for path in (folder / "Location_01/Subject_02/Action_01/audio").iterdir():
        path.unlink()
    again = "copy the recording again"
    assert lines(folder) == [
        f"{first}/video: I_000002.jpeg is missing, of 3; expected files numbered from 1 without a "
        f"gap: {again}; frames from there on are left out",
        f"{first}: MFCC_Image 3, audio 2, video 3 frames; expected the same number of each: "
        f"{again}; the frames that all have are used",
        f"{folder}/Location_01/Subject_02/Action_01/audio: is empty; expected A_000001.npy: "
        f"{again}",
        f"{folder}/Location_01/Subject_02/Action_01: MFCC_Image 3, audio 0, video 3 frames; "
        f"expected the same number of each: {again}; the frames that all have are used",
        f"{folder}/Location_01/Subject_02/Action_02: action 2; expected one of 1 to 3: name it in "
        "actions.json, or take the folder away",
        f"{second}: has no MFCC_Image; expected a folder MFCC_Image: {again}",
        f"{folder}/Location_03/Subject_01/Action_01: location 3; expected one of 1 to 2: name it "
        "in actions.json, or take the folder away",
    ]
    actions, _ = read_actions(folder)
    assert [(r.id[-9:], r.n_frames) for r in actions.recordings] == [
        ("Action_01", 1),
        ("Action_01", 0),
        ("Action_03", 3),
    ]
    assert actions.media().clips[2].images is None
    with pytest.raises(InputError, match=r"Action_03: has no acoustic images; expected a folder"):
        actions.recordings[2].load_images()


def test_a_broken_file_is_named(folder):
    recording = read_actions(folder)[0].recordings[0]
    savemat(recording.images / "Data_2.mat", {"MFCC": np.zeros((40, 48, 12))})
    with pytest.raises(InputError, match=r"Data_2\.mat: an acoustic image of 40 x 48 x 12"):
        recording.load_images()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "Expecting property name"),
        ('{"schema": "soundpost.actions/9"}', "schema 'soundpost.actions/9'"),
        ('{"schema": "soundpost.actions/1", "name": "a"}', "'actions'"),
        ("[]", "list indices"),
    ],
)
def test_settings_that_are_none(folder, text, found):
    (folder / "actions.json").write_text(text)
    with pytest.raises(InputError, match=rf"actions\.json: cannot be used \({found}.*write it aga"):
        read_actions(folder)


def test_a_folder_without_recordings(tmp_path):
    with pytest.raises(InputError, match=r"has no recordings; expected Location_01/Subject_01"):
        read_actions(tmp_path)
    with pytest.raises(InputError, match=r"away: no such folder; give the one that holds"):
        read_actions(tmp_path / "away")
