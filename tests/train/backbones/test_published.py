"""The list of published weights: complete, and consistent with itself."""

import re

import pytest
import torch

from soundpost.train.backbones.published import PUBLISHED

# What the teachers start from.
WANTED = {"vgg16", "resnet50", "resnet101", "alexnet", "inception_v4", "vggish", "soundnet5"}


def test_every_network_that_starts_from_weights_has_them():
    assert set(PUBLISHED) == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_an_entry_is_whole(name):
    weights = PUBLISHED[name]
    assert weights.name == name
    assert re.match("https?://[^ ]+/[^/ ]+$", weights.url)
    assert weights.licence
    assert weights.sha256 is None or re.fullmatch("[0-9a-f]{64}", weights.sha256)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "resnet101", "alexnet", "vggish"])
def test_the_hash_begins_with_the_digits_in_the_hubs_file_name(name):
    # torch.hub: "filename-<sha256>.ext", the first eight or more digits
    weights = PUBLISHED[name]
    digits = re.search("-([0-9a-f]{8})[.]pth$", weights.file_name).group(1)
    assert weights.sha256.startswith(digits)
    assert weights.url.endswith("/" + weights.file_name)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_its_network_takes_what_it_is_said_to_take(name):
    weights = PUBLISHED[name]
    with torch.device("meta"):
        network = weights.build(None).eval()
        if weights.frames is None:
            sound = {"vggish": (2, 1, 96, 64), "soundnet5": (2, 110_250)}[name]
            assert network.embed(torch.empty(sound)).shape == (2, network.embedding_size)
        else:
            side = weights.frames.crop_px
            frames = torch.empty(2, 3, side, side)
            assert network.embed(frames).shape == (2, network.embedding_size)
            assert network(frames).shape == (2, 1000)


def test_networks_can_be_built_for_other_classes():
    with torch.device("meta"):
        assert PUBLISHED["resnet101"].build(11_166).fc.out_features == 11_166
        assert PUBLISHED["vggish"].build(527).classifier.out_features == 527
        assert PUBLISHED["vggish"].build(None).classifier is None
