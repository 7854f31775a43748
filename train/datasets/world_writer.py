"""Writes a generated world in the layout of the acoustic-image action set, some at a time.

Besides that layout (acoustic_actions.py) there are `world.json`, all settings and what the clips
were, and the tables of world_tables.py, which come last: a folder that has them is complete. A
recording is there as a whole or not at all, and follows from the settings and the clips alone: who
gives the same command again after a crash gets the bytes that were missing.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from soundpost.device.errors import InputError
from soundpost.train.clips import read_clip_set
from soundpost.train.datasets.acoustic_actions import ActionSettings
from soundpost.train.datasets.action_files import IMAGE_SHAPE, SAMPLES_PER_FRAME
from soundpost.train.datasets.action_writer import RecordingWriter, is_written, write_settings
from soundpost.train.datasets.world import WorldRenderer
from soundpost.train.datasets.world_cast import Cast, gather
from soundpost.train.datasets.world_plan import TakePlan, plan_take
from soundpost.train.datasets.world_settings import WorldSettings
from soundpost.train.datasets.world_tables import SCHEMA, SETTINGS_FILE, write_tables
from soundpost.train.generated_sets import begin_set, fingerprint

# A JPEG of a frame of 640 x 480, on average of three locations; it follows the frame's area.
_PICTURE_BYTES, _PICTURE_PX = 65_000, 640 * 480
_HEADER_BYTES = 160


@dataclass(frozen=True)
class _Key:
    """One recording; numbers from 1."""

    location: int
    subject: int
    action: int


def write_world(
    settings: WorldSettings, data: Path, out: Path, *, workers: int = 1, quiet: bool = False
) -> dict[str, int]:
    """Make a world from a folder of clips; go on with one that was begun.

    workers : processes that render; the bytes do not depend on their number

    Returns
    -------
    number of takes by split: train, validation, test

    Raises InputError where the clips do not do, or out holds a world with other settings.
    """
    clip_set = read_clip_set(data)
    labels = (*settings.classes, *settings.distractors)
    note = {
        "schema": SCHEMA,
        "settings": asdict(settings),
        "labels": list(settings.classes),
        "clips": {"folder": data.name, "sha256": fingerprint(clip_set, labels)},
    }
    begin_set(out, SETTINGS_FILE, note)
    cast = gather(clip_set, settings, quiet=quiet)
    layout = action_settings(settings)
    write_settings(out, layout)
    keys = _keys(settings)
    waiting = [k for k in keys if not is_written(out, k.location, k.subject, k.action)]
    made = _render_all(settings, cast, out, waiting, workers)
    takes = settings.takes
    with (
        closing(made),
        tqdm(
            total=len(keys) * takes,
            initial=(len(keys) - len(waiting)) * takes,
            desc="world",
            unit="take",
            disable=quiet,
        ) as bar,
    ):
        for _ in made:
            bar.update(takes)
    write_tables(out, settings, cast, data, plan_all(settings, cast))
    counts = {"train": 0, "validation": 0, "test": 0}
    for key in keys:
        counts[settings.split_of(key.subject)] += takes
    return counts


def plan_all(settings: WorldSettings, cast: Cast) -> list[TakePlan]:
    """Plans of all takes, recording by recording."""
    return [plan for key in _keys(settings) for plan in _plans(settings, cast, key)]


def action_settings(settings: WorldSettings) -> ActionSettings:
    """What the written set says of itself."""
    return ActionSettings(
        settings.name,
        dict(enumerate(settings.classes, 1)),
        dict(enumerate(settings.locations, 1)),
        settings.n_stored,
        (),
    )


def recording_bytes(settings: WorldSettings) -> int:
    """Size of a recording's files; that of pictures is an average."""
    rows, columns, coefficients = IMAGE_SHAPE
    image = 4 * rows * columns * coefficients
    sound = 4 * SAMPLES_PER_FRAME * settings.n_stored
    camera = settings.camera
    picture = _PICTURE_BYTES * camera.width_px * camera.height_px / _PICTURE_PX
    frame = image + sound + picture + 2 * _HEADER_BYTES
    return round(frame * settings.n_frames * settings.takes)


def _keys(settings: WorldSettings) -> list[_Key]:
    return [
        _Key(*numbers)
        for numbers in itertools.product(
            range(1, len(settings.locations) + 1),
            range(1, settings.subjects + 1),
            range(1, len(settings.classes) + 1),
        )
    ]


def _plans(settings: WorldSettings, cast: Cast, key: _Key) -> Iterator[TakePlan]:
    for take in range(settings.takes):
        yield plan_take(settings, cast, key.location, key.subject, key.action, take)


class _Maker:
    """Renders and writes recordings, one after the other."""

    def __init__(self, settings: WorldSettings, cast: Cast, out: Path) -> None:
        self._settings, self._cast, self._out = settings, cast, out
        self._layout = action_settings(settings)
        self._renderer = WorldRenderer(settings, cast.clips)

    def make(self, key: _Key) -> None:
        stored = self._settings.n_stored
        with RecordingWriter(
            self._out, self._layout, key.location, key.subject, key.action
        ) as recording:
            for plan in _plans(self._settings, self._cast, key):
                for image, samples, picture in self._renderer.frames(plan):
                    recording.write(image, samples[:, :stored], picture)


def _render_all(
    settings: WorldSettings, cast: Cast, out: Path, keys: Sequence[_Key], workers: int
) -> Generator[_Key, None, None]:
    """Make recordings, here or in processes; yields each that is written."""
    if workers == 1 or len(keys) < 2:
        # Sums of matrix products depend on the number of threads, in their last bits.
        with threadpool_limits(1):
            maker = _Maker(settings, cast, out)
            for key in keys:
                maker.make(key)
                yield key
        return
    context = multiprocessing.get_context("spawn")
    alive, here = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(workers, len(keys)), context, _begin_worker, (alive, settings, cast, out)
    )
    try:
        for done in as_completed([pool.submit(_make, key) for key in keys]):
            yield done.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise InputError(
            f"{out}: a process that renders ended by itself, as when memory runs out; run the same "
            "command again with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # What still renders ends at once.
        here.close()
        alive.close()


_maker: _Maker | None = None


def _begin_worker(alive: Connection, settings: WorldSettings, cast: Cast, out: Path) -> None:
    """Prepare a process, which ends when the one that began it closes its pipe, or is killed."""
    global _maker
    # Ctrl-C reaches all processes of a terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    threadpool_limits(1)
    _maker = _Maker(settings, cast, out)


def _end_with(alive: Connection) -> None:
    try:
        alive.recv()
    except (EOFError, OSError):
        os._exit(1)


def _make(key: _Key) -> _Key:
    assert _maker is not None
    _maker.make(key)
    return key
