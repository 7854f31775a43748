"""Text in a terminal that is drawn again and again in one place, as wide as the terminal is.

Nothing is switched on that a killed program would leave behind: the cursor is hidden and the
wrapping of long lines is off only while a frame is written, and the frame stays on the screen, and
in the scroll-back, when the program ends. Keys are not echoed meanwhile, where the terminal is
ours; a shell sets that right again by itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import shutil
import sys
import termios
import tty
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TextIO

Style = Literal["", "bold", "dim", "red", "green", "yellow", "cyan", "reverse"]

_CODES: Final[dict[str, str]] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "reverse": "7",
}
# What a terminal that is not UTF-8 gets in place of what we draw with.
_PLAIN = str.maketrans(
    {"█": "#", "▉": "#", "▊": "#", "▋": "#", "▌": "#", "▍": "-", "▎": "-", "▏": "-"}
    | {"▀": "#", "▓": "#", "▒": "+", "░": "."}
    | {"│": "|", "·": ".", "…": "~", "°": " ", "─": "-"}
)


@dataclass(frozen=True)
class Span:
    """A piece of a row in one style.

    colours : of the letters and of what is behind them, of the 256 that terminals number; in place
        of a style
    """

    text: str
    style: Style = ""
    colours: tuple[int, int] | None = None


Row = Sequence[Span]


# --- widths -------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """The text without what a terminal would obey rather than show.

    Control characters become U+FFFD. Format characters, which are invisible but turn the direction
    of what follows or join what stands apart, are left out.
    """
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp"):
            kept.append("\N{REPLACEMENT CHARACTER}")
        elif category != "Cf":
            kept.append(character)
    return "".join(kept)


def _columns_of(character: str) -> int:
    if character.isascii():
        return 1
    if character == "\N{VARIATION SELECTOR-16}":
        # Asks for the colour form of the character before it, which takes a column more.
        return 1
    category = unicodedata.category(character)
    if category in ("Mn", "Me"):
        return 0
    # A character that this Python does not know yet may be a wide one, and so may each of the
    # pictographs: what is thought too wide leaves a space, what is thought too narrow is cut off.
    if category == "Cn" or 0x1F000 <= ord(character) <= 0x1FAFF:
        return 2
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def text_width(text: str) -> int:
    """Columns that a printable text takes; a wide (East Asian) character takes two."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def clip(text: str, columns: int) -> str:
    """The text, cut to at most so many columns; `…` tells that something was cut."""
    if text_width(text) <= columns:
        return text
    if columns <= 0:
        return ""
    kept, used = [], 0
    for character in text:
        used += _columns_of(character)
        if used > columns - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """The text in exactly so many columns, cut or filled with spaces; right: spaces first."""
    text = clip(text, columns)
    fill = " " * (columns - text_width(text))
    return fill + text if right else text + fill


def clip_row(row: Row, columns: int) -> Row:
    """A row cut to so many columns."""
    kept, left = [], columns
    for span in row:
        if left <= 0:
            break
        text = clip(printable(span.text), left)
        left -= text_width(text)
        kept.append(Span(text, span.style, span.colours))
    return kept


def plain(rows: Iterable[Row]) -> str:
    """Rows as text without styles, one line each."""
    return "\n".join("".join(span.text for span in row).rstrip() for row in rows)


# --- the screen ---------------------------------------------------------------------------------


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream leads to a terminal that can draw in place."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def has_256_colours() -> bool:
    """Whether the terminal says that it has the 256 numbered colours, and may use them."""
    if "NO_COLOR" in os.environ:
        return False
    return "256color" in os.environ.get("TERM", "") or bool(os.environ.get("COLORTERM"))


def colour_number(red: int, green: int, blue: int) -> int:
    """The nearest of the 216 colours of a cube that terminals number from 16; values to 255."""
    # Levels of the cube, by xterm: 0, 95, 135, 175, 215, 255.
    steps = [
        0 if value < 48 else 1 if value < 115 else (value - 35) // 40
        for value in (red, green, blue)
    ]
    return 16 + 36 * steps[0] + 6 * steps[1] + steps[2]


class Screen:
    """Draws rows in the same place of a terminal.

    stream : a terminal; see `is_terminal`

    A context manager: on leaving it the last frame stays, with the cursor on the line below.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._drawn = 0
        self._size = (0, 0)
        self._colours = "NO_COLOR" not in os.environ
        self._keys: int | None = None
        self._settings: list[Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except OSError:
            found = shutil.get_terminal_size()
        # A serial line says 0 by 0: it does not know.
        return (found.columns or 80, found.lines or 24)

    def __enter__(self) -> Screen:
        with contextlib.suppress(OSError, ValueError, termios.error):
            keys = sys.stdin.fileno()
            # In the background, changing the terminal would stop the program.
            if os.isatty(keys) and os.tcgetpgrp(keys) == os.getpgrp():
                self._settings = termios.tcgetattr(keys)
                tty.setcbreak(keys, termios.TCSANOW)
                self._keys = keys
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._keys is not None and self._settings is not None:
            with contextlib.suppress(OSError, termios.error):
                # What was typed into the picture is not meant for the shell.
                termios.tcsetattr(self._keys, termios.TCSAFLUSH, self._settings)
            self._keys = None
        if self._drawn:
            self._drawn = 0
            with contextlib.suppress(OSError):
                # A frame may have been interrupted in its middle.
                self._write("\x1b[0m\x1b[?7h\x1b[?25h\r\n")

    def show(self, rows: Sequence[Row]) -> None:
        """Draw rows in place of the last ones; cut to what the terminal can show."""
        columns, lines = size = self.size
        if self._drawn and size != self._size:
            # A terminal breaks the lines of a narrower window anew: where they are now, it alone
            # knows.
            out = ["\x1b[H\x1b[2J"]
        else:
            out = [f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else "", "\r"]
        self._size = size
        shown = rows[:lines] or [()]
        for number, row in enumerate(shown, 1):
            out.append("\r\n" if number > 1 else "")
            # Erased before it is written: after it, a line as wide as the screen would lose its
            # end. The last one clears what is left below of a taller frame.
            out.append("\x1b[K" if number < len(shown) else "\x1b[J")
            out.extend(self._styled(span) for span in clip_row(row, columns))
        self._drawn = len(shown)
        self._write(f"\x1b[?25l\x1b[?7l{''.join(out)}\x1b[?7h\x1b[?25h")

    def key(self) -> str | None:
        """A key that was pressed since, None without one."""
        if self._keys is None or not select.select([self._keys], [], [], 0)[0]:
            return None
        with contextlib.suppress(OSError):
            return os.read(self._keys, 1).decode("ascii", "replace") or None
        return None

    def _styled(self, span: Span) -> str:
        if not self._colours:
            return span.text
        if span.colours is not None:
            letters, behind = span.colours
            return f"\x1b[38;5;{letters};48;5;{behind}m{span.text}\x1b[0m"
        if not span.style:
            return span.text
        return f"\x1b[{_CODES[span.style]}m{span.text}\x1b[0m"

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "ascii"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
        self._stream.write(text)
        self._stream.flush()


# --- what several views share -------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A span of time in at most two units: `4.2 s`, `3 min 05 s`, `2 h 10 min`, `12 d 3 h`."""
    whole = round(seconds)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def print_anything() -> None:
    """Let standard output write what the locale cannot encode as `\\uXXXX`."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
