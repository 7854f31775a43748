"""Pretrained networks, from a local file or, where that is allowed, from their hub.

A file is never more than tensors: pickles are read by torch's reader for weights alone, which
builds nothing else, Torch 7 files by a reader of our own, the rest is safetensors. What is wrong
with a file is one line that names the tensors.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.download import download, file_sha256
from soundpost.train.backbones.published import PUBLISHED, PublishedWeights
from soundpost.train.backbones.soundnet5 import published_state
from soundpost.train.backbones.torch7 import read_torch7

# What torch's reader was seen to raise on damaged pickles, beside RuntimeError.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)

logger = logging.getLogger(__name__)

# A Torch 7 file is read into memory; SoundNet's has some 20 MB.
_MAX_MEMBER_BYTES = 1 << 30
_NAMED_TENSORS = 3


@dataclass(frozen=True)
class LoadedBackbone:
    """A network with its weights, and where they came from.

    network : in evaluation mode
    path : the file
    sha256 : of the file, all of it
    """

    weights: PublishedWeights
    network: nn.Module
    path: Path
    sha256: str

    @property
    def as_published(self) -> bool | None:
        """Whether the file is the published one; None where no hash is published."""
        expected = self.weights.sha256
        return None if expected is None else self.sha256.startswith(expected)

    def record(self) -> dict[str, Any]:
        """What a run notes about it."""
        return {
            "name": self.weights.name,
            "title": self.weights.title,
            "file": self.path.name,
            "sha256": self.sha256,
            "as_published": self.as_published,
            "licence": self.weights.licence,
        }


def default_cache() -> Path:
    """The folder for weights in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "soundpost" / "weights"


def load_backbone(
    name: str,
    file: Path | None = None,
    cache: Path | None = None,
    online: bool = False,
    *,
    n_classes: int | None = None,
    quiet: bool = False,
) -> LoadedBackbone:
    """A pretrained network.

    Parameters
    ----------
    name : one of published.PUBLISHED
    file : weights of this network, the published or other ones (fine-tuned, for other classes)
    cache : folder where the published file is looked for, and kept when it is fetched; by default
        `soundpost/weights` in the user's cache
    online : fetch the published file where the cache lacks it
    n_classes : of the file's last layer; by default that of the published weights

    Raises UsageError for an unknown name, InputError where weights are missing, not the published
    ones (in the cache), unreadable or of another network.
    """
    if name not in PUBLISHED:
        known = ", ".join(sorted(PUBLISHED))
        raise UsageError(f"{name[:60]!r}: no such backbone; there are {known}")
    return load_published(PUBLISHED[name], file, cache, online, n_classes=n_classes, quiet=quiet)


def load_published(
    weights: PublishedWeights,
    file: Path | None = None,
    cache: Path | None = None,
    online: bool = False,
    *,
    n_classes: int | None = None,
    quiet: bool = False,
) -> LoadedBackbone:
    """The same for weights that the list lacks; see load_backbone."""
    if file is None:
        path, sha256 = _cached(weights, default_cache() if cache is None else cache, online, quiet)
    else:
        if not file.is_file():
            raise InputError(f"{file}: no such file; {_remedy(weights)}")
        path, sha256 = file, file_sha256(file)
    try:
        state = weights.convert(read_state(path, weights.member))
    except InputError as error:
        raise InputError(f"{weights.name}: {path} {error}; {_remedy(weights)}") from error
    # On "meta", a network of 138 million parameters costs nothing until its tensors are there.
    with torch.device("meta"):
        network = weights.build(n_classes)
    fit_state(network, state, f"{weights.name}: {path}")
    loaded = LoadedBackbone(weights, network.eval(), path, sha256)
    if loaded.as_published is None:
        logger.warning("%s: no hash is published for it; this file's is %s", path, sha256)
    elif not loaded.as_published:
        logger.info("%s: not %s, but other weights of this network", path, weights.title)
    return loaded


def _remedy(weights: PublishedWeights) -> str:
    sha256 = "no published hash" if weights.sha256 is None else f"sha256 {weights.sha256}"
    return f"the published file is {weights.file_name} ({sha256}) from {weights.url}"


def _cached(weights: PublishedWeights, cache: Path, online: bool, quiet: bool) -> tuple[Path, str]:
    path = cache / weights.file_name
    if path.is_file():
        sha256 = file_sha256(path)
        if weights.sha256 is not None and not sha256.startswith(weights.sha256):
            raise InputError(
                f"{path}: sha256 is {sha256}, expected {weights.sha256} of {weights.title}; delete "
                f"it and fetch it again from {weights.url}"
            )
        return path, sha256
    if not online:
        raise InputError(
            f"{weights.name}: no weights at {path}; {_remedy(weights)}: put it there, give another "
            "file, or allow the download"
        )
    return path, download(weights.url, path, weights.sha256, quiet=quiet)


def read_state(path: Path, member: str | None = None) -> dict[str, Tensor]:
    """Tensors of a file by name; InputError, without the file's name, on anything else.

    member : what to read of an archive (`.zip`)
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            return load_file(path)
        if suffix == ".t7":
            return published_state(read_torch7(path.read_bytes()))
        if suffix == ".zip" and member is not None:
            return published_state(read_torch7(_member(path, member)))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
        raise InputError(f"is not a readable file of weights ({_first_line(error)})") from error
    except _PICKLE_ERRORS as error:
        raise InputError(
            f"holds something other than tensors, or is damaged; it was not opened "
            f"({_first_line(error)})"
        ) from error
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise InputError("is not a list of named tensors (a state_dict)")
    return dict(found)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _member(path: Path, member: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        try:
            size = archive.getinfo(member).file_size
        except KeyError:
            raise InputError(f"has no {member} in it") from None
        if size > _MAX_MEMBER_BYTES:
            raise InputError(f"promises {size / 1e9:.1f} GB for {member}")
        with archive.open(member) as packed:
            return io.BytesIO(packed.read(size)).getvalue()


def fit_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a network (made under torch.device("meta") or not), as float32.

    Counters of batches, which older files lack, start at 0.

    Raises InputError naming the tensors that are missing, left over or of another shape.
    """
    expected = network.state_dict()
    found = dict(state)
    for name, tensor in expected.items():
        if name.endswith(".num_batches_tracked"):
            found.setdefault(name, torch.zeros_like(tensor, device="cpu"))
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} belongs to another network" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        more = len(problems) - _NAMED_TENSORS
        listed = "; ".join(problems[:_NAMED_TENSORS]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"{where} does not fit: {listed}; give weights of this network, with its number of "
            "classes"
        )
    tensors = {name: found[name].to(expected[name].dtype).contiguous().clone() for name in expected}
    network.load_state_dict(tensors, assign=True)
