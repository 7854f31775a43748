"""The sensor's own networks as students: what they are, how a clip is heard, where gradients go."""

import numpy as np
import pytest
import torch

from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd
from soundpost.train.metrics import clip_means
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings
from soundpost.train.multimodal.device_students import (
    DeviceSettings,
    FrameStudent,
    Matched,
    WindowStudent,
    WindowStudentSettings,
    linear_softmax,
    mean_probability,
    shortest_clip_s,
)
from soundpost.train.multimodal.method import train_step
from soundpost.train.multimodal.mutual_networks import (
    AcousticFeature,
    Inputs,
    TaggingBatch,
    TaggingSettings,
)
from soundpost.train.multimodal.tagging_methods import STUDENTS, tagging_method
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings
from soundpost.train.windows import windows_of_frames

FRONT_END = FrontEnd()
WINDOWS = WindowStudentSettings(width=0.35, embedding_size=24, dropout=0.0, patch_frames=50)
FRAMES = StreamingSettings(channels=(4, 4), pools=(8, 8), hidden_size=6, dropout=0.0)
TEACHER = TaggingSettings((AcousticFeature(size=64),), 6, 8, (16, 16))
N_LABELS = 3


def device(student):
    return DeviceSettings(student, FRONT_END, WINDOWS, FRAMES)


def clips(n=3, n_frames=130, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_frames, 64, generator=g) - 3.0


@pytest.fixture(params=["mobilenet_v2", "streaming"])
def student(request):
    return request.param


# ------------------------------------------------------------------- what of frames is of a clip


def test_the_mean_of_probabilities_is_that_of_probabilities():
    logits = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = logits.sigmoid().mean(1)
    torch.testing.assert_close(mean_probability(logits).sigmoid(), expected)


def test_linear_softmax_is_sum_of_squares_over_sum():
    logits = torch.randn(2, 5, 4, dtype=torch.float64)
    p = logits.sigmoid()
    torch.testing.assert_close(linear_softmax(logits).sigmoid(), p.square().sum(1) / p.sum(1))
    # One frame that sounds among a thousand: the mean would be 0.001.
    rare = torch.full((1, 1000, 1), -12.0, dtype=torch.float64)
    rare[0, 7] = 4.0
    assert linear_softmax(rare).sigmoid() > 0.97


