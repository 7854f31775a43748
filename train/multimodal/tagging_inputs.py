"""What a tagging recipe takes from a folder: its clips, their features, the frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone, frozen_backbone
from soundpost.train.backbones.frozen_audio import (
    FrozenHearing,
    soundnet_hearing,
    stub_hearing,
    student_hearing,
    vggish_hearing,
)
from soundpost.train.backbones.published import PUBLISHED
from soundpost.train.backbones.soundnet5 import SoundNet5
from soundpost.train.backbones.vggish import VGGish
from soundpost.train.backbones.weights import load_backbone
from soundpost.train.datasets.catalogue import Medium
from soundpost.train.datasets.media_cache import cache_folder
from soundpost.train.multimodal.acoustic_inputs import (
    LOG_MEL,
    EmbeddingInput,
    Heard,
    LogMelInput,
)
from soundpost.train.multimodal.clip_media import ReadSet, read_media_set
from soundpost.train.multimodal.mutual_networks import AcousticContext, SpectrogramNetwork
from soundpost.train.multimodal.picture_run import picture_backbone
from soundpost.train.multimodal.tagging_features import VisualInput, band_statistics
from soundpost.train.multimodal.tagging_recipe import (
    STUB,
    EmbeddingSettings,
    PictureSettings,
    TaggingRecipe,
)
from soundpost.train.multimodal.tagging_sets import IntArray, TaggingSet, open_tagging_set
from soundpost.train.run import WEIGHTS, load_run

FEATURES = "features"


def open_visual(settings: PictureSettings, device: torch.device, *, quiet: bool) -> VisualInput:
    """The frozen backbone of a recipe; InputError, saying whence and its hash, without weights."""
    if settings.backbone == STUB:
        backbone = FrozenBackbone(StubBackbone(), origin={"name": STUB})
    elif settings.is_run:
        backbone, _ = picture_backbone(Path(settings.file or settings.backbone))
    else:
        file = Path(settings.file) if settings.file else None
        loaded = load_backbone(settings.backbone, file, online=settings.online, quiet=quiet)
        backbone = frozen_backbone(loaded)
    backbone.to(device)
    return VisualInput(backbone, settings.frames_per_second, settings.output == "scores")


def open_backbone_of(
    recipe: TaggingRecipe,
    note: dict[str, Any],
    run: Path,
    weights: str,
    device: torch.device,
    quiet: bool,
) -> VisualInput:
    """The backbone that a run was trained with.

    note : what the run noted of it
    weights : its file, where it is neither where the recipe says nor in the cache

    Raises InputError where weights are missing or others.
    """
    file = weights or recipe.visual.file
    visual = open_visual(replace(recipe.visual, file=file), device, quiet=quiet)
    if backbone_note(visual) != note:
        raise InputError(
            f"{run}: was trained with other weights of {recipe.visual.backbone} (sha256 "
            f"{note.get('sha256', 'unknown')}); give these with --weights"
        )
    return visual


def backbone_note(visual: VisualInput | None) -> dict[str, Any]:
    """What a run notes of its backbone; empty without one."""
    if visual is None:
        return {}
    return {**(visual.backbone.origin or {}), "fingerprint": visual.backbone.fingerprint()}


def open_features(
    recipe: TaggingRecipe,
    device: torch.device,
    *,
    names: Sequence[str] | None = None,
    quiet: bool,
) -> tuple[Heard, ...]:
    """The features that a recipe takes of the sound, in its order.

    names : those of them that are needed; all by default

    Raises InputError, saying whence and its hash, where the weights of one are missing.
    """
    found: list[Heard] = []
    for name in recipe.acoustic.features if names is None else names:
        if name == LOG_MEL:
            found.append(LogMelInput(recipe.front_end))
        else:
            hearing = _open_hearing(recipe.acoustic.embeddings[name], quiet=quiet)
            hearing.to(device)
            found.append(EmbeddingInput(name, hearing))
    return tuple(found)


def _open_hearing(settings: EmbeddingSettings, *, quiet: bool) -> FrozenHearing:
    if settings.backbone == STUB:
        return stub_hearing()
    if settings.is_run:
        run = load_run(Path(settings.file or settings.backbone))
        origin = {"name": "clip student", "sha256": file_sha256(run.folder / WEIGHTS)}
        return student_hearing(run.network, run.front_end, run.n_frames, origin)
    if settings.backbone not in PUBLISHED:
        raise UsageError(_wrong_hearing(settings.backbone))
    file = Path(settings.file) if settings.file else None
    loaded = load_backbone(settings.backbone, file, online=settings.online, quiet=quiet)
    network, origin = loaded.network, {"name": settings.backbone, "sha256": loaded.sha256}
    if isinstance(network, VGGish):
        return vggish_hearing(network, origin)
    if isinstance(network, SoundNet5):
        return soundnet_hearing(network, origin)
    raise UsageError(_wrong_hearing(settings.backbone))


def _wrong_hearing(backbone: str) -> str:
    return (
        f"acoustic: backbone {backbone[:200]!r}: expected vggish, soundnet5, stub or the run "
        "folder of a clip student"
    )


def open_features_of(
    recipe: TaggingRecipe,
    notes: Sequence[dict[str, Any]],
    run: Path,
    device: torch.device,
    *,
    names: Sequence[str] | None = None,
    quiet: bool,
) -> tuple[Heard, ...]:
    """The features that a run was trained with.

    notes : what the run noted of them

    Raises InputError where the weights of one are missing or others.
    """
    features = open_features(recipe, device, names=names, quiet=quiet)
    noted = {note["name"]: note for note in notes}
    for feature in features:
        note = noted[feature.name]
        if feature.note() != note:
            raise InputError(
                f"{run}: was trained with other weights of {feature.name} (sha256 "
                f"{note.get('origin', {}).get('sha256', 'unknown')}); put these in their place"
            )
    return features


@dataclass(frozen=True)
class TaggingInputs:
    """Splits of one data set with one recipe's features.

    features : of the sound
    visual : None where nobody looks
    """

    recipe: TaggingRecipe
    folder: Path
    read: ReadSet
    features: tuple[Heard, ...]
    visual: VisualInput | None
    quiet: bool

    def open(self, splits: Sequence[str], *, to_learn: bool = False) -> TaggingSet:
        """Labelled clips of some splits; InputError as open_tagging_set raises it.

        to_learn : where faults are skipped, leave out clips that lack one of data.needs
        """
        data, clips = self.recipe.data, self.read.clips
        if to_learn and data.skip:
            clips = clips.having(*(cast(Medium, medium) for medium in data.needs))
        return open_tagging_set(
            clips,
            splits,
            self.read.media,
            self.features,
            data.seconds,
            cache_folder(self.folder, FEATURES),
            visual=self.visual,
            skip=data.skip,
            quiet=self.quiet,
        )


def open_inputs(
    recipe: TaggingRecipe,
    folder: Path,
    features: tuple[Heard, ...],
    visual: VisualInput | None,
    *,
    quiet: bool,
) -> TaggingInputs:
    """Read a folder's tables; InputError as read_media_set raises it."""
    folders = recipe.data.folders(folder)
    read = read_media_set(recipe.data.kind, folders, refuse=not recipe.data.skip)
    return TaggingInputs(recipe, folder, read, features, visual, quiet)


def standardise(method: nn.Module, train: TaggingSet, clips: IntArray) -> None:
    """Give all convolutions the training clips' mean and deviation of each band that they hear.

    Vectors need none: a batch normalisation follows the first layer of their sub-networks.
    """
    statistics: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for side in (m for m in method.modules() if isinstance(m, AcousticContext)):
        for index, part in enumerate(side.parts):
            if isinstance(part, SpectrogramNetwork):
                if index not in statistics:
                    rows = train.sound_row[clips]
                    statistics[index] = band_statistics(train.sounds[index], rows)
                part.standardise.set_to(*statistics[index])
