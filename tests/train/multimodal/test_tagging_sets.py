"""Features of clips, sets of them, and batches that follow from their number alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.acoustic_inputs import LogMelInput, heard
from soundpost.train.multimodal.clip_media import read_media_set
from soundpost.train.multimodal.tagging_features import (
    VisualInput,
    band_statistics,
    open_heard,
    seen,
)
from soundpost.train.multimodal.tagging_sets import (
    TaggingBatches,
    open_tagging_set,
    require_media,
)

FRONT_END = FrontEnd()
HEARD = (LogMelInput(FRONT_END),)


@pytest.fixture(scope="module")
def visual():
    return VisualInput(FrozenBackbone(StubBackbone(12, 5)), frames_per_second=2.0)


@pytest.fixture(scope="module")
def training(vehicles, visual, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    read = read_media_set("dcase2017", Folders(vehicles))
    return open_tagging_set(
        read.clips, ["training"], read.media, HEARD, tiny.seconds, folder,
        visual=visual, quiet=True,
    )  # fmt: skip


def test_a_clip_is_cut_or_padded_with_silence():
    sound = np.random.default_rng(0).normal(size=20_000).astype(np.float32) * 0.1
    np.testing.assert_array_equal(heard(sound, FRONT_END, 1.0), log_mel(sound[:16_000], FRONT_END))
    padded = heard(sound[:8_000], FRONT_END, 1.0)
    assert padded.shape == (FRONT_END.frames_of(16_000), 64)
    # Silence: the logarithm of the offset.
    np.testing.assert_allclose(padded[-1], np.log(1e-3), atol=1e-4)


def test_the_last_picture_lasts(visual):
    pictures = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), np.uint8)
    vectors = seen(pictures, visual, 2.0)
    assert vectors.shape == (4, 12)
    expected = visual.backbone.embed(pictures).numpy()
    np.testing.assert_array_equal(vectors, expected[[0, 1, 1, 1]])
    # Of more pictures than the clip is long the first.
    np.testing.assert_array_equal(seen(pictures, visual, 0.5), expected[:1])


def test_scores_instead_of_embeddings(visual):
    scores = VisualInput(visual.backbone, 1.0, scores=True)
    assert (visual.size, scores.size) == (12, 5)


def test_a_set_has_what_its_clips_have(training, tiny):
    assert len(training.clips) == 16
    batch = training.batch([3, 0], see=True)
    assert batch.inputs.acoustic[0].shape == (2, FRONT_END.frames_of(16_000), 64)
    assert batch.inputs.visual.shape == (2, 2, 12)
    named = [
        {label for label, on in zip(training.labels, row, strict=True) if on}
        for row in batch.targets.tolist()
    ]
    assert named == [{"Bus"}, {"Car"}]
    assert training.batch([0], see=False).inputs.visual is None


def test_bands_are_those_of_all_frames(training):
    mean, deviation = band_statistics(training.sounds[0], training.sound_row)
    frames = np.concatenate([training.sounds[0][i].astype(np.float64) for i in range(16)])
    np.testing.assert_allclose(mean, frames.mean(0), atol=1e-4)
    np.testing.assert_allclose(deviation, frames.std(0), atol=1e-4)
    # Of many rows some, spread evenly: every fourth.
    some, _ = band_statistics(training.sounds[0], training.sound_row, at_most=4)
    frames = np.concatenate([training.sounds[0][i].astype(np.float64) for i in (0, 4, 8, 12)])
    np.testing.assert_allclose(some, frames.mean(0), atol=1e-4)


def test_a_batch_follows_from_seed_epoch_and_number(training):
    clips = np.arange(16)
    batches = TaggingBatches(training, clips, 5, seed=3, see=False)
    assert (batches.n_batches, batches.batch_size) == (3, 5)
    asked = {(e, n): batches.order.batch(e, n).tolist() for e in range(4) for n in range(3)}
    # In any order, in a process of its own.
    again = TaggingBatches(training, clips, 5, seed=3, see=False)
    for (epoch, number), numbers in reversed(asked.items()):
        assert again.order.batch(epoch, number).tolist() == numbers
    for epoch in range(4):
        assert len({clip for number in range(3) for clip in asked[epoch, number]}) == 15
    assert asked[0, 0] != asked[1, 0]
    other = TaggingBatches(training, clips, 5, seed=4, see=False)
    assert other.order.batch(0, 0).tolist() != asked[0, 0]


def test_few_clips_are_one_batch(training):
    batches = TaggingBatches(training, np.array([1, 2, 5]), 32, seed=0, see=True)
    assert (batches.n_batches, batches.batch_size) == (1, 3)
    assert sorted(batches.order.batch(7, 0).tolist()) == [1, 2, 5]
    torch.testing.assert_close(
        batches.batch(7, 0).targets, torch.from_numpy(training.targets[batches.order.batch(7, 0)])
    )
    with pytest.raises(InputError, match="1 clips; expected two or more"):
        TaggingBatches(training, np.array([1]), 32, seed=0, see=True)


def test_clips_without_pictures_are_judged_by_ear_alone(vehicles, visual, tiny, tmp_path):
    read = read_media_set("dcase2017", Folders(vehicles))
    found = open_tagging_set(
        read.clips, ["testing"], read.media, HEARD, tiny.seconds, tmp_path,
        visual=visual, quiet=True,
    )  # fmt: skip
    assert len(require_media(found, see=False, skip=False, where="testing")) == 8
    assert require_media(found, see=True, skip=True, where="testing").tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"has no video file; .* 4 of the 8 clips of testing: "):
        require_media(found, see=True, skip=False, where="testing")


def test_a_set_is_known_by_its_clips(training, vehicles, visual, tiny, tmp_path):
    read = read_media_set("dcase2017", Folders(vehicles))
    rest = (read.media, HEARD, tiny.seconds, tmp_path)
    again = open_tagging_set(read.clips, ["training"], *rest, visual=visual, quiet=True)
    assert again.digest() == training.digest()
    other = open_tagging_set(read.clips, ["testing"], *rest, visual=visual, quiet=True)
    assert other.digest() != training.digest()


def test_a_file_that_cannot_be_used_is_an_empty_row_if_asked(vehicles, tmp_path, caplog):
    read = read_media_set("dcase2017", Folders(vehicles))
    clips = list(read.clips.of("training").clips[:3])
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(clips[1].audio.read_bytes()[:200])
    clips[1] = replace(clips[1], audio=damaged)
    arguments = (clips, read.media, HEARD[0], 1.0, tmp_path / "rows")
    with pytest.raises(InputError, match=r"damaged\.mkv: "):
        open_heard(*arguments, quiet=True)
    rows = open_heard(*arguments, skip=True, quiet=True)
    assert (rows.lengths() > 0).tolist() == [True, False, True]
    assert f"{clips[1].id}: left out" in caplog.text
