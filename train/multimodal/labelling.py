"""Labelling of unlabelled clips by two networks: hours of work that may be stopped at any moment.

A folder of labels (rules: train/multimodal/machine_labels.py) holds

    labelling.json          schema, rules, both networks with their SHA-256, and which clips
    fold_0017.csv           clip_id,label,score,source,model: of the clips of one fold, in the order
                            of their ids; model is the start of the network's SHA-256
    fold_0017.problems.csv  clip_id,source,problem: clips whose pictures or sound cannot be used
    fold_0017.part          a line for each clip done, while the fold is being labelled

A network is whatever can label a clip (soft_labelling.Labeller): a published one that looks at
three pictures a second or hears a second at a time (label_models.py), or a run of ours, which looks
and hears as it was trained; the mean of its rows is taken. Clips are read as their set keeps them
(clip_media.py).

A clip is one line that is written at once: what was killed goes on behind the last whole line, and
the tables, made of the lines when a fold is complete, are the same bytes as if it had never been
stopped. Several processes may share the work, each with folds of its own. Each clip is scored by
itself, for the last bits of a network's scores depend on what else is in its batch.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.clip_media import ClipMedia, FileMedia
from soundpost.train.multimodal.machine_labels import (
    AUDIO_LABELS_PER_CLIP,
    SOURCES,
    LabellingRules,
    Source,
    audio_threshold_for,
    fold_of,
    mean_scores,
)
from soundpost.train.multimodal.soft_labelling import Labeller

SCHEMA = "soundpost.machine_labels/1"
HEADER = "labelling.json"
LABEL_COLUMNS = ("clip_id", "label", "score", "source", "model")
PROBLEM_COLUMNS = ("clip_id", "source", "problem")
MODEL_DIGITS = 12
# What is heard to find a threshold.
THRESHOLD_CLIPS = 500
LABELS_SUFFIX, PROBLEMS_SUFFIX, PART_SUFFIX = ".csv", ".problems.csv", ".part"


@dataclass(frozen=True)
class LabellingReport:
    """What a run did.

    n_clips : of the folds it was to label; n_new : that it labelled itself
    problems : of the latter, as "clip: source: problem"
    """

    n_clips: int
    n_new: int
    problems: tuple[str, ...]


def label_clips(
    clips: Sequence[MediaClip],
    visual: Labeller | None,
    audio: Labeller | None,
    folder: Path,
    rules: LabellingRules | None = None,
    *,
    media: ClipMedia | None = None,
    folds: Iterable[int] | None = None,
    quiet: bool = False,
) -> LabellingReport:
    """Label clips, going on where an earlier run was stopped, with a progress bar.

    Parameters
    ----------
    clips : any that have video, audio or both; what a clip lacks is a problem of that clip
    visual, audio : networks; one of them may be left out
    folder : gets the tables; made where it is not there
    media : how the clips are read; by default as files
    folds : those to label; all by default

    Raises
    ------
    UsageError
        No network; a fold that there is not.
    InputError
        A clip is listed twice; the folder holds labels by other networks, rules or of other clips;
        another process labels the same fold; a network returns anything but scores.
    """
    rules = rules or LabellingRules()
    if visual is None and audio is None:
        raise UsageError("labelling: no network; give a visual or an audio one, or both")
    wanted = tuple(range(rules.n_folds)) if folds is None else tuple(sorted(set(folds)))
    for fold in wanted:
        if not 0 <= fold < rules.n_folds:
            raise UsageError(f"labelling: fold {fold}; expected 0 to {rules.n_folds - 1}")
    by_fold = _by_fold(clips, rules.n_folds)
    _begin(folder, _header(clips, visual, audio, rules))
    labeller = _ClipLabeller(visual, audio, rules, media or FileMedia())
    n_new, problems = 0, []
    mine = {fold: by_fold[fold] for fold in wanted if fold in by_fold}
    n_clips = sum(map(len, mine.values()))
    with tqdm(total=n_clips, desc="labelling", unit="clip", disable=quiet) as bar:
        for fold, members in mine.items():
            stem = folder / fold_name(fold, rules.n_folds)
            with _open_part(stem) as part:
                if part is None:
                    bar.update(len(members))
                    continue
                done = _whole_lines(part, [clip.id for clip in members])
                bar.update(len(done))
                for clip in members[len(done) :]:
                    line = labeller.label(clip)
                    part.write(json.dumps(line).encode() + b"\n")
                    part.flush()
                    done.append(line)
                    n_new += 1
                    problems += [f"{clip.id}: {s}: {text}" for s, text in line["problems"]]
                    bar.update()
                _write_tables(stem, done, labeller.short_hashes)
    return LabellingReport(n_clips, n_new, tuple(problems))


def fold_name(fold: int, n_folds: int) -> str:
    """Name of a fold's files without their suffix: fold_0017."""
    return f"fold_{fold:0{len(str(n_folds - 1))}}"


class _ClipLabeller:
    """A clip to its line."""

    def __init__(
        self,
        visual: Labeller | None,
        audio: Labeller | None,
        rules: LabellingRules,
        media: ClipMedia,
    ) -> None:
        self.rules, self.media = rules, media
        self.models: dict[Source, Labeller] = {
            source: model
            for source, model in zip(SOURCES, (visual, audio), strict=True)
            if model is not None
        }
        self.short_hashes = {
            source: model.teacher.sha256[:MODEL_DIGITS] for source, model in self.models.items()
        }

    def label(self, clip: MediaClip) -> dict[str, Any]:
        labels: list[tuple[str, str, float]] = []
        problems: list[tuple[str, str]] = []
        for source, model in self.models.items():
            # Only what is wrong with the clip is the clip's problem: a network that returns no
            # scores would do so for all of them.
            try:
                for medium in model.needs:
                    if not clip.has(medium):
                        raise InputError(f"has no {medium}")
                scores = model.label(clip, self.media).scores
            except InputError as error:
                problems.append((source, str(error)))
                continue
            means = mean_scores(scores, len(model.labels), model.teacher.name)
            found = self.rules.labels_of(source, means, model.labels)
            labels += [(source, one.label, one.score) for one in found]
        return {"clip": clip.id, "labels": labels, "problems": problems}


