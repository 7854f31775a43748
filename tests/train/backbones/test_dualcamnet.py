"""DualCamNet: size and shapes by hand, what its convolution along time may see."""

import torch

from soundpost.train.backbones.counts import counts
from soundpost.train.backbones.dualcamnet import DualCamNet


def test_parameters_by_hand():
    # Temporal 12 x 12 x 7 and 12 biases; 5 x 5 from 12 to 32 and from 32 to 64, normalised; 9 x 12
    # x 64 to 1024; 1000; 14.
    with torch.device("meta"):
        network = DualCamNet()
    by_hand = (
        12 * 12 * 7 + 12
        + 25 * 12 * 32 + 2 * 32
        + 25 * 32 * 64 + 2 * 64
        + 9 * 12 * 64 * 1024 + 1024
        + 1024 * 1000 + 1000
        + 1000 * 14 + 14
    )  # fmt: skip
    assert counts(network).parameters == by_hand == 8_179_938


def test_the_last_map_is_9_by_12():
    with torch.device("meta"):
        network = DualCamNet().eval()
        images = torch.empty(2, 12, 36, 48, 12)
        assert network.maps(images).shape == (2, 12, 64, 9, 12)
        assert network.embed(images).shape == (2, 12, 1024)
        assert network(images).shape == (2, 14)


def test_the_largest_of_2_by_2_directions_goes_on_after_batch_normalisation_and_relu():
    torch.manual_seed(0)
    network = DualCamNet().eval()
    images = torch.randn(1, 2, 36, 48, 12)
    maps = network.conv1(images.permute(0, 4, 1, 2, 3)).relu()[0].transpose(0, 1)
    for at in (0, 4):
        conv, norm = network.spatial[at], network.spatial[at + 1]
        torch.nn.init.uniform_(norm.running_mean)
        maps = norm(conv(maps)).relu()
        n, c, height, width = maps.shape
        maps = maps.view(n, c, height // 2, 2, width // 2, 2).amax((3, 5))
    torch.testing.assert_close(network.maps(images)[0], maps)


def test_scores_are_averaged_over_the_images():
    torch.manual_seed(0)
    network = DualCamNet(3).eval()
    images = torch.randn(2, 4, 36, 48, 12)
    hidden = network.full2(network.embed(images)).relu()
    torch.testing.assert_close(network(images), network.full3(hidden.mean(1)))


def test_an_image_reaches_three_before_and_after_and_no_other_clip():
    torch.manual_seed(0)
    network = DualCamNet().eval()
    images = torch.randn(2, 12, 36, 48, 12)
    changed = images.clone()
    changed[0, 5] += 1.0
    same = (network.embed(images) == network.embed(changed)).all(2)
    assert same[0].tolist() == [not 2 <= frame <= 8 for frame in range(12)]
    assert same[1].all()


def test_the_first_layer_mixes_times_and_coefficients_and_leaves_directions_alone():
    torch.manual_seed(0)
    network = DualCamNet().eval()
    images = torch.zeros(1, 12, 36, 48, 12)
    images[0, 5, 20, 30] = torch.randn(12)
    network.conv1.bias.data.zero_()
    filtered = network.conv1(images.permute(0, 4, 1, 2, 3))
    heard = filtered[0].abs().sum(0)
    assert heard.nonzero()[:, 1:].unique(dim=0).tolist() == [[20, 30]]


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    network = DualCamNet().eval()
    images = torch.randn(1, 2, 36, 48, 12)
    assert torch.equal(network(images), network(images))
    network.dropout.train()
    assert not torch.equal(network(images), network(images))
