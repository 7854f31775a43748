"""The student's shape, against the published one."""

import pytest
import torch

from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings, scaled_channels


def test_last_map_is_6_by_4():
    # jia2019, section 3: strides reduced "to guarantee an output feature map of 6*4".
    network = MobileNetV2(50).eval()
    assert network.features(torch.zeros(1, 1, 100, 64)).shape == (1, 1280, 6, 4)


def test_trunk_has_the_published_number_of_parameters():
    # 3,504,872 for ImageNet (torchvision's count of the paper's network) less its classifier of
    # 1,281,000, less two of the three input planes of the first convolution.
    trunk = sum(p.numel() for p in MobileNetV2(50).features.parameters())
    assert trunk == 3_504_872 - 1_281_000 - 2 * 32 * 9


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.4])
def test_widths_scale_and_stay_multiples_of_8(width):
    network = MobileNetV2(7, MobileNetV2Settings(width=width)).eval()
    logits, embedding = network(torch.zeros(2, 1, 100, 64))
    assert logits.shape == (2, 7)
    assert embedding.shape == (2, 128)
    for channels in (16, 24, 96, 320):
        scaled = scaled_channels(channels * width)
        assert scaled % 8 == 0
        assert scaled >= 0.9 * channels * width
