"""Loading weights: from files, a cache and a real server; what is wrong is one line."""

import hashlib
import logging
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.published import PublishedWeights
from soundpost.train.backbones.resnet import ResNet
from soundpost.train.backbones.weights import (
    default_cache,
    load_backbone,
    load_published,
    read_state,
)


def build(n_classes):
    return ResNet((1, 1, 1, 1), 5 if n_classes is None else n_classes, width=4)


def trained():
    torch.manual_seed(3)
    network = build(None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            module.num_batches_tracked += 9
    return network.eval()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(trained().state_dict(), path)
    return path


def weights(sha256=None, url="https://hub.example/tiny-1.pth", **changes):
    return PublishedWeights(
        "tiny", "Tiny_Weights.V1", "tiny-1.pth", url, "MIT", sha256, build, **changes
    )


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_local_file_gives_the_network_its_hash_and_its_licence(saved):
    sha256 = sha256_of(saved)
    loaded = load_published(weights(sha256[:8]), saved)
    frames = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.network(frames), trained()(frames))
    assert not loaded.network.training
    assert loaded.sha256 == sha256
    assert loaded.record() == {
        "name": "tiny", "title": "Tiny_Weights.V1", "file": "mine.pth", "sha256": sha256,
        "as_published": True, "licence": "MIT",
    }  # fmt: skip


def test_other_weights_of_the_network_are_told_apart(saved, caplog):
    caplog.set_level(logging.INFO)
    assert load_published(weights("ab" * 32), saved).as_published is False
    assert "other weights of this network" in caplog.text
    assert load_published(weights(None), saved).as_published is None
    assert f"no hash is published for it; this file's is {sha256_of(saved)}" in caplog.text


def test_a_network_for_other_classes_loads_with_their_number(tmp_path):
    torch.save(build(7).state_dict(), tmp_path / "seven.pth")
    loaded = load_published(weights(), tmp_path / "seven.pth", n_classes=7)
    assert loaded.network.fc.out_features == 7
    with pytest.raises(InputError, match=r"fc.weight is \(7, 128\), expected \(5, 128\)"):
        load_published(weights(), tmp_path / "seven.pth")


def test_safetensors_and_old_files_load_alike(tmp_path, saved):
    state = trained().state_dict()
    save_file(state, tmp_path / "s.safetensors")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    frames = torch.randn(1, 3, 32, 32)
    expected = trained()(frames)
    for name in ("s.safetensors", "old.pth"):
        assert torch.equal(load_published(weights(), tmp_path / name).network(frames), expected)


def test_half_precision_becomes_float32_and_missing_counters_start_at_0(tmp_path):
    state = {
        name: value.half()
        for name, value in trained().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "half.pth")
    network = load_published(weights(), tmp_path / "half.pth").network
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert network.bn1.num_batches_tracked.item() == 0
    # And it can be trained on.
    network.train()(torch.randn(2, 3, 32, 32)).sum().backward()
    assert network.conv1.weight.grad is not None


def test_missing_weights_say_which_file_from_where_and_its_hash(tmp_path):
    wanted = weights("0123456789abcdef")
    with pytest.raises(InputError) as error:
        load_published(wanted, cache=tmp_path)
    text = line(error)
    for part in (str(tmp_path / "tiny-1.pth"), wanted.url, "sha256 0123456789abcdef", "download"):
        assert part in text
    with pytest.raises(InputError, match="no such file") as error:
        load_published(wanted, tmp_path / "absent.pth")
    assert wanted.url in line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_kept_and_not_repeated(file_server, saved, tmp_path):
    file_server.files["/tiny-1.pth"] = saved.read_bytes()
    wanted = weights(sha256_of(saved), f"{file_server.url}/tiny-1.pth")
    cache = tmp_path / "cache"
    first = load_published(wanted, cache=cache, online=True, quiet=True)
    assert first.path == cache / "tiny-1.pth"
    assert first.as_published
    for online in (True, False):
        again = load_published(wanted, cache=cache, online=online, quiet=True)
        assert again.sha256 == first.sha256
    assert len(file_server.requests) == 1


def test_a_download_of_something_else_is_refused(file_server, saved, tmp_path):
    file_server.files["/tiny-1.pth"] = b"<html>moved</html>"
    wanted = weights(sha256_of(saved), f"{file_server.url}/tiny-1.pth")
    with pytest.raises(InputError, match=f"expected {sha256_of(saved)}"):
        load_published(wanted, cache=tmp_path / "cache", online=True, quiet=True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_file_in_the_cache_is_refused(saved, tmp_path):
    expected = sha256_of(saved)
    path = tmp_path / "tiny-1.pth"
    path.write_bytes(saved.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=f"sha256 is {sha256_of(path)}, expected {expected}"):
        load_published(weights(expected), cache=tmp_path)


def test_tensors_that_do_not_fit_are_named(tmp_path):
    state = trained().state_dict()
    del state["layer2.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError) as error:
        load_published(weights(), tmp_path / "w.pth")
    text = line(error)
    for part in (
        "w.pth does not fit",
        "layer2.0.conv1.weight is missing",
        "layer9.weight belongs to another network",
        "bn1.bias is (3,), expected (4,)",
    ):
        assert part in text


def test_many_tensors_that_do_not_fit_are_counted(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"conv1\.weight is missing;.*; and \d+ more;") as error:
        load_published(weights(), tmp_path / "w.pth")
    assert len(line(error)) < 400


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_never_run(tmp_path, new_format):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    torch.save({"conv1.weight": Payload(marker)}, path, _use_new_zipfile_serialization=new_format)
    assert not marker.exists()
    with pytest.raises(InputError, match="something other than tensors") as error:
        load_published(weights(), path)
    line(error)
    assert not marker.exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], torch.zeros(2)])
def test_what_is_no_list_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not a list of named tensors"):
        read_state(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".t7"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", pickle.dumps([1, 2], 2), b"PK\x03\x04" + b"x" * 99]
)
def test_damaged_files_are_named(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_published(weights(), path)
    assert str(path) in line(error)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), form=st.sampled_from(["new.pth", "old.pth", "s.safetensors"]))
def test_a_damaged_file_is_refused_or_read_and_never_crashes(data, form, tmp_path):
    whole = tmp_path / form
    state = {"a.weight": torch.ones(3, 4), "b": torch.arange(5)}
    if form == "s.safetensors":
        save_file(state, whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=form == "new.pth")
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged{whole.suffix}"
    damaged.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    refused = None
    try:
        read_state(damaged)
    except InputError as error:
        refused = str(error)
    assert refused is None or "\n" not in refused


def test_an_archive_is_read_for_its_member(tmp_path, torch7):
    path = tmp_path / "w.zip"
    member = "models/net.t7"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("models/other.t7", torch7.write(1))
    with pytest.raises(InputError, match=r"has no models/net\.t7"):
        load_published(weights(member=member), path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, torch7.write({"modules": {}}))
    with pytest.raises(InputError, match="is not SoundNet-5"):
        load_published(weights(member=member), path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"'resnet5'.*alexnet, inception_v4, resnet101, resnet50"):
        load_backbone("resnet5")


def test_the_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "soundpost" / "weights"
    with pytest.raises(InputError, match=str(tmp_path / "soundpost/weights/vgg16-397923af.pth")):
        load_backbone("vgg16")
