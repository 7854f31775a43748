"""A trained run says what it hears in the clips of a set: soft labels, by clip id and seconds.

A tagging network hears as many seconds at a time as it was trained on: a longer clip is heard in
parts of that length, as few as cover it, at equal distances and overlapping, and each part is a
row; a shorter one is padded with silence. A clip student says what is in every window, 250 ms
apart, as the sensor would; the last one is padded. Clips that lack what the network needs are left
out and counted; a file that is damaged ends the job with its line, and the same command goes on
behind the clips that are done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from soundpost.device.errors import InputError, UsageError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.interpreter import sigmoid
from soundpost.train.backbones.download import file_sha256
from soundpost.train.datasets.catalogue import MediaClip, Medium
from soundpost.train.kinds import kind_of_run
from soundpost.train.loop import score_patches
from soundpost.train.multimodal.acoustic_inputs import Heard
from soundpost.train.multimodal.clip_media import ClipMedia, ReadSet
from soundpost.train.multimodal.mutual_networks import Inputs, Tagged
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
from soundpost.train.multimodal.tagging_features import VisualInput, seen
from soundpost.train.multimodal.tagging_inputs import open_backbone_of, open_features_of
from soundpost.train.multimodal.tagging_recipe import TaggingRecipe
from soundpost.train.multimodal.tagging_run import TEACHER_WEIGHTS, load_tagging_run
from soundpost.train.run import WEIGHTS, TrainedRun, load_run, schema_of
from soundpost.train.windows import HOP_FRAMES, cut_windows

NETWORKS = ("student", "teacher")


class Said(NamedTuple):
    """What a teacher says of one clip; see SoftLabelWriter.add.

    scores : (n_rows, n_labels), probabilities
    """

    scores: FloatArray
    hop_s: float
    window_s: float


class Labeller(Protocol):
    """A trained network that labels clips."""

    @property
    def teacher(self) -> Teacher:
        """Who says so."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the columns."""
        ...

    @property
    def needs(self) -> tuple[Medium, ...]:
        """What a clip must have."""
        ...

    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """Raises InputError where a file cannot be used."""
        ...


@dataclass(frozen=True)
class ClipLabeller:
    """A clip student (train/run.py)."""

    run: TrainedRun
    teacher: Teacher
    device: torch.device
    needs: tuple[Medium, ...] = ("audio",)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the run."""
        return self.run.labels

    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each window."""
        front_end, n_frames = self.run.front_end, self.run.n_frames
        rate_hz = front_end.sample_rate_hz
        sound = to_whole_windows(media.sound(clip, rate_hz), front_end, n_frames)
        patches = cut_windows(sound, front_end, n_frames)
        scores = sigmoid(score_patches(self.run.network, patches, self.device))
        hop_s = HOP_FRAMES * front_end.hop_length / rate_hz
        return Said(scores, hop_s, front_end.samples_of(n_frames) / rate_hz)


def to_whole_windows(sound: FloatArray, front_end: FrontEnd, n_frames: int) -> FloatArray:
    """A clip with silence behind it, so that the last of its windows covers its end.

    Else up to a hop would be left over, of which a student of frames has no soft label.
    """
    window = front_end.samples_of(n_frames)
    hop = HOP_FRAMES * front_end.hop_length
    n_more = max(0, math.ceil((len(sound) - window) / hop))
    return np.pad(sound, (0, max(0, window + n_more * hop - len(sound))))


@dataclass(frozen=True)
class TaggingLabeller:
    """A network of a tagging run.

    features : what it takes of the sound
    visual : how it looks at pictures; None where it only listens
    """

    network: nn.Module
    recipe: TaggingRecipe
    features: tuple[Heard, ...]
    labels: tuple[str, ...]
    teacher: Teacher
    device: torch.device
    visual: VisualInput | None = None

    @property
    def needs(self) -> tuple[Medium, ...]:
        """Sound, and pictures where it looks."""
        return ("audio",) if self.visual is None else ("audio", "video")

    @torch.no_grad()
    def label(self, clip: MediaClip, media: ClipMedia) -> Said:
        """A row for each part of the length that the network was trained on."""
        seconds = self.recipe.data.seconds
        # Several features may be of one rate: each is decoded once.
        rates = dict.fromkeys(feature.rate_hz for feature in self.features)
        sounds = {rate_hz: media.sound(clip, rate_hz) for rate_hz in rates}
        first_hz = next(iter(rates))
        starts_s, hop_s = part_starts(len(sounds[first_hz]) / first_hz, seconds)
        acoustic = []
        for feature in self.features:
            sound, rate_hz = sounds[feature.rate_hz], feature.rate_hz
            parts = [feature.of(sound[round(start * rate_hz) :], seconds) for start in starts_s]
            acoustic.append(torch.from_numpy(np.stack(parts)).to(self.device))
        visual = None
        if self.visual is not None:
            per_second = self.visual.frames_per_second
            pictures = media.pictures(clip, per_second)
            # Where the video ends before the sound, its last picture lasts.
            last = len(pictures) - 1
            shown = [pictures[min(round(start * per_second), last) :] for start in starts_s]
            visual = np.stack([seen(of_part, self.visual, seconds) for of_part in shown])
        inputs = Inputs(
            tuple(acoustic),
            None if visual is None else torch.from_numpy(visual).to(self.device),
        )
        said: Tagged = self.network(inputs)
        return Said(said.logits.float().sigmoid().cpu().numpy(), hop_s, seconds)


