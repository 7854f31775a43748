"""A small disk for a sensor's state that can be filled, and whose power can be cut.

Where loop devices may be mounted (root) it is an ext4 image: what had not left the page cache when
power failed is not in the image, and a copy of the image taken at that instant is what the machine
finds when it is started again. Elsewhere it is a folder: filling is a limit on the size of files,
and after a power cut garbage follows the log, where the next write would have been.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

IMAGE_MB = 24
FILLER = "filler"


def can_mount(folder: Path) -> bool:
    """Whether an image can be mounted here."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return False
    try:
        Disk(folder / "probe", mounted=True).remove()
    except subprocess.CalledProcessError:
        return False
    return True


class Disk:
    """One sensor's; `outbox` is the file on it."""

    def __init__(self, folder: Path, *, mounted: bool, image_mb: int = IMAGE_MB) -> None:
        self._mounted = mounted
        self._image = folder / "image"
        self._state = folder / "state"
        self._state.mkdir(parents=True)
        if mounted:
            with self._image.open("wb") as file:
                file.truncate(image_mb * 1_000_000)
            _run("mkfs.ext4", "-q", "-F", "-J", "size=4", str(self._image))
            self._mount()
        self.outbox = self._state / "outbox.sqlite3"

    def _mount(self) -> None:
        # Nothing is written back by itself: what is on the disk was flushed there.
        _run("mount", "-o", "loop,commit=300", str(self._image), str(self._state))

    def _unmount(self) -> None:
        _run("umount", str(self._state))

    def remove(self) -> None:
        """Unmount it."""
        if self._mounted:
            self._unmount()

    def snapshot(self) -> None:
        """Keep what the disk has at this instant; the sensor stands still."""
        if self._mounted:
            shutil.copyfile(self._image, self._image.with_suffix(".cut"))

    def restore(self, rng: random.Random) -> None:
        """Power is back, with what the snapshot has; the sensor is dead."""
        if self._mounted:
            self._unmount()
            self._image.with_suffix(".cut").replace(self._image)
            self._mount()
        else:
            self.extend_log(rng)

    def extend_log(self, rng: random.Random) -> None:
        """Garbage behind the log's last write, as a torn one leaves it; nothing is overwritten."""
        log = Path(f"{self.outbox}-wal")
        if log.exists():
            with log.open("ab") as file:
                file.write(rng.randbytes(rng.randrange(1, 5_000)))

    def overwrite_tail(self, rng: random.Random) -> None:
        """Bytes at the end of the log, or of the file, are others."""
        log = Path(f"{self.outbox}-wal")
        paths = [path for path in (log, self.outbox) if path.exists() and path.stat().st_size > 64]
        if not paths:
            return
        path = rng.choice(paths)
        with path.open("r+b") as file:
            size = path.stat().st_size
            file.seek(max(0, size - rng.randrange(64, 9_000)))
            file.write(rng.randbytes(rng.randrange(1, 64)))

    def waiting(self) -> set[int]:
        """Numbers of the events in the outbox, read from a copy by SQLite alone."""
        with TemporaryDirectory() as name:
            copy = Path(name, "copy")
            for suffix in ("", "-wal"):
                if Path(f"{self.outbox}{suffix}").exists():
                    shutil.copyfile(f"{self.outbox}{suffix}", f"{copy}{suffix}")
            numbers: set[int] = set()
            try:
                with closing(sqlite3.connect(copy)) as database:
                    query = "SELECT json_extract(CAST(event AS TEXT), '$.number') FROM outbox"
                    for (number,) in database.execute(query):
                        numbers.add(number)
            except sqlite3.Error:
                pass
            return numbers

    def fill(self, pid: int) -> None:
        """No room is left."""
        if not self._mounted:
            size = max((p.stat().st_size for p in self._state.iterdir()), default=0)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            return
        with (self._state / FILLER).open("wb", buffering=0) as file:
            try:
                while file.write(bytes(65_536)):
                    pass
            except OSError:
                pass

    def empty(self, pid: int | None) -> None:
        """There is room again."""
        if self._mounted:
            (self._state / FILLER).unlink(missing_ok=True)
        elif pid is not None:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
