"""Soft labels of random windows are what resampling gives, for a whole batch at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.augment import draw_windows, make_bank
from soundpost.train.clips import pack
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
from soundpost.train.multimodal.soft_labels import SoftLabelEnsemble, SoftLabelStore
from soundpost.train.multimodal.soft_timeline import soft_timeline

RATE = 16_000
LABELS = ("a", "b")


def write(folder, clips, window_s=None, teacher="0"):
    """clips : id to (scores, start_s, hop_s)."""
    with SoftLabelWriter(folder, Teacher("t", teacher * 64), LABELS) as writer:
        for clip_id, (scores, start_s, hop_s) in clips.items():
            writer.add(clip_id, np.asarray(scores, np.float32), start_s, hop_s, window_s)
    return SoftLabelStore(folder)


def timeline(soft, ids, seconds, window=RATE, columns=(0, 1), n_labels=2):
    lengths = np.array([round(s * RATE) for s in seconds], np.int64)
    return soft_timeline(soft, ids, lengths, np.array(columns), n_labels, RATE, window)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Rows every 0.25 s of 1 s windows; one row for all of each clip; three seconds and four."""
    folder = tmp_path_factory.mktemp("soft")
    rng = np.random.default_rng(0)
    fine = {"x": (rng.random((9, 2)), 0.0, 0.25), "y": (rng.random((13, 2)), 0.0, 0.25)}
    coarse = {"x": (rng.random((1, 2)), 0.0, 3.0), "y": (rng.random((2, 2)), 0.0, 2.0)}
    return write(folder / "fine", fine, 1.0), write(folder / "coarse", coarse, None, "1")


@settings(max_examples=40)
@given(
    which=st.sampled_from(["fine", "coarse", "both"]),
    clip=st.integers(0, 1),
    begin=st.floats(-0.3, 2.0),
    length=st.floats(0.4, 1.3),
)
def test_a_span_is_what_resampling_gives(stores, which, clip, begin, length):
    soft = SoftLabelEnsemble(stores) if which == "both" else stores[which == "coarse"]
    found = timeline(soft, ["x", "y"], [3.0, 4.0]).of_spans(
        torch.tensor([clip]),
        torch.tensor([begin * RATE]),
        torch.tensor([(begin + length) * RATE]),
    )
    expected = soft.on_spans("xy"[clip], np.array([[begin, begin + length]]))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


def test_two_rows_by_hand(tmp_path):
    store = write(tmp_path, {"x": ([[0.2, 0.0], [1.0, 0.5]], 0.0, 1.0)})
    # From 0.75 to 1.75 s: a quarter of the first second, three of the second.
    found = timeline(store, ["x"], [2.0]).of_spans(
        torch.tensor([0]), torch.tensor([0.75 * RATE]), torch.tensor([1.75 * RATE])
    )
    assert found[0].tolist() == pytest.approx([0.25 * 0.2 + 0.75 * 1.0, 0.75 * 0.5])


def test_labels_that_nobody_heard_of_are_zero(tmp_path):
    store = write(tmp_path, {"x": ([[0.2, 0.6]], 0.0, 1.0)})
    line = timeline(store, ["x"], [1.0], columns=(2, 0), n_labels=3)
    found = line.of_spans(torch.tensor([0]), torch.tensor([0.0]), torch.tensor([RATE / 2]))
    assert found[0].tolist() == pytest.approx([0.6, 0.0, 0.2])


def test_windows_get_the_soft_labels_of_where_they_lie(tmp_path):
    # The soft label is the time: 0.0 in the first tenth of a second, 0.1 in the next ...
    steps = np.arange(40)[:, None] / 40 * [1.0, 0.5]
    store = write(tmp_path, {"x": (steps, 0.0, 0.1)})
    n = np.arange(4 * RATE)
    # So is the sound: a level that rises by the sample, which the first sample of a window shows.
    sound = (0.1 + 0.8 * n / len(n)).astype(np.float32)
    window = RATE
    bank = make_bank(pack([sound]), np.ones((1, 2), np.float32), window, 60.0)
    taught = type(bank)(
        *(getattr(bank, name) for name in bank.__dataclass_fields__ if name != "soft"),
        soft=timeline(store, ["x"], [4.0], window),
    )
    clips = torch.zeros(64, dtype=torch.long)
    samples, targets = draw_windows(taught, clips, 1.2, torch.Generator().manual_seed(1))
    assert targets.shape == (64, 4)
    inside = (samples != 0).all(1)
    assert int(inside.sum()) > 30
    middle = (samples[inside].mean(1) - 0.1) / 0.8 * 4.0
    # A step stands for its middle, 0.05 s after its begin.
    said = targets[inside, 2] * 4.0 + 0.05
    torch.testing.assert_close(said, middle, atol=2e-3, rtol=0)
    torch.testing.assert_close(targets[:, 3], targets[:, 2] / 2)
    # Nothing else is drawn than without soft labels.
    plain, hard = draw_windows(bank, clips, 1.2, torch.Generator().manual_seed(1))
    assert torch.equal(plain, samples)
    assert torch.equal(hard, targets[:, :2])


def test_a_quiet_window_is_taught_as_nothing(tmp_path):
    sound = np.zeros(5 * RATE, np.float32)
    sound[: RATE // 2] = 0.5
    store = write(tmp_path, {"x": ([[0.9, 0.1]], 0.0, 5.0)})
    bank = make_bank(pack([sound]), np.ones((1, 2), np.float32), RATE, 30.0)
    taught = type(bank)(
        *(getattr(bank, name) for name in bank.__dataclass_fields__ if name != "soft"),
        soft=timeline(store, ["x"], [5.0]),
    )
    clips = torch.zeros(300, dtype=torch.long)
    samples, targets = draw_windows(taught, clips, 1.0, torch.Generator().manual_seed(0))
    silent = samples.square().mean(1) == 0
    assert bool(silent.any())
    assert float(targets[silent].abs().max()) == 0.0
    assert targets[~silent, 2].tolist() == pytest.approx([0.9] * int((~silent).sum()), abs=1e-4)


def test_clips_without_soft_labels_are_counted(stores):
    with pytest.raises(InputError, match=r"2 of 3 clips have none, the first u; .*distil"):
        timeline(stores[0], ["x", "u", "v"], [3.0] * 3)


def test_a_clip_that_was_heard_in_part_is_refused(stores):
    # Windows of 1 s at the end of 8 s lie behind the 4 s that were heard.
    with pytest.raises(InputError, match=r"clip y: cover 0.000 to 4.000 s of its 8.000 s"):
        timeline(stores[0], ["y"], [8.0])


def test_an_ensemble_that_shares_no_time_is_refused(tmp_path):
    first = write(tmp_path / "1", {"x": ([[0.1, 0.1]], 0.0, 1.0)})
    second = write(tmp_path / "2", {"x": ([[0.1, 0.1]], 2.0, 1.0)}, None, "1")
    with pytest.raises(InputError, match="its teachers heard no time in common"):
        SoftLabelEnsemble([first, second]).edges("x")
