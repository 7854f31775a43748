"""One training run, from a recipe and a folder of clips to a run folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.device.features import FrontEnd
from soundpost.device.files import write_atomically
from soundpost.train import report
from soundpost.train.augment import make_bank
from soundpost.train.checkpoint import (
    load_packed_tensors,
    load_tensors,
    load_weights,
    save_arrays,
    save_tensors,
)
from soundpost.train.clip_networks import build_network
from soundpost.train.clips import Clip, load_waveforms, pack, read_clip_set
from soundpost.train.dataset import ALARM_LABELS, split_clips, synthesise_alarms, targets_of
from soundpost.train.loop import METRICS, TrainingData, fit, loss_of, score_patches
from soundpost.train.metrics import ClipFigures, clip_figures, clip_means
from soundpost.train.multimodal.live_teachers import live_teachers
from soundpost.train.multimodal.taught_clips import (
    open_soft_labels,
    say_it_themselves,
    source_line,
    taught_loss,
    teach,
)
from soundpost.train.recipe import ModelSettings, Recipe
from soundpost.train.windows import Windows, windows_of

logger = logging.getLogger(__name__)

SCHEMA = "soundpost.run/1"
SETTINGS = "settings.json"
WEIGHTS = "model.safetensors"
SCORES = "scores.npz"


@dataclass(frozen=True)
class TrainedRun:
    """A finished run as export and evaluation read it."""

    folder: Path
    labels: tuple[str, ...]
    front_end: FrontEnd
    model: ModelSettings
    settings: dict[str, Any]
    network: nn.Module

    @property
    def weights(self) -> Path:
        """File of the network's weights."""
        return self.folder / WEIGHTS

    @property
    def n_frames(self) -> int:
        """Frames of one window."""
        return int(self.settings["recipe"]["data"]["patch_frames"])


def schema_of(folder: Path) -> str:
    """What kind of run a folder holds; empty where it is none."""
    try:
        return str(json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["schema"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def finished_settings(folder: Path, schema: str, give: str) -> dict[str, Any]:
    """settings.json of a finished run of one kind.

    give : what is to be given instead of a run of another kind

    Raises InputError where the folder is no run, one of another kind, or is not finished.
    """
    path = folder / SETTINGS
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: is not a run folder ({SETTINGS} is missing)") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; train again") from error
    if settings.get("schema") != schema:
        raise InputError(
            f"{path}: schema is {settings.get('schema')!r}, expected {schema!r}: give {give}"
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder}: training is not finished ({WEIGHTS} is missing); "
            "run the same training again: it resumes"
        )
    return settings


def load_run(folder: Path) -> TrainedRun:
    """Read a run folder; raises InputError where it is none, or is not finished."""
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: is not a run folder ({SETTINGS} is missing); give what "
            "`soundpost train --out` wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; train again") from error
    if settings.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema is {settings.get('schema')!r}, expected {SCHEMA!r}")
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder}: training is not finished ({WEIGHTS} is missing); "
            "run the same `soundpost train` again: it resumes"
        )
    labels = tuple(settings["labels"])
    model = ModelSettings(**settings["model"])
    network = build_network(labels, model)
    load_weights(network, folder / WEIGHTS)
    front_end = FrontEnd.from_dict(settings["front_end"])
    return TrainedRun(folder, labels, front_end, model, settings, network.eval())


def refuse_learnt(teacher: TrainedRun, fold: int | None) -> None:
    """InputError where a teacher has learnt from the fold that its student is to be judged on."""
    if fold is not None and fold in teacher.settings["data"].get("folds_train", []):
        raise InputError(
            f"{teacher.folder}: has learnt from fold {fold}, which is held out here: what its "
            f"student reaches would be no test; train it with --fold {fold}"
        )


