"""Writing soft labels: appended clip by clip, gone on with where a run was stopped."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.train.multimodal.soft_label_format import (
    CLIPS,
    HEADER,
    ROW,
    SCHEMA,
    SCORES,
    Teacher,
    read_lines,
    require_rows,
    require_same_header,
)


class SoftLabelWriter:
    """Appends to a store, or begins one; a context manager.

    Raises InputError where the folder holds labels of another teacher or of other classes, and
    where another process writes into it.
    """

    def __init__(
        self, folder: Path, teacher: Teacher, labels: Sequence[str], *, clips_at_once: int = 256
    ) -> None:
        self.folder, self.n_labels = folder, len(labels)
        self._clips_at_once = clips_at_once
        header = {"schema": SCHEMA, "teacher": asdict(teacher), "labels": list(labels)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered: closing must not write what a full disk has refused before.
            self._lines = (folder / CLIPS).open("ab", buffering=0)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lines.close()
            raise InputError(
                f"{folder}: another process is writing soft labels there; wait for it to end"
            ) from error
        try:
            if (folder / HEADER).is_file():
                require_same_header(folder, header)
            else:
                if len(set(labels)) != len(labels) or not labels:
                    raise InputError(
                        f"{folder}: {len(labels)} labels, {len(set(labels))} different: expected "
                        "one or more, each once"
                    )
                write_atomically(folder / HEADER, f"{json.dumps(header, indent=1)}\n".encode())
            entries, whole = read_lines(folder / CLIPS)
            self._clip_ids = set(entries)
            self._scores = (folder / SCORES).open("ab", buffering=0)
            n_rows = sum(entry.n_rows for entry in entries.values())
            require_rows(folder, n_rows, self.n_labels)
            self._committed = [n_rows * self.n_labels * ROW.itemsize, whole]
        except BaseException:
            self._lines.close()
            raise
        self._waiting: list[tuple[str, NDArray[Any]]] = []

    @property
    def clip_ids(self) -> frozenset[str]:
        """Clips that are done, those of earlier runs too."""
        return frozenset(self._clip_ids)

    def add(
        self,
        clip_id: str,
        scores: NDArray[Any],
        start_s: float,
        hop_s: float,
        window_s: float | None = None,
    ) -> None:
        """Keep what the teacher says of one clip.

        Parameters
        ----------
        scores : (n_rows, n_labels) probabilities
        start_s : where the first row's window begins in the clip
        hop_s : from one row to the next; of a single row, the clip's length
        window_s : what each row heard; by default a hop

        Raises InputError where they are no probabilities of these labels, or the clip is there.
        """
        where = f"{self.folder}: clip {clip_id}"
        window_s = hop_s if window_s is None else window_s
        if clip_id in self._clip_ids:
            raise InputError(f"{where}: has soft labels already; a clip's id must be its own")
        if scores.ndim != 2 or scores.shape[1] != self.n_labels or not len(scores):
            raise InputError(
                f"{where}: scores of shape {scores.shape}: expected rows of {self.n_labels}"
            )
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
            raise InputError(
                f"{where}: scores from {scores.min():g} to {scores.max():g}: expected "
                "probabilities, 0 to 1; give them after the sigmoid or softmax"
            )
        if not (hop_s > 0 and window_s > 0 and np.isfinite([start_s, hop_s, window_s]).all()):
            raise InputError(
                f"{where}: start {start_s} s, window {window_s} s, hop {hop_s} s: expected a "
                "window and a hop above 0"
            )
        row: dict[str, Any] = {"clip": clip_id, "rows": len(scores)}
        row |= {"start_s": float(start_s), "window_s": float(window_s), "hop_s": float(hop_s)}
        self._waiting.append((json.dumps(row), np.ascontiguousarray(scores, ROW)))
        self._clip_ids.add(clip_id)
        if len(self._waiting) >= self._clips_at_once:
            self.flush()

    def flush(self) -> None:
        """Put what was added on disk; InputError where that fails, and then it is not there."""
        rows = b"".join(scores.tobytes() for _, scores in self._waiting)
        lines = b"".join(f"{line}\n".encode() for line, _ in self._waiting)
        self._waiting.clear()
        try:
            # What a killed writer, or one without space, left behind.
            for file, size in zip((self._scores, self._lines), self._committed, strict=True):
                file.truncate(size)
            _append(self._scores, rows)
            _append(self._lines, lines)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); free some space, then run "
                "the same command again"
            ) from error
        self._committed = [self._committed[0] + len(rows), self._committed[1] + len(lines)]

    def __enter__(self) -> SoftLabelWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self._scores.close()
            self._lines.close()


def _append(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())
