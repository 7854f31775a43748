"""ResNets against torchvision's published figures, and the law of a residual block."""

import pytest
import torch

from soundpost.train.backbones.counts import counts, multiply_adds
from soundpost.train.backbones.resnet import Bottleneck, ResNet, resnet50, resnet101

# Of torchvision 0.29's resnet50() and resnet101(), made with it; num_params and billions of
# operations at 224 x 224 as it publishes them.
PUBLISHED = {
    resnet50: (
        25_557_032, 4.089, "d7e4f8bb0a5363446a59c81c3887ccf66900a11651a0ae2dec96d1bb1eb6ea81",
    ),
    resnet101: (
        44_549_160, 7.801, "02c0f34f4842751f30e27e18a544ca36a8b33358f344c3c3165fd269ce97cd94",
    ),
}  # fmt: skip
SOME_SHAPES = {
    "conv1.weight": (64, 3, 7, 7),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer3.5.conv2.weight": (256, 256, 3, 3),
    "layer4.2.bn3.running_var": (2048,),
    "fc.weight": (1000, 2048),
}


def tiny(**changes):
    torch.manual_seed(0)
    return ResNet((1, 2, 1, 1), 3, width=8, **changes).eval()


@pytest.mark.parametrize("make", PUBLISHED)
def test_they_are_as_published(make, names_sha256):
    parameters, giga, names = PUBLISHED[make]
    with torch.device("meta"):
        network = make()
        frame = torch.empty(1, 3, 224, 224)
    assert counts(network).parameters == parameters
    assert round(multiply_adds(network, frame) / 1e9, 3) == giga
    state = network.state_dict()
    assert {name: tuple(state[name].shape) for name in SOME_SHAPES} == SOME_SHAPES
    assert names_sha256(network) == names


def test_the_file_of_resnet50_has_267_tensors_beside_the_counters_of_batches():
    # The published resnet50-0676ba61.pth, which is older than the counters.
    with torch.device("meta"):
        names = resnet50().state_dict().keys()
    assert len([name for name in names if not name.endswith("num_batches_tracked")]) == 267


def test_frames_of_any_size_give_2048_values():
    with torch.device("meta"):
        network = resnet50().eval()
        for height, width in ((224, 224), (64, 96), (32, 32), (161, 113)):
            frames = torch.empty(2, 3, height, width)
            last = (2, 2048, -(-height // 32), -(-width // 32))
            assert network.features(frames).shape == last
            assert network.embed(frames).shape == (2, 2048)
            assert network(frames).shape == (2, 1000)


def test_scores_are_the_last_layer_on_the_mean_of_the_last_map():
    network = tiny()
    frames = torch.randn(2, 3, 64, 64)
    mean = network.features(frames).flatten(2).mean(2)
    torch.testing.assert_close(network(frames), mean @ network.fc.weight.T + network.fc.bias)


def test_a_trunk_without_classes_gives_its_embedding():
    torch.manual_seed(0)
    trunk = ResNet((1, 1, 1, 1), None, width=8).eval()
    frames = torch.randn(2, 3, 32, 32)
    assert torch.equal(trunk(frames), trunk.embed(frames))
    assert trunk(frames).shape == (2, trunk.embedding_size) == (2, 256)


def test_a_block_whose_last_normalisation_is_zero_is_its_shortcut():
    torch.manual_seed(0)
    block = Bottleneck(32, 8, 1).eval()
    torch.nn.init.zeros_(block.bn3.weight)
    x = torch.randn(2, 32, 5, 5)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize(("c_in", "stride"), [(32, 2), (16, 1)])
def test_a_block_that_changes_the_shape_projects_its_shortcut(c_in, stride):
    block = Bottleneck(c_in, 8, stride).eval()
    assert block.downsample is not None
    assert block(torch.randn(1, c_in, 6, 6)).shape == (1, 32, 6 // stride, 6 // stride)


@torch.no_grad()
def test_resnet50_computes_what_torchvisions_does(filled, wave_frames):
    # Every 166th score of torchvision 0.29's resnet50() with the same weights and frame.
    scores = filled(resnet50())(wave_frames(64)).flatten()[::166][:6]
    expected = torch.tensor([2.66078, -1204.87, -857.191, 596.619, 1280.5, 309.918])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=0.01)