def initialise(network: nn.Module, labels: tuple[str, ...], source: str) -> int:
    """Start from earlier weights; a label of the same name keeps its classifier row.

    source : "starter" or the path of a model.safetensors
    Returns the number of labels whose rows were found.
    """
    if source == "starter":
        packed = resources.files("soundpost.device.starter") / "starter.safetensors.xz"
        tensors, notes = load_packed_tensors(Path(str(packed)))
    else:
        path = Path(source)
        if path.is_dir():
            path = path / WEIGHTS
        if not path.is_file():
            raise InputError(f"--init {source}: no such file; give 'starter' or a run folder")
        tensors, notes = load_tensors(path)
    own = network.state_dict()
    known = {label: row for row, label in enumerate(notes.get("labels", []))}
    shared = [(row, known[label]) for row, label in enumerate(labels) if label in known]
    for name, value in own.items():
        if name not in tensors or (
            not name.startswith("classifier") and tensors[name].shape != value.shape
        ):
            raise InputError(
                f"--init {source}: has no {name} of shape {tuple(value.shape)}; "
                "it was trained with another model: set model.kind and model.width to the same"
            )
        if name.startswith("classifier"):
            for row, from_row in shared:
                value[row] = tensors[name][from_row].to(value.dtype)
        else:
            own[name] = tensors[name].to(value.dtype)
    network.load_state_dict(own)
    return len(shared)


