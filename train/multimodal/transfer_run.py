"""One transfer of a pre-trained audio network, or the same learnt from scratch, to a run folder.

It holds settings.json, metrics.jsonl, a checkpoint, model.safetensors (audio network and
classifier), scores.npz of what was judged, figures.json, pictures and report.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.checkpoint import load_weights, save_arrays, save_tensors
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media_cache import RowCache, cache_folder, open_rows
from soundpost.train.multimodal.audio_networks import as_encoder, audio_network, without_classifier
from soundpost.train.multimodal.clip_media import ReadSet, lacks, read_media_set
from soundpost.train.multimodal.fitting import fit_method
from soundpost.train.multimodal.machine_labels import fold_of
from soundpost.train.multimodal.machine_run import MachineRun, load_machine_run
from soundpost.train.multimodal.method import Stage
from soundpost.train.multimodal.recognition import Recognition, recognise
from soundpost.train.multimodal.second_features import HeardClips, open_seconds
from soundpost.train.multimodal.tagging_features import hash_of
from soundpost.train.multimodal.tagging_inputs import FEATURES
from soundpost.train.multimodal.transfer import (
    ClipNetwork,
    FloatArray,
    InputsOf,
    IntArray,
    TransferBatches,
    TransferClassifier,
    TransferLearning,
    repeated,
    same_length,
    score_inputs,
)
from soundpost.train.multimodal.transfer_recipe import TransferRecipe, transfer_recipe_from_dict
from soundpost.train.multimodal.transfer_report import write_transfer_report
from soundpost.train.run import SCORES, SETTINGS, WEIGHTS, claim, finished_settings, git_revision

logger = logging.getLogger(__name__)

SCHEMA = "soundpost.transfer_run/1"
# Numbers that clips are told apart by when a share of them is drawn.
_KEYS = 2**32


@dataclass(frozen=True)
class TransferRun:
    """A finished run; network : a clip's seconds to scores, in evaluation mode."""

    folder: Path
    labels: tuple[str, ...]
    recipe: TransferRecipe
    network: ClipNetwork


@dataclass(frozen=True)
class HeardSplit:
    """Labelled clips of one split whose sound can be used.

    heard, rows : seconds of the split's clips, and the row of each that can be used
    """

    clips: tuple[MediaClip, ...]
    heard: HeardClips
    rows: IntArray

    def seconds(self, clip: int) -> FloatArray:
        """Its own seconds, (n_seconds, n_frames, n_mels) float32."""
        return self.heard.seconds(int(self.rows[clip]))


@dataclass(frozen=True)
class TransferSet:
    """Labelled clips of some splits, one split after the other.

    Features are kept by split, so that folds of which each is held out once are made once.

    targets : (n_clips, n_labels) float32, 0 or 1
    seconds : of each clip as networks take it
    """

    labels: tuple[str, ...]
    splits: tuple[HeardSplit, ...]
    targets: FloatArray
    seconds: int

    @cached_property
    def clips(self) -> tuple[MediaClip, ...]:
        """All of them."""
        return tuple(clip for split in self.splits for clip in split.clips)

    @cached_property
    def _ends(self) -> IntArray:
        return np.cumsum([len(split.clips) for split in self.splits])

    def inputs(self, clips: IntArray) -> FloatArray:
        """Seconds of some clips by their numbers, (n, n_seconds, n_frames, n_mels) float32."""
        found = []
        for clip in clips:
            place = int(np.searchsorted(self._ends, clip, side="right"))
            split = self.splits[place]
            own = split.seconds(int(clip - self._ends[place] + len(split.clips)))
            found.append(own[repeated(len(own), self.seconds)])
        return np.stack(found)

    def loss_targets(self, one: bool) -> Tensor:
        """As transfer_loss takes them; InputError where a clip has not one label."""
        if not one:
            return torch.from_numpy(self.targets)
        counts = self.targets.sum(1)
        if (counts != 1).any():
            number = int(np.flatnonzero(counts != 1)[0])
            raise InputError(
                f"{self.clips[number].source or self.clips[number].id}: has "
                f"{int(counts[number])} labels; expected one: set data.labels=several"
            )
        return torch.from_numpy(self.targets.argmax(1).astype(np.int64))

    def digest(self) -> str:
        """SHA-256 of the clips and their labels, wherever their files lie."""
        rows = [[clip.id, clip.split, list(clip.labels)] for clip in self.clips]
        return hashlib.sha256(json.dumps([self.labels, rows]).encode()).hexdigest()


