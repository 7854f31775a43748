"""Soft labels as a student reads them: by clip id and seconds, from one teacher or several.

`soft_label_format` says what is stored, `soft_label_writer` writes it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.train.multimodal.label_names import columns_of, require_same_labels
from soundpost.train.multimodal.soft_label_format import (
    CLIPS,
    ROW,
    SCORES,
    Teacher,
    read_header,
    read_lines,
    require_rows,
)
from soundpost.train.multimodal.time_spans import Seconds, edges_of_rows, resample

FloatArray = NDArray[np.float32]


class SoftLabels(Protocol):
    """A store, or several of them averaged."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the columns."""
        ...

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """All of them."""
        ...

    @property
    def clip_ids(self) -> frozenset[str]:
        """Clips that there are soft labels of."""
        ...

    def edges(self, clip_id: str) -> Seconds:
        """Bounds between which nothing changes, ascending: of what is covered, from begin to end.

        Raises InputError for an unknown clip, or where several teachers heard no time in common.
        """
        ...

    def on_spans(self, clip_id: str, spans: Seconds) -> FloatArray:
        """Probabilities of a clip in spans of time, (n_spans, n_labels) for (n_spans, 2) seconds.

        Raises InputError for an unknown clip and for a span that no row has any time in common
        with.
        """
        ...


class SoftLabelStore:
    """A store for reading; labels in any order and under other names by `for_labels`.

    Raises InputError where the folder is none, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        header = read_header(folder)
        self.folder = folder
        self._teacher = Teacher(**header["teacher"])
        self._labels: tuple[str, ...] = tuple(header["labels"])
        self._columns = np.arange(len(self._labels))
        self._entries, _ = read_lines(folder / CLIPS)
        self._clip_ids = frozenset(self._entries)
        shape = sum(entry.n_rows for entry in self._entries.values()), len(self._labels)
        require_rows(folder, *shape)
        # Nothing cannot be mapped.
        self._scores: NDArray[Any] = (
            np.memmap(folder / SCORES, ROW, "r", shape=shape) if shape[0] else np.empty(shape, ROW)
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the columns."""
        return self._labels

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The one teacher."""
        return (self._teacher,)

    @property
    def clip_ids(self) -> frozenset[str]:
        """Clips that were whole when the store was opened."""
        return self._clip_ids

    def for_labels(
        self, labels: Sequence[str], rename: Mapping[str, str] | None = None
    ) -> SoftLabelStore:
        """The same with a student's labels as columns.

        rename : what a student's label is called among the labels here, where that differs

        Raises InputError naming labels that are not here, with the nearest ones.
        """
        columns = columns_of(labels, self._labels, str(self.folder), rename)
        view = copy.copy(self)
        view._labels, view._columns = tuple(labels), self._columns[columns]
        return view

    def rows(self, clip_id: str) -> tuple[FloatArray, Seconds]:
        """What was stored: (n_rows, n_labels), and (n_rows + 1,) bounds between rows in seconds.

        Raises InputError for an unknown clip.
        """
        entry = self._entries.get(clip_id)
        if entry is None:
            raise InputError(
                f"{self.folder}: has no soft labels of clip {clip_id}; label it with "
                f"{self._teacher.name} first"
            )
        rows = self._scores[entry.first : entry.first + entry.n_rows]
        edges = edges_of_rows(entry.n_rows, entry.start_s, entry.window_s, entry.hop_s)
        return np.asarray(rows[:, self._columns], np.float32), edges

    def edges(self, clip_id: str) -> Seconds:
        """See SoftLabels."""
        return self.rows(clip_id)[1]

    def on_spans(self, clip_id: str, spans: Seconds) -> FloatArray:
        """See SoftLabels."""
        rows, edges = self.rows(clip_id)
        return resample(rows, edges, spans, f"{self.folder}: clip {clip_id}")


class SoftLabelEnsemble:
    """Mean of several teachers' soft labels, each on its own time grid: three seeds of one method.

    Its clips are those that all of them have labelled.

    Raises InputError where there is none, or their labels differ.
    """

    def __init__(self, stores: Sequence[SoftLabelStore]) -> None:
        if not stores:
            raise InputError("ensemble: no soft labels were given; expected one store or more")
        first = stores[0].labels
        for store in stores[1:]:
            require_same_labels(first, store.labels, str(store.folder))
        self.stores = tuple(store.for_labels(first) for store in stores)
        self._clip_ids = frozenset.intersection(*(store.clip_ids for store in stores))

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the columns: those of the first store."""
        return self.stores[0].labels

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """All of them."""
        return tuple(teacher for store in self.stores for teacher in store.teachers)

    @property
    def clip_ids(self) -> frozenset[str]:
        """Clips that every teacher has labelled."""
        return self._clip_ids

    def edges(self, clip_id: str) -> Seconds:
        """See SoftLabels."""
        of_each = [store.edges(clip_id) for store in self.stores]
        begin, end = max(e[0] for e in of_each), min(e[-1] for e in of_each)
        if begin >= end:
            raise InputError(
                f"ensemble: clip {clip_id}: its teachers heard no time in common; label the whole "
                "clip with each of them"
            )
        every: Seconds = np.unique(np.concatenate(of_each))
        shared: Seconds = every[(every >= begin) & (every <= end)]
        return shared

    def on_spans(self, clip_id: str, spans: Seconds) -> FloatArray:
        """See SoftLabels."""
        total = np.mean(
            [store.on_spans(clip_id, spans) for store in self.stores], axis=0, dtype=np.float64
        )
        return np.asarray(total, np.float32)


def missing_clips(soft_labels: SoftLabels, clip_ids: Iterable[str]) -> tuple[str, ...]:
    """Clips that are not labelled yet, in their order."""
    there = soft_labels.clip_ids
    return tuple(clip_id for clip_id in clip_ids if clip_id not in there)
