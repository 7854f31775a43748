"""Inception-v4 against published figures and the paper's map sizes."""

import torch

from soundpost.train.backbones.counts import counts, multiply_adds
from soundpost.train.backbones.inception_v4 import Branches, InceptionV4, without_background

# Of pretrainedmodels 0.7.4's InceptionV4(num_classes=1000), made with it.
PUBLISHED_NAMES = "1418e8a36978b5cf2a5547801de5c1b786a37c4a36e77527631ad632389e56b5"
SOME_SHAPES = {
    "features.0.conv.weight": (32, 3, 3, 3),
    "features.3.conv.bn.running_mean": (96,),
    "features.4.branch1.2.conv.weight": (64, 64, 7, 1),
    "features.9.branch3.1.conv.weight": (96, 384, 1, 1),
    "features.17.branch2.4.conv.weight": (256, 224, 1, 7),
    "features.21.branch2_3b.conv.weight": (256, 512, 3, 1),
    "last_linear.weight": (1000, 1536),
}
# Figure 9 of the paper and its figures 3 to 8: channels and side of the map after each layer.
MAPS = (
    [(32, 149), (32, 147), (64, 147), (160, 73), (192, 71), (384, 35)]
    + [(384, 35)] * 4 + [(1024, 17)] + [(1024, 17)] * 7 + [(1536, 8)] + [(1536, 8)] * 3
)  # fmt: skip


def made():
    with torch.device("meta"):
        return InceptionV4().eval()


def test_it_has_the_published_parameters_and_operations():
    # Keras hub publishes 42,679,816 parameters, timm 12.3 billion multiply-adds at 299 x 299.
    network = made()
    assert counts(network).parameters == 42_679_816
    assert round(multiply_adds(network, torch.empty(1, 3, 299, 299, device="meta")) / 1e9, 1) == (
        12.3
    )


def test_its_tensors_are_named_as_published(names_sha256):
    state = made().state_dict()
    assert {name: tuple(state[name].shape) for name in SOME_SHAPES} == SOME_SHAPES
    assert names_sha256(made()) == PUBLISHED_NAMES


def test_its_maps_are_those_of_the_paper():
    x = torch.empty(1, 3, 299, 299, device="meta")
    shapes = []
    for layer in made().features:
        x = layer(x)
        shapes.append((x.shape[1], x.shape[2]))
        assert x.shape[2] == x.shape[3]
    assert shapes == MAPS


def test_it_makes_1536_values_and_1000_scores():
    frames = torch.empty(2, 3, 299, 299, device="meta")
    assert made().embed(frames).shape == (2, 1536)
    assert made()(frames).shape == (2, 1000)


def test_branches_lie_in_the_order_of_their_names():
    double, half = torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.constant_(double.weight, 2.0)
    torch.nn.init.constant_(half.weight, 0.5)
    x = torch.ones(1, 1, 1, 1)
    assert Branches(a=double, b=half)(x).flatten().tolist() == [2.0, 0.5]
    assert Branches(a=half, b=double)(x).flatten().tolist() == [0.5, 2.0]


def test_the_class_background_is_dropped_where_there_is_one():
    weight = torch.arange(1001.0)[:, None].expand(1001, 1536)
    state = {"last_linear.weight": weight, "last_linear.bias": torch.arange(1001.0), "x": weight}
    dropped = without_background(state)
    assert dropped["last_linear.weight"][:, 0].tolist() == list(range(1, 1001))
    assert dropped["last_linear.bias"].tolist() == list(range(1, 1001))
    assert dropped["x"] is weight
    thousand = {"last_linear.weight": weight[:1000], "last_linear.bias": torch.zeros(1000)}
    assert without_background(thousand) == thousand


@torch.no_grad()
def test_it_computes_what_the_published_network_does(filled, wave_frames):
    # Every 166th score of pretrainedmodels 0.7.4 with the same weights and frame, on the mean of
    # its last map.
    scores = filled(InceptionV4())(wave_frames(107)).flatten()[::166][:6]
    expected = torch.tensor([-31.5536, 32.4109, 71.3766, 55.984, -2.5104, -58.9541])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-3)
