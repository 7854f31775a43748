"""What a network learns from labels by machine: in each epoch half of the visual ones, all audio.

Jia et al. 2019, section 3: "Half of the visual labels are selected randomly to increase randomness
and all the audio labels are directly applied", 6 to 10 labels for each second. Where the text
leaves a choice: half of an odd number is rounded up; a draw depends on the seed, the epoch and the
clip alone, so that a resumed run sees what an uninterrupted one would have seen. Labels that no
clip has are no classes (section 2: 10,998 of 11,693 are left).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundpost.device.errors import InputError
from soundpost.train.multimodal.labelling import (
    HEADER,
    LABEL_COLUMNS,
    LABELS_SUFFIX,
    PROBLEMS_SUFFIX,
    SCHEMA,
    fold_name,
)
from soundpost.train.multimodal.machine_labels import SOURCES, Source, fold_of

IntArray = NDArray[np.int64]

VISUAL_SHARE = 0.5
# Numbers that clips are told apart by when labels are drawn.
_KEYS = 2**32
# A class: which network names it, and its label there.
LabelClass = tuple[Source, str]


@dataclass(frozen=True, eq=False)
class MachineTargets:
    """Labels of clips, in one row after the other.

    clip_ids : in the order of their folds and ids
    classes : (source, label), visual ones first, each part in alphabetical order
    starts : (n_clips + 1,) first place of each clip's labels
    class_index : (n_labels_in_all,) class of each label
    """

    clip_ids: tuple[str, ...]
    classes: tuple[LabelClass, ...]
    starts: IntArray
    class_index: IntArray

    @property
    def n_visual(self) -> int:
        """Visual classes: those before the first audio one."""
        return sum(source == "visual" for source, _ in self.classes)

    def of_clip(self, index: int) -> IntArray:
        """Classes of all of a clip's labels."""
        return self.class_index[self.starts[index] : self.starts[index + 1]]

    def all_labels(self, indices: Sequence[int] | IntArray) -> Tensor:
        """Every label, for validation: (n, n_classes) float32, 0 or 1."""
        return self._targets([self.of_clip(int(i)) for i in indices])

    def draw(self, indices: Sequence[int] | IntArray, epoch: int, seed: int = 0) -> Tensor:
        """Labels of some clips in one epoch.

        Returns (n, n_classes) float32, 0 or 1.
        """
        return self._targets([self._drawn(int(i), epoch, seed) for i in indices])

    def _drawn(self, index: int, epoch: int, seed: int) -> IntArray:
        classes = self.of_clip(index)
        visual, audio = classes[classes < self.n_visual], classes[classes >= self.n_visual]
        rng = np.random.default_rng((seed, epoch, fold_of(self.clip_ids[index], _KEYS)))
        n = int(np.ceil(VISUAL_SHARE * len(visual)))
        return np.concatenate([rng.choice(visual, n, replace=False), audio])

    def _targets(self, rows: Sequence[IntArray]) -> Tensor:
        targets = torch.zeros(len(rows), len(self.classes))
        for row, classes in enumerate(rows):
            targets[row, torch.from_numpy(classes)] = 1.0
        return targets


def class_names(classes: Sequence[LabelClass]) -> tuple[str, ...]:
    """Name of each class: its label; where both networks have that label, the seen one says so."""
    heard = {label for source, label in classes if source == "audio"}
    return tuple(
        f"{label} (seen)" if source == "visual" and label in heard else label
        for source, label in classes
    )


def read_machine_targets(
    folder: Path,
    folds: Sequence[int] | None = None,
    classes: Sequence[LabelClass] | None = None,
) -> MachineTargets:
    """Labels that label_clips has written.

    Parameters
    ----------
    folds : those to read, such as those of training or of validation; by default all that are
        labelled by now
    classes : of the network that learns or is judged; other labels are left out. By default those
        that occur

    Raises
    ------
    InputError
        No labels in the folder; a fold that is not complete; a row that is damaged; no label left.
    """
    n_folds = _n_folds(folder)
    wanted = range(n_folds) if folds is None else folds
    rows: list[tuple[str, list[LabelClass]]] = []
    for fold in wanted:
        name = fold_name(fold, n_folds)
        table = folder / f"{name}{LABELS_SUFFIX}"
        if table.is_file():
            rows += _read(table)
        elif (folder / f"{name}.part").is_file():
            raise InputError(
                f"{table}: is not complete; run the labelling again, it goes on where it stopped"
            )
        elif folds is not None:
            raise InputError(f"{table}: no such fold; label it first")
    found = {named for _, labels in rows for named in labels}
    order = sorted(found, key=lambda named: (SOURCES.index(named[0]), named[1]))
    known = tuple(order if classes is None else classes)
    index = {named: number for number, named in enumerate(known)}
    kept = [[index[named] for named in labels if named in index] for _, labels in rows]
    # A clip without any label says nothing.
    pairs = [(clip_id, labels) for (clip_id, _), labels in zip(rows, kept, strict=True) if labels]
    if not pairs:
        raise InputError(f"{folder}: no clip has a label; look at fold_*{PROBLEMS_SUFFIX} there")
    lengths = [len(labels) for _, labels in pairs]
    return MachineTargets(
        tuple(clip_id for clip_id, _ in pairs),
        known,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([number for _, labels in pairs for number in labels], np.int64),
    )


def _n_folds(folder: Path) -> int:
    path = folder / HEADER
    try:
        header = json.loads(path.read_bytes())
        if header["schema"] != SCHEMA:
            raise ValueError(f"schema {header['schema']!r}, expected {SCHEMA!r}")
        return int(header["rules"]["n_folds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no header of machine labels ({error}); give the folder of a labelling"
        ) from error


def _read(table: Path) -> list[tuple[str, list[LabelClass]]]:
    """Clips of one table, in its order, with their labels."""
    clips: dict[str, list[LabelClass]] = {}
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != LABEL_COLUMNS:
            raise InputError(f"{table}: line 1: expected {','.join(LABEL_COLUMNS)}; label it again")
        for row in reader:
            source = next(
                (s for s in SOURCES if len(row) == len(LABEL_COLUMNS) and s == row[3]), None
            )
            if source is None:
                raise InputError(
                    f"{table}: line {reader.line_num}: is {','.join(row)[:80]!r}; expected "
                    f"{','.join(LABEL_COLUMNS)}: delete the file and run the labelling again"
                )
            clips.setdefault(row[0], []).append((source, row[1]))
    return list(clips.items())