def train_transfer(
    recipe: TransferRecipe,
    folder: Path,
    run: Path,
    device: torch.device,
    *,
    fold: int | None = None,
    init: str | None = None,
    quiet: bool = False,
) -> dict[str, Recognition]:
    """Train, judge and write the run folder; goes on where an earlier call was killed.

    Parameters
    ----------
    folder : of the data set
    fold : to hold out, where the recipe names no splits
    init : run of a pre-training; without it every layer learns, from random weights

    Returns
    -------
    what the network says of "validation" and "test", as far as there are any

    Raises
    ------
    InputError
        The set, a clip or the run to begin with cannot be used; the loss is no number any more.
    UsageError, ConfigError
        The recipe does not fit these options; the run folder holds another run.
    """
    begun = _load_init(recipe, init)
    if begun is not None:
        recipe = recipe.begun_with(begun.recipe.model, begun.recipe.front_end)
    read = read_media_set(
        recipe.data.kind, recipe.data.folders(folder), refuse=not recipe.data.skip
    )
    recipe = replace(recipe, data=recipe.data.held_out(read.clips, fold, recipe.name))
    data, training = recipe.data, recipe.training
    best_by = training.best_by("student_map", validated=bool(data.validation))
    train = open_transfer_set(recipe, read, folder, data.train, quiet=quiet)
    held = {
        name: open_transfer_set(recipe, read, folder, splits, quiet=quiet)
        for name, splits in (("validation", data.validation), ("test", data.test))
        if splits
    }
    torch.manual_seed(training.seed)
    network = clip_network(recipe, len(train.labels))
    if begun is not None:
        encoder = without_classifier(begun.network)
        network.encoder.load_state_dict(encoder.state_dict())
    targets = train.loss_targets(data.one)
    learnt = drawn_share([clip.id for clip in train.clips], data.share, training.seed)
    weights = file_sha256(begun.folder / WEIGHTS) if begun is not None else None
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(train.labels),
        "front_end": recipe.front_end.to_dict(),
        "data": {
            "n_train": len(learnt),
            "n_listed": len(train.clips),
            "train": train.digest(),
            **{
                name: {"n_clips": len(of.clips), "sha256": of.digest()} for name, of in held.items()
            },
        },
        "path": str(folder.resolve()),
        "recipe": recipe.without_places(),
        "init": weights and {"name": begun and begun.folder.resolve().name, "sha256": weights},
        "git": git_revision(),
        "torch": torch.__version__,
    }
    claim(run, settings)
    student: nn.Module = network
    inputs: dict[str, InputsOf] = {"train": train.inputs}
    inputs |= {name: of.inputs for name, of in held.items()}
    if not recipe.learns_all:
        student = network.classifier
        network.to(device).eval()
        made_by = (str(weights), recipe.front_end.hash())
        for name, of in (("train", train), *held.items()):
            inputs[name] = _embedded(network, of, made_by, folder, device, quiet)
    method = TransferLearning(student, recipe.transfer.l2)

    def judge(name: str) -> Recognition:
        of = held[name]
        numbers = np.arange(len(of.clips))
        scores = score_inputs(student, inputs[name], numbers, device, one=data.one)
        return recognise([clip.id for clip in of.clips], of.labels, scores, of.targets)

    def watch(_stage: Stage) -> dict[str, Any]:
        watched = next(iter(held))
        figures = judge(watched).figures()
        line: dict[str, Any] = {"judged": watched}
        return line | {f"student_{key}": round(value, 4) for key, value in figures.items()}

    source = TransferBatches(inputs["train"], targets, learnt, training.batch_size, training.seed)
    fit_method(method, source, training, run, device, judge=watch, best_by=best_by, quiet=quiet)
    save_tensors(run / WEIGHTS, network.state_dict(), {"labels": list(train.labels)})
    judged = {name: judge(name) for name in held}
    _write_scores(run, judged)
    write_transfer_report(run, recipe, settings, judged)
    return judged


def clip_network(recipe: TransferRecipe, n_labels: int) -> ClipNetwork:
    """The network of a recipe, with random weights."""
    # Its classifier is replaced, whatever its labels were.
    encoder = without_classifier(audio_network(recipe.model.audio(), 1))
    classifier = TransferClassifier(
        n_labels, recipe.data.seconds, recipe.transfer.dropout, as_encoder(encoder).embedding_size
    )
    return ClipNetwork(encoder, classifier)


def drawn_share(clip_ids: Sequence[str], share: float, seed: int) -> IntArray:
    """Numbers of a share of some clips: of a larger share all that a smaller one has."""
    n = max(1, math.ceil(share * len(clip_ids) - 1e-9))
    keys = [fold_of(f"{seed} {clip_id}", _KEYS) for clip_id in clip_ids]
    return np.sort(np.argsort(keys, kind="stable")[:n]).astype(np.int64)


