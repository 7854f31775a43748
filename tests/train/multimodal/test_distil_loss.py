"""Both of the sensor's students learn from stored soft labels, and from a peer."""

from functools import partial
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import ConfigError, InputError
from soundpost.device.features import FrontEnd
from soundpost.train.augment import make_bank
from soundpost.train.clips import pack
from soundpost.train.log_mel import LogMel
from soundpost.train.loop import TrainingData, draw_batch, loss_of
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings
from soundpost.train.multimodal.distil_loss import (
    frame_distil_loss,
    frame_soft_labels,
    join_targets,
    mutual_student_losses,
    soft_window_loss,
    split_targets,
    window_distil_loss,
    window_soft_labels,
)
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
from soundpost.train.multimodal.soft_labels import SoftLabelStore
from soundpost.train.recipe import AugmentSettings, Recipe, TrainingSettings
from soundpost.train.sed.distil import DistilBatch, DistilSettings, distil, distil_loss
from soundpost.train.sed.frame_grid import frame_edges_s
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings

TEACHER = Teacher("t", "0" * 64)


def recipe_of(smoothing=0.0, softmax_weight=0.5):
    return Recipe(
        training=TrainingSettings(label_smoothing=smoothing, softmax_weight=softmax_weight)
    )


def logit(p):
    return log(p / (1 - p))


def test_the_window_loss_by_hand():
    # One window, two classes: y = (1, 0), soft (.75, .25), student p = (.5, .2); w = .25.
    logits = torch.tensor([[logit(0.5), logit(0.2)]])
    hard = -log(0.5) - log(0.8)
    soft = -(0.75 * log(0.5) + 0.25 * log(0.5)) - (0.25 * log(0.2) + 0.75 * log(0.8))
    # Softmax of (0, -ln 4): (4/5, 1/5). Shares are (1, 0) and (3/4, 1/4); soft labels add up to 1.
    hard += 0.5 * -log(0.8)
    soft += 0.5 * -(0.75 * log(0.8) + 0.25 * log(0.2))
    found = window_distil_loss(
        logits, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.75, 0.25]]), recipe_of(), 0.25
    )
    assert float(found) == pytest.approx(0.75 * hard + 0.25 * soft, abs=1e-6)


def test_the_temperature_by_hand():
    # T = 2: soft .9 has the logit ln 9, halved ln 3: 3/4. The student's logit 2 ln 2 is halved to
    # ln 2: p = 2/3. Four times the cross entropy.
    found = soft_window_loss(torch.tensor([[2 * log(2)]]), torch.tensor([[0.9]]), 0.0, 2.0)
    expected = -4 * (0.75 * log(2 / 3) + 0.25 * log(1 / 3))
    assert float(found) == pytest.approx(expected, abs=1e-5)
    # Shares of (.64, .16) at T = 2 are those of (.8, .4): 2/3, 1/3. Logits (2 ln 3, 0), halved:
    # softmax (3/4, 1/4). The soft labels add up to .8, which weighs the term.
    logits, soft = torch.tensor([[2 * log(3), 0.0]]), torch.tensor([[0.64, 0.16]])
    both, binary = (soft_window_loss(logits, soft, weight, 2.0) for weight in (1.0, 0.0))
    expected = -4 * 0.8 * (2 / 3 * log(3 / 4) + 1 / 3 * log(1 / 4))
    assert float(both - binary) == pytest.approx(expected, abs=1e-5)


@given(seed=st.integers(0, 10**6), softmax_weight=st.sampled_from([0.0, 0.5, 2.0]))
def test_at_temperature_1_soft_labels_count_as_labels_do(seed, softmax_weight):
    g = torch.Generator().manual_seed(seed)
    logits, soft = torch.randn(6, 5, generator=g), torch.rand(6, 5, generator=g)
    expected = loss_of(logits, soft, recipe_of(0.0, softmax_weight))
    torch.testing.assert_close(soft_window_loss(logits, soft, softmax_weight), expected)


def test_without_a_teacher_it_is_the_students_own_loss():
    torch.manual_seed(0)
    logits, soft = torch.randn(6, 5), torch.rand(6, 5)
    targets = (torch.rand(6, 5) < 0.3).float()
    recipe = recipe_of(0.05)
    expected = loss_of(logits, targets, recipe)
    torch.testing.assert_close(window_distil_loss(logits, targets, soft, recipe, 0.0), expected)


