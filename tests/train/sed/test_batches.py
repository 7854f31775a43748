"""Batches: the ratio, the order that a resumed run meets again, labels that move with the sound."""

import threading
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.sed.batches import Batches, BatchSettings, in_order, prefetch
from soundpost.train.sed.feature_cache import FeatureCache, encode
from soundpost.train.sed.scenes import Event, Scene, SceneSet

FRONT_END = FrontEnd()
N_FRAMES, N_STRONG, N_WEAK, N_UNLABELLED = 198, 5, 7, 18
LABELS = ("cat", "dog")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Recordings in which band 0 is high where the label's event stands, and nowhere else."""
    folder = tmp_path_factory.mktemp("set")
    scenes = []
    values = np.full((N_STRONG + N_WEAK + N_UNLABELLED, N_FRAMES, 64), -6.0, np.float32)
    for i in range(len(values)):
        values[i, :, 1] = i / 10
        kind = ("strong", "weak", "unlabelled")[(i >= N_STRONG) + (i >= N_STRONG + N_WEAK)]
        label = LABELS[i % 2]
        events, tags = (), frozenset()
        if kind == "strong":
            events = (Event(label, 0.2 + i / 10, 0.5 + i / 10),)
            # Centres from 0.2 on: frame 19 is centred at 0.2025.
            values[i, 19 + 10 * i : 49 + 10 * i, 0] = 3.0
        if kind != "unlabelled":
            tags = frozenset({label})
        scenes.append(Scene(folder / f"{i}.flac", kind, 2.0, events, tags))
    return FeatureCache(
        SceneSet(folder, tuple(scenes), LABELS), FRONT_END, encode(values, FRONT_END)
    )


def same(one, other):
    names = ("log_mel", "frame_targets", "clip_targets", "has_frames", "has_tags")
    return one.paths == other.paths and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in names
    )


def test_a_batch_holds_each_kind_by_the_ratio(features):
    settings = BatchSettings(strong=2, weak=1, unlabelled=3)
    batches = Batches(features, settings)
    assert batches.n_batches == 5  # 30 recordings, 6 in a batch
    for batch in batches.epoch(0):
        assert batch.has_frames.tolist() == [True] * 2 + [False] * 4
        assert batch.has_tags.tolist() == [True] * 3 + [False] * 3
        assert batch.log_mel.shape == (6, N_FRAMES, 64)
        assert batch.frame_targets[2:].abs().sum() == 0
        assert batch.clip_targets[3:].abs().sum() == 0
        assert batch.clip_targets[:3].sum(1).tolist() == [1, 1, 1]
        # Of a strong one, the frames that hold the event have its label, and the clip too.
        heard = batch.log_mel[:2, :, 0] > 0
        assert torch.equal(batch.frame_targets[:2].sum(2) > 0, heard)
        assert torch.equal(batch.frame_targets[:2].amax(1), batch.clip_targets[:2])


def test_a_kind_goes_round_before_one_comes_again(features):
    batches = Batches(features, BatchSettings(strong=2, weak=1, unlabelled=3), 4)
    drawn = [i for epoch in range(7) for n in range(5) for i in batches.indices(epoch, n)]
    counts = Counter(drawn)
    for first, n, wanted in ((0, 5, 2), (5, 7, 1), (12, 18, 3)):
        of_kind = [counts[i] for i in range(first, first + n)]
        assert sum(of_kind) == 7 * 5 * wanted
        assert max(of_kind) - min(of_kind) <= 1
        one_cycle = [i for i in drawn if first <= i < first + n][:n]
        assert sorted(one_cycle) == list(range(first, first + n))


@settings(max_examples=12)
@given(st.integers(0, 1_000), st.integers(0, 50))
def test_a_resumed_run_meets_the_same_batches(features, seed, epoch):
    settings = BatchSettings(2, 2, 2, shift_s=0.5, mix_probability=0.5)
    whole = Batches(features, settings, seed)
    for before in range(epoch):
        whole.indices(before, 0)
    resumed = Batches(features, settings, seed)
    for batch, again in zip(islice(whole.epoch(epoch), 2), resumed.epoch(epoch), strict=False):
        assert same(batch, again)
    other = Batches(features, BatchSettings(2, 2, 2), seed + 1)
    drawn = [[b.indices(epoch, n).tolist() for n in range(5)] for b in (whole, other)]
    assert drawn[0] != drawn[1]


