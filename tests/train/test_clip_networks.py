"""What a recipe of clips may name as model.kind."""

import pytest
import torch

from soundpost.device.errors import ConfigError
from soundpost.train.backbones.audio_cnn import AudioCNN
from soundpost.train.backbones.audio_resnet import AudioResNet
from soundpost.train.backbones.vggish import VGGish
from soundpost.train.clip_networks import build_network
from soundpost.train.kinds import kind_named
from soundpost.train.mobilenet_v2 import MobileNetV2
from soundpost.train.recipe import CLIP_KINDS, ModelSettings, load_recipe

CLASSES = {
    "mobilenet_v2": MobileNetV2,
    "audio_cnn": AudioCNN,
    "audio_resnet": AudioResNet,
    "vggish": VGGish,
}


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_each_kind_takes_patches_and_gives_logits(kind):
    with torch.device("meta"):
        network = build_network(("a", "b", "c"), ModelSettings(kind, width=0.25)).eval()
        logits, embedding = network(torch.empty(2, 1, 100, 64))
    assert isinstance(network, CLASSES[kind])
    assert logits.shape == (2, 3)
    assert embedding.shape == (2, 128)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_a_wider_one_has_more_parameters(kind):
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in build_network(("a",), ModelSettings(kind, width)).parameters())
            for width in (0.25, 0.5, 1.0)
        ]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_one_family_trains_all_kinds(kind):
    assert kind_named(kind, "mine.toml") is kind_named("mobilenet_v2", "mine.toml")


def test_another_kind_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nkind = "audio_cmm"\n')
    with pytest.raises(ConfigError, match=r"model\.kind is audio_cmm; expected one of mobilenet"):
        load_recipe(path, [])
