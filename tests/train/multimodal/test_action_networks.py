"""The networks of perez2020 by name: what of them learns, and narrower ones."""

import pytest
import torch
from torch import nn

from soundpost.train.backbones.counts import counts
from soundpost.train.backbones.frame_input import IMAGENET, prepare_frames
from soundpost.train.backbones.resnet import ResNet
from soundpost.train.multimodal.action_networks import (
    INPUTS,
    NetworkSettings,
    WatchedActions,
    action_network,
    frame_input,
)

BLOCKS = (2, 2, 2, 2)


def watched(**more):
    torch.manual_seed(0)
    return WatchedActions(3, width=0.125, blocks=BLOCKS, **more)


def test_what_a_resnet50_lacks_learns_and_nothing_else():
    network = watched()
    learns = {name for name, w in network.network.named_parameters() if w.requires_grad}
    convolutions = [
        f"layer{i}.1.conv_temporal.{w}" for i in range(1, 5) for w in ("weight", "bias")
    ]
    assert learns == {*convolutions, "fc.weight", "fc.bias"}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], 0.1)
    network.train()
    frames = torch.randint(0, 256, (2, 5, 3, 32, 32), dtype=torch.uint8)
    network(frames)[:, 0].sum().backward()
    optimiser.step()
    changed = {
        name.removeprefix("network.")
        for name, value in network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    # Batch statistics stay, too; the first layer's bias is never reached by a dead unit alone.
    assert changed <= learns
    assert {"layer4.1.conv_temporal.weight", "fc.weight"} <= changed


def test_all_of_it_learns_if_asked():
    network = watched(learn_all=True).train()
    assert all(weight.requires_grad for weight in network.parameters())
    frames = torch.randint(0, 256, (2, 5, 3, 32, 32), dtype=torch.uint8)
    before = network.network.bn1.running_mean.clone()
    network(frames)
    assert not torch.equal(network.network.bn1.running_mean, before)


def test_it_starts_as_the_resnet_that_it_is_given():
    torch.manual_seed(1)
    trained = ResNet(BLOCKS, 5, width=8).eval()
    network = watched(start=trained).eval()
    raw = torch.randint(0, 256, (1, 40, 60, 3), dtype=torch.uint8)
    prepared = prepare_frames(raw, frame_input(32))
    cropped = prepared * torch.tensor(IMAGENET.std)[:, None, None]
    cropped = (cropped + torch.tensor(IMAGENET.mean)[:, None, None]).mul(255).round().byte()
    with torch.no_grad():
        found = network(cropped.expand(1, 5, -1, -1, -1).contiguous())
        torch.testing.assert_close(found, network.network.fc(trained.embed(prepared)))


def test_frames_of_any_size_show_the_same_of_a_picture():
    # 256 of which 224 are kept: the same share of a smaller picture.
    assert (frame_input(224).resize_px, frame_input(224).crop_px) == (256, 224)
    assert (frame_input(112).resize_px, frame_input(112).crop_px) == (128, 112)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # Half of every channel: 12 x 12 x 7 and 12; 5 x 5 from 12 to 16 and to 32, normalised;
        # 9 x 12 x 32 to 512; 500; 14.
        (
            "dualcamnet",
            12 * 12 * 7 + 12 + 25 * 12 * 16 + 32 + 25 * 16 * 32 + 64
            + 9 * 12 * 32 * 512 + 512 + 512 * 500 + 500 + 500 * 14 + 14,
        ),
        # To 512 features of both, of 2,048 numbers of a picture; 500; 14.
        (
            "avnet",
            12 * 12 * 7 + 12 + 25 * 12 * 16 + 32 + 25 * 16 * 32 + 64
            + 9 * 12 * 32 * 512 + 512 + 2048 * 512 + 512 + 1024 * 500 + 500 + 500 * 14 + 14,
        ),
        # 257 bins to 64, 128, 128; 512, 512, 500, 14; the range of the bins is no parameter.
        (
            "hearnet",
            257 * 64 * 11 + 64 + 64 * 128 * 5 + 128 + 128 * 128 * 3 + 128
            + 128 * 512 * 4 + 512 + 512 * 512 + 512 + 512 * 500 + 500 + 500 * 14 + 14,
        ),
    ],
)  # fmt: skip
def test_a_narrow_network_by_hand(name, by_hand):
    with torch.device("meta"):
        network = action_network(NetworkSettings(name, 14, width=0.5))
    assert counts(network).parameters == by_hand


def test_names_have_networks():
    for name in INPUTS:
        with torch.device("meta"):
            network = action_network(NetworkSettings(name, 3, 7))
        assert isinstance(network, nn.Module)
        assert list(network.parameters())[-1].shape[0] == 3
