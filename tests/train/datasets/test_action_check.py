"""A look into the files of the action set finds every broken one."""

import numpy as np
import pytest
from scipy.io import savemat

from soundpost.train.datasets.acoustic_actions import read_actions
from soundpost.train.datasets.action_check import check_action_files


@pytest.fixture
def folder(layouts, tmp_path):
    return layouts.write_actions(tmp_path / "set", n_frames=4)


def lines(folder, **more):
    actions, problems = read_actions(folder)
    assert problems == ()
    return [problem.line() for problem in check_action_files(actions, quiet=True, **more)]


def test_a_set_in_order(folder):
    assert lines(folder) == lines(folder, thorough=True) == []


def test_all_broken_files_are_listed(folder, layouts):
    first = folder / "Location_01/Subject_01/Action_01"
    savemat(first / "MFCC_Image" / "Data_1.mat", {"image": np.zeros(3)})
    np.save(first / "audio" / "A_000004.npy", np.zeros((4, 512), np.int32))
    (first / "video" / "I_000004.jpeg").write_bytes(b"")
    second = folder / "Location_02/Subject_01/Action_03"
    layouts.write_jpeg(second / "video" / "I_000004.jpeg", np.zeros((24, 32, 3), np.uint8))
    assert lines(folder) == [
        f"{first}/MFCC_Image/Data_1.mat: holds image; expected numbers under the key MFCC: make it "
        "again",
        f"{first}/audio/A_000004.npy: holds 4 x 512; expected 4 microphones x 1024 samples: copy "
        "it again",
        f"{first}/video/I_000004.jpeg: cannot be read (no picture in it); expected a file of the "
        "set: copy it again",
        f"{second}/video/I_000004.jpeg: is 24 x 32 pixels; expected 48 x 64, as the recording's "
        "first: copy it again",
    ]


def test_frames_in_between_take_a_thorough_look(folder):
    path = folder / "Location_01/Subject_01/Action_01/audio/A_000002.npy"
    path.write_bytes(path.read_bytes()[:5_000])
    assert lines(folder) == []
    (line,) = lines(folder, thorough=True)
    assert line.startswith(f"{path}: cannot be read (not an array: ")
