"""The student learns from its teacher, and an interrupted run ends where an uninterrupted does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from soundpost.device.errors import ConfigError, InputError
from soundpost.train.checkpoint import load_tensors
from soundpost.train.sed.distil import (
    CHECKPOINT,
    SETTINGS,
    DistilBatch,
    DistilSettings,
    StreamingStudent,
    distil,
    distil_loss,
    load_student,
)
from soundpost.train.sed.streaming import StreamingSettings

LABELS = ("high", "low")
SHAPE = StreamingSettings(channels=(4, 6, 8), pools=(4, 4, 2), hidden_size=12, dropout=0.1)
SETTINGS_OF_RUN = DistilSettings(epochs=5, learning_rate=3e-2, warmup_steps=2, average_decay=0.8)


def scenes(n_scenes: int, seed: int, n_frames: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    """Bands of 8 mels that are loud for a while: the high or the low ones."""
    rng = np.random.default_rng(seed)
    log_mel = rng.normal(-6.0, 0.5, (n_scenes, n_frames, 64))
    targets = np.zeros((n_scenes, n_frames, 2))
    for scene in range(n_scenes):
        for label, bands in enumerate((slice(48, 56), slice(8, 16))):
            start = rng.integers(5, n_frames - 40)
            stop = start + rng.integers(15, 35)
            log_mel[scene, start:stop, bands] += 5.0
            targets[scene, start:stop, label] = 1.0
    return torch.tensor(log_mel, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)


def batches(epoch: int) -> Iterator[DistilBatch]:
    """The teacher is right and not quite sure; every other recording is strongly labelled."""
    for index in range(6):
        log_mel, targets = scenes(8, 100 * epoch + index)
        has_frames = torch.arange(8) % 2 == 0
        yield DistilBatch(
            log_mel, 0.05 + 0.9 * targets, targets * has_frames[:, None, None], has_frames
        )


def run(folder: Path, settings: DistilSettings = SETTINGS_OF_RUN) -> list[tuple[int, float]]:
    told: list[tuple[int, float]] = []
    distil(LABELS, batches, settings, folder, shape=SHAPE, told=lambda *row: told.append(row))
    return told


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[tuple[int, float]], StreamingStudent]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    told = run(folder)
    return folder, told, load_student(folder)


def test_the_loss_is_the_one_worked_out_by_hand() -> None:
    """Two recordings of one frame and one label, one of them labelled; w = 0.25."""
    # Student p = 0.5 and 0.8; teacher 0.7 and 1; label 1 on the second alone.
    logits = torch.tensor([[[0.0]], [[math.log(4.0)]]])
    batch = DistilBatch(
        torch.zeros(2, 1, 64),
        torch.tensor([[[0.7]], [[1.0]]]),
        torch.tensor([[[0.0]], [[1.0]]]),
        torch.tensor([False, True]),
    )
    # BCE(0.7, 0.5) = ln 2, BCE(1, 0.8) = -ln 0.8; their mean; and the labelled one alone.
    soft = (math.log(2) - math.log(0.8)) / 2
    expected = 0.25 * soft + 0.75 * -math.log(0.8)
    assert float(distil_loss(logits, batch, 0.25)) == pytest.approx(expected, abs=1e-6)
    unlabelled = replace(batch, has_frames=torch.tensor([False, False]))
    assert float(distil_loss(logits, unlabelled, 0.25)) == pytest.approx(0.25 * soft, abs=1e-6)


def test_it_learns(uninterrupted: tuple[Path, list[tuple[int, float]], StreamingStudent]) -> None:
    _, told, student = uninterrupted
    assert told[-1][1] < 0.6 * told[0][1]
    log_mel, targets = scenes(20, 999_999)
    with torch.no_grad():
        heard = student.network.forward_sequence(log_mel) > 0
    assert (heard == targets.bool()).float().mean() > 0.93


def test_a_run_killed_after_any_epoch_ends_the_same(
    uninterrupted: tuple[Path, list[tuple[int, float]], StreamingStudent], tmp_path: Path
) -> None:
    _, told, student = uninterrupted

    class KilledError(Exception):
        pass

    def kill(epoch: int, _: float) -> None:
        raise KilledError

    for _ in range(2):
        with pytest.raises(KilledError):
            distil(LABELS, batches, SETTINGS_OF_RUN, tmp_path, shape=SHAPE, told=kill)
    assert run(tmp_path) == told[2:]
    resumed = load_student(tmp_path)
    for name, value in student.network.state_dict().items():
        torch.testing.assert_close(
            resumed.network.state_dict()[name], value, atol=0, rtol=0, msg=name
        )


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(tmp_path, replace(SETTINGS_OF_RUN, epochs=1))
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)


def test_what_was_saved_is_loaded(
    uninterrupted: tuple[Path, list[tuple[int, float]], StreamingStudent],
) -> None:
    student = uninterrupted[2]
    assert student.labels == LABELS
    assert student.network.settings == SHAPE
    assert not student.network.training


def test_a_folder_of_other_settings_is_refused(
    uninterrupted: tuple[Path, list[tuple[int, float]], StreamingStudent],
) -> None:
    folder = uninterrupted[0]
    with pytest.raises(InputError, match=r"whole: holds a student of other labels or settings"):
        run(folder, replace(SETTINGS_OF_RUN, seed=1))


def test_what_is_no_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no streaming student"):
        load_student(tmp_path)
    (tmp_path / SETTINGS).write_text('{"labels": ["a"]}')
    with pytest.raises(InputError, match="is no streaming student"):
        load_student(tmp_path)
    (tmp_path / CHECKPOINT).write_text("no tensors")
    with pytest.raises(InputError, match="is not a readable checkpoint"):
        run(tmp_path)


def test_weights_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"teacher_weight 1.5"):
        DistilSettings(teacher_weight=1.5)
    with pytest.raises(ConfigError, match="epochs 0"):
        DistilSettings(epochs=0)


# --- every step -----------------------------------------------------------------------------------


@dataclass
class Step:
    """One of an optimiser: its learning rate, the gradient's norm, parameters before and after."""

    rate: float
    norm: float
    before: list[torch.Tensor]
    after: list[torch.Tensor] = field(default_factory=list)


