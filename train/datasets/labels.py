"""Names of labels: ids and display names of one set, the same class under two names in two sets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from soundpost.train.datasets.catalogue import MediaSet, Problem
from soundpost.train.datasets.tables import read_columns

# Share of equal characters from which a name is offered for another: below, it is mostly wrong. Of
# two sets' names, which may both be right, only what looks like a slip counts as one.
_CUTOFF, _SLIP_CUTOFF = 0.75, 0.9


@dataclass(frozen=True)
class LabelNames:
    """Classes that have an id and a display name (AudioSet: mid and display_name), in order."""

    ids: tuple[str, ...]
    names: tuple[str, ...]

    @cached_property
    def by_id(self) -> dict[str, str]:
        """Display name of each id."""
        return dict(zip(self.ids, self.names, strict=True))

    @cached_property
    def by_name(self) -> dict[str, str]:
        """Id of each display name."""
        return dict(zip(self.names, self.ids, strict=True))


def read_label_names(path: Path, problems: list[Problem]) -> LabelNames | None:
    """Classes of a class_labels_indices.csv: index, mid, display_name."""
    rows = list(read_columns(path, ("index", "mid", "display_name"), problems))
    if not rows:
        return None
    return LabelNames(
        tuple(cells["mid"] for _, cells in rows),
        tuple(cells["display_name"] for _, cells in rows),
    )


def plain(label: str) -> str:
    """A label without case, punctuation and brackets: what a person would call the same name."""
    return " ".join(re.findall(r"\w+", label.casefold().replace("_", " ")))


def nearest(
    label: str,
    labels: Iterable[str],
    names: LabelNames | None = None,
    cutoff: float = _CUTOFF,
) -> str | None:
    """The label that is most likely meant, if any is like it.

    names : tells an id and a display name of one class
    cutoff : least share of equal characters
    """
    known = list(labels)
    if names is not None:
        for other in (names.by_id.get(label), names.by_name.get(label)):
            if other is not None and other in known:
                return other
    by_plain = {plain(other): other for other in reversed(known)}
    wanted = plain(label)
    if wanted in by_plain:
        return by_plain[wanted]
    near = difflib.get_close_matches(wanted, by_plain, n=1, cutoff=cutoff)
    return by_plain[near[0]] if near else None


class UnknownLabels:
    """Labels outside a vocabulary, gathered over a set: one problem each, not one a row."""

    def __init__(self, vocabulary: Sequence[str], names: LabelNames | None = None) -> None:
        self._vocabulary = vocabulary
        self._known = frozenset(vocabulary)
        self._names = names
        self._found: dict[str, list[str]] = {}

    def keep_known(self, labels: Iterable[str], where: str) -> tuple[str, ...]:
        """The labels of the vocabulary among these, each once; the others are noted."""
        kept = []
        for label in dict.fromkeys(labels):
            if label in self._known:
                kept.append(label)
            else:
                self._found.setdefault(label, []).append(where)
        return tuple(kept)

    def problems(self) -> list[Problem]:
        """What was noted."""
        found = []
        for label, where in self._found.items():
            near = nearest(label, self._vocabulary, self._names)
            more = f", and in {len(where) - 1} more rows" if len(where) > 1 else ""
            if not label:
                found.append(
                    Problem(where[0], f"an empty label{more}", "a label", "write one, or none")
                )
                continue
            found.append(
                Problem(
                    where[0],
                    f"label {label!r} is not one of the set's {len(self._vocabulary)}{more}",
                    repr(near) if near else "one of its labels",
                    "correct the name" if near else "correct the name or take the row out",
                )
            )
        return found


def agreed_names(
    first: MediaSet, second: MediaSet, names: LabelNames | None = None
) -> dict[str, str]:
    """Labels of the second set that are one of the first by another name: {second's: first's}.

    A label that both have is not in it, and a name of the first is given to one label at most.
    """
    shared = set(first.labels) & set(second.labels)
    free = [label for label in first.labels if label not in shared]
    found: dict[str, str] = {}
    for label in second.labels:
        near = None if label in shared else nearest(label, free, names, _SLIP_CUTOFF)
        if near is not None:
            found[label] = near
            free.remove(near)
    return found


def compare_labels(
    first: MediaSet, second: MediaSet, names: LabelNames | None = None
) -> list[Problem]:
    """Classes that the two sets name differently, and sets that share none at all."""
    renamed = agreed_names(first, second, names)
    problems = [
        Problem(
            str(second.folder),
            f"label {label!r}",
            f"{other!r}, as in {first.folder}",
            "rename it in one of the two (MediaSet.renamed)",
        )
        for label, other in renamed.items()
    ]
    if not renamed and not set(first.labels) & set(second.labels):
        problems.append(
            Problem(
                str(second.folder),
                f"no label in common with {first.folder} ({_some(second)})",
                f"some of {_some(first)}",
                "compare sets that have classes in common",
            )
        )
    return problems


def _some(media: MediaSet) -> str:
    few = ", ".join(repr(label) for label in media.labels[:3])
    return few + (", ..." if len(media.labels) > 3 else "") if few else "none"
