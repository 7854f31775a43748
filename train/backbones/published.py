"""Where pretrained weights come from: none are shipped.

Names and addresses are those of the hubs. Hashes are the SHA-256 of the file. torchvision's and
torchvggish's file names carry its first eight digits, Hugging Face shows all of it beside the file;
of SoundNet no hash is published. ResNets are torchvision's first weights (IMAGENET1K_V1), which
reproduce their paper; its second ones have the same names and can be given as a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from soundpost.train.backbones.alexnet import AlexNet
from soundpost.train.backbones.frame_input import IMAGENET, INCEPTION, FrameInput
from soundpost.train.backbones.inception_v4 import InceptionV4, without_background
from soundpost.train.backbones.resnet import resnet50, resnet101
from soundpost.train.backbones.soundnet5 import SoundNet5
from soundpost.train.backbones.vgg16 import VGG16
from soundpost.train.backbones.vggish import VGGish

_TORCHVISION = "https://download.pytorch.org/models/"
_BSD = "BSD-3-Clause (torchvision); trained on ImageNet, whose images are for research"
_IMAGENET_APACHE = "Apache-2.0; trained on ImageNet, whose images are for research"


def _as_it_is(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state


@dataclass(frozen=True)
class PublishedWeights:
    """One published file and the network that it fits.

    name : by which recipes ask for it
    title : published name of the weights
    file_name : in the cache
    url : where its hub has it
    licence : of the weights
    sha256 : as published, all of it or its first digits; None where none is
    build : makes the network, for its own number of classes or another
    frames : how video frames are prepared; None for networks that hear
    member : path within the file, where it is an archive
    convert : from the file's tensors to the network's
    """

    name: str
    title: str
    file_name: str
    url: str
    licence: str
    sha256: str | None
    build: Callable[[int | None], nn.Module]
    frames: FrameInput | None = None
    member: str | None = None
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = _as_it_is


def _torchvision(
    name: str, title: str, file_name: str, sha256: str, build: Callable[[int], nn.Module]
) -> PublishedWeights:
    return PublishedWeights(
        name,
        title,
        file_name,
        _TORCHVISION + file_name,
        _BSD,
        sha256,
        lambda n_classes: build(1000 if n_classes is None else n_classes),
        IMAGENET,
    )


def _soundnet5(_n_classes: int | None) -> nn.Module:
    return SoundNet5()


_ALL = (
    _torchvision(
        "vgg16",
        "torchvision VGG16_Weights.IMAGENET1K_V1",
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        VGG16,
    ),
    _torchvision(
        "resnet50",
        "torchvision ResNet50_Weights.IMAGENET1K_V1",
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        resnet50,
    ),
    _torchvision(
        "resnet101",
        "torchvision ResNet101_Weights.IMAGENET1K_V1",
        "resnet101-63fe2227.pth",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        resnet101,
    ),
    _torchvision(
        "alexnet",
        "torchvision AlexNet_Weights.IMAGENET1K_V1",
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        AlexNet,
    ),
    PublishedWeights(
        "inception_v4",
        "timm inception_v4.tf_in1k",
        "inception_v4.tf_in1k.safetensors",
        "https://huggingface.co/timm/inception_v4.tf_in1k/resolve/main/model.safetensors",
        _IMAGENET_APACHE,
        "a756a086851c8d5a8de135ec15c76b90ea56cb5aef450e3299107e659e725bb1",
        lambda n_classes: InceptionV4(1000 if n_classes is None else n_classes),
        INCEPTION,
        convert=without_background,
    ),
    PublishedWeights(
        "vggish",
        "torchvggish v0.1",
        "vggish-10086976.pth",
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        "Apache-2.0",
        "10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
        VGGish,
    ),
    PublishedWeights(
        "soundnet5",
        "soundnet5_final.t7 of the authors",
        "soundnet_models_public.zip",
        "http://data.csail.mit.edu/soundnet/soundnet_models_public.zip",
        "MIT",
        None,
        _soundnet5,
        member="soundnet_models_public/soundnet5_final.t7",
    ),
)

PUBLISHED = {weights.name: weights for weights in _ALL}
