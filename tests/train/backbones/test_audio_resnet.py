"""ResNet-50 on patches: its size by hand, the 6 x 4 map, and which frames meet in a block."""

import pytest
import torch
from torch import nn

from soundpost.train.backbones.audio_resnet import (
    AudioResNet,
    AudioResNetSettings,
    CroppedBottleneck,
)
from soundpost.train.backbones.counts import counts


def made():
    with torch.device("meta"):
        return AudioResNet(10_998).eval()


def test_parameters_by_hand():
    # ResNet-50 has 25,557,032; less its last layer of 1000 * 2048 + 1000, less two of the three
    # planes of its 64 kernels of 7 x 7; then 2048 * 128 + 128, and 128 * 10,998 + 10,998.
    trunk = 25_557_032 - 2_049_000 - 2 * 64 * 49
    assert counts(made()).parameters == trunk + 262_272 + 1_418_742


def test_the_last_map_is_6_by_4_and_the_embedding_has_128():
    # jia2019, section 3: strides halved "to guarantee an output feature map of 6*4".
    network = made()
    patch = torch.empty(2, 1, 100, 64, device="meta")
    sizes = []
    maps = network.trunk.stem(patch)
    for stage in network.trunk.stages():
        maps = stage(maps)
        sizes.append(tuple(maps.shape[2:]))
    assert sizes == [(25, 16), (12, 8), (6, 4), (6, 4)]
    logits, embedding = network(patch)
    assert logits.shape == (2, 10_998)
    assert embedding.shape == (2, 128)


@pytest.mark.parametrize("n_frames", [96, 98, 100])
def test_patches_of_nearly_a_second_give_the_same_map(n_frames):
    patch = torch.empty(1, 1, n_frames, 64, device="meta")
    assert made().trunk.features(patch).shape == (1, 2048, 6, 4)


def test_both_ways_through_the_cropped_block_look_at_the_same_frames():
    # Every convolution hands its middle value on; frame i of a ramp has the value i.
    block = CroppedBottleneck(4, 1, 2).eval()
    for conv in (block.conv1, block.conv2, block.conv3, block.downsample[0]):
        nn.init.zeros_(conv.weight)
        middle = conv.kernel_size[0] // 2
        with torch.no_grad():
            conv.weight[:, 0, middle, middle] = 1.0
    ramp = torch.arange(25.0)[None, None, :, None].expand(1, 4, 25, 4)
    for way in (block.bn3(block.conv3(block.squeeze(ramp))), block.shortcut(ramp)):
        frames = way[0, 0, :, 1]
        torch.testing.assert_close(frames, torch.arange(1.0, 25.0, 2), rtol=1e-4, atol=1e-4)


def test_everything_learns():
    torch.manual_seed(0)
    network = AudioResNet(3, AudioResNetSettings(16, 0.0, (1, 1, 1, 1), 8))
    logits, embedding = network(torch.randn(4, 1, 100, 64))
    assert logits.shape == (4, 3)
    assert embedding.shape == (4, 16)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
