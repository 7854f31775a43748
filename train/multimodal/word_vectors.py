"""From the names of things that are seen to the names of sounds, by word vectors.

Li et al. 2018, section 2.2.2: the cosine between the GloVe vectors (Pennington et al. 2014) of an
object's and of an event's description says how near they are. The sentence with the rule is
garbled in print ("for each of the top 10 object classes, we assign its probability to the sound
events may receive probabilities from more than one object class"). Our choices:

- An object gives its probability to the nearest event. Of several as near: the first in the list.
- A description is a list of synonyms parted by commas, as in ImageNet ("tabby, tabby cat") and
  AudioSet ("Fire engine, fire truck (siren)"). The vector of a synonym is the mean of its words';
  two descriptions are as near as the nearest pair of their synonyms.
- A word is looked up as it is written, then in lower case; one with hyphens or apostrophes that is
  unknown is taken apart. Unknown words are left out of the mean. Who has no known word at all is
  named: such an object gives its probability to nobody, such an event gets none.
- `least_cosine` keeps objects out that are far from everything; the paper has no such limit.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.errors import InputError

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]
WordVectors = Mapping[str, FloatArray]

# A letter or digit, then more of them, with single hyphens or apostrophes between.
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_JOINTS = re.compile(r"[-'’]")
# Nobody publishes longer ones, and a file of something else is found out by its first line.
_MAX_DIMENSIONS = 4_096
_NOBODY = -1


def synonyms(name: str) -> list[list[str]]:
    """Words of each synonym in a description: "tabby, tabby cat" is [[tabby], [tabby, cat]]."""
    found = (_WORD.findall(part.replace("_", " ")) for part in name.split(","))
    return [words for words in found if words]


def spellings(word: str) -> list[list[str]]:
    """Ways to look a word up, the first that is known counts: as it is, lower, taken apart."""
    ways = [[word], [word.lower()]]
    parts = _JOINTS.split(word)
    if len(parts) > 1:
        ways += [parts, [part.lower() for part in parts]]
    return ways


def words_of(names: Iterable[str]) -> set[str]:
    """Every word that vectors are needed for."""
    return {
        part
        for name in names
        for synonym in synonyms(name)
        for word in synonym
        for way in spellings(word)
        for part in way
    }


def read_word_vectors(
    path: Path, names: Iterable[str], *, quiet: bool = False
) -> dict[str, FloatArray]:
    """Vectors of the words in some names, from a GloVe text file such as glove.840B.300d.txt.

    A row is a word and its numbers, parted by single spaces. Those of a few words with spaces in
    them, as glove.840B has, are passed over: no word of a name has one. Only the rows that are
    needed are kept, and reading ends when all words are found.

    Returns
    -------
    dict of (n_dimensions,) float32
        Of the words that are in the file.

    Raises
    ------
    InputError
        The file cannot be read; a row has fewer numbers than the first, or one that is none.
    """
    wanted = {word.encode(): word for word in words_of(names)}
    found: dict[str, FloatArray] = {}
    try:
        with (
            path.open("rb") as file,
            tqdm(
                total=path.stat().st_size,
                desc=path.name,
                unit="B",
                unit_scale=True,
                disable=quiet,
                leave=False,
            ) as bar,
        ):
            n = 0
            for number, row in enumerate(file, 1):
                bar.update(len(row))
                row = row.rstrip()
                if number == 1:
                    n = _dimensions(row, f"{path}: line 1")
                spaces = row.count(b" ")
                if spaces < n:
                    raise InputError(
                        f"{path}: line {number}: has {spaces} numbers; expected {n}, as in line 1: "
                        "the file is damaged or not whole, fetch it again"
                    )
                word = wanted.get(row.partition(b" ")[0]) if spaces == n else None
                # Of a word that is listed twice the first counts: rows are by frequency.
                if word is not None and word not in found:
                    found[word] = _numbers(row, f"{path}: line {number}")
                    if len(found) == len(wanted):
                        break
    except OSError as error:
        raise InputError(
            f"{path}: word vectors cannot be read ({error.strerror}); expected a GloVe text file "
            "such as glove.840B.300d.txt from https://nlp.stanford.edu/projects/glove"
        ) from error
    if n == 0:
        raise InputError(f"{path}: is empty; expected a word and its numbers in each line")
    return found


def _dimensions(row: bytes, where: str) -> int:
    n = row.count(b" ")
    if not 2 <= n <= _MAX_DIMENSIONS:
        raise InputError(
            f"{where}: has {n} numbers; expected a GloVe text file, a word and its 50 to 300 "
            "numbers in each line (word2vec's line of counts at the top has to go)"
        )
    _numbers(row, where)
    return n


def _numbers(row: bytes, where: str) -> FloatArray:
    try:
        vector = np.array([float(text) for text in row.split(b" ")[1:]], np.float32)
    except ValueError as error:
        raise InputError(
            f"{where}: {error}; expected a word and numbers: the file is damaged, fetch it again"
        ) from error
    if not np.isfinite(vector).all():
        raise InputError(
            f"{where}: has a number that is not finite; the file is damaged, fetch it again"
        )
    return vector


def name_vectors(name: str, vectors: WordVectors) -> FloatArray:
    """Unit vectors of a description's synonyms.

    Returns
    -------
    (n_known_synonyms, n_dimensions) float32
        None where no word is known, or the known ones cancel.
    """
    rows = []
    for synonym in synonyms(name):
        known = [vector for word in synonym for vector in _known(word, vectors)]
        mean = np.mean(known, axis=0, dtype=np.float64) if known else np.zeros(1)
        length = float(np.linalg.norm(mean))
        if length > 0:
            rows.append((mean / length).astype(np.float32))
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _known(word: str, vectors: WordVectors) -> list[FloatArray]:
    for way in spellings(word):
        found = [vectors[part] for part in way if part in vectors]
        if found:
            return found
    return []


@dataclass(frozen=True, eq=False)
class ObjectEvents:
    """Which event each object speaks for.

    event : (n_objects,) int64, numbers of events, -1 for nobody
    """

    objects: tuple[str, ...]
    events: tuple[str, ...]
    event: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ObjectEventMap(ObjectEvents):
    """The same with what it came of.

    cosines : (n_objects, n_events) float32, -1 to 1; -inf where either has no known word
    unknown_objects, unknown_events : names without any known word
    """

    cosines: FloatArray
    unknown_objects: tuple[str, ...]
    unknown_events: tuple[str, ...]


def map_objects(
    objects: Sequence[str],
    events: Sequence[str],
    vectors: WordVectors,
    least_cosine: float = -1.0,
) -> ObjectEventMap:
    """Nearest event of each object.

    Parameters
    ----------
    objects : descriptions, in the order of the recognition network's outputs
    events : descriptions, in the order of the labels
    least_cosine : an object that is less near to its event gives its probability to nobody

    Raises InputError where no event, or no object, has a word with a vector.
    """
    seen = [name_vectors(name, vectors) for name in objects]
    heard = [name_vectors(name, vectors) for name in events]
    unknown = tuple(
        tuple(name for name, rows in zip(names, found, strict=True) if not len(rows))
        for names, found in ((objects, seen), (events, heard))
    )
    for kind, names, left_out in zip(("object", "event"), (objects, events), unknown, strict=True):
        if len(left_out) == len(names):
            raise InputError(
                f"word vectors: no {kind} has a word with a vector (the first is "
                f"{names[0] if names else 'absent'!r}); check that the file is for this language"
            )
        if left_out:
            logger.warning(
                "no word vector for %d of %d %s names, which are left out: %s",
                len(left_out),
                len(names),
                kind,
                "; ".join(left_out),
            )
    cosines = np.full((len(objects), len(events)), -np.inf, np.float32)
    for i, rows in enumerate(seen):
        for k, others in enumerate(heard):
            if len(rows) and len(others):
                cosines[i, k] = (rows @ others.T).max()
    best = cosines.max(axis=1)
    # The cosine of opposite vectors may come out a little below -1.
    near = np.isfinite(best) & (best >= least_cosine - 1e-6)
    event = np.where(near, cosines.argmax(axis=1), _NOBODY).astype(np.int64)
    return ObjectEventMap(tuple(objects), tuple(events), event, cosines, *unknown)