def git_revision() -> str:
    """Revision of the code, or "unknown" outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no CUDA device; use --device cpu")
    return torch.device(name)


@dataclass(frozen=True)
class _Judged:
    """Clips to be judged: their windows and true labels.

    bfloat16 : for teachers, whose float scores no int8 model is held against
    """

    windows: Windows
    truth: NDArray[np.int64]
    bfloat16: bool

    def scores(self, network: nn.Module, device: torch.device) -> NDArray[np.float64]:
        logits = score_patches(network, self.windows.patches, device, bfloat16=self.bfloat16)
        return clip_means(1 / (1 + np.exp(-logits)), self.windows.clip, len(self.truth))


def _judged(
    clips: tuple[Clip, ...], labels: tuple[str, ...], recipe: Recipe, quiet: bool
) -> _Judged:
    waveforms = load_waveforms(clips, recipe.front_end.sample_rate_hz, quiet=quiet)
    windows = windows_of(waveforms, recipe.front_end, recipe.data.patch_frames)
    truth = np.array([labels.index(clip.label) for clip in clips])
    return _Judged(windows, truth, not recipe.model.for_the_sensor)


def train_run(
    recipe: Recipe,
    data: Path,
    run: Path,
    fold: int | None,
    *,
    init: str | None = None,
    soft_labels: Sequence[Path] = (),
    live: Sequence[Path] = (),
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, ClipFigures]:
    """Train, judge and write the run folder; goes on where an earlier call was killed.

    soft_labels : stores that teachers wrote of the clips (`soundpost distil`), to learn from too
    live : finished runs of clips, to learn from what they hear in each window

    Returns the figures of "test" (the held-out fold) and "validation", as far as there are any.
    """
    if soft_labels and live:
        raise UsageError(
            "--soft-labels, --live-teacher: both are given, a student takes one of them; label the "
            "clips with the live teachers too (soundpost distil), or leave the soft labels out"
        )
    clip_set = read_clip_set(data)
    split = split_clips(clip_set, fold, recipe.data, recipe.training.seed)
    where = choose_device(device)
    synthesised = ALARM_LABELS if recipe.data.alarms else ()
    labels = tuple(sorted({*clip_set.labels, *synthesised}))
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "model": dataclasses.asdict(recipe.model),
        "labels": list(labels),
        "front_end": recipe.front_end.to_dict(),
        "data": {
            "path": str(data),
            "n_train": len(split.train),
            "n_validation": len(split.validation),
            "n_test": len(split.test),
            "folds_train": sorted({clip.fold for clip in split.train}),
            "fold_test": fold,
            "validation": [str(clip.path.relative_to(data)) for clip in split.validation],
        },
        "recipe": dataclasses.asdict(recipe),
        "init": init,
        "git": git_revision(),
        "torch": torch.__version__,
    }
    soft, heard = None, None
    taught = bool(soft_labels or live)
    if live:
        runs = [load_run(teacher) for teacher in live]
        for one in runs:
            refuse_learnt(one, fold)
        heard = live_teachers(runs, labels, recipe, where)
        settings["live_teachers"] = [dataclasses.asdict(teacher) for teacher in heard.teachers]
    if soft_labels:
        soft = open_soft_labels(soft_labels, clip_set.labels, recipe.soft_labels)
        settings["soft_labels"] = [dataclasses.asdict(teacher) for teacher in soft.teachers]
    if not taught:
        # Not used; runs of before there were any go on.
        del settings["recipe"]["soft_labels"]
    claim(run, settings)
    rate = recipe.front_end.sample_rate_hz
    window = recipe.front_end.samples_of(recipe.data.patch_frames)
    real = make_bank(
        load_waveforms(split.train, rate, quiet=quiet),
        targets_of(split.train, labels),
        window,
        recipe.data.silence_db,
    )
    if soft is not None:
        real = teach(real, soft, split.train, clip_set, labels, rate)
    alarms = None
    if recipe.data.alarms:
        sounds, targets = synthesise_alarms(labels, recipe.data, rate, recipe.training.seed)
        if soft is not None:
            targets = say_it_themselves(targets)
        alarms = make_bank(pack(sounds), targets, window, recipe.data.silence_db)
    judged = {
        name: _judged(clips, labels, recipe, quiet)
        for name, clips in (("test", split.test), ("validation", split.validation))
        if clips
    }
    torch.manual_seed(recipe.training.seed)
    network = build_network(labels, recipe.model)
    if init:
        initialise(network, labels, init)
    scored: dict[str, NDArray[np.float64]] = {}

    def evaluate(average: nn.Module) -> dict[str, Any]:
        if not judged:
            return {}
        name, held_out = next(iter(judged.items()))
        scored[name] = held_out.scores(average, where)
        figures = clip_figures(scored[name], held_out.truth, labels)
        return {
            "judged": name,
            "top1": round(figures.top1, 4),
            "map": round(figures.mean_average_precision, 4),
        }

    average = fit(
        network,
        TrainingData(real, alarms),
        recipe,
        run,
        where,
        evaluate,
        criterion=taught_loss if taught else loss_of,
        told=None if heard is None else heard.hear,
        quiet=quiet,
    )
    save_tensors(run / WEIGHTS, average.state_dict(), {"labels": list(labels)})
    # What was scored last was scored with the weights of the last epoch.
    scores = {
        name: scored[name] if name in scored else part.scores(average, where)
        for name, part in judged.items()
    }
    figures = {
        name: clip_figures(scores[name], part.truth, labels) for name, part in judged.items()
    }
    arrays: dict[str, NDArray[Any]] = {
        f"{name}_scores": value.astype(np.float32) for name, value in scores.items()
    }
    arrays |= {f"{name}_truth": part.truth for name, part in judged.items()}
    save_arrays(run / SCORES, arrays)
    report.draw_curves(run / METRICS, run / "curves.png")
    for name, f in figures.items():
        report.draw_confusion(f.confusion, labels, run / f"confusion_{name}.png")
    told = recipe
    teachers = soft or heard
    if teachers is not None:
        said = source_line(teachers.teachers, recipe.soft_labels)
        told = replace(recipe, source=f"{recipe.source}\n\n{said}")
    report.write_report(run, told, settings, figures)
    return figures


# What may differ between the call that began a run and the one that goes on with it.
_MAY_CHANGE = ("git", "torch", "path", "places", "teacher_path")


def claim(run: Path, settings: dict[str, Any]) -> None:
    """Write settings.json, or raise ConfigError where another run is in this folder."""
    path = run / SETTINGS
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(settings))
        for key in settings:
            if key not in _MAY_CHANGE and earlier.get(key) != now[key]:
                raise ConfigError(
                    f"{run}: holds a run with another {key}; give another --out, or delete it to "
                    "start again"
                )
        for key in ("git", "torch"):
            if key in settings and earlier.get(key) != now[key]:
                logger.warning(
                    "%s: was begun with %s %s, now it is %s: what comes of both may be neither's",
                    run,
                    "code" if key == "git" else key,
                    earlier.get(key),
                    now[key],
                )
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run}: cannot be made: {error.strerror}; give another --out") from error
    write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())
