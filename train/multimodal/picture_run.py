"""One run of a network that tells what is in a picture; its folder can stand as a visual backbone.

It holds settings.json, metrics.jsonl, a checkpoint, model.safetensors, figures.json, pictures and
report.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.nn import functional

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.frame_input import crop_frames, normalise
from soundpost.train.backbones.frozen import FrozenBackbone
from soundpost.train.backbones.picture_net import FRAMES, PictureNet
from soundpost.train.checkpoint import load_weights, save_tensors
from soundpost.train.datasets.action_files import read_picture
from soundpost.train.datasets.catalogue import MediaClip, MediaSet
from soundpost.train.datasets.media_cache import RowCache, cache_folder, open_rows
from soundpost.train.datasets.picture_folders import TRAIN, VALIDATION, read_picture_folders
from soundpost.train.loop import METRICS
from soundpost.train.multimodal.action_report import draw_action_curves
from soundpost.train.multimodal.epoch_order import EpochOrder
from soundpost.train.multimodal.fitting import fit_method
from soundpost.train.multimodal.method import Method, Stage
from soundpost.train.multimodal.picture_recipe import (
    PictureAugment,
    PictureRecipe,
    picture_recipe_from_dict,
)
from soundpost.train.report import draw_confusion
from soundpost.train.run import SETTINGS, WEIGHTS, claim, finished_settings, git_revision

SCHEMA = "soundpost.picture_run/1"
FIGURES_FILE = "figures.json"

IntArray = NDArray[np.int64]
_AT_ONCE = 64


@dataclass(frozen=True)
class PictureFigures:
    """How many pictures are named rightly.

    recall : by name; confusion : (n_names, n_names) counts, truth by row
    """

    n_pictures: int
    accuracy: float
    recall: dict[str, float]
    confusion: IntArray

    def line(self) -> str:
        """One line for a person."""
        return f"{self.n_pictures} pictures: {self.accuracy:.1%} named rightly"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"confusion": self.confusion.tolist()}


class PictureBatch(NamedTuple):
    """frames : (n, 3, height, width) uint8; targets : (n,) int64."""

    frames: Tensor
    targets: Tensor


class Naming(Method[PictureBatch]):
    """Softmax cross entropy."""

    stages = (Stage("student", ("student",)),)

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def losses(self, batch: PictureBatch, stage: Stage) -> dict[str, Tensor]:
        """Of the names."""
        scores = self.student(normalise(batch.frames, FRAMES))
        return {"loss": functional.cross_entropy(scores.float(), batch.targets)}


class PictureBatches:
    """Batches of pictures, changed at random: what `fit_method` takes."""

    def __init__(
        self, rows: RowCache, targets: IntArray, recipe: PictureRecipe, split: IntArray
    ) -> None:
        training = recipe.training
        self.rows, self.targets, self.augment = rows, targets, recipe.augment
        self.order = EpochOrder(split, training.batch_size, training.seed)
        self.batch_size, self.n_batches = self.order.batch_size, self.order.n_batches

    def batch(self, epoch: int, number: int) -> PictureBatch:
        """One batch, on the CPU."""
        chosen, rng = self.order.batch(epoch, number), self.order.rng(epoch, number)
        frames = np.stack([change(self.rows[int(i)], self.augment, rng) for i in chosen])
        return PictureBatch(torch.from_numpy(frames), torch.from_numpy(self.targets[chosen]))


def change(
    frame: NDArray[np.uint8], augment: PictureAugment, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A picture (3, height, width), mirrored, shifted, brighter or darker."""
    if augment.flip and rng.random() < 0.5:
        frame = frame[:, :, ::-1]
    far = augment.shift_px
    if far:
        down, right = rng.integers(-far, far + 1, size=2)
        height, width = frame.shape[1:]
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        frame = frame[:, rows[:, None], columns]
    factor = 1 + augment.brightness * rng.uniform(-1, 1)
    return np.clip(frame * np.float32(factor), 0, 255).astype(np.uint8)


def train_pictures(
    recipe: PictureRecipe, folder: Path, run: Path, device: torch.device, *, quiet: bool = False
) -> PictureFigures:
    """Train, judge on the validation pictures and write the run folder; a killed run goes on.

    folder : of the pictures (datasets/picture_folders.py)

    Raises InputError where the pictures cannot be used, ConfigError where the folder holds another
    run.
    """
    of = read_picture_folders(folder).without_problems()
    rows, targets = open_pictures(of, folder, quiet=quiet)
    splits = {
        name: np.array([i for i, clip in enumerate(of.clips) if clip.split == name], np.int64)
        for name in (TRAIN, VALIDATION)
    }
    for name, numbers in splits.items():
        if len(numbers) < 2:
            raise InputError(
                f"{folder}: {len(numbers)} pictures in {name}; expected two or more: add some"
            )
    torch.manual_seed(recipe.training.seed)
    method = Naming(PictureNet(len(of.labels)))
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(of.labels),
        "data": {name: _digest(of, numbers) for name, numbers in splits.items()},
        "path": str(folder.resolve()),
        "recipe": asdict(recipe),
        "git": git_revision(),
        "torch": torch.__version__,
    }
    claim(run, settings)
    held = splits[VALIDATION]

    def judged() -> PictureFigures:
        scores = score_pictures(method.student, rows, held, device)
        return picture_figures(scores, targets[held], of.labels)

    def judge(stage: Stage) -> dict[str, Any]:
        return {"accuracy": round(judged().accuracy, 4)}

    source = PictureBatches(rows, targets, recipe, splits[TRAIN])
    training = recipe.training
    best_by = training.best_by("accuracy", validated=True)
    fit_method(method, source, training, run, device, judge=judge, best_by=best_by, quiet=quiet)
    save_tensors(run / WEIGHTS, method.student.state_dict(), {"labels": list(of.labels)})
    figures = judged()
    _write_report(run, recipe, settings, figures, of.labels, len(splits[TRAIN]))
    return figures


