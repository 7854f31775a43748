"""Pictures of single things: in their places, the same each time, gone on with after a kill."""

import numpy as np
import pytest

from soundpost.device.errors import ConfigError, InputError
from soundpost.train.datasets.action_files import read_picture
from soundpost.train.datasets.object_pictures import PictureSetSettings, write_object_pictures
from soundpost.train.datasets.picture_folders import read_picture_folders

SMALL = PictureSetSettings(train=2, validation=1, height_px=96, names=("car", "clock", "dog"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures") / "set"
    assert write_object_pictures(SMALL, out, quiet=True) == {"train": 6, "validation": 3}
    return out


def test_the_usual_reader_finds_them(made):
    listing = read_picture_folders(made)
    assert listing.problems == ()
    media = listing.media
    assert media.labels == ("car", "clock", "dog")
    assert [clip.id for clip in media.of("validation").clips] == [
        "validation/car/000", "validation/clock/000", "validation/dog/000"
    ]  # fmt: skip
    assert all(clip.labels == (clip.id.split("/")[1],) for clip in media.clips)
    pictures = np.stack([read_picture(clip.video) for clip in media.clips])
    assert pictures.shape == (9, 96, 128, 3)
    # All of one number stand before one background; what differs is the thing and the clutter.
    first = [read_picture(made / f"train/{name}/000.jpeg").astype(int) for name in media.labels]
    second = read_picture(made / "train/car/001.jpeg").astype(int)
    near = np.abs(first[0] - first[1]).mean()
    assert 0 < near < np.abs(first[0] - second).mean() / 2


def test_what_is_missing_is_made_again_and_no_more(made, tmp_path):
    before = {path: path.read_bytes() for path in made.rglob("*.jpeg")}
    gone = made / "train" / "dog" / "001.jpeg"
    gone.unlink()
    kept = {path: path.stat().st_mtime_ns for path in before if path != gone}
    write_object_pictures(SMALL, made, quiet=True)
    assert {path: path.read_bytes() for path in made.rglob("*.jpeg")} == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with pytest.raises(InputError, match=r"made with another settings\.seed"):
        write_object_pictures(PictureSetSettings(1, 2, 1, 96, SMALL.names), made, quiet=True)


def test_a_folder_that_is_none_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="has no folder train; expected train/NAME"):
        read_picture_folders(tmp_path)
    (tmp_path / "train" / "dog").mkdir(parents=True)
    with pytest.raises(InputError, match="has 1 folders; expected one for each name"):
        read_picture_folders(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    (tmp_path / "validation" / "cow").mkdir(parents=True)
    problem = read_picture_folders(tmp_path).problems[0].line()
    assert "pictures of cow; expected a name that train has" in problem
    with pytest.raises(ConfigError, match="train is 0; expected 1 or more"):
        PictureSetSettings(train=0)
