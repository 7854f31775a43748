"""Shapes and laws of teacher and student."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from soundpost.train.sed.networks import (
    STUDENT,
    TEACHER,
    PairSettings,
    TaggingDetectionNetwork,
    TeacherStudent,
    attention_pool,
    stretch,
)

TINY = PairSettings(width=0.1)


def network(encoder=STUDENT, **changes):
    torch.manual_seed(0)
    return TaggingDetectionNetwork(4, 64, dataclasses.replace(TINY, **changes), encoder).eval()


@pytest.mark.parametrize("branches", ["separate", "joint"])
@pytest.mark.parametrize("gru_layers", [0, 2])
@pytest.mark.parametrize("encoder", [STUDENT, TEACHER])
def test_scores_have_the_frames_of_the_input(branches, gru_layers, encoder):
    net = network(encoder, branches=branches, gru_layers=gru_layers)
    scores = net(torch.randn(2, 121, 64))
    assert scores.frames.shape == (2, 121, 4)
    assert scores.clips.shape == (2, 4)
    assert (net.gru is None) == (gru_layers == 0)
    for part in (scores.frames, scores.clips):
        assert ((part > 0) & (part < 1)).all()


def test_ten_seconds_have_five_teacher_steps_and_20_ms_student_frames():
    # 998 frames of 10 ms; guided learning has 500 frames and a time compression of 100
    clip = torch.randn(1, 998, 64)
    assert network(TEACHER).encode(clip).shape[1] == 5
    assert network(STUDENT).encode(clip).shape[1] == 499
    assert network(TEACHER).frames_per_step == 200
    assert network(STUDENT, frames_averaged=1).encode(clip).shape[1] == 998


def test_blocks_are_as_published():
    # Conv2d 1-160 5x5, 160-160 5x5, 160-160 3x3
    pair = TeacherStudent(10, 64, PairSettings(), mean_teacher=False, distil=True)
    student = [m for m in pair.student.blocks.modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(m.weight.shape) for m in student] == [
        (160, 1, 5, 5), (160, 160, 5, 5), (160, 160, 3, 3),
    ]  # fmt: skip
    assert pair.student.n_features == 160
    teacher = [m for m in pair.teacher.blocks.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in teacher] == [16, 16, 32, 32, 64, 64, 128, 128, 256, 256]
    assert pair.teacher.n_features == 512
    assert pair.student.gru.num_layers == 2
    assert pair.student.gru.bidirectional


def test_half_width_halves_every_convolution():
    half = TeacherStudent(10, 64, PairSettings(width=0.5), mean_teacher=False, distil=False)
    channels = [m.out_channels for m in half.modules() if isinstance(m, nn.Conv2d)]
    assert channels == [80, 80, 80, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128]


def test_pooling_before_the_relu_changes_nothing():
    block = network(TEACHER).blocks[0]
    *before, pool, relu = block
    x = torch.randn(1, 1, 41, 64)
    y = nn.Sequential(*before)(x)
    torch.testing.assert_close(block(x), pool(relu(y.clone())))


@settings(max_examples=30, deadline=None)
@given(n_frames=st.integers(1, 700), averaged=st.integers(1, 4))
def test_every_frame_lies_under_one_step(n_frames, averaged):
    net = network(TEACHER, frames_averaged=averaged, gru_layers=0)
    steps = net.encode(torch.zeros(1, n_frames, 64)).shape[1]
    number = torch.arange(steps, dtype=torch.float32)[None, :, None]
    under = stretch(number, n_frames, net.frames_per_step)[0, :, 0]
    assert under.tolist() == [i // net.frames_per_step for i in range(n_frames)]


def test_a_student_without_recurrence_sees_only_its_surroundings():
    # Kernels 5, 5 and 3 without time pooling reach 2 + 2 + 1 steps of two frames.
    net = network(gru_layers=0)
    clip = torch.randn(1, 200, 64)
    changed = clip.clone()
    changed[:, 100:] += 1.0
    before, after = net(clip).frames, net(changed).frames
    same = (before == after).all(2)[0]
    assert same[:90].all()
    assert not same[90:].any()


def test_recurrence_changes_tags_and_not_detection():
    with_gru = network()
    without = TaggingDetectionNetwork(4, 64, TINY, STUDENT).eval()
    without.load_state_dict(with_gru.state_dict())
    nn.init.normal_(without.gru.weight_hh_l0)
    clip = torch.randn(1, 100, 64)
    assert torch.equal(with_gru(clip).frames, without(clip).frames)
    assert not torch.equal(with_gru(clip).clips, without(clip).clips)


def test_attention_pooling_by_hand():
    # Class 0: softmax of (ln 3, 0) = 3/4 in frame 0, of (0, 0) = 1/2 in frame 1; scores 0.8, 0.2:
    # (0.75 * 0.8 + 0.5 * 0.2) / 1.25 = 0.56. Class 1: weights 1/4, 1/2; scores 0.4, 0.1: 0.2
    scores = torch.tensor([[[0.8, 0.4], [0.2, 0.1]]])
    attention = torch.tensor([[[3.0, 1.0], [1.0, 1.0]]]).log()
    torch.testing.assert_close(attention_pool(scores, attention), torch.tensor([[0.56, 0.2]]))


def test_projections_share_the_frames_of_the_input():
    pair = TeacherStudent(4, 64, TINY, mean_teacher=False, distil=True).eval()
    clip = torch.randn(2, 301, 64)
    teacher, student = pair.teacher(clip), pair.student(clip)
    f_t, f_s = pair.projected(teacher, student)
    assert f_t.shape == f_s.shape
    assert f_t.shape[:2] == (2, 301)
    # The teacher's 200 frames of its first step are one vector, its next 101 another.
    assert torch.equal(f_t[:, :200], f_t[:, :1].expand(-1, 200, -1))
    assert not torch.equal(f_t[:, 199], f_t[:, 200])


def test_projections_are_not_rounded_to_bfloat16():
    pair = TeacherStudent(4, 64, TINY, mean_teacher=False, distil=True).eval()
    clip = torch.randn(2, 101, 64)
    teacher, student = pair.teacher(clip), pair.student(clip)
    expected = pair.projected(teacher, student)
    with torch.autocast("cpu", torch.bfloat16):
        found = pair.projected(teacher, student)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == torch.float32
        assert not torch.equal(f, f.bfloat16().float())
        torch.testing.assert_close(f, e)


def test_a_frozen_projection_is_followed_and_follows_nobody():
    pair = TeacherStudent(4, 64, TINY, mean_teacher=False, distil=True, frozen=True)
    rows = pair.project_teacher.weight
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
    clip = torch.randn(2, 301, 64)
    f_t, f_s = pair.projected(pair.teacher(clip), pair.student(clip))
    (f_t - f_s).norm(dim=2).mean().backward()
    assert rows.grad is None
    assert all(p.grad is None for p in pair.teacher.parameters())
    assert pair.project_student.weight.grad.abs().sum() > 0
    assert pair.student.blocks[0][0].weight.grad.abs().sum() > 0