def test_a_certain_teacher_keeps_the_loss_finite():
    logits = torch.tensor([[3.0, -3.0]], requires_grad=True)
    for temperature in (1.0, 4.0):
        loss = soft_window_loss(logits, torch.tensor([[0.0, 1.0]]), 0.5, temperature)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("weight", "temperature"), [(1.1, 1.0), (-0.1, 1.0), (0.5, 0.0)])
def test_weights_outside_their_range_are_refused(weight, temperature):
    one = torch.zeros(1, 1)
    with pytest.raises(ConfigError, match="teacher_weight"):
        window_distil_loss(one, one, one, recipe_of(), weight, temperature)


def window_losses():
    torch.manual_seed(0)
    targets = (torch.rand(4, 3) < 0.5).float()
    return lambda logits, soft: window_distil_loss(logits, targets, soft, recipe_of(), 0.5)


def frame_losses():
    torch.manual_seed(0)
    frames = (torch.rand(4, 7, 3) < 0.5).float()
    batch = DistilBatch(
        torch.zeros(4, 7, 64), torch.zeros(4, 7, 3), frames, torch.tensor([True, False] * 2)
    )
    return partial(frame_distil_loss, batch=batch, teacher_weight=0.5)


@pytest.mark.parametrize(
    ("loss", "shape"), [(window_losses(), (4, 3)), (frame_losses(), (4, 7, 3))]
)
def test_in_mutual_learning_the_peer_is_a_constant_unless_asked(loss, shape):
    for stop in (True, False):
        student, teacher = (torch.randn(shape, requires_grad=True) for _ in range(2))
        for name, own, peer in (("student", student, teacher), ("teacher", teacher, student)):
            terms = mutual_student_losses(student, teacher, loss, stop_gradient=stop)
            of_own, of_peer = torch.autograd.grad(terms[name], (own, peer), allow_unused=True)
            assert of_own.abs().sum() > 0
            assert (of_peer is None) == stop
        assert float(terms["loss"].detach()) == pytest.approx(
            float((terms["student"] + terms["teacher"]).detach())
        )


def test_mutual_losses_are_those_of_soft_labels_from_the_peer():
    loss = window_losses()
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    terms = mutual_student_losses(student, teacher, loss)
    torch.testing.assert_close(terms["student"], loss(student, teacher.sigmoid()))
    torch.testing.assert_close(terms["teacher"], loss(teacher, student.sigmoid()))


def test_frames_have_the_streaming_students_own_loss():
    loss = frame_losses()
    batch = loss.keywords["batch"]
    logits, soft = torch.randn(4, 7, 3), torch.rand(4, 7, 3)
    own = DistilBatch(batch.log_mel, soft, batch.frame_targets, batch.has_frames)
    torch.testing.assert_close(loss(logits, soft), distil_loss(logits, own, 0.5))


@pytest.fixture
def store(tmp_path):
    """Clip "steps": 0.1 in the first second, 0.2 in the second, ... ; "tags": one row for 10 s."""
    with SoftLabelWriter(tmp_path / "soft", TEACHER, ("a", "b")) as writer:
        steps = np.arange(1, 11) / 10
        writer.add("steps", np.stack([steps, 1 - steps], 1), 0.0, 1.0)
        writer.add("tags", np.array([[0.3, 0.6]]), 0.0, 10.0)
    return SoftLabelStore(tmp_path / "soft")


def test_soft_labels_of_windows(store):
    # 0.5 to 1.5 s: half a second of .1 and of .2. Windows of one clip need not stand together.
    clips = ["steps", "tags", "steps"]
    found = window_soft_labels(store, clips, np.array([0.5, 7.0, 2.0]), 1.0)
    np.testing.assert_allclose(found, [[0.15, 0.85], [0.3, 0.6], [0.3, 0.7]], atol=1e-6)
    with pytest.raises(InputError, match="clip tags"):
        window_soft_labels(store, ["tags"], np.array([10.0]), 1.0)


def test_soft_labels_of_frames(store):
    front_end = FrontEnd()
    found = frame_soft_labels(store, ["tags", "steps"], [10.0, 10.0], front_end, 998)
    assert found.shape == (2, 998, 2)
    np.testing.assert_allclose(found[0], np.tile([0.3, 0.6], (998, 1)), atol=1e-3)
    edges = frame_edges_s(front_end, 998)
    inside = np.floor(edges[:-1]) == np.floor(edges[1:])
    np.testing.assert_allclose(
        found[1, inside, 0], (np.floor(edges[:-1]) + 1)[inside] / 10, atol=1e-3
    )


