"""acoustic_images.h5: acoustic images of a recording, one after the other.

    mfcc, log_mel, power or energy   (n_images, rows, columns, ...) float32; NaN where not valid
    valid                            (n_images,) uint8: 0 where sound of the image is missing
    sample                           (n_images,) float64: middle of the image on the recording
    attributes: schema "soundpost.images/1", settings (JSON), settings_sha256

The settings say all that the images depend on: hashes of the array and the calibration, pixels,
front end, and what part of which recording they show.

While images are made the file has another name, and is whole: every dataset has its full length and
its place from the start, and values are written straight into it. What is done already stands in
the dataset `done`, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.beamforming import FloatArray
from soundpost.device.array.geometry import Floats
from soundpost.device.errors import InputError, UsageError

IMAGES_SCHEMA: Final = "soundpost.images/1"
KINDS: Final = ("mfcc", "log_mel", "power", "energy")
_VALID, _SAMPLE, _DONE = "valid", "sample", "done"


def settings_text(settings: Mapping[str, Any]) -> str:
    """JSON of the settings, the same for the same."""
    return json.dumps(settings, sort_keys=True, allow_nan=False)


class ImageFile(NamedTuple):
    """What a finished file holds.

    settings : as they were given to ImageWriter
    images : of each kind, (n_images, rows, columns, ...) float32, NaN where not valid
    valid : (n_images,) bool
    samples : (n_images,) middle of each image on the recording
    """

    settings: Mapping[str, Any]
    images: Mapping[str, FloatArray]
    valid: NDArray[np.bool_]
    samples: Floats


def read_images(path: Path, kinds: tuple[str, ...] = KINDS) -> ImageFile:
    """Read the kinds that a finished file has of these.

    Raises InputError where it is none.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            settings = _settings(file, path)
            images = {kind: file[kind][()] for kind in kinds if kind in file}
            return ImageFile(settings, images, file[_VALID][()] > 0, file[_SAMPLE][()])
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as acoustic images: {error}") from error


class ImageWriter:
    """Writes images into a file that another process, killed before, may have begun.

    Parameters
    ----------
    path : of the finished file
    shapes : of each kind's image, such as {"energy": (36, 48), "mfcc": (36, 48, 12)}
    settings : all that the images depend on
    samples : (n_images,) middle of each image
    chunk : images that are written together

    Raises UsageError where the file is there with other settings, InputError where it cannot be
    written. One process at a time.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, ...]],
        settings: Mapping[str, Any],
        samples: Floats,
        chunk: int,
    ) -> None:
        self.path = path
        self._chunk = chunk
        self._shapes = dict(shapes)
        self._part = path.with_name(f".{path.name}.part")
        self._text = settings_text(settings)
        self.n_images = len(samples)
        self.n_chunks = -(-self.n_images // chunk)
        if path.exists():
            _check_same(path, self._text)
            self.finished = True
            self.done = np.ones(self.n_chunks, bool)
            return
        self.finished = False
        if self._part.exists():
            _check_same(self._part, self._text)
        else:
            self._create(samples)
        self._find()

    def _create(self, samples: Floats) -> None:
        # Under a third name until its tables are on disk: what has the second is whole.
        aside = self._part.with_name(self._part.name + ".new")
        try:
            aside.unlink(missing_ok=True)
            _create(aside, self._shapes, self._text, samples, self.n_chunks)
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(self._part)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _find(self) -> None:
        import h5py

        with h5py.File(self._part, "r") as file:
            names = (*self._shapes, _VALID, _DONE)
            self._offsets = {name: int(file[name].id.get_offset()) for name in names}
            self.done = file[_DONE][()] > 0

    def write(self, chunk: int, images: Mapping[str, FloatArray], valid: NDArray[np.bool_]) -> None:
        """Write a chunk of images; they count once they are on disk.

        Raises InputError where that cannot be done; the run may be started again.
        """
        first = chunk * self._chunk
        try:
            with self._part.open("r+b", buffering=0) as file:
                for kind, shape in self._shapes.items():
                    values = np.ascontiguousarray(images[kind], "<f4")
                    bytes_each = 4 * int(np.prod(shape))
                    _put(file.fileno(), self._offsets[kind] + first * bytes_each, values)
                _put(file.fileno(), self._offsets[_VALID] + first, valid.astype(np.uint8))
                os.fsync(file.fileno())
                _put(file.fileno(), self._offsets[_DONE] + chunk, np.ones(1, np.uint8))
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.done[chunk] = True

    def finish(self) -> None:
        """Give the file its name; ValueError where chunks are missing."""
        if self.finished:
            return
        if not self.done.all():
            raise ValueError(f"{self.path}: {np.count_nonzero(~self.done)} chunks are missing")
        try:
            with self._part.open("r+b") as file:
                os.fsync(file.fileno())
            self._part.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.finished = True


def _create(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    text: str,
    samples: Floats,
    n_chunks: int,
) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["schema"] = IMAGES_SCHEMA
        file.attrs["settings"] = text
        file.attrs["settings_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        file.create_dataset(_SAMPLE, data=np.asarray(samples, np.float64))
        sizes = {kind: ((len(samples), *shape), "<f4") for kind, shape in shapes.items()}
        sizes |= {_VALID: ((len(samples),), "u1"), _DONE: ((n_chunks,), "u1")}
        for name, (shape, kind) in sizes.items():
            # Early: it has its place in the file now, before there are values.
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(shape)
            of = h5py.h5t.py_create(np.dtype(kind))
            h5py.h5d.create(file.id, name.encode(), of, space, dcpl=layout)


def _settings(file: Any, path: Path) -> Mapping[str, Any]:
    found = file.attrs.get("schema")
    if found != IMAGES_SCHEMA:
        raise InputError(f"{path}: has the schema {found!r}; expected {IMAGES_SCHEMA!r}")
    settings: Mapping[str, Any] = json.loads(file.attrs["settings"])
    return settings


def _check_same(path: Path, text: str) -> None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = _settings(file, path)
    except (OSError, KeyError) as error:
        raise InputError(
            f"{path}: is there, and is no file of acoustic images; choose another --out"
        ) from error
    wanted = json.loads(text)
    changed = sorted(key for key in found | wanted if found.get(key) != wanted.get(key))
    if changed:
        key = changed[0]
        raise UsageError(
            f"{path}: has images made with {key} {_short(found.get(key))}; now it is "
            f"{_short(wanted.get(key))}: choose another --out, or remove the file"
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _put(descriptor: int, offset: int, values: NDArray[Any]) -> None:
    left = values.reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(descriptor, left, offset)
        offset += written
        left = left[written:]


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); free some space or choose another "
        "place, then run the same command again"
    )
