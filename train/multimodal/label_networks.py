"""Networks that label clips, by what a person calls them: a run's folder, or a published name."""

from __future__ import annotations

from pathlib import Path

import torch

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone, frozen_backbone
from soundpost.train.backbones.published import PUBLISHED
from soundpost.train.backbones.weights import LoadedBackbone, load_backbone
from soundpost.train.multimodal.label_models import Activation, vggish_model, visual_model
from soundpost.train.multimodal.machine_labels import LabellingRules
from soundpost.train.multimodal.picture_run import SCHEMA as PICTURES
from soundpost.train.multimodal.picture_run import picture_backbone
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labelling import Labeller, open_labeller
from soundpost.train.multimodal.tagging_recipe import STUB, is_run
from soundpost.train.run import WEIGHTS, schema_of

# The one published network that hears and for which there is a front end.
_HEARS = "vggish"


def open_visual(
    name: str,
    labels: Path | None,
    weights: str,
    device: torch.device,
    *,
    activation: Activation | None = None,
    per_second: float = LabellingRules.frames_per_s,
    network: str = "student",
    quiet: bool = False,
) -> Labeller:
    """What labels pictures.

    Parameters
    ----------
    name : a run that looks, one of `pictures` (a softmax: one name a picture), a published network,
        or "stub"
    labels : file with the names of a published network's classes
    weights : file of a published network's weights, or of those of a run's backbone, where they
        are not in the cache
    activation : of a published network; by default "softmax" with the published weights, which
        know one class a picture, and "sigmoid" with others
    network : of a run, "student" or "teacher"

    Raises
    ------
    UsageError
        No such network; a run that does not look; labels are missing, or given for a run.
    InputError
        Labels or weights cannot be used.
    """
    if is_run(name):
        if schema_of(Path(name)) == PICTURES:
            _no_labels(labels, "seen")
            backbone, names = picture_backbone(Path(name))
            teacher = Teacher(Path(name).resolve().name, file_sha256(Path(name) / WEIGHTS))
            backbone.to(device)
            return visual_model(teacher, names, backbone, activation or "softmax", per_second)
        return _of_run(name, "seen", labels, weights, device, network, quiet)
    seeing = [known for known, one in PUBLISHED.items() if one.frames is not None]
    _check_name(name, [*seeing, STUB], "--seen-by")
    names = read_labels(name, labels, "--seen-labels")
    if name == STUB:
        backbone = FrozenBackbone(StubBackbone(n_classes=len(names)), origin={"name": STUB})
        teacher = Teacher(STUB, "0" * 64)
        activation = activation or "sigmoid"
    else:
        loaded = _load(name, weights, len(names), quiet)
        backbone = frozen_backbone(loaded)
        teacher = Teacher(name, loaded.sha256)
        activation = activation or ("softmax" if loaded.as_published else "sigmoid")
    backbone.to(device)
    return visual_model(teacher, names, backbone, activation, per_second)


def open_audio(
    name: str, labels: Path | None, weights: str, device: torch.device, *, quiet: bool = False
) -> Labeller:
    """What labels sound: a run that only listens, or VGGish with a classifier; see open_visual."""
    if is_run(name):
        return _of_run(name, "heard", labels, weights, device, "student", quiet)
    _check_name(name, [_HEARS], "--heard-by")
    names = read_labels(name, labels, "--heard-labels")
    if not weights:
        raise UsageError(
            f"{name}: its published weights end at the embedding and name no class; give a file "
            "with a classifier (classifier.weight, classifier.bias) as --heard-weights, or a run"
        )
    loaded = _load(name, weights, len(names), quiet)
    return vggish_model(Teacher(name, loaded.sha256), names, loaded.network.to(device))


def read_labels(name: str, path: Path | None, option: str) -> tuple[str, ...]:
    """Names of classes, one a line; UsageError without a file, InputError where one is wrong."""
    if path is None:
        raise UsageError(
            f"{name}: {option} FILE is missing: give the names of its classes, one a line, in the "
            "order of its outputs"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a name of a class in each line"
        ) from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    seen: dict[str, int] = {}
    for number, label in enumerate(names, 1):
        if not label:
            raise InputError(f"{path}: line {number} is empty; expected the name of a class")
        if label in seen:
            raise InputError(
                f"{path}: line {number}: {label!r} stands in line {seen[label]} too; give each "
                "class a name of its own"
            )
        seen[label] = number
    if not names:
        raise InputError(f"{path}: is empty; expected the name of a class in each line")
    return tuple(names)


def _of_run(
    name: str,
    source: str,
    labels: Path | None,
    weights: str,
    device: torch.device,
    network: str,
    quiet: bool,
) -> Labeller:
    _no_labels(labels, source)
    labeller = open_labeller(Path(name), network, device, weights=weights, quiet=quiet)
    if (source == "seen") != ("video" in labeller.needs):
        wanted = "looks at pictures" if source == "seen" else "listens alone"
        raise UsageError(
            f"--{source}-by {name}: it needs {' and '.join(labeller.needs)} of a clip; give a run "
            f"that {wanted}"
        )
    return labeller


def _no_labels(labels: Path | None, source: str) -> None:
    if labels is not None:
        raise UsageError(f"--{source}-labels {labels}: a run knows its labels; leave it out")


def _check_name(name: str, known: list[str], option: str) -> None:
    if name not in known:
        raise UsageError(
            f"{option} {name[:60]}: no such run or network; give a run's folder, or one of "
            f"{', '.join(known)}"
        )


def _load(name: str, weights: str, n_classes: int, quiet: bool) -> LoadedBackbone:
    return load_backbone(name, Path(weights) if weights else None, n_classes=n_classes, quiet=quiet)
