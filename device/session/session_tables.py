"""gaps.csv and video.csv of a session: where there is no sound, and when each picture was taken.

    first_sample,length,cause           frame,sensor_time_s,sample,arrived_s
    480000,4800,lost before us          0,17.033000,1612.5,1234.501250

Positions are samples of the session's timeline, those of pictures to a fraction. `sensor_time_s` is
the camera's own clock and `arrived_s` the monotonic clock of the machine when the frame was handed
over. Both tables only grow while a session is recorded: a last line that a killed recorder left
without its end is not read.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically

GAPS_FILE: Final = "gaps.csv"
FRAMES_FILE: Final = "video.csv"
GAPS_HEADER: Final = "first_sample,length,cause\n"
FRAMES_HEADER: Final = "frame,sensor_time_s,sample,arrived_s\n"


class Gap(NamedTuple):
    """Samples that are missing: zeros stand in their place."""

    first_sample: int
    length: int
    cause: str


class FrameTable(NamedTuple):
    """When each frame of video.mkv was taken, one row for each in order.

    sensor_time_s : (n_frames,) float64, the camera's own clock
    samples : (n_frames,) float64, position on the timeline of the sound
    arrived_s : (n_frames,) float64, monotonic clock of the machine that recorded
    """

    sensor_time_s: NDArray[np.float64]
    samples: NDArray[np.float64]
    arrived_s: NDArray[np.float64]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.samples)

    def nearest(self, sample: float) -> int:
        """Number of the frame that was taken nearest to a sample; ValueError without frames."""
        if not self.n_frames:
            raise ValueError("no frames")
        return int(np.abs(self.samples - sample).argmin())


def gap_line(gap: Gap) -> str:
    """A gap's line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(gap)
    return text.getvalue()


def frame_line(number: int, sensor_time_s: float, sample: float, arrived_s: float) -> str:
    """A frame's line."""
    return f"{number},{sensor_time_s:.6f},{sample:.1f},{arrived_s:.6f}\n"


def write_gaps(folder: Path, gaps: Iterable[Gap]) -> None:
    """Write gaps.csv anew; raises InputError where that cannot be done."""
    lines = GAPS_HEADER + "".join(map(gap_line, gaps))
    write_atomically(folder / GAPS_FILE, lines.encode())


def write_frames(folder: Path, table: FrameTable) -> None:
    """Write video.csv anew; raises InputError where that cannot be done."""
    rows = zip(*(column.tolist() for column in table), strict=True)
    lines = (frame_line(number, *row) for number, row in enumerate(rows))
    write_atomically(folder / FRAMES_FILE, (FRAMES_HEADER + "".join(lines)).encode())


def read_gaps(folder: Path) -> tuple[Gap, ...]:
    """Gaps in order; raises InputError naming the file and the line.

    They may not overlap, as each sample is missing once.
    """
    path = folder / GAPS_FILE
    gaps: list[Gap] = []
    for line, row in _rows(path, GAPS_HEADER):
        try:
            gap = Gap(int(row[0]), int(row[1]), row[2])
        except (ValueError, IndexError) as error:
            raise _bad(path, line, row, "first sample, length, cause") from error
        after = gaps[-1].first_sample + gaps[-1].length if gaps else 0
        if gap.length < 1 or gap.first_sample < after:
            raise _bad(path, line, row, f"a gap of at least 1 sample from {after} on")
        gaps.append(gap)
    return tuple(gaps)


def read_frames(folder: Path) -> FrameTable:
    """The table of frames; raises InputError naming the file and the line."""
    path = folder / FRAMES_FILE
    rows: list[tuple[float, float, float]] = []
    for line, row in _rows(path, FRAMES_HEADER):
        try:
            number, values = int(row[0]), (float(row[1]), float(row[2]), float(row[3]))
        except (ValueError, IndexError) as error:
            raise _bad(path, line, row, "frame, sensor time, sample, arrival") from error
        if number != len(rows) or not all(map(math.isfinite, values)):
            raise _bad(path, line, row, f"finite numbers of frame {len(rows)}")
        if rows and values[1] < rows[-1][1]:
            raise _bad(path, line, row, f"a sample of {rows[-1][1]:.1f} or more")
        rows.append(values)
    columns = np.array(rows, np.float64).reshape(-1, 3).T
    return FrameTable(*columns)


def _rows(path: Path, header: str) -> list[tuple[int, Sequence[str]]]:
    """Rows below the header with the numbers of their lines."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; a session without it is damaged: "
            f"soundpost session check {path.parent} --repair"
        ) from error
    found, _, rest = text.partition("\n")
    if found + "\n" != header:
        raise InputError(
            f"{path}, line 1: expected {header.strip()!r}, found {found[:60]!r}; write it anew: "
            f"soundpost session check {path.parent} --repair"
        )
    whole = rest[: rest.rfind("\n") + 1]
    return list(enumerate(csv.reader(io.StringIO(whole)), 2))


def _bad(path: Path, line: int, row: Sequence[str], expected: str) -> InputError:
    return InputError(
        f"{path}, line {line}: expected {expected}, found {','.join(row)[:60]!r}; see "
        f"soundpost session check {path.parent}"
    )
