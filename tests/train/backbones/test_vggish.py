"""The three VGGish of jia2019 against its table 1, and the order of the published weights."""

import pytest
import torch
from torch import nn

from soundpost.device.errors import UsageError
from soundpost.train.backbones.counts import counts, multiply_adds
from soundpost.train.backbones.vggish import VGGish, VGGishSettings

KINDS = ("plain", "batch_norm", "fully_convolutional")
PATCH = (2, 1, 100, 64)

# Table 1, kernels: 3x3 from 1 to 64, 64 to 128, 128 to 256, 256 to 256, 256 to 512, 512 to 512,
# 6x4 to 4096, 1x1 to 4096, 1x1 to 128, and 128 to 10,998 classes.
CONVOLUTIONS = 9 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)
HEAD = 6 * 4 * 512 * 4096 + 4096 * 4096 + 4096 * 128 + 128 * 10_998
BIASES = 64 + 128 + 256 + 256 + 512 + 512 + 4096 + 4096 + 128 + 10_998


def made(kind, n_labels=10_998):
    with torch.device("meta"):
        return VGGish(n_labels, VGGishSettings(kind)).eval()


def small(kind, n_labels=3):
    torch.manual_seed(0)
    return VGGish(n_labels, VGGishSettings(kind, embedding_size=5, hidden_units=8)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_are_the_73_54_million_of_the_paper(kind):
    weights = counts(made(kind)).weights
    assert weights == CONVOLUTIONS + HEAD == 73_538_880
    assert round(weights / 1e6, 2) == 73.54


def test_biases_and_batch_normalisation_come_on_top():
    # A factor and an offset for each channel of a normalised layer.
    normalised = 2 * (64 + 128 + 256 + 256 + 512 + 512)
    assert counts(made("plain")).parameters == CONVOLUTIONS + HEAD + BIASES
    assert counts(made("batch_norm")).parameters == CONVOLUTIONS + HEAD + BIASES + normalised
    normalised += 2 * (4096 + 4096 + 128)
    assert counts(made("fully_convolutional")).parameters == (
        CONVOLUTIONS + HEAD + BIASES + normalised
    )


@pytest.mark.parametrize("kind", KINDS)
def test_operations_by_hand_are_884_million_and_not_the_printed_361(kind):
    # Each kernel is applied at every place of its map: 100 x 64, 50 x 32, 25 x 16 (twice), 12 x 8
    # (twice); the head once. The paper prints 360.72 million.
    by_hand = 9 * (
        100 * 64 * 1 * 64
        + 50 * 32 * 64 * 128
        + 25 * 16 * (128 * 256 + 256 * 256)
        + 12 * 8 * (256 * 512 + 512 * 512)
    )
    patch = torch.empty(1, *PATCH[1:], device="meta")
    assert multiply_adds(made(kind), patch) == by_hand + HEAD == 884_325_120


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_map_is_6_by_4_and_the_embedding_has_128(kind):
    network = made(kind)
    patch = torch.empty(PATCH, device="meta")
    assert network.features(patch).shape == (2, 512, 6, 4)
    logits, embedding = network(patch)
    assert logits.shape == (2, 10_998)
    assert embedding.shape == (2, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quarter_of_the_width_has_a_sixteenth_of_the_kernels(kind):
    # But for the first convolution, of one plane, and the layers beside the embedding: a quarter.
    with torch.device("meta"):
        network = VGGish(10_998, VGGishSettings(kind, width=0.25))
    first, last = 9 * 64, 4096 * 128
    inside = CONVOLUTIONS - first + HEAD - last - 128 * 10_998
    assert counts(network).weights == inside // 16 + (first + last) // 4 + 128 * 10_998
    assert network(torch.empty(PATCH, device="meta"))[1].shape == (2, 128)


@pytest.mark.parametrize(("kind", "one"), [("plain", "CR"), ("batch_norm", "CRB")])
def test_layers_stand_in_the_order_of_table_1(kind, one):
    # Convolutions of 64; 128; 256 twice; 512 twice; max pooling 2*2 after each.
    letters = {nn.Conv2d: "C", nn.ReLU: "R", nn.BatchNorm2d: "B", nn.MaxPool2d: "P"}
    order = "".join(letters[type(layer)] for layer in made(kind).features)
    assert order == 2 * (one + "P") + 2 * (2 * one + "P")


def test_the_first_carries_the_published_names():
    # torchvggish 0.1: its `features` and `embeddings`; it ends at the embedding.
    state = made("plain", None).state_dict()
    places = {"features": (0, 3, 6, 8, 11, 13), "embeddings": (0, 2, 4)}
    names = [f"{part}.{i}" for part, numbers in places.items() for i in numbers]
    assert list(state) == [f"{name}.{what}" for name in names for what in ("weight", "bias")]
    assert state["features.13.weight"].shape == (512, 512, 3, 3)
    assert state["embeddings.0.weight"].shape == (4096, 12_288)
    assert state["embeddings.4.bias"].shape == (128,)


@pytest.mark.parametrize(("channel", "frame", "band"), [(0, 0, 1), (511, 5, 3), (37, 4, 2)])
def test_the_published_weights_expect_time_then_band_then_channel(channel, frame, band):
    # TensorFlow's order of a (time, band, channel) map.
    network = small("plain", None)
    network.features = nn.Identity()
    network.embeddings = network.embeddings[:1]
    nn.init.zeros_(network.embeddings[0].weight)
    with torch.no_grad():
        network.embeddings[0].weight[0, (frame * 4 + band) * 512 + channel] = 1.0
    maps = torch.zeros(1, 512, 6, 4)
    maps[0, channel, frame, band] = 3.0
    assert network.embed(maps)[0, 0] == 3.0


@pytest.mark.parametrize(("kind", "in_head"), [("batch_norm", 0), ("fully_convolutional", 3)])
def test_normalisation_follows_every_relu_of_a_convolution(kind, in_head):
    network = small(kind)
    layers = [*network.features, *network.embeddings]
    convolutions = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 6 + in_head
    for i in convolutions:
        assert layers[i].bias is not None
        assert isinstance(layers[i + 1], nn.ReLU)
        assert isinstance(layers[i + 2], nn.BatchNorm2d)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == len(convolutions)


@pytest.mark.parametrize("kind", KINDS)
def test_the_classifier_sees_the_embedding_and_all_of_it_learns(kind):
    network = small(kind).train()
    logits, embedding = network(torch.randn(3, *PATCH[1:]))
    weight, bias = network.classifier.weight, network.classifier.bias
    torch.testing.assert_close(logits, embedding @ weight.T + bias)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.features[0].weight.grad.abs().sum() > 0


def test_the_fully_convolutional_network_averages_a_longer_patch():
    network = small("fully_convolutional")
    # 192 frames leave 12 steps, 12 - 6 + 1 = 7 places of the 6 x 4 kernel.
    patch = torch.randn(1, 1, 192, 64)
    assert network.embeddings(network.features(patch)).shape == (1, 5, 7, 1)
    assert network.embed(patch).shape == (1, 5)


def test_a_network_without_classifier_says_so():
    with pytest.raises(UsageError, match="ends at its embedding"):
        small("plain", None)(torch.zeros(PATCH))
