"""Arrays made of clips (features, pictures, embeddings), made once and then memory-mapped.

A clip's array is a row: all rows have one type and one shape but for their length, which may
differ. Rows lie in files of a few hundred, each under a key of what made them and of the clips'
files (names, sizes, times, parts), so that what changes is made again, and nothing else; a run that
is killed goes on with the file it was at. Processes that need the same rows share the work: each
file has a lock, and who finds it taken goes on with the next. What is read is mapped, so that all
workers of a machine hold one copy, in the page cache.

A file is a plain .npy of all its rows, one after the other; beside it stands one of their lengths.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import MediaClip

Array = NDArray[Any]

# Raise it when the meaning of the stored files changes.
_FORMAT = 1
# A killed run loses the rows of one file at most; a set of two million has four thousand files.
_ROWS_PER_FILE = 512
# Every mapped file takes a descriptor, of which a process has 1,024.
_OPEN_FILES = 128


def cache_folder(data: Path, name: str = "features") -> Path:
    """Where rows of a set lie by default: in its folder, or in the user's cache where that folder
    may not be written."""
    own = data / name
    if os.access(own if own.is_dir() else data, os.W_OK):
        return own
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "soundpost" / name


def clip_identity(clip: MediaClip) -> str:
    """What a row made of a clip depends on: its files, and which part of them.

    Raises InputError where a file of the clip is not there.
    """
    files = [path for path in (clip.audio, clip.video, clip.images) if path is not None]
    return json.dumps([clip.id, clip.start_s, clip.end_s, [_file_identity(f) for f in files]])


def _file_identity(path: Path) -> list[Any]:
    try:
        status = path.stat()
        size = status.st_size
        if path.is_dir():
            # A folder of frames: its own size says little, how many there are says more.
            size = sum(1 for _ in path.iterdir())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); soundpost dataset check lists what is "
            "missing"
        ) from error
    return [os.fspath(path.absolute()), size, status.st_mtime_ns]


@dataclass
class RowCache:
    """Rows of some clips, in their order; it may be handed to another process.

    folder : where the files lie
    keys : of its files
    n_rows : rows in all
    """

    folder: Path
    keys: tuple[str, ...]
    n_rows: int
    rows_per_file: int = _ROWS_PER_FILE
    _open: OrderedDict[int, tuple[Array, NDArray[np.int64]]] = field(
        default_factory=OrderedDict, repr=False
    )

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, row: int) -> Array:
        """One row as a view of the file: copy it to keep or change it."""
        if not -self.n_rows <= row < self.n_rows:
            raise IndexError(f"row {row} of {self.n_rows}")
        number, within = divmod(row % self.n_rows, self.rows_per_file)
        values, ends = self._file(number)
        view: Array = values[ends[within] : ends[within + 1]]
        return view

    def stack(self, rows: Sequence[int]) -> Array:
        """Rows of equal length as one array, (n_rows, *shape)."""
        return np.stack([self[row] for row in rows])

    def lengths(self) -> NDArray[np.int64]:
        """Length of each row, (n_rows,)."""
        files = [np.diff(self._file(number)[1]) for number in range(len(self.keys))]
        return np.concatenate(files) if files else np.empty(0, np.int64)

    def _file(self, number: int) -> tuple[Array, NDArray[np.int64]]:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path = _path(self.folder, self.keys[number])
        # A plain array over the mapping: np.memmap costs 10 us a slice.
        values = np.asarray(np.load(path, mmap_mode="r"))
        ends = np.concatenate([[0], np.cumsum(np.load(_lengths_path(path)))]).astype(np.int64)
        self._open[number] = values, ends
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)
        return values, ends

    def __getstate__(self) -> dict[str, Any]:
        # A mapping would travel as all of its bytes.
        return self.__dict__ | {"_open": OrderedDict()}


def open_rows(
    clips: Sequence[MediaClip],
    made_by: str,
    make: Callable[[MediaClip], Array],
    folder: Path,
    *,
    rows_per_file: int = _ROWS_PER_FILE,
    title: str = "features",
    quiet: bool = False,
) -> RowCache:
    """Rows of some clips: read where they are, made where not (with a progress bar).

    Parameters
    ----------
    made_by : hash of all that decides what make returns of a clip: front end or network, its
        weights and settings
    make : the row of a clip, (length, ...) of one type and of one shape after its length
    folder : where the files lie; it is made

    Raises
    ------
    InputError
        A clip cannot be read (make raises it), rows are of several types or shapes, the folder
        cannot be written. What was made before stays.
    """
    parts = [clips[i : i + rows_per_file] for i in range(0, len(clips), rows_per_file)]
    keys = tuple(_key(part, made_by) for part in parts)
    work = dict(zip(keys, parts, strict=True))
    waiting = [key for key in work if not _is_whole(_path(folder, key))]
    rows = sum(len(work[key]) for key in waiting)
    if waiting:
        with (
            _writable(folder),
            tqdm(total=rows, desc=title, unit="clip", disable=quiet, leave=False) as bar,
        ):
            (folder / ".locks").mkdir(parents=True, exist_ok=True)
            # First what nobody else is at; then wait for the others, and find it made.
            for patient in (False, True):
                for key in list(waiting):
                    with _lock(folder / ".locks" / key, patient) as mine:
                        if not mine:
                            continue
                        if _is_whole(_path(folder, key)):
                            bar.update(len(work[key]))
                        else:
                            _make(work[key], make, _path(folder, key), bar)
                    waiting.remove(key)
    return RowCache(folder, keys, len(clips), rows_per_file)


def _key(clips: Sequence[MediaClip], made_by: str) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, made_by]).encode())
    for clip in clips:
        digest.update(clip_identity(clip).encode())
    return digest.hexdigest()[:32]


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.npy"


def _lengths_path(path: Path) -> Path:
    return path.with_suffix(".lengths.npy")


def _is_whole(path: Path) -> bool:
    """Whether both files are there with all their bytes; a mapping reads the header alone."""
    try:
        values = np.load(path, mmap_mode="r")
        return bool(len(values) == np.load(_lengths_path(path)).sum())
    except (OSError, ValueError, EOFError):
        return False


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: rows cannot be written ({error.strerror}); free some space or choose "
            "another folder, then run the same command again"
        ) from error


@contextmanager
def _lock(path: Path, patient: bool) -> Iterator[bool]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _make(
    clips: Sequence[MediaClip], make: Callable[[MediaClip], Array], path: Path, bar: Any
) -> None:
    aside, lengths_aside = path.with_suffix(".part"), path.with_suffix(".lengths.part")
    lengths = []
    like: Array | None = None
    try:
        with aside.open("wb") as file:
            for clip in clips:
                row = np.ascontiguousarray(make(clip))
                if like is None:
                    _write_header(file, row, 0)
                    like = row[:0]
                if row.dtype != like.dtype or row.shape[1:] != like.shape[1:]:
                    raise InputError(
                        f"{clip.id}: its row is {row.dtype} {row.shape}; expected {like.dtype} "
                        f"(length, {', '.join(map(str, like.shape[1:]))}), as of {clips[0].id}"
                    )
                file.write(row.tobytes())
                lengths.append(len(row))
                bar.update()
            assert like is not None
            file.seek(0)
            _write_header(file, like, sum(lengths))
            file.flush()
            os.fsync(file.fileno())
        # Lengths first: a file of rows is there only with them.
        with lengths_aside.open("wb") as file:
            np.save(file, np.array(lengths, np.int64))
            os.fsync(file.fileno())
        lengths_aside.replace(_lengths_path(path))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
        lengths_aside.unlink(missing_ok=True)


def _write_header(file: BinaryIO, like: Array, n: int) -> None:
    """Header of an .npy of n entries like these; numpy keeps room in it for n to grow."""
    header = {
        "descr": like.dtype.str,
        "fortran_order": False,
        "shape": (n, *like.shape[1:]),
    }
    # numpy gives this function no types.
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