def part_starts(clip_s: float, part_s: float) -> tuple[list[float], float]:
    """Where the parts of a clip begin, and the distance from one to the next, in seconds.

    As few parts as cover the clip; of one that is shorter than a part, the part itself.
    """
    n = max(1, math.ceil(clip_s / part_s - 1e-6))
    if n == 1:
        return [0.0], part_s
    hop_s = (clip_s - part_s) / (n - 1)
    return [i * hop_s for i in range(n)], hop_s


def open_labeller(
    run: Path, network: str, device: torch.device, *, weights: str = "", quiet: bool = False
) -> Labeller:
    """A finished run as a labeller.

    Parameters
    ----------
    network : "student", or the "teacher" that was trained beside it
    weights : file of the visual backbone, where the network looks and they are not in the cache

    Raises InputError for anything but a finished run that tells what a clip is, UsageError where it
    has no such network.
    """
    schema = schema_of(run)
    kind = kind_of_run(schema)
    if kind is None or kind.labeller is None:
        raise InputError(
            f"{run}: is not a run that tells what a clip is (its schema is {schema!r}); give a run "
            "of a clip student, such as starter, of yin2021 or of li2018"
        )
    return kind.labeller(run, network, device, weights, quiet)


def clip_labeller(
    run: Path, network: str, device: torch.device, weights: str, quiet: bool
) -> Labeller:
    """See open_labeller; of a clip student."""
    if network != "student":
        raise UsageError(f"{run}: is a clip student, which has no teacher; leave it out")
    trained = load_run(run)
    trained.network.to(device)
    return ClipLabeller(trained, _teacher(run, WEIGHTS), device)


def tagging_labeller(
    run: Path, network: str, device: torch.device, weights: str, quiet: bool
) -> Labeller:
    """See open_labeller; of yin2021 and its rows."""
    tagging = load_tagging_run(run)
    chosen = tagging.student if network == "student" else tagging.teacher
    if chosen is None:
        raise UsageError(
            f"{run}: the method {tagging.recipe.method} has no teacher; give --network student"
        )
    visual = None
    if tagging.sees(network):
        visual = open_backbone_of(tagging.recipe, tagging.backbone, run, weights, device, quiet)
    file = WEIGHTS if network == "student" else TEACHER_WEIGHTS
    return TaggingLabeller(
        chosen.to(device).eval(),
        tagging.recipe,
        open_features_of(
            tagging.recipe,
            tagging.acoustic,
            run,
            device,
            names=tagging.hears(network),
            quiet=quiet,
        ),
        tagging.labels,
        _teacher(run, file, network),
        device,
        visual,
    )


def _teacher(run: Path, file: str, network: str = "student") -> Teacher:
    name = run.resolve().name + ("" if network == "student" else f", {network}")
    return Teacher(name, file_sha256(run / file))


@dataclass(frozen=True)
class Labelled:
    """What a job did.

    n_clips : that it was to label; n_new : that it labelled, for the others were done before
    left_out : ids of clips that lack what the network needs
    """

    n_clips: int
    n_new: int
    left_out: tuple[str, ...]


def label_set(
    labeller: Labeller,
    read: ReadSet,
    store: Path,
    splits: Sequence[str] = (),
    *,
    quiet: bool = False,
) -> Labelled:
    """Write what a network says of a set's clips, going on where an earlier call was stopped.

    Parameters
    ----------
    splits : of the set; all by default
    store : folder of the soft labels; made where it is not there

    Raises
    ------
    InputError
        No clip can be labelled, one cannot be read, or the folder holds soft labels of another
        teacher.
    """
    clips = read.clips.of(*splits).clips if splits else read.clips.clips
    able = [clip for clip in clips if clip.has(*labeller.needs)]
    able_ids = {clip.id for clip in able}
    left_out = tuple(clip.id for clip in clips if clip.id not in able_ids)
    if not able:
        raise InputError(
            f"{read.clips.folder}: none of its {len(clips)} clips has "
            f"{' and '.join(labeller.needs)}, which {labeller.teacher.name} needs; soundpost "
            "dataset check lists what is missing"
        )
    with SoftLabelWriter(store, labeller.teacher, labeller.labels) as writer:
        waiting = [clip for clip in able if clip.id not in writer.clip_ids]
        with tqdm(
            total=len(able),
            initial=len(able) - len(waiting),
            desc="soft labels",
            unit="clip",
            disable=quiet,
        ) as bar:
            for clip in waiting:
                said = labeller.label(clip, read.media)
                writer.add(clip.id, said.scores, 0.0, said.hop_s, said.window_s)
                bar.update()
    return Labelled(len(able), len(waiting), left_out)