def open_pictures(of: MediaSet, folder: Path, *, quiet: bool) -> tuple[RowCache, IntArray]:
    """Pictures as the network takes them, (3, 240, 320) uint8 each, and places of their names."""

    def make(clip: MediaClip) -> NDArray[np.uint8]:
        assert clip.video is not None
        picture = torch.from_numpy(read_picture(clip.video)[None])
        return np.ascontiguousarray(crop_frames(picture, FRAMES)[0].numpy())

    made_by = hashlib.sha256(json.dumps(["pictures", asdict(FRAMES)]).encode()).hexdigest()
    cache = cache_folder(folder)
    rows = open_rows(list(of.clips), made_by, make, cache, title="pictures", quiet=quiet)
    column = {label: index for index, label in enumerate(of.labels)}
    return rows, np.array([column[clip.labels[0]] for clip in of.clips], np.int64)


@torch.no_grad()
def score_pictures(
    network: nn.Module, rows: RowCache, numbers: IntArray, device: torch.device
) -> NDArray[np.float32]:
    """Probabilities of names, (n, n_names)."""
    found = []
    network.to(device).eval()
    for first in range(0, len(numbers), _AT_ONCE):
        frames = torch.from_numpy(rows.stack(numbers[first : first + _AT_ONCE].tolist()))
        found.append(network(normalise(frames.to(device), FRAMES)).float().softmax(1).cpu())
    scores: NDArray[np.float32] = torch.cat(found).numpy()
    return scores


def picture_figures(
    scores: NDArray[np.float32], truth: IntArray, labels: tuple[str, ...]
) -> PictureFigures:
    """Figures of scores (n, n_names) against the places of the true names (n,)."""
    confusion = confusion_matrix(truth, scores.argmax(1), labels=np.arange(len(labels)))
    recall = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
    return PictureFigures(
        len(truth),
        float(np.diag(confusion).sum() / len(truth)),
        dict(zip(labels, recall.tolist(), strict=True)),
        confusion,
    )


def load_picture_run(folder: Path) -> tuple[PictureNet, tuple[str, ...]]:
    """Network and names of a finished run; InputError where it is none, or is not finished."""
    settings = finished_settings(folder, SCHEMA, "a run of the recipe pictures")
    picture_recipe_from_dict(settings["recipe"], str(folder / SETTINGS))
    labels = tuple(settings["labels"])
    network = PictureNet(len(labels))
    load_weights(network, folder / WEIGHTS)
    return network.eval(), labels


def picture_backbone(folder: Path) -> tuple[FrozenBackbone, tuple[str, ...]]:
    """The same as a fixed extractor, known by the hash of its weights wherever it lies."""
    network, labels = load_picture_run(folder)
    origin = {"name": "pictures", "sha256": file_sha256(folder / WEIGHTS)}
    return FrozenBackbone(network, FRAMES, origin, labels), labels


def _digest(of: MediaSet, numbers: IntArray) -> str:
    ids = "\n".join(of.clips[i].id for i in numbers)
    return hashlib.sha256(ids.encode()).hexdigest()


def _write_report(
    run: Path,
    recipe: PictureRecipe,
    settings: dict[str, Any],
    figures: PictureFigures,
    labels: tuple[str, ...],
    n_train: int,
) -> None:
    draw_action_curves(run / METRICS, run / "curves.png")
    draw_confusion(figures.confusion, labels, run / "confusion.png")
    lines = [
        f"# Run {run.name}: recipe {recipe.name}",
        "",
        recipe.source,
        "",
        f"Trained on {n_train} pictures of {Path(settings['path']).name}, "
        f"{recipe.training.epochs} epochs, batches of {recipe.training.batch_size}, code at "
        f"{settings['git']}, torch {settings['torch']}, seed {recipe.training.seed}.",
        "",
        f"On the validation pictures: {figures.line()}.",
        "",
        "| name | named rightly |",
        "|---|---|",
        *(f"| {k} | {v:.1%} |" for k, v in sorted(figures.recall.items(), key=lambda x: x[1])),
        "",
        "![curves](curves.png)",
        "",
        "![confusion](confusion.png)",
        "",
    ]
    table = json.dumps(figures.to_dict(), indent=1) + "\n"
    write_atomically(run / FIGURES_FILE, table.encode())
    write_atomically(run / "report.md", "\n".join(lines).encode())
