"""The video branch of li2018: what two frozen networks and word vectors make of a clip's pictures.

Pictures, features of each (AlexNet's conv5), four key frames, probabilities of a thousand objects
in each of these (Inception-v4); then, in no time, the ten likeliest objects of the clip and the
events that they speak for. What takes time is kept, a row for each clip: all but the last step,
so that other names, word vectors or numbers of objects cost nothing.

A clip's pictures are in memory together: 240 of 1280 x 720 are 0.66 GB.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.backbones.weights import default_cache
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media import Frames
from soundpost.train.datasets.media_cache import RowCache, open_rows
from soundpost.train.multimodal.clip_media import ClipMedia
from soundpost.train.multimodal.fusion_recipe import VideoSettings
from soundpost.train.multimodal.key_frames import key_frames
from soundpost.train.multimodal.objects import clip_objects, event_probabilities
from soundpost.train.multimodal.tagging_features import VisualInput, hash_of, leaving_out
from soundpost.train.multimodal.tagging_inputs import open_visual
from soundpost.train.multimodal.tagging_recipe import STUB
from soundpost.train.multimodal.word_vectors import (
    ObjectEventMap,
    ObjectEvents,
    map_objects,
    read_word_vectors,
)

logger = logging.getLogger(__name__)

# Raise it when the meaning of a row changes.
_FORMAT = 1
# A row may take half a minute: a killed job loses this many at most.
_ROWS_PER_FILE = 16
# Columns of a row before the objects'.
_NUMBER = 1

# Stanford's file for the paper's vectors, and the hash of the archive that it comes in.
GLOVE_FILE = "glove.840B.300d.txt"
_GLOVE_FROM = (
    f"the published file is {GLOVE_FILE} in glove.840B.300d.zip (sha256 "
    "c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f) from "
    "https://nlp.stanford.edu/data/glove.840B.300d.zip"
)
NAMES_FILE = "synset_words.txt"
_NAMES_FROM = (
    f"for ImageNet's thousand it is {NAMES_FILE} (no published hash) in "
    "http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz"
)
# ImageNet's id before a name.
_WORDNET_ID = re.compile(r"^n\d{8}\s+")


@dataclass(frozen=True)
class VideoBranch:
    """Two frozen networks.

    features : whose vectors tell frames apart
    objects : whose scores, through a softmax, say what is in a frame
    key_frames : of a clip
    """

    features: VisualInput
    objects: VisualInput
    key_frames: int

    def look(self, frames: Frames) -> FloatArray:
        """Objects in the key frames of a clip.

        frames : (n, height, width, 3) uint8, RGB

        Returns
        -------
        (n_key_frames, 1 + n_objects) float32
            The number of each key frame, then probabilities that add up to 1.
        """
        chosen = key_frames(self.features.vectors(frames), self.key_frames)
        scores = torch.from_numpy(self.objects.vectors(frames[chosen]))
        numbers = chosen[:, None].astype(np.float32)
        return np.concatenate([numbers, scores.softmax(1).numpy()], axis=1)

    def looked(self, frames: Frames, seconds: float) -> FloatArray:
        """The same of a clip's first seconds."""
        return self.look(frames[: self.features.n_frames(seconds)])

    def fingerprint(self) -> str:
        """Changes whenever rows may."""
        networks = [one.backbone.fingerprint() for one in (self.features, self.objects)]
        return hash_of(
            _FORMAT, "objects", networks, self.features.frames_per_second, self.key_frames
        )


def open_branch(settings: VideoSettings, device: torch.device, *, quiet: bool) -> VideoBranch:
    """The branch of a recipe; InputError, saying whence and the hash, where weights are missing."""
    return VideoBranch(
        open_visual(settings.network("features"), device, quiet=quiet),
        open_visual(settings.network("objects"), device, quiet=quiet),
        settings.key_frames,
    )


def open_objects(
    clips: Sequence[MediaClip],
    media: ClipMedia,
    branch: VideoBranch,
    seconds: float,
    folder: Path,
    *,
    skip: bool = False,
    quiet: bool = False,
) -> RowCache:
    """Rows of clips with pictures, as of VideoBranch.look.

    skip : an empty row where a file cannot be used, with a warning; else its InputError is raised
    """
    empty = np.empty((0, _NUMBER + branch.objects.size), np.float32)

    def make(clip: MediaClip) -> FloatArray:
        return branch.looked(media.pictures(clip, branch.features.frames_per_second), seconds)

    row = leaving_out(make, empty if skip else None)
    made_by = hash_of(branch.fingerprint(), seconds)
    return open_rows(
        clips, made_by, row, folder, rows_per_file=_ROWS_PER_FILE, title="key frames", quiet=quiet
    )


def frame_numbers(row: FloatArray) -> NDArray[np.int64]:
    """Numbers of a clip's key frames, of its row."""
    return row[:, 0].astype(np.int64)


def frame_objects(row: FloatArray) -> FloatArray:
    """Probabilities of the objects in them, (n_key_frames, n_objects)."""
    return row[:, _NUMBER:]


def video_scores(rows: Sequence[FloatArray], mapping: ObjectEvents, top: int) -> FloatArray:
    """Probabilities of events as pictures tell, (n_clips, n_events), of the clips' rows."""
    objects = np.stack([clip_objects(frame_objects(row), top) for row in rows])
    # Sums of what adds up to 1 may come out a little above.
    return np.minimum(event_probabilities(objects, mapping), 1.0).astype(np.float32)


# ---------------------------------------------------------------------------------- names


def object_names(settings: VideoSettings, network: VisualInput, labels: Sequence[str]) -> list[str]:
    """Names of what a network recognises.

    labels : of the events; a stub's objects are called so, one after the other

    Raises InputError where there is no file of them, or it has more or fewer than the network.
    """
    if settings.object_names or not (network.backbone.names or settings.objects == STUB):
        path = Path(settings.object_names or default_cache() / NAMES_FILE)
        names = read_object_names(path)
        where = str(path)
    else:
        own = network.backbone.names
        names = list(own) or [labels[i % len(labels)] for i in range(network.size)]
        where = settings.objects
    if len(names) != network.size:
        raise InputError(
            f"{where}: has {len(names)} names, but {settings.objects} recognises {network.size} "
            "objects; give a file with a line for each with visual.object_names"
        )
    return names


def read_object_names(path: Path) -> list[str]:
    """A name in each line, such as "tabby, tabby cat", with ImageNet's id before it or without.

    Raises InputError where the file cannot be read, or a line is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise InputError(
            f"{path}: names of objects cannot be read ({reason}); {_NAMES_FROM}: put it there, or "
            "give a file with a name in each line with visual.object_names"
        ) from error
    names = [_WORDNET_ID.sub("", line).strip() for line in lines]
    if "" in names:
        raise InputError(
            f"{path}: line {names.index('') + 1}: is empty; expected the name of an object in each"
        )
    return names


def open_mapping(
    settings: VideoSettings, objects: Sequence[str], events: Sequence[str], *, quiet: bool
) -> tuple[ObjectEventMap, str]:
    """Which event each object speaks for, and the SHA-256 of the word vectors that say so.

    Raises InputError where the file of word vectors cannot be used.
    """
    path = Path(settings.word_vectors or default_cache() / GLOVE_FILE)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file of word vectors; {_GLOVE_FROM}: put it there, or give a GloVe "
            "text file with visual.word_vectors"
        )
    vectors = read_word_vectors(path, [*objects, *events], quiet=quiet)
    sha256 = hash_of(*((word, vectors[word].tolist()) for word in sorted(vectors)))
    return map_objects(objects, events, vectors, settings.least_cosine), sha256
