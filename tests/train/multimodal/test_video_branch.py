"""From pictures to events: colours that networks tell apart, objects, names and words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from soundpost.device.errors import InputError
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.fusion_recipe import VideoSettings
from soundpost.train.multimodal.tagging_features import VisualInput
from soundpost.train.multimodal.video_branch import (
    VideoBranch,
    frame_numbers,
    frame_objects,
    object_names,
    open_branch,
    open_mapping,
    open_objects,
    read_object_names,
    video_scores,
)

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
OBJECTS = ("fire engine", "lawn", "lake, pond")
EVENTS = ("Fire engine, fire truck (siren)", "water", "grass")
# Words that go together point the same way.
WORDS = {
    "fire": (1, 0, 0), "engine": (1, 0.1, 0), "truck": (0.9, 0.2, 0), "siren": (0.8, 0.3, 0),
    "lawn": (0, 1, 0.1), "grass": (0, 1, 0),
    "lake": (0, 0.1, 1), "pond": (0.1, 0, 1), "water": (0, 0, 1),
}  # fmt: skip


class Colours(nn.Module):
    """Scores are ten times a picture's mean red, green and blue; its vector is these three."""

    embedding_size = 3

    def embed(self, frames):
        return frames.mean((2, 3))

    def forward(self, frames):
        return 10.0 * self.embed(frames)


def seen(scores, per_second=10.0, names=()):
    return VisualInput(FrozenBackbone(Colours(), names=names), per_second, scores)


@pytest.fixture
def branch():
    return VideoBranch(seen(scores=False), seen(scores=True), 2)


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"{w} {' '.join(map(str, v))}\n" for w, v in WORDS.items()))
    return path


def pictures(*colours):
    return np.stack([np.full((48, 64, 3), colour, np.uint8) for colour in colours])


def test_key_frames_are_one_of_each_kind(branch):
    # Two shots: any frame of each represents it all.
    row = branch.look(pictures(*[RED] * 5, *[BLUE] * 3))
    assert row.shape == (2, 4)
    numbers = frame_numbers(row)
    assert numbers[0] < 5 <= numbers[1]
    objects = frame_objects(row)
    assert_allclose(objects.sum(1), 1.0, rtol=1e-6)
    assert_array_equal(objects.argmax(1), [0, 2])


def test_objects_are_the_softmax_of_the_scores_of_the_key_frames(branch):
    frames = pictures(RED, GREEN)
    expected = branch.objects.backbone.scores(frames).softmax(1).numpy()
    assert_allclose(frame_objects(branch.look(frames)), expected, rtol=1e-6)


