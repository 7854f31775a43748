"""Columns of one label set found in another by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

# Names in a message; the rest is counted.
_NAMED = 5


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def nearest_label(name: str, known: Sequence[str]) -> str | None:
    """The known name that looks most like it, whatever its case and underscores, or None."""
    plain = {_plain(label): label for label in known}
    near = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.6)
    return plain[near[0]] if near else None


def unknown_labels(names: Sequence[str], known: Sequence[str]) -> str:
    """The names, in quotes, each with the nearest known one."""
    words = []
    for name in names[:_NAMED]:
        near = nearest_label(name, known)
        words.append(f"{name!r}" + (f" (nearest: {near!r})" if near else " (nothing near)"))
    if len(names) > _NAMED:
        words.append(f"{len(names) - _NAMED} more")
    return ", ".join(words)


def columns_of(
    wanted: Sequence[str], known: Sequence[str], where: str, rename: Mapping[str, str] | None = None
) -> NDArray[np.int64]:
    """Where each wanted label stands among the known ones.

    Parameters
    ----------
    where : whose labels the known ones are, for the message
    rename : known name of a wanted one that is called otherwise there

    Raises InputError naming those that are missing, each with the nearest name.
    """
    rename = rename or {}
    column = {label: index for index, label in enumerate(known)}
    missing = [label for label in wanted if rename.get(label, label) not in column]
    if missing:
        raise InputError(
            f"{where}: has no label {unknown_labels(missing, known)}; say in `rename` what they "
            "are called there, or leave them out"
        )
    return np.array([column[rename.get(label, label)] for label in wanted], np.int64)


def require_same_labels(first: Sequence[str], other: Sequence[str], where: str) -> None:
    """Raise InputError where two sets of labels differ, in whatever order they stand."""
    extra = [label for label in other if label not in first]
    lacking = [label for label in first if label not in other]
    if not (extra or lacking):
        return
    parts = []
    if lacking:
        parts.append(f"lacks {unknown_labels(lacking, other)}")
    if extra:
        parts.append(f"has also {unknown_labels(extra, first)}")
    raise InputError(f"{where}: {' and '.join(parts)}; average teachers of one label set")