def open_transfer_set(
    recipe: TransferRecipe, read: ReadSet, folder: Path, splits: Sequence[str], *, quiet: bool
) -> TransferSet:
    """Labelled clips of some splits, their log-mel made where it is not there yet.

    Raises InputError for a split that is not there or has no clip that can be used, and, unless
    they are skipped, for a clip that cannot be used.
    """
    found = tuple(_open_split(recipe, read, folder, split, quiet) for split in splits)
    column = {label: index for index, label in enumerate(read.clips.labels)}
    of = TransferSet(read.clips.labels, found, np.zeros((0, 0), np.float32), recipe.data.seconds)
    targets = np.zeros((len(of.clips), len(column)), np.float32)
    for row, clip in enumerate(of.clips):
        targets[row, [column[label] for label in clip.labels]] = 1.0
    return replace(of, targets=targets)


def _open_split(
    recipe: TransferRecipe, read: ReadSet, folder: Path, split: str, quiet: bool
) -> HeardSplit:
    clips = [clip for clip in read.clips.of(split).clips if clip.labelled]
    if not clips:
        raise InputError(f"{folder}: {split}: has no labelled clip; choose another split")
    silent = [clip for clip in clips if not clip.has("audio")]
    if silent and not recipe.data.skip:
        raise InputError(
            f"{lacks(silent[0], 'audio')}; so it is with {len(silent)} of the {len(clips)} clips "
            f"of {split}: data.problems=skip goes on without them"
        )
    heard = open_seconds(
        clips, read.media, recipe.front_end, cache_folder(folder, FEATURES),
        skip=recipe.data.skip, quiet=quiet,
    )  # fmt: skip
    rows = np.flatnonzero(heard.n_frames())
    if not len(rows):
        raise InputError(
            f"{folder}: {split}: no clip can be used; soundpost dataset check says why"
        )
    if len(rows) < len(clips):
        left_out = len(clips) - len(rows)
        logger.warning("%s: %s: %d of %d clips left out", folder, split, left_out, len(clips))
    return HeardSplit(tuple(clips[row] for row in rows), heard, rows)


def load_transfer_run(folder: Path) -> TransferRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    give = "a run of a transfer recipe, such as jia2019_esc50"
    settings = finished_settings(folder, SCHEMA, give)
    recipe = transfer_recipe_from_dict(settings["recipe"], str(path))
    labels = tuple(settings["labels"])
    network = clip_network(recipe, len(labels))
    load_weights(network, folder / WEIGHTS)
    network.eval()
    return TransferRun(folder, labels, recipe, network)


def _load_init(recipe: TransferRecipe, init: str | None) -> MachineRun | None:
    """The run to begin with; UsageError or ConfigError where there must be one and is none."""
    if init is not None:
        if not Path(init).is_dir():
            raise UsageError(
                f"--init {init}: no such folder; give a run of a pre-training recipe, such as "
                "jia2019_mobilenet_v2"
            )
        return load_machine_run(Path(init))
    if not recipe.learns_all:
        raise UsageError(
            f"{recipe.name}: --init RUN is missing: give a run of a pre-training recipe, such as "
            "jia2019_mobilenet_v2; transfer.learns=all learns all layers from random weights"
        )
    if not recipe.model.network:
        raise ConfigError(
            f"{recipe.name}: model.network is empty and there is no --init RUN; name the network, "
            "such as model.network=mobilenet_v2"
        )
    return None


def _embedded(
    network: ClipNetwork,
    of: TransferSet,
    made_by: tuple[str, str],
    folder: Path,
    device: torch.device,
    quiet: bool,
) -> InputsOf:
    """Embeddings of a set's clips by their numbers, made where they are not there yet.

    made_by : what else than the clips decides them: hashes of the weights and of the front end
    """
    key = hash_of("embeddings", *made_by)
    rows: list[FloatArray] = []
    for split in of.splits:
        kept = _embedded_split(network, split, key, cache_folder(folder, FEATURES), device, quiet)
        rows += [kept[row] for row in range(len(split.clips))]
    found = same_length(rows, of.seconds)
    return lambda clips: found[clips]


def _embedded_split(
    network: ClipNetwork,
    split: HeardSplit,
    key: str,
    features: Path,
    device: torch.device,
    quiet: bool,
) -> RowCache:
    """(n_seconds of its own, embedding_size) float32 of each clip."""
    number = {clip.id: index for index, clip in enumerate(split.clips)}

    @torch.no_grad()
    def make(clip: MediaClip) -> FloatArray:
        seconds = torch.from_numpy(split.seconds(number[clip.id]))[None].to(device)
        found: FloatArray = network.embed(seconds)[0].float().cpu().numpy()
        return found

    return open_rows(split.clips, key, make, features, title="embeddings", quiet=quiet)


def _write_scores(run: Path, judged: dict[str, Recognition]) -> None:
    """scores.npz: `test_scores`, `test_truth` (n_clips, n_labels), `test_clips`, and so on."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, of in judged.items():
        arrays[f"{name}_scores"] = of.scores
        arrays[f"{name}_truth"] = of.truth
        arrays[f"{name}_clips"] = np.array(of.clip_ids, str)
    save_arrays(run / SCORES, arrays)