def test_silence_behind_a_recordings_end_is_labelled_as_nothing(store):
    # 12 s of frames of a recording of 10: what was heard until its end, then zeros.
    front_end = FrontEnd()
    found = frame_soft_labels(store, ["tags"], [10.0], front_end, 1198)[0, :, 0]
    behind = frame_edges_s(front_end, 1198)[:-1] >= 10.0
    assert (found[behind] == 0).all()
    np.testing.assert_allclose(found[~behind], 0.3, atol=1e-3)
    with pytest.raises(InputError, match="clip tags: soft labels cover"):
        frame_soft_labels(store, ["tags"], [12.0], front_end, 1198)
    with pytest.raises(InputError, match="1 recordings and 2 lengths"):
        frame_soft_labels(store, ["tags"], [10.0, 10.0], front_end, 10)


def test_joined_targets_are_mixed_alike():
    # Soft labels that are half the labels are so after drawing, silencing and mixing.
    rng = np.random.default_rng(0)
    waveforms = pack([rng.standard_normal(24_000).astype(np.float32) * 0.1 for _ in range(8)])
    targets = np.eye(4, dtype=np.float32)[np.arange(8) % 4]
    recipe = Recipe(augment=AugmentSettings(mix_probability=1.0))
    window = recipe.front_end.samples_of(100)
    bank = make_bank(waveforms, join_targets(targets, targets / 2), window, 30.0)
    clips = torch.arange(8)
    generator = torch.Generator().manual_seed(0)
    log_mel = LogMel(recipe.front_end)
    _, joined = draw_batch(TrainingData(bank, None), clips, recipe, log_mel, generator)
    mixed, soft = split_targets(joined)
    assert mixed.shape == (8, 4)
    assert ((mixed > 0) & (mixed < 1)).any()
    torch.testing.assert_close(soft, mixed / 2)


def test_targets_of_other_labels_are_not_joined():
    with pytest.raises(InputError, match="the same labels"):
        join_targets(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))


def test_a_mobilenet_learns_from_soft_labels_alone():
    torch.manual_seed(0)
    network = MobileNetV2(2, MobileNetV2Settings(width=0.1, dropout=0.0))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    nothing = torch.zeros(16, 2)
    right = []
    for _ in range(25):
        truth = (torch.arange(16) % 2)[:, None] == torch.arange(2)
        patches = 0.5 * torch.randn(16, 1, 100, 64)
        patches[truth[:, 0], :, :, :32] += 2.0
        logits, _ = network(patches)
        soft = 0.1 + 0.8 * truth.float()
        loss = window_distil_loss(logits, nothing, soft, recipe_of(), 1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        right.append(((logits[:, 0] > logits[:, 1]) == truth[:, 0]).float().mean())
    assert torch.stack(right[-8:]).mean() > 0.85


def test_the_streaming_student_learns_from_a_store(tmp_path):
    # A teacher at 10 Hz that hears loud frames; its student hears them every 10 ms.
    rng = np.random.default_rng(0)
    front_end = FrontEnd()
    log_mel = rng.normal(-6, 0.5, (8, 198, 64)).astype(np.float32)
    clips = [f"clip {i}" for i in range(8)]
    with SoftLabelWriter(tmp_path / "soft", TEACHER, ("loud",)) as writer:
        for i, clip in enumerate(clips):
            first = int(rng.integers(1, 12))
            loud = (np.arange(20) >= first) & (np.arange(20) < first + 6)
            log_mel[i, first * 10 : first * 10 + 60] += 4
            writer.add(clip, 0.05 + 0.9 * loud[:, None], 0.0, 0.1)
    store = SoftLabelStore(tmp_path / "soft")
    soft = frame_soft_labels(store, clips, [2.0] * 8, front_end, 198)
    batch = DistilBatch(
        torch.from_numpy(log_mel),
        torch.from_numpy(soft.astype(np.float32)),
        torch.zeros(8, 198, 1),
        torch.zeros(8, dtype=torch.bool),
    )
    settings = DistilSettings(
        epochs=40, learning_rate=3e-2, warmup_steps=2, teacher_weight=1.0, average_decay=0.8
    )
    shape = StreamingSettings(channels=(4, 4, 4), pools=(4, 4, 4), hidden_size=8, dropout=0.0)
    student = distil(("loud",), lambda _: [batch], settings, tmp_path / "run", shape=shape)
    assert isinstance(student.network, StreamingCRNN)
    with torch.no_grad():
        heard = student.network.forward_sequence(batch.log_mel).sigmoid()[:, :, 0] > 0.5
    assert (heard == (batch.teacher[:, :, 0] > 0.5)).float().mean() > 0.95
