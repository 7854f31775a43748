"""Temporal ResNet-50: its size by hand, and what convolutions along time may see."""

import torch

from soundpost.train.backbones.counts import counts
from soundpost.train.backbones.resnet import ResNet
from soundpost.train.backbones.temporal_resnet import (
    TemporalBottleneck,
    TemporalResNet,
    spread_frames,
    temporal_resnet50,
)
from soundpost.train.backbones.transfer import start_from

BLOCKS = (2, 3, 2, 2)


def pair():
    torch.manual_seed(0)
    still = ResNet(BLOCKS, 5, width=8).eval()
    moving = TemporalResNet(4, BLOCKS, width=8).eval()
    start_from(moving, still, without=("fc.",))
    return still, moving


def test_parameters_by_hand():
    # ResNet-50 has 25,557,032, of which 1000 * 2048 + 1000 = 2,049,000 are its last layer, here
    # 14 * 2048 + 14 = 28,686. One unit of each stage has three matrices and a bias for its 64,
    # 128, 256 or 512 inner channels: 3 * (64^2 + 128^2 + 256^2 + 512^2) + 960 = 1,045,440.
    with torch.device("meta"):
        network = temporal_resnet50()
        scores = network(torch.empty(2, 5, 3, 224, 224))
    assert counts(network).parameters == 25_557_032 - 2_049_000 + 28_686 + 1_045_440
    assert scores.shape == (2, 14)


def test_the_second_unit_of_each_stage_looks_along_time():
    with torch.device("meta"):
        network = temporal_resnet50()
    names = [name for name, m in network.named_modules() if isinstance(m, TemporalBottleneck)]
    assert names == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    weight = network.state_dict()["layer4.1.conv_temporal.weight"]
    assert weight.shape == (512, 512, 3, 1, 1)


def test_it_starts_as_the_network_on_single_frames():
    still, moving = pair()
    clips = torch.randn(2, 5, 3, 32, 32)
    by_frame = still.embed(clips.flatten(0, 1)).view(2, 5, -1)
    torch.testing.assert_close(moving.embed(clips), by_frame)
    torch.testing.assert_close(moving(clips), moving.fc(by_frame.mean(1)))


def test_a_frame_reaches_four_neighbours_and_no_other_clip():
    # Each of the four temporal convolutions reaches one frame further.
    _, moving = pair()
    for module in moving.modules():
        if isinstance(module, TemporalBottleneck):
            torch.nn.init.uniform_(module.conv_temporal.weight, 0.1, 0.2)
    clips = torch.randn(2, 11, 3, 32, 32)
    changed = clips.clone()
    changed[0, 10] += 1.0
    same = (moving.embed(clips) == moving.embed(changed)).all(2)
    assert same[0].tolist() == [True] * 6 + [False] * 5
    assert same[1].all()


def test_five_frames_of_sixty_from_the_first_to_the_last():
    # 59 / 4 = 14.75: 0, 14.75, 29.5, 44.25, 59 without their fractions
    assert spread_frames(60) == [0, 14, 29, 44, 59]
    assert spread_frames(5) == [0, 1, 2, 3, 4]
    assert spread_frames(2, 3) == [0, 0, 1]


def test_a_trained_resnet50_is_taken_over():
    torch.manual_seed(0)
    with torch.device("meta"):
        trained = ResNet((3, 4, 6, 3))
    trained.to_empty(device="cpu")
    torch.nn.init.constant_(trained.layer4[2].bn3.running_var, 7.0)
    network = temporal_resnet50(3, trained)
    assert (network.layer4[2].bn3.running_var == 7.0).all()
    assert network.fc.weight.shape == (3, 2048)