@pytest.mark.parametrize("pool", [mean_probability, linear_softmax])
def test_nothing_saturates(pool):
    logits = torch.full((1, 3, 1), -200.0, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(pool(logits), torch.ones(1, 1))
    loss.backward()
    # Far on the wrong side the gradient is one whole, shared by the frames.
    assert logits.grad.sum() == pytest.approx(-1.0, abs=1e-4)


# ------------------------------------------------------------------------------ what is heard


def test_a_clip_is_judged_by_the_sensors_windows():
    torch.manual_seed(0)
    student = WindowStudent(N_LABELS, WINDOWS).eval()
    # Without a spread of logits a mean of logits would pass for one of probabilities.
    torch.nn.init.normal_(student.network.classifier.weight, 0.0, 3.0)
    heard = clips()
    with torch.no_grad():
        said = student(Inputs((heard,)))
        for clip, frames in enumerate(heard.numpy()):
            patches = torch.from_numpy(windows_of_frames(frames, 50))
            assert len(patches) == 4
            logits, embedding = student.network(patches[:, None])
            scores = logits.clamp(-8, 8).sigmoid().numpy()
            means = clip_means(scores, np.zeros(4, int), 1)[0]
            np.testing.assert_allclose(said.logits[clip].sigmoid().numpy(), means, atol=1e-5)
            torch.testing.assert_close(said.acoustic[clip], embedding.mean(0), atol=1e-5, rtol=1e-4)


def test_windows_of_training_are_drawn_one_from_each_part():
    student = WindowStudent(N_LABELS, WINDOWS)
    frames = torch.arange(250.0)[None, :, None].expand(2, 250, 64)
    torch.manual_seed(0)
    drawn = torch.stack([student._drawn(frames)[:, :, 0, 0] for _ in range(200)]).flatten(0, 1)
    # 250 frames hold 201 windows of 50; their quarters begin at 0, 50.25, 100.5 and 150.75.
    for part in range(4):
        starts = drawn[:, part]
        assert starts.min() >= int(part * 50.25)
        assert starts.max() < (part + 1) * 50.25
        assert len(starts.unique()) > 40
    windows = student._drawn(frames)
    assert torch.equal(windows[0, 1, :, 5], windows[0, 1, 0, 5] + torch.arange(50.0))
    torch.manual_seed(0)
    again = student._drawn(frames)
    torch.manual_seed(0)
    assert torch.equal(again, student._drawn(frames))
    # A clip of one window has but one.
    assert student._drawn(frames[:, :50]).shape == (2, 1, 50, 64)


def test_frames_are_heard_from_the_beginning():
    torch.manual_seed(0)
    student = FrameStudent(N_LABELS, FRAMES, FRONT_END).eval()
    heard = clips()
    with torch.no_grad():
        said = student(Inputs((heard,)))
        logits = student.network.forward_sequence(heard)
    p = logits.sigmoid()
    torch.testing.assert_close(said.logits.sigmoid(), p.square().sum(1) / p.sum(1))
    assert said.acoustic.shape == (3, 6)
    # The state of the last frame follows from all before it.
    _, states = student.network.hear_sequence(heard)
    assert states.shape == (3, 130, 6)
    _, _, last = student.network(heard[:1, None], *(student.network.initial_state()))
    torch.testing.assert_close(states[0, -1], last[0], atol=1e-5, rtol=1e-4)


def test_other_features_are_the_teachers_alone(student):
    torch.manual_seed(0)
    both = TaggingSettings(
        (AcousticFeature(size=64), AcousticFeature("vectors", 128)), 6, 8, (16, 16)
    )
    method = tagging_method("mutual", N_LABELS, both, device=device(student)).eval()
    heard, vectors = clips(), torch.randn(3, 2, 128)
    with torch.no_grad():
        with_them = method.student(Inputs((heard, vectors)))
        without = method.student(Inputs((heard,)))
    assert torch.equal(with_them.logits, without.logits)
    # Both contexts have the teacher's sizes: 16 of log-mel and 8 of vectors, 8 of pictures.
    assert with_them.acoustic.shape == (3, 24)
    assert with_them.visual.shape == (3, 8)


# ------------------------------------------------------------------- what leaves and what stays


def test_the_network_is_the_sensors_and_nothing_else():
    """The same tensors of the same sizes as of students that learn from labels alone."""
    windows = WindowStudent(N_LABELS, WINDOWS, Matched(16, 8)).network
    plain = MobileNetV2(N_LABELS, MobileNetV2Settings(0.35, 24, 0.0))
    frames = FrameStudent(N_LABELS, FRAMES, FRONT_END, Matched(16, 8)).network
    for found, expected in (
        (windows, plain),
        (frames, StreamingCRNN(N_LABELS, FRAMES, FRONT_END)),
    ):
        assert type(found) is type(expected)
        shapes = {name: value.shape for name, value in expected.state_dict().items()}
        assert {name: value.shape for name, value in found.state_dict().items()} == shapes


@pytest.mark.parametrize("name", STUDENTS)
def test_only_transfer_losses_bring_heads(name, student):
    method = tagging_method(name, N_LABELS, TEACHER, device=device(student))
    heads = {key.partition(".")[0] for key, _ in method.student.named_parameters()} - {"network"}
    assert heads == ({"project", "imagine"} if name == "mutual" else set())
    teacher = getattr(method, "teacher", None)
    if name == "mutual":
        assert method.student.acoustic_size == teacher.acoustic_size == 16
        assert method.student.visual_size == teacher.visual_size == 8


def test_both_transfer_losses_reach_the_network(student):
    torch.manual_seed(0)
    method = tagging_method("mutual", N_LABELS, TEACHER, device=device(student))
    said = method.student(Inputs((clips(8),)))
    body = next(iter(method.student.network.parameters()))
    for context in (said.acoustic, said.visual):
        (gradient,) = torch.autograd.grad(context.square().sum(), body, retain_graph=True)
        assert gradient.abs().max() > 0
    # g = ReLU(W_c h + b_c)
    assert said.visual.min() == 0
    # Scores do not pass through the heads.
    head = method.student.imagine.weight
    assert torch.autograd.grad(said.logits.sum(), head, allow_unused=True) == (None,)


def make_batch(seed, n=16):
    """Class 0 is heard in the lower bands and seen, class 1 only seen, class 2 is heard above."""
    g = torch.Generator().manual_seed(seed)
    targets = (torch.rand(n, 3, generator=g) < 0.5).float()
    log_mel = 0.5 * torch.randn(n, 50, 64, generator=g) - 4.0
    log_mel[:, :, :32] += 3 * targets[:, :1, None]
    log_mel[:, :, 32:] += 3 * targets[:, 2:, None]
    visual = torch.randn(n, 3, 6, generator=g)
    visual[:, :, :3] += 2 * targets[:, :1, None]
    visual[:, :, 3:] += 2 * targets[:, 1:2, None]
    return TaggingBatch(Inputs((log_mel,), visual), targets)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_method_trains_them(name, student):
    torch.manual_seed(5)
    method = tagging_method(name, N_LABELS, TEACHER, device=device(student))
    for stage in method.stages:
        before = {key: value.clone() for key, value in method.state_dict().items()}
        optimiser = torch.optim.Adam(method.begin(stage), 1e-3)
        train_step(method, make_batch(0, 4), stage, optimiser)
        moved = {
            key
            for key, value in method.named_parameters()
            if not torch.equal(value.detach(), before[key])
        }
        network = {f"student.network.{key}" for key, _ in method.student.network.named_parameters()}
        if stage.name == "teacher":
            assert not moved & network
        elif stage.name == "hint":
            # The hint layer lies before the scores.
            last = "head" if student == "streaming" else "classifier"
            assert network - moved == {key for key in network if f".{last}." in key}
        else:
            assert network <= moved


def test_the_gradient_of_a_recurrence_is_bounded():
    torch.manual_seed(0)
    student = FrameStudent(N_LABELS, FRAMES, FRONT_END)

    def gradients(factor):
        student.zero_grad()
        (factor * student(Inputs((clips(),))).logits.sum()).backward()
        return {name: weight.grad.clone() for name, weight in student.named_parameters()}

    small, large = gradients(1e-3), gradients(1e6)
    for name, gradient in large.items():
        direction = small[name] / small[name].norm()
        if ".gru." in name:
            torch.testing.assert_close(gradient, direction, atol=1e-4, rtol=1e-3)
        else:
            assert gradient.norm() > 1.0


def test_they_learn_what_is_heard():
    torch.manual_seed(5)
    shape = StreamingSettings(channels=(8, 8), pools=(8, 8), hidden_size=12, dropout=0.0)
    settings = DeviceSettings("streaming", FRONT_END, WINDOWS, shape)
    method = tagging_method("plain", N_LABELS, TEACHER, device=settings)
    optimiser = torch.optim.Adam(method.begin(method.stages[0]), 2e-2)
    for step in range(60):
        train_step(method, make_batch(step), method.stages[0], optimiser)
    batch = make_batch(999, 100)
    with torch.no_grad():
        said = method.eval().student(Inputs(batch.inputs.acoustic))
    right = ((said.logits > 0) == (batch.targets > 0.5)).float().mean(0)
    assert right[[0, 2]].min() > 0.9, right
    # Sound does not tell class 1.
    assert right[1] < 0.7


# ---------------------------------------------------------------------------------- bad input


def test_shapes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"patch_frames 10.*expected 32 or more"):
        WindowStudentSettings(patch_frames=10)
    with pytest.raises(ConfigError, match=r"dropout 1.0: expected 0.1 to 4, 1 or more, 0 to"):
        WindowStudentSettings(dropout=1.0)
    student = WindowStudent(N_LABELS, WINDOWS)
    with pytest.raises(ValueError, match="clips of 49 frames: expected 50 or more"):
        student(Inputs((clips(n_frames=49),)))


def test_the_shortest_clip_is_a_window():
    # 49 hops of 10 ms and a window of 25 ms.
    assert shortest_clip_s(device("mobilenet_v2")) == pytest.approx(0.515)
    assert shortest_clip_s(device("streaming")) == pytest.approx(0.025)
