"""Clips of the acoustic-image action set as the networks of perez2020 take them, cached.

A clip is a second for teachers, five for students, cut from the parts that are drawn for training
and test. Rows are made of all clips of a set, so that every scenario and seed finds them made:
acoustic images and embeddings in two bytes a number, waveforms in four, and of pictures the five
that Temporal ResNet-50 looks at, resized and cropped, in one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.train.backbones.frame_input import crop_frames
from soundpost.train.backbones.temporal_resnet import spread_frames
from soundpost.train.backbones.waveform import student_waveform
from soundpost.train.datasets.acoustic_actions import ActionSet
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND, RATE_HZ
from soundpost.train.datasets.action_splits import ActionPart
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media_cache import RowCache, open_rows
from soundpost.train.multimodal.action_networks import InputKind, as_input, frame_input
from soundpost.train.multimodal.epoch_order import EpochOrder
from soundpost.train.multimodal.fitting import to_device
from soundpost.train.multimodal.generalised import ActionBatch, mean_logits
from soundpost.train.multimodal.tagging_features import VisualInput

IntArray = NDArray[np.int64]
_AT_ONCE = 16
_MOST = float(np.finfo(np.float16).max)


def cut_clips(parts: Sequence[ActionPart], clip_s: float) -> tuple[ActionPart, ...]:
    """Clips of equal length, as many as each part holds, in its order.

    Raises InputError where a part is shorter than a clip.
    """
    n = round(clip_s * FRAMES_PER_SECOND)
    clips = []
    for part in parts:
        if part.n_frames < n:
            raise InputError(
                f"{part.id}: a part of {part.n_frames / FRAMES_PER_SECOND:g} s holds no clip of "
                f"{clip_s:g} s; set data.part_s to that or more"
            )
        last = part.first + part.n_frames - n
        clips += [ActionPart(part.recording, first, n) for first in range(part.first, last + 1, n)]
    return tuple(clips)


@dataclass(frozen=True)
class ActionClips:
    """Clips of a set with their rows.

    targets : (n_clips,) places of their actions in the set's list
    rows : by kind, (n_frames, 36, 48, 12), (n_frames, embedding_size), (5, 3, side, side) or
        (110250,) each
    """

    clips: tuple[ActionPart, ...]
    targets: IntArray
    rows: Mapping[InputKind, RowCache]
    _places: dict[tuple[str, int], int] = field(default_factory=dict, repr=False)

    def numbers(self, clips: Sequence[ActionPart]) -> IntArray:
        """Where some clips stand among these."""
        if not self._places:
            self._places.update(
                {(clip.recording.id, clip.first): i for i, clip in enumerate(self.clips)}
            )
        return np.array([self._places[clip.recording.id, clip.first] for clip in clips], np.int64)

    def digest(self, numbers: IntArray) -> str:
        """SHA-256 of which clips some numbers are, wherever their files lie."""
        rows = [[self.clips[i].id, int(self.targets[i])] for i in numbers]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def inputs(self, numbers: IntArray, kinds: Sequence[InputKind]) -> tuple[Tensor, ...]:
        """What a network takes of some clips: float32, frames uint8."""
        chosen = numbers.tolist()
        return tuple(as_input(torch.from_numpy(self.rows[kind].stack(chosen))) for kind in kinds)


def open_action_clips(
    actions: ActionSet,
    parts: Sequence[ActionPart],
    clip_s: float,
    kinds: Sequence[InputKind],
    folder: Path,
    *,
    visual: VisualInput | None = None,
    frame_px: int = 224,
    quiet: bool = False,
) -> ActionClips:
    """Clips of some parts, their rows made where they are not there yet.

    visual : how pictures become vectors, where they are wanted
    frame_px : side of frames, where they are wanted

    Raises InputError where a file is missing or broken, or a part is shorter than a clip.
    """
    clips = cut_clips(parts, clip_s)
    by_id = {clip.id: clip for clip in clips}
    microphone = actions.settings.good_microphones()[:1]

    def images(media: MediaClip) -> NDArray[np.float16]:
        clip = by_id[media.id]
        return _half(clip.recording.load_images(clip.first, clip.n_frames))

    def pictures(media: MediaClip) -> NDArray[np.float16]:
        assert visual is not None
        clip = by_id[media.id]
        return _half(visual.vectors(clip.recording.load_pictures(clip.first, clip.n_frames)))

    def frames(media: MediaClip) -> NDArray[np.uint8]:
        clip = by_id[media.id]
        shown = [clip.first + i for i in spread_frames(clip.n_frames)]
        pictures = np.concatenate([clip.recording.load_pictures(i, 1) for i in shown])
        return crop_frames(torch.from_numpy(pictures), frame_input(frame_px)).numpy()

    def sound(media: MediaClip) -> NDArray[np.float32]:
        clip = by_id[media.id]
        samples = clip.recording.load_audio(clip.first, clip.n_frames, microphone, actions.settings)
        return student_waveform(samples[:, 0], RATE_HZ)

    makers: dict[InputKind, Callable[[MediaClip], NDArray[Any]]] = {
        "images": images,
        "pictures": pictures,
        "frames": frames,
        "sound": sound,
    }
    made_by = {
        "images": "",
        "pictures": visual.backbone.fingerprint() if visual else "",
        "frames": str(frame_px),
        "sound": str(microphone),
    }
    rows = {
        kind: open_rows(
            [_media(clip, kind) for clip in clips],
            hashlib.sha256(json.dumps(["actions", kind, made_by[kind]]).encode()).hexdigest(),
            makers[kind],
            folder,
            title=kind,
            quiet=quiet,
        )
        for kind in kinds
    }
    places = {number: place for place, number in enumerate(actions.settings.actions)}
    targets = np.array([places[clip.recording.action] for clip in clips], np.int64)
    return ActionClips(clips, targets, rows)


def _media(clip: ActionPart, kind: InputKind) -> MediaClip:
    """A clip with the files that its rows of a kind are made of, and no others."""
    recording = clip.recording
    begin_s = clip.first / FRAMES_PER_SECOND
    return MediaClip(
        clip.id,
        recording.audio if kind == "sound" else None,
        recording.video if kind in ("pictures", "frames") else None,
        (),
        "",
        begin_s,
        begin_s + clip.n_frames / FRAMES_PER_SECOND,
        images=recording.images if kind == "images" else None,
    )


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.clip(values, -_MOST, _MOST).astype(np.float16)


class ActionBatches:
    """Batches of some clips: what `fit_method` takes.

    numbers : of the clips to learn from
    soft : (n_clips_of_the_set, n_classes) logits of a teacher, or None

    Raises InputError where there are fewer than two.
    """

    def __init__(
        self,
        of: ActionClips,
        numbers: IntArray,
        kinds: Sequence[InputKind],
        batch_size: int,
        seed: int,
        soft: Tensor | None = None,
    ) -> None:
        self.of, self.kinds, self.soft = of, kinds, soft
        self.order = EpochOrder(numbers, batch_size, seed)
        self.batch_size, self.n_batches = self.order.batch_size, self.order.n_batches

    def batch(self, epoch: int, number: int) -> ActionBatch:
        """One batch, on the CPU."""
        clips = self.order.batch(epoch, number)
        return ActionBatch(
            self.of.inputs(clips, self.kinds),
            () if self.soft is None else (self.soft[clips],),
            torch.from_numpy(self.of.targets[clips]),
        )


@torch.no_grad()
def action_logits(
    network: nn.Module,
    of: ActionClips,
    numbers: IntArray,
    kinds: Sequence[InputKind],
    device: torch.device,
    *,
    title: str = "scoring",
    quiet: bool = True,
) -> Tensor:
    """Logits of some clips, (n, n_classes) float32 on the CPU, in the order given.

    network : in evaluation mode on the device
    """
    found = []
    bar = tqdm(range(0, len(numbers), _AT_ONCE), title, unit="batch", disable=quiet, leave=False)
    for first in bar:
        inputs = to_device(of.inputs(numbers[first : first + _AT_ONCE], kinds), device)
        found.append(mean_logits(network(*inputs)).float().cpu())
    return torch.cat(found)
