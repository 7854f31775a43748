"""Recordings in DESED's layout as a set like the others."""

import numpy as np
import pytest
import soundfile

from soundpost.device.errors import InputError
from soundpost.train.datasets.scene_folders import list_scenes

TABLES = {
    "metadata/train/synthetic.tsv": "filename\tonset\toffset\tevent_label\na.wav\t0.1\t0.4\tdog\n",
    "metadata/train/weak.tsv": "filename\tevent_labels\na.wav\tcat,dog\ngone.wav\tdog\n",
    "metadata/train/unlabel_in_domain.tsv": "filename\nb.wav\n",
    "metadata/validation/validation.tsv": (
        "filename\tonset\toffset\tevent_label\nv.wav\t0.2\t0.5\tcat\n"
    ),
}
SOUNDS_S = {
    "train/synthetic/a.wav": 1.0,
    "train/weak/a.wav": 0.6,
    "train/unlabel_in_domain/b.wav": 2.5,
    "validation/v.wav": 1.0,
}


@pytest.fixture
def folder(tmp_path):
    for name, text in TABLES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, seconds in SOUNDS_S.items():
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(round(16_000 * seconds)), 16_000)
    return tmp_path


def test_recordings_are_known_by_their_place(folder):
    # Two are called a.wav, one file is gone, and lengths are what they are.
    media = list_scenes(folder).media
    assert media.labels == ("cat", "dog")
    assert {clip.id: clip.seconds for clip in media.clips} == {
        f"audio/{name}": seconds for name, seconds in SOUNDS_S.items()
    }
    assert all(clip.audio == folder / clip.id for clip in media.clips)
    found = {clip.id: (clip.split, clip.labels, clip.labelled) for clip in media.clips}
    assert found["audio/train/synthetic/a.wav"] == ("train", ("dog",), True)
    assert found["audio/train/weak/a.wav"] == ("train", ("cat", "dog"), True)
    assert found["audio/train/unlabel_in_domain/b.wav"] == ("train", (), False)
    assert found["audio/validation/v.wav"] == ("validation", ("cat",), True)


def test_a_folder_of_another_layout_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no folder metadata; expected DESED's layout"):
        list_scenes(tmp_path)
