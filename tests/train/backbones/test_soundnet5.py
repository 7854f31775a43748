"""SoundNet-5 and the student that starts from it: shapes by hand, and the authors' file."""

import numpy as np
import pytest
import torch

from soundpost.device.errors import InputError
from soundpost.train.backbones.counts import counts
from soundpost.train.backbones.soundnet5 import SoundNet5, SoundNetStudent, published_state
from soundpost.train.backbones.torch7 import read_torch7

FIVE_SECONDS = 110_250
# 1-32 of 64, 32-64 of 32, 64-128 of 16, 128-256 of 8, each with biases and batch normalisation.
TRUNK = (
    (64 + 1 + 2) * 32
    + (32 * 32 + 1 + 2) * 64
    + (64 * 16 + 1 + 2) * 128
    + (128 * 8 + 1 + 2) * 256
)  # fmt: skip


def test_parameters_by_hand():
    with torch.device("meta"):
        published, student = SoundNet5(), SoundNetStudent()
    assert counts(published).parameters == TRUNK + (256 * 16 + 1) * 1401
    head = (256 * 16 + 2) * 1024 + 1025 * 1024 + 1025 * 1000 + 1001 * 14
    assert counts(student).parameters == TRUNK + head


def test_layers_have_the_steps_of_the_published_network():
    # 110,250 / 2 + 1 = 55,126, pooled by 8: 6,890; / 2 + 1 = 3,446: 430; 216: 27; 14; and
    # (14 + 8 - 16) / 12 + 1 = 1. Twenty seconds have four, as in its training.
    with torch.device("meta"):
        published, student = SoundNet5().eval(), SoundNetStudent().eval()
        layers = student.layers(torch.empty(2, FIVE_SECONDS))
        steps = {name: layer.shape[2] for name, layer in layers.items()}
        twenty = published.layers(torch.empty(1, 4 * FIVE_SECONDS))["conv5"].shape
        objects, scenes = published(torch.empty(2, FIVE_SECONDS))
        scores = student(torch.empty(2, FIVE_SECONDS))
    assert steps == {
        "conv1": 6_890, "conv2": 430, "conv3": 27, "conv4": 14,
        "conv5": 1, "conv6": 1, "fc1": 1, "fc2": 1,
    }  # fmt: skip
    assert [layers[name].shape[1] for name in steps] == [32, 64, 128, 256, 1024, 1024, 1000, 14]
    assert twenty == (1, 1401, 4, 1)
    assert (objects.shape, scenes.shape) == ((2, 1000), (2, 401))
    assert scores.shape == (2, 14)


def test_the_largest_of_eight_steps_goes_on_after_batch_normalisation_and_relu():
    torch.manual_seed(0)
    network = SoundNet5().eval()
    x = torch.randn(1, 1, 20_000, 1)
    layers = network.trunk(x[:, 0, :, 0])
    for name in ("conv1", "conv2", "conv3", "conv4"):
        conv, norm = getattr(network, name)[:2]
        y = norm(conv(x)).relu()
        if name != "conv4":
            n_steps = y.shape[2] // 8
            y = y[:, :, : 8 * n_steps].view(1, -1, n_steps, 8).amax(3, keepdim=True)
        torch.testing.assert_close(layers[name], y)
        x = y


def test_the_student_starts_with_the_four_convolutions_of_the_published_network():
    torch.manual_seed(0)
    published = SoundNet5().eval()
    torch.nn.init.uniform_(published.conv2[1].running_mean)
    student = SoundNetStudent(start=published).eval()
    waveform = torch.randn(1, 20_000)
    before, after = published.trunk(waveform), student.trunk(waveform)
    assert all(torch.equal(before[name], after[name]) for name in before)
    alone = SoundNetStudent().eval().trunk(waveform)
    assert not torch.equal(alone["conv1"], after["conv1"])


def published_file(torch7, scenes=401):
    rng = np.random.default_rng(0)

    def values(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def conv(c_in, c_out, kernel):
        fields = {"weight": values(c_out, c_in, kernel, 1), "bias": values(c_out)}
        return ("cudnn.SpatialConvolution", fields)

    def norm(c):
        names = ("weight", "bias", "running_mean", "running_var")
        return ("nn.SpatialBatchNormalization", {name: values(c) for name in names})

    other = ("nn.ReLU", {})
    # The order of the authors' main_train_small.lua: pooling after the first three.
    modules = [
        conv(1, 32, 64), norm(32), other, other, conv(32, 64, 32), norm(64), other, other,
        conv(64, 128, 16), norm(128), other, other, conv(128, 256, 8), norm(256), other,
        ("nn.ConcatTable", {"modules": {1: conv(256, 1000, 16), 2: conv(256, scenes, 16)}}),
    ]  # fmt: skip
    table = dict(enumerate(modules, start=1))
    return modules, torch7.write(("nn.Sequential", {"modules": table}))


def test_the_authors_file_has_a_place_for_every_tensor(torch7):
    modules, raw = published_file(torch7)
    state = published_state(read_torch7(raw))
    network = SoundNet5()
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)
    for name, place, key in (
        ("conv1.0.weight", 0, "weight"),
        ("conv3.1.running_var", 9, "running_var"),
        ("conv4.0.bias", 12, "bias"),
    ):
        np.testing.assert_array_equal(network.state_dict()[name], modules[place][1][key])
    heads = modules[15][1]["modules"]
    np.testing.assert_array_equal(network.conv5_scenes.bias.detach(), heads[2][1]["bias"])


@pytest.mark.parametrize("content", [5, {"modules": {}}, ("nn.Sequential", {"modules": {1: 2}})])
def test_another_network_is_named(torch7, content):
    with pytest.raises(InputError, match="is not SoundNet-5"):
        published_state(read_torch7(torch7.write(content)))
