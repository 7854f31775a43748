"""What a calibration found, as one page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from soundpost.calibration.svg_plot import Plot
from soundpost.device.files import write_atomically

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1360px; margin: 24px auto; padding: 0 16px;
  color: #222; background: #fff }
h1 { font-size: 22px; margin: 0 0 4px } p { margin: 0 0 12px }
table { border-collapse: collapse; margin: 12px 0 } td, th { padding: 3px 14px 3px 0;
  border-bottom: 1px solid #ddd; text-align: left; font-variant-numeric: tabular-nums }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 16px }
svg { width: 100%; font: 12px system-ui, sans-serif; fill: #333 }
svg .t { font-size: 14px; font-weight: 600 } svg .g { stroke: #e3e3e3 }
.wrong { color: #b00020 }
"""


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading for each column."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def html(self) -> str:
        """The table as an element."""
        head = "".join(f"<th>{escape(text)}</th>" for text in self.headings)
        rows = [
            "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
            for row in self.rows
        ]
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


@dataclass(frozen=True)
class Report:
    """A page.

    lines : what matters most, one line each
    warnings : what the reader should mind
    """

    title: str
    lines: tuple[str, ...]
    plots: tuple[Plot, ...]
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()

    def with_warnings(self, warnings: tuple[str, ...]) -> Report:
        """The same with these warnings."""
        return replace(self, warnings=warnings)

    def html(self) -> str:
        """The page's text."""
        lines: Sequence[str] = [f"<p>{escape(line)}</p>" for line in self.lines]
        warnings = [f'<p class="wrong">{escape(line)}</p>' for line in self.warnings]
        plots = [f"<div>{plot.svg()}</div>" for plot in self.plots]
        return "\n".join(
            [
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>",
                f"<h1>{escape(self.title)}</h1>",
                *lines,
                *warnings,
                '<div class="plots">',
                *plots,
                "</div>",
                *(table.html() for table in self.tables),
                "</body></html>\n",
            ]
        )

    def write(self, path: Path) -> None:
        """Write the page; raises InputError where that cannot be done."""
        write_atomically(path, self.html().encode())
