"""The five networks by name, at the paper's width and at others."""

import pytest
import torch

from soundpost.train.backbones.counts import counts
from soundpost.train.multimodal.audio_networks import (
    NETWORKS,
    AudioModel,
    as_encoder,
    audio_network,
    without_classifier,
)


def made(name, width=1.0, n_labels=10_998):
    with torch.device("meta"):
        return audio_network(AudioModel(name, width), n_labels).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_patches_become_scores_and_128_elements_at_any_width(name):
    patch = torch.empty(2, 1, 100, 64, device="meta")
    for width in (1.0, 0.5, 0.1):
        logits, embedding = made(name, width)(patch)
        assert logits.shape == (2, 10_998)
        assert embedding.shape == (2, 128)


def test_the_paper_s_fully_convolutional_vggish_has_73_54_million():
    assert round(counts(made("vggish_fc")).weights / 1e6, 2) == 73.54


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_the_width_is_a_quarter_of_the_kernels_or_somewhat_more(name):
    # What is beside the embedding shrinks less: 1,280 channels of MobileNet_v2 do not shrink.
    whole, half = (counts(made(name, width, 1)).weights for width in (1.0, 0.5))
    assert whole / 4 < half < whole / 2.7


@pytest.mark.parametrize("name", NETWORKS)
def test_without_its_classifier_a_network_embeds_as_before(name):
    torch.manual_seed(0)
    network = audio_network(AudioModel(name, 0.1, embedding_size=6), 5).eval()
    patch = torch.randn(2, 1, 100, 64)
    with torch.no_grad():
        _, expected = network(patch)
        found = as_encoder(without_classifier(network)).embed(patch)
    assert torch.equal(found, expected)
    assert as_encoder(network).embedding_size == 6
    assert not [name for name in network.state_dict() if name.startswith("classifier")]
