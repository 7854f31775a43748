"""What a tagging recipe takes from a folder: its clips, their features, the frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from soundpost.device.errors import InputError
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone, frozen_backbone
from soundpost.train.backbones.weights import load_backbone
from soundpost.train.datasets.catalogue import Medium
from soundpost.train.datasets.media_cache import cache_folder
from soundpost.train.multimodal.clip_media import ReadSet, read_media_set
from soundpost.train.multimodal.mutual_networks import SpectrogramNetwork
from soundpost.train.multimodal.picture_run import picture_backbone
from soundpost.train.multimodal.tagging_features import VisualInput, band_statistics
from soundpost.train.multimodal.tagging_recipe import STUB, PictureSettings, TaggingRecipe
from soundpost.train.multimodal.tagging_sets import IntArray, TaggingSet, open_tagging_set

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
    weights : its file, where it is not in the cache

    Raises InputError where weights are missing or others.
    """
    visual = open_visual(replace(recipe.visual, file=weights), device, quiet=quiet)
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


@dataclass(frozen=True)
class TaggingInputs:
    """Splits of one data set with one recipe's features.

    visual : None where nobody looks
    """

    recipe: TaggingRecipe
    folder: Path
    read: ReadSet
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
            self.recipe.front_end,
            data.seconds,
            cache_folder(self.folder, FEATURES),
            visual=self.visual,
            skip=data.skip,
            quiet=self.quiet,
        )


def open_inputs(
    recipe: TaggingRecipe, folder: Path, visual: VisualInput | None, *, quiet: bool
) -> TaggingInputs:
    """Read a folder's tables; InputError as read_media_set raises it."""
    folders = recipe.data.folders(folder)
    read = read_media_set(recipe.data.kind, folders, refuse=not recipe.data.skip)
    return TaggingInputs(recipe, folder, read, visual, quiet)


def standardise(method: nn.Module, train: TaggingSet, clips: IntArray) -> None:
    """Give all acoustic networks the training clips' mean and deviation of each band."""
    networks = [m for m in method.modules() if isinstance(m, SpectrogramNetwork)]
    if networks:
        mean, deviation = band_statistics(train.sound, train.sound_row[clips])
        for network in networks:
            network.standardise.set_to(mean, deviation)
