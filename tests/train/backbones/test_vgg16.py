"""VGG16 against torchvision's published figures."""

import torch
from torch import nn

from soundpost.train.backbones.counts import counts, multiply_adds
from soundpost.train.backbones.vgg16 import VGG16

# Of torchvision 0.29's vgg16(), made with it.
TORCHVISION_NAMES = "35c4623e0cd4a39d764245620458692bdde46e98a422e65f0794d679138ab391"
SOME_SHAPES = {
    "features.0.weight": (64, 3, 3, 3),
    "features.28.bias": (512,),
    "classifier.0.weight": (4096, 25088),
    "classifier.6.bias": (1000,),
}


def made(n_classes=1000):
    with torch.device("meta"):
        return VGG16(n_classes).eval()


def test_it_has_the_published_parameters_and_operations():
    # torchvision, VGG16_Weights: num_params 138357544, 15.47 billion operations at 224 x 224
    network = made()
    assert counts(network).parameters == 138_357_544
    assert round(multiply_adds(network, torch.empty(1, 3, 224, 224, device="meta")) / 1e9, 2) == (
        15.47
    )


def test_its_tensors_are_named_as_published(names_sha256):
    state = made().state_dict()
    assert {name: tuple(state[name].shape) for name in SOME_SHAPES} == SOME_SHAPES
    assert names_sha256(made()) == TORCHVISION_NAMES


def test_it_makes_4096_values_and_1000_scores_of_any_frame():
    network = made()
    for height, width in ((224, 224), (64, 96)):
        frames = torch.empty(2, 3, height, width, device="meta")
        assert network.features(frames).shape == (2, 512, height // 32, width // 32)
        assert network.embed(frames).shape == (2, 4096)
        assert network(frames).shape == (2, 1000)


def test_the_embedding_is_what_the_last_layer_sees_after_its_relu():
    # The 138 million parameters are not needed for this: small layers in the same places.
    torch.manual_seed(0)
    network = made()
    network.features = network.avgpool = nn.Identity()
    network.classifier = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 50), nn.ReLU(), nn.Dropout(),
        nn.Linear(50, 3),
    ).eval()  # fmt: skip
    vectors = torch.randn(5, 4)
    embedding = network.embed(vectors)
    assert embedding.shape == (5, 50)
    assert embedding.min() == 0
    torch.testing.assert_close(network(vectors), network.classifier[6](embedding))


@torch.no_grad()
def test_its_maps_are_what_torchvisions_network_computes(filled, wave_frames):
    # Every 341st value of torchvision 0.29's vgg16().features with the same weights and frame.
    network = made()
    network.features.to_empty(device="cpu")
    values = filled(network.features)(wave_frames(64)).flatten()[::341][:6]
    expected = torch.tensor([0.086461, 0.0775305, 0.0102291, 0.00575191, 0.0186502, 0.071005])
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
