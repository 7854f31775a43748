"""The CNN on patches: its size by hand, and its last map."""

import torch

from soundpost.train.backbones.audio_cnn import AudioCNN, AudioCNNSettings
from soundpost.train.backbones.counts import counts


def made(**settings):
    with torch.device("meta"):
        return AudioCNN(50, AudioCNNSettings(**settings)).eval()


def test_parameters_by_hand():
    # Kernels of 3 x 3, and two numbers of batch normalisation for each channel.
    pairs = [(1, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    pairs += [(256, 512), (512, 512)]
    convolutions = sum(9 * c_in * c_out + 2 * c_out for c_in, c_out in pairs)
    assert counts(made()).parameters == convolutions + 512 * 128 + 128 + 128 * 50 + 50


def test_the_last_map_is_6_by_4():
    network = made()
    patch = torch.empty(2, 1, 100, 64, device="meta")
    assert network.features(patch).shape == (2, 512, 6, 4)
    logits, embedding = network(patch)
    assert logits.shape == (2, 50)
    assert embedding.shape == (2, 128)


def test_width_scales_every_channel_count():
    narrow = made(width=0.25)
    of_convolutions = [m.out_channels for m in narrow.modules() if isinstance(m, torch.nn.Conv2d)]
    assert of_convolutions == [8, 16, 16, 32, 32, 64, 64, 128, 128]