@pytest.fixture
def steps() -> Iterator[list[Step]]:
    """Those of any optimiser that is used in a test."""
    taken: list[Step] = []

    def before(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        (group,) = optimiser.param_groups
        gradients = [p.grad.flatten() for p in group["params"] if p.grad is not None]
        norm = float(torch.cat(gradients).square().sum().sqrt())
        taken.append(Step(group["lr"], norm, [p.detach().clone() for p in group["params"]]))

    def after(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        taken[-1].after = [p.detach().clone() for p in optimiser.param_groups[0]["params"]]

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    yield taken
    for hook in hooks:
        hook.remove()


def few(epoch: int) -> Iterator[DistilBatch]:
    """Four batches of two recordings."""
    for index in range(4):
        log_mel, targets = scenes(2, 100 * epoch + index)
        yield DistilBatch(log_mel, targets, targets, torch.tensor([True, False]))


FEW = DistilSettings(epochs=2, learning_rate=1e-2, warmup_steps=2, average_decay=0.35)


@pytest.mark.parametrize("n_batches", [None, 4])
def test_the_learning_rate_warms_up_and_falls_as_a_half_cosine(
    tmp_path: Path, steps: list[Step], n_batches: int | None
) -> None:
    distil(LABELS, few, FEW, tmp_path, shape=SHAPE, n_batches=n_batches)
    # (1 + cos(k pi / 8)) / 2 of 8 steps, of which the first is half as much: 1 of 2 to warm up.
    cosine = [1.0, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]
    expected = [0.5 * 1e-2, *(1e-2 * share for share in cosine[1:])]
    assert [step.rate for step in steps] == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_clipped_to_its_norm(tmp_path: Path, steps: list[Step]) -> None:
    free, clipped = replace(FEW, clip_norm=1e6), replace(FEW, clip_norm=0.01)
    distil(LABELS, few, free, tmp_path / "free", shape=SHAPE)
    norms = [step.norm for step in steps]
    assert min(norms) > 0.02
    steps.clear()
    distil(LABELS, few, clipped, tmp_path / "clipped", shape=SHAPE)
    assert [step.norm for step in steps] == pytest.approx([0.01] * 8, rel=1e-3)


def test_what_is_kept_is_the_average_of_the_weights(tmp_path: Path, steps: list[Step]) -> None:
    student = distil(LABELS, few, FEW, tmp_path, shape=SHAPE)
    # Early on it forgets faster: by n / (n + 10) after n steps, which from the sixth on is more
    # than the decay.
    decays = [1 / 11, 2 / 12, 3 / 13, 4 / 14, 5 / 15, 0.35, 0.35, 0.35]
    followed = steps[0].before
    for step, decay in zip(steps, decays, strict=True):
        pairs = zip(followed, step.after, strict=True)
        followed = [decay * old + (1 - decay) * new for old, new in pairs]
    for loaded in (student, load_student(tmp_path)):
        for found, expected in zip(loaded.network.parameters(), followed, strict=True):
            torch.testing.assert_close(found.detach(), expected, atol=2e-7, rtol=2e-6)
    # The last steps are small, but not nothing.
    last = steps[-1].after[0]
    assert (followed[0] - last).abs().max() > 1e-5
    # Means and variances of the normalisation are the last ones.
    tensors, _ = load_tensors(tmp_path / CHECKPOINT)
    for name, found in student.network.named_buffers():
        torch.testing.assert_close(found, tensors[f"network.{name}"], atol=0, rtol=0)


def test_a_student_of_the_teacher_alone_never_sees_a_label(tmp_path: Path) -> None:
    """With teacher_weight 1 all it can know of the sounds is what the teacher says of them."""

    def mislabelled(epoch: int) -> Iterator[DistilBatch]:
        for batch in batches(epoch):
            yield replace(batch, frame_targets=1.0 - batch.frame_targets)

    settings = replace(SETTINGS_OF_RUN, teacher_weight=1.0)
    student = distil(LABELS, mislabelled, settings, tmp_path, shape=SHAPE)
    log_mel, targets = scenes(20, 999_999)
    with torch.no_grad():
        heard = student.network.forward_sequence(log_mel) > 0
    assert (heard == targets.bool()).float().mean() > 0.93