def test_red_pictures_speak_for_the_fire_engine(branch, words):
    mapping, _ = open_mapping(VideoSettings(word_vectors=str(words)), OBJECTS, EVENTS, quiet=True)
    assert mapping.event.tolist() == [0, 2, 1]
    rows = [branch.look(pictures(*colours)) for colours in ([RED], [BLUE, BLUE], [RED, BLUE])]
    scores = video_scores(rows, mapping, top=1)
    # One object in each frame: the clip's one is that of most, of two as frequent the first.
    assert_allclose(scores, [[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    both = video_scores(rows, mapping, top=2)
    assert_allclose(both[2], [0.5, 0.5, 0], atol=1e-3)
    assert both.dtype == np.float32
    assert both.max() <= 1.0


class Films:
    """Clips whose pictures are known; `read` counts."""

    def __init__(self, **of):
        self.of, self.read = of, []

    def sound(self, clip, rate_hz):
        raise AssertionError("nobody listens")

    def pictures(self, clip, per_second):
        self.read.append(clip.id)
        if self.of[clip.id] is None:
            raise InputError(f"{clip.id}: is damaged")
        return self.of[clip.id]


def clips_of(films, folder):
    clips = []
    for name in films.of:
        path = folder / f"{name}.mkv"
        path.touch()
        clips.append(MediaClip(name, path, path, (), "test"))
    return clips


def test_rows_are_kept_and_what_was_stopped_goes_on(branch, tmp_path):
    films = Films(**{f"c{n:02d}": pictures(RED, (n, 0, 0), BLUE) for n in range(20)})
    clips = clips_of(films, tmp_path)
    damaged = Films(**(films.of | {"c18": None}))
    with pytest.raises(InputError, match="c18: is damaged"):
        open_objects(clips, damaged, branch, 1.0, tmp_path / "rows", quiet=True)
    rows = open_objects(clips, films, branch, 1.0, tmp_path / "rows", quiet=True)
    # Sixteen rows in a file: the first were whole.
    assert films.read == [f"c{n:02d}" for n in range(16, 20)]
    for clip, row in zip(clips, rows, strict=True):
        assert_array_equal(row, branch.look(films.of[clip.id]))
    films.read.clear()
    open_objects(clips, films, branch, 1.0, tmp_path / "rows", quiet=True)
    assert films.read == []
    # Other key frames are other rows.
    open_objects(
        clips, films, VideoBranch(branch.features, branch.objects, 1), 1.0, tmp_path / "rows",
        quiet=True,
    )  # fmt: skip
    assert len(films.read) == 20


def test_damaged_clips_have_empty_rows_if_asked(branch, tmp_path, caplog):
    films = Films(good=pictures(RED), bad=None)
    rows = open_objects(
        clips_of(films, tmp_path), films, branch, 1.0, tmp_path / "rows", skip=True, quiet=True
    )
    assert rows.lengths().tolist() == [1, 0]
    assert "bad: left out: bad: is damaged" in caplog.text


def test_only_the_first_seconds_are_looked_at(branch):
    frames = pictures(*[RED] * 10, *[BLUE] * 10)
    assert (frame_numbers(branch.looked(frames, 1.0)) < 10).all()


# ---------------------------------------------------------------------------------- names


def test_imagenets_names_come_with_ids(tmp_path):
    path = tmp_path / "synset_words.txt"
    path.write_text("n01440764 tench, Tinca tinca\nn02123045\ttabby, tabby cat\nplain name\n")
    assert read_object_names(path) == ["tench, Tinca tinca", "tabby, tabby cat", "plain name"]


def test_names_that_come_with_the_network_need_no_file():
    settings = VideoSettings(objects="runs/eye")
    assert object_names(settings, seen(True, names=OBJECTS), EVENTS) == list(OBJECTS)


def test_a_stubs_objects_are_called_like_the_events():
    stub = VisualInput(FrozenBackbone(StubBackbone(n_classes=5)), 1.0, scores=True)
    names = object_names(VideoSettings(objects="stub"), stub, EVENTS)
    assert names == [EVENTS[i % 3] for i in range(5)]


def test_a_file_of_names_must_fit(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("one\ntwo\n")
    settings = VideoSettings(objects="stub", object_names=str(path))
    with pytest.raises(InputError, match=r"names.txt: has 2 names, but stub recognises 3 objects"):
        object_names(settings, seen(True), EVENTS)
    path.write_text("one\n\nthree\n")
    with pytest.raises(InputError, match=r"names.txt: line 2: is empty"):
        object_names(settings, seen(True), EVENTS)


def test_missing_files_say_which_and_whence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "soundpost" / "weights"
    with pytest.raises(InputError) as error:
        object_names(VideoSettings(), seen(True), EVENTS)
    line = str(error.value)
    assert line.startswith(f"{cache / 'synset_words.txt'}: names of objects cannot be read")
    assert "caffe_ilsvrc12.tar.gz" in line
    with pytest.raises(InputError) as error:
        open_mapping(VideoSettings(), OBJECTS, EVENTS, quiet=True)
    line = str(error.value)
    assert line.startswith(f"{cache / 'glove.840B.300d.txt'}: no such file")
    assert "sha256 c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f" in line
    assert "https://nlp.stanford.edu" in line
    with pytest.raises(InputError, match=r"^alexnet: no weights at .*7be5be791159472b.*https://"):
        open_branch(VideoSettings(), torch.device("cpu"), quiet=True)
    with pytest.raises(InputError, match=r"^inception_v4: no weights at .*a756a086851c8d5a"):
        open_branch(VideoSettings(features="stub"), torch.device("cpu"), quiet=True)


def test_other_vectors_of_the_same_words_are_told_apart(words, tmp_path):
    settings = VideoSettings(word_vectors=str(words))
    _, first = open_mapping(settings, OBJECTS, EVENTS, quiet=True)
    _, again = open_mapping(settings, OBJECTS, EVENTS, quiet=True)
    Path(words).write_text(words.read_text().replace("lawn 0 1 0.1", "lawn 0 1 0.2"))
    _, other = open_mapping(settings, OBJECTS, EVENTS, quiet=True)
    assert first == again != other
