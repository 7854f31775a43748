"""AVNet: what is joined, what learns and what does not."""

import pytest
import torch

from soundpost.device.errors import UsageError
from soundpost.train.backbones.avnet import AVNet
from soundpost.train.backbones.counts import counts
from soundpost.train.backbones.resnet import ResNet, resnet50

IMAGES = (2, 3, 36, 48, 12)


def trunk():
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1), None, width=8)


def test_parameters_by_hand():
    # DualCamNet to its 1,024 features (its 8,179,938 less 1,025,000 and 14,014), a layer of 2048 to
    # 1024, then 2048 to 1000 and 1000 to 14.
    with torch.device("meta"):
        network = AVNet()
        both = AVNet(trunk=resnet50())
    dualcam = 8_179_938 - 1_025_000 - 14_014
    own = dualcam + 2048 * 1024 + 1024 + 2048 * 1000 + 1000 + 1000 * 14 + 14
    assert counts(network).parameters == own
    assert counts(both).parameters == own + 25_557_032


def test_frames_and_their_embeddings_give_the_same_scores():
    network = AVNet(trunk=trunk()).eval()
    frames, images = torch.randn(2, 3, 3, 32, 32), torch.randn(IMAGES)
    vectors = network.trunk.embed(frames.flatten(0, 1)).view(2, 3, -1)
    scores = network(frames, images)
    assert scores.shape == (2, 14)
    torch.testing.assert_close(network(vectors, images), scores)


def test_both_senses_count():
    torch.manual_seed(0)
    network = AVNet().eval()
    visual, images = torch.randn(2, 3, 2048), torch.randn(IMAGES)
    scores = network(visual, images)
    assert not torch.equal(network(visual + 1, images), scores)
    assert not torch.equal(network(visual, images + 1), scores)


def test_the_trunk_never_learns_and_the_rest_does():
    network = AVNet(trunk=trunk()).train()
    before = {name: value.clone() for name, value in network.trunk.state_dict().items()}
    network(torch.randn(2, 3, 3, 32, 32), torch.randn(IMAGES)).square().sum().backward()
    after = network.trunk.state_dict()
    # Batch statistics too.
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and not p.requires_grad for p in network.trunk.parameters())
    own = [p for name, p in network.named_parameters() if not name.startswith("trunk.")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own)


def test_features_lie_side_by_side_and_scores_are_averaged_over_the_images():
    torch.manual_seed(0)
    network = AVNet().eval()
    visual, images = torch.randn(2, 3, 2048), torch.randn(IMAGES)
    both = torch.cat([network.visual(visual), network.acoustic.embed(images)], 2)
    assert both.shape == (2, 3, 2048)
    hidden = (both @ network.fc1.weight.T + network.fc1.bias).clamp(min=0)
    scores = hidden.mean(1) @ network.fc2.weight.T + network.fc2.bias
    torch.testing.assert_close(network(visual, images), scores)


def test_frames_without_a_trunk_are_refused():
    with pytest.raises(UsageError, match="embeddings of the frames"):
        AVNet().eval()(torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 1, 36, 48, 12))
