"""Lines and cells of published tables: what is wrong with a file becomes a Problem."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from soundpost.train.datasets.catalogue import Problem


@dataclass(frozen=True)
class Line:
    """One line of a table, without its end. where : file and line, for messages."""

    where: str
    text: str

    @property
    def delimiter(self) -> str:
        """Tab where the line has one, else comma: published tables come as both."""
        return "\t" if "\t" in self.text else ","

    def cells(self) -> list[str]:
        """Cells, stripped; a comma within quotation marks parts nothing."""
        reader = csv.reader([self.text], delimiter=self.delimiter, skipinitialspace=True)
        return [cell.strip() for cell in next(reader, [])]


def read_lines(path: Path, problems: list[Problem], comment: str | None = None) -> list[Line]:
    """Lines of a table that are not empty; none where it cannot be read.

    comment : begins lines that are not of the table
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problems.append(
            Problem(str(path), f"cannot be read ({error.strerror})", "a table", "check the path")
        )
        return []
    except UnicodeDecodeError as error:
        problems.append(
            Problem(str(path), f"is not UTF-8 text ({error.reason})", "UTF-8", "save it as UTF-8")
        )
        return []
    return [
        Line(f"{path}: line {number}", line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not (comment and line.startswith(comment))
    ]


def read_columns(
    path: Path, columns: tuple[str, ...], problems: list[Problem]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table whose first line names its columns: (where, cells by column).

    columns : those that must be there; all that are there are returned
    """
    before = len(problems)
    lines = read_lines(path, problems)
    if len(problems) > before:
        return
    names = lines[0].cells() if lines else []
    missing = [name for name in columns if name not in names]
    if missing:
        problems.append(
            Problem(
                f"{path}: line 1",
                f"column {missing[0]} is missing",
                f"the columns {', '.join(columns)}",
                "take the table as published, with its first line",
            )
        )
        return
    for line in lines[1:]:
        cells = line.cells()
        if len(cells) > len(names):
            problems.append(
                Problem(
                    line.where,
                    f"has {len(cells)} cells",
                    f"{len(names)}, as in line 1",
                    "correct the row",
                )
            )
            continue
        # Tables drop empty cells at the end of a row.
        yield line.where, dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=True))


def read_span(
    where: str, start: str, end: str, problems: list[Problem]
) -> tuple[float, float] | None:
    """Start and end in seconds, or None where they are not a span."""
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:
        start_s = end_s = math.nan
    if math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s:
        return start_s, end_s
    problems.append(
        Problem(
            where,
            f"from {start!r} to {end!r}",
            "two times in seconds, the end after the start",
            "correct the times",
        )
    )
    return None