def find_audio_threshold(
    clips: Sequence[MediaClip],
    audio: Labeller,
    media: ClipMedia,
    rules: LabellingRules,
    *,
    wanted: float = AUDIO_LABELS_PER_CLIP,
    at_most: int = THRESHOLD_CLIPS,
    quiet: bool = False,
) -> float:
    """The threshold that leaves so many audio labels a clip on average, from some of the clips.

    wanted : labels of a clip; at_most : clips that are heard, chosen by the hash of their ids, so
    that any process finds the same threshold

    Raises InputError where none of them can be heard.
    """
    able = [clip for clip in clips if clip.has(*audio.needs)]
    chosen = sorted(able, key=lambda clip: fold_of(clip.id, 2**64))[:at_most]
    means = []
    for clip in tqdm(chosen, "threshold", unit="clip", disable=quiet, leave=False):
        try:
            scores = audio.label(clip, media).scores
        except InputError:
            # Labelling lists it.
            continue
        means.append(mean_scores(scores, len(audio.labels), audio.teacher.name))
    if not means:
        raise InputError(
            f"labelling: none of {len(clips)} clips can be heard; soundpost dataset check says why"
        )
    return audio_threshold_for(np.stack(means), rules.top_audio, wanted)


def _by_fold(clips: Sequence[MediaClip], n_folds: int) -> dict[int, list[MediaClip]]:
    seen: set[str] = set()
    folds: dict[int, list[MediaClip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.id):
        if clip.id in seen:
            raise InputError(f"labelling: clip {clip.id} is listed twice; give every clip once")
        seen.add(clip.id)
        folds.setdefault(fold_of(clip.id, n_folds), []).append(clip)
    return dict(sorted(folds.items()))


def _header(
    clips: Sequence[MediaClip],
    visual: Labeller | None,
    audio: Labeller | None,
    rules: LabellingRules,
) -> dict[str, Any]:
    ids = "\n".join(sorted(clip.id for clip in clips))
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "rules": asdict(rules),
        "clips": {"n": len(clips), "sha256": hashlib.sha256(ids.encode()).hexdigest()},
    }
    for source, model in zip(SOURCES, (visual, audio), strict=True):
        header[source] = model and {
            **asdict(model.teacher),
            "n_labels": len(model.labels),
            "labels_sha256": hashlib.sha256("\n".join(model.labels).encode()).hexdigest(),
        }
    return header


def threshold_of(folder: Path) -> float | None:
    """The audio threshold of labels that were begun; None where there are none."""
    path = folder / HEADER
    if not path.is_file():
        return None
    try:
        return float(json.loads(path.read_bytes())["rules"]["audio_threshold"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path}: is no header of labels ({error}); give another folder"
        ) from error


def _begin(folder: Path, header: dict[str, Any]) -> None:
    """Write the header, or make sure that the one there is the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from error
    path = folder / HEADER
    if not path.is_file():
        write_atomically(path, (json.dumps(header, indent=2) + "\n").encode())
        return
    try:
        found = dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: is no header of labels ({error}); give another folder"
        ) from error
    for key, value in header.items():
        # Through JSON, which has neither tuples nor int and float apart.
        if found.get(key) != json.loads(json.dumps(value)):
            raise InputError(
                f"{folder}: holds labels with {key} {str(found.get(key))[:200]}, not "
                f"{str(value)[:200]}; give another folder, or delete it to start again"
            )


@contextmanager
def _open_part(stem: Path) -> Iterator[io.BufferedRandom | None]:
    """The fold's lines, locked; None where its table is there already."""
    table, path = stem.with_name(stem.name + LABELS_SUFFIX), stem.with_suffix(PART_SUFFIX)
    if table.is_file():
        # What a run leaves that was killed between table and lines.
        path.unlink(missing_ok=True)
        yield None
        return
    try:
        part = path.open("a+b")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    with part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{path}: another process labels this fold; give each process folds of its own"
            ) from error
        yield None if table.is_file() else part
        path.unlink(missing_ok=True)


def _whole_lines(part: io.BufferedRandom, clip_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of the clips done; the file is cut behind the last of them."""
    part.seek(0)
    done: list[dict[str, Any]] = []
    end = 0
    for raw in part:
        try:
            line = json.loads(raw) if raw.endswith(b"\n") else None
        except ValueError:
            line = None
        # The clips come in one order; anything else was not written by us.
        if line is None or len(done) == len(clip_ids) or line["clip"] != clip_ids[len(done)]:
            break
        done.append(line)
        end += len(raw)
    part.truncate(end)
    part.seek(0, os.SEEK_END)
    return done


def _write_tables(
    stem: Path, lines: Sequence[dict[str, Any]], short_hashes: dict[Source, str]
) -> None:
    problems = [(line["clip"], source, text) for line in lines for source, text in line["problems"]]
    if problems:
        path = stem.with_name(stem.name + PROBLEMS_SUFFIX)
        write_atomically(path, _table(PROBLEM_COLUMNS, problems))
    labels = [
        (line["clip"], label, f"{score:.6f}", source, short_hashes[source])
        for line in lines
        for source, label, score in line["labels"]
    ]
    # Last: where it is, the fold is complete.
    write_atomically(stem.with_name(stem.name + LABELS_SUFFIX), _table(LABEL_COLUMNS, labels))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
