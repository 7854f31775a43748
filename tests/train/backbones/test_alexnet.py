"""AlexNet against torchvision's published figures."""

import torch

from soundpost.train.backbones.alexnet import AlexNet
from soundpost.train.backbones.counts import counts, multiply_adds

# Of torchvision 0.29's alexnet(), made with it.
TORCHVISION_NAMES = "9c198ebdae1863e4ec78a1c045e362fca5950285bfb6ae81c4f5627e216cbcbb"
SOME_SHAPES = {
    "features.0.weight": (64, 3, 11, 11),
    "features.10.weight": (256, 256, 3, 3),
    "classifier.1.weight": (4096, 9216),
    "classifier.6.weight": (1000, 4096),
}


def made():
    with torch.device("meta"):
        return AlexNet().eval()


def test_it_has_the_published_parameters_and_operations():
    # torchvision, AlexNet_Weights: num_params 61100840, 0.71 billion operations at 224 x 224
    network = made()
    assert counts(network).parameters == 61_100_840
    assert round(multiply_adds(network, torch.empty(1, 3, 224, 224, device="meta")) / 1e9, 3) == (
        0.714
    )


def test_its_tensors_are_named_as_published(names_sha256):
    state = made().state_dict()
    assert {name: tuple(state[name].shape) for name in SOME_SHAPES} == SOME_SHAPES
    assert names_sha256(made()) == TORCHVISION_NAMES


def test_conv5_is_13_by_13_and_6_by_6_after_the_pooling():
    # 224 -> (224 + 4 - 11) / 4 + 1 = 55 -> pool 27 -> pool 13; the last pooling makes 6.
    network = made()
    frames = torch.empty(2, 3, 224, 224, device="meta")
    assert network.conv5(frames).shape == (2, 256, 13, 13)
    assert network.features(frames).shape == (2, 256, 6, 6)
    assert network.embed(frames).shape == (2, network.embedding_size) == (2, 43_264)
    assert network(frames).shape == (2, 1000)


def test_conv5_is_what_the_fifth_convolution_makes_after_its_relu():
    torch.manual_seed(0)
    with torch.device("meta"):
        network = AlexNet().eval()
    network.features.to_empty(device="cpu")
    for layer in network.features:
        if isinstance(layer, torch.nn.Conv2d):
            layer.reset_parameters()
    frames = torch.randn(1, 3, 64, 64)
    seen = []
    network.features[10].register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    conv5 = network.conv5(frames)
    assert torch.equal(conv5, seen[0].relu())
    assert 0 < (conv5 == 0).float().mean() < 1


@torch.no_grad()
def test_conv5_is_what_torchvisions_network_computes(filled, wave_frames):
    # Every 384th value of torchvision 0.29's alexnet() after its fifth ReLU, with the same weights
    # and frame.
    network = made()
    network.features.to_empty(device="cpu")
    filled(network.features)
    values = network.conv5(wave_frames(64)).flatten()[::384][:6]
    expected = torch.tensor([0.0392836, 0.0, 0.037935, 0.0, 0.0361783, 0.0])
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
