"""Six methods by name, one loop for all of them."""

import pytest
import torch

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.method import train_step
from soundpost.train.multimodal.mutual import MutualSettings
from soundpost.train.multimodal.mutual_networks import (
    AcousticFeature,
    Inputs,
    TaggingBatch,
    TaggingSettings,
)
from soundpost.train.multimodal.tagging_methods import NETWORKS, STUDENTS, tagging_method

SMALL = TaggingSettings((AcousticFeature(size=8),), 6, 8, (8, 8))


def make_batch(seed, n=16):
    """Class 0 is heard and seen, class 1 is seen only."""
    g = torch.Generator().manual_seed(seed)
    targets = (torch.rand(n, 2, generator=g) < 0.5).float()
    log_mel = torch.randn(n, 8, 8, generator=g)
    log_mel[:, :, :4] += 2 * targets[:, :1, None]
    visual = torch.randn(n, 3, 6, generator=g)
    visual[:, :, :3] += 2 * targets[:, :1, None]
    visual[:, :, 3:] += 2 * targets[:, 1:, None]
    return TaggingBatch(Inputs((log_mel,), visual), targets)


def trained(name, n_steps=40):
    torch.manual_seed(5)
    method = tagging_method(name, 2, SMALL)
    for stage in method.stages:
        optimiser = torch.optim.Adam(method.begin(stage), lr=1e-2)
        for step in range(max(1, round(n_steps * stage.share))):
            method.begin(stage)
            train_step(method, make_batch(step), stage, optimiser)
    return method


@pytest.mark.parametrize("name", STUDENTS + NETWORKS)
def test_one_loop_trains_them_all(name):
    network = trained(name).student.eval()
    batch = make_batch(999, 300)
    # None of a student's scores needs the video.
    inputs = batch.inputs if name in NETWORKS else Inputs(batch.inputs.acoustic)
    with torch.no_grad():
        right = ((network(inputs).logits > 0) == (batch.targets > 0.5)).float().mean(0)
    assert right[0] > 0.85
    assert (right[1] > 0.85) == (name in NETWORKS)


def test_all_methods_begin_with_the_same_teacher():
    weights = []
    for name in STUDENTS[1:]:
        torch.manual_seed(1)
        weights.append(tagging_method(name, 2, SMALL).teacher.tags.weight)
    assert all(torch.equal(weights[0], other) for other in weights[1:])


def test_only_the_proposed_student_imagines():
    for name in STUDENTS:
        student = tagging_method(name, 2, SMALL).student
        assert (student.imagine is not None) == (name == "mutual")


def test_ablations_reach_the_method():
    method = tagging_method("mutual", 2, SMALL, MutualSettings(mutual=False, cross=False))
    assert [stage.name for stage in method.stages] == ["teacher", "student"]
    assert not method.settings.cross


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean fitnets"):
        tagging_method("fitnet", 2, SMALL)