@settings(max_examples=25)
@given(st.integers(0, 100))
def test_labels_move_with_the_sound(features, seed):
    """Shifted and mixed in any way, band 0 is high exactly where some label's frame is one."""
    settings = BatchSettings(4, 2, 2, shift_s=1.9, mix_probability=0.7)
    batches = Batches(features, settings, seed)
    batch = batches.batch(0, 0)
    heard = batch.log_mel[:4, :, 0] > 0
    assert torch.equal(batch.frame_targets[:4].sum(2) > 0, heard)
    assert torch.equal(batch.frame_targets[:4].amax(1), batch.clip_targets[:4])
    assert batch.frame_targets[4:].abs().sum() == 0


@settings(max_examples=15)
@given(st.integers(0, 100))
def test_a_teachers_word_moves_with_the_sound(features, seed):
    """A teacher who is right of the strong recordings stays right, shifted and mixed in any way."""
    teacher = np.zeros((len(features.codes), N_FRAMES, len(LABELS)), np.float16)
    for batch_of_one, row in zip(in_order(features, 1), teacher, strict=True):
        row[:] = batch_of_one.frame_targets[0].numpy()
    settings = BatchSettings(4, 2, 2, shift_s=1.9, mix_probability=0.7)
    batch = Batches(features, settings, seed, teacher).batch(0, 0)
    assert torch.equal(batch.teacher, batch.frame_targets)
    assert batch.teacher[:4].sum() > 0
    assert Batches(features, settings, seed).batch(0, 0).teacher is None


def test_both_variations_happen(features):
    plain = BatchSettings(4, 2, 2)
    shifted = Batches(features, BatchSettings(4, 2, 2, shift_s=1.9)).batch(0, 0)
    mixed = Batches(features, BatchSettings(4, 2, 2, mix_probability=1.0)).batch(0, 0)
    before = Batches(features, plain).batch(0, 0)
    assert shifted.paths == mixed.paths == before.paths
    assert not torch.equal(shifted.frame_targets, before.frame_targets)
    assert torch.equal(shifted.clip_targets, before.clip_targets)
    assert mixed.frame_targets.sum() > before.frame_targets.sum()
    # Unlabelled ones are left as they are: nothing says what would be mixed.
    assert torch.equal(mixed.log_mel[6:], before.log_mel[6:])


def test_mixing_adds_magnitudes(features):
    """-6 and -6: log(2 e^-6 - 0.001), worked out as -5.5316 with the offset taken off once."""
    settings = BatchSettings(4, 2, 2, mix_probability=1.0)
    batch = Batches(features, settings).batch(0, 0)
    quiet = batch.log_mel[:6, :, 5]
    assert quiet.numpy() == pytest.approx(np.log(2 * np.exp(-6) - 0.001), abs=5e-4)


@pytest.mark.parametrize("size", [1, 7, 30, 64])
def test_in_order_gives_every_recording_once(features, size):
    batches = list(in_order(features, size))
    assert [path for batch in batches for path in batch.paths] == [
        scene.path for scene in features.scenes.scenes
    ]
    assert max(len(batch.log_mel) for batch in batches) == min(size, 30)
    first = torch.cat([batch.log_mel for batch in batches])[:, 0, 1]
    assert first.numpy() == pytest.approx(np.arange(30) / 10, abs=1e-4)


def test_a_kind_that_the_set_lacks(features):
    weak = tuple(scene for scene in features.scenes.scenes if scene.labelling == "weak")
    few = FeatureCache(
        SceneSet(features.scenes.folder, weak, LABELS), FRONT_END, features.codes[5:12]
    )
    with pytest.raises(ConfigError, match=r"batch.strong is 1: .* has no strong recordings"):
        Batches(few, BatchSettings(1, 1, 0))
    assert len(list(Batches(few, BatchSettings(0, 3, 0)).epoch(0))) == 3
    with pytest.raises(ConfigError, match=r"a labelled one at least"):
        BatchSettings(0, 0, 4)


def test_prefetching_keeps_order_and_errors_and_ends_its_thread():
    def items():
        yield from range(5)
        raise ValueError("sixth")

    made = prefetch(items())
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="sixth"):
        next(made)
    endless = prefetch(iter(int, 1))
    assert next(endless) == 0
    endless.close()
    assert not [t for t in threading.enumerate() if t.name == "batches"]
