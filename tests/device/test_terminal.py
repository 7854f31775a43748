"""Drawing in a terminal, judged by an emulator of somebody else's (pyte, with wcwidth)."""

from __future__ import annotations

import io
import os
import signal
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.terminal import (
    Row,
    Screen,
    Span,
    clip,
    clip_row,
    duration,
    is_terminal,
    pad,
    plain,
    printable,
    text_width,
)

LABELS = ["smoke_alarm", "Hundegebell", "煙感知器", "дверной звонок", "cloche\u0301", "🔔 bell"]
LABELS += ["نباح", "כלב"]
texts = st.one_of(st.text(max_size=40), st.sampled_from(LABELS))
styles = st.sampled_from(["", "bold", "dim", "red", "green", "yellow", "cyan", "reverse"])
# What pyte draws as it stands: it drops what follows some characters that take no column.
drawn = st.text("ab 1█│煙ж🔔\x1b\n", max_size=12)
rows = st.lists(st.builds(Span, drawn, styles), max_size=3)


class FakeTerminal(io.StringIO):
    """A stream into an emulator; the size is the emulator's."""

    encoding = "utf-8"

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self._stream.feed(text)
        return len(text)


class SizedScreen(Screen):
    def __init__(self, stream: FakeTerminal) -> None:
        super().__init__(stream)
        self._emulator = stream.screen

    @property
    def size(self) -> tuple[int, int]:
        return self._emulator.columns, self._emulator.lines


def displayed(screen: pyte.Screen) -> list[str]:
    return [row.rstrip() for row in screen.display]


def columns_drawn(text: str) -> int:
    """Where the emulator's cursor stands behind a text, on a line that is long enough."""
    screen = pyte.Screen(500, 1)
    pyte.Stream(screen).feed(text)
    return int(screen.cursor.x)


@given(texts)
def test_a_printable_text_draws_no_wider_than_we_think(text: str) -> None:
    shown = printable(text)
    assert columns_drawn(shown) <= text_width(shown)


@pytest.mark.parametrize("label", LABELS)
def test_widths_of_real_words_are_exact(label: str) -> None:
    assert text_width(printable(label)) == columns_drawn(label)


@given(texts, st.integers(0, 30))
def test_clip_keeps_a_beginning_and_says_that_it_cut(text: str, columns: int) -> None:
    text = printable(text)
    cut = clip(text, columns)
    assert text_width(cut) <= columns
    if text_width(text) <= columns:
        assert cut == text
    elif columns > 0:
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])


@given(texts, st.integers(0, 30), st.booleans())
def test_pad_fills_to_the_column(text: str, columns: int, right: bool) -> None:
    assert text_width(pad(printable(text), columns, right=right)) == columns


@given(texts)
def test_nothing_printable_is_obeyed_by_a_terminal(text: str) -> None:
    kinds = {unicodedata.category(character) for character in printable(text)}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_what_is_not_printable_is_seen_to_be_missing() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed") == "a�[2Jb��cd"


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 6), st.lists(st.lists(rows, max_size=8), max_size=4))
def test_frames_replace_each_other_and_never_scroll_a_line_away(
    columns: int, lines: int, frames: list[list[Row]]
) -> None:
    """After each frame the emulator shows its rows, cut to the screen, and nothing else."""
    stream = FakeTerminal(columns, lines)
    with SizedScreen(stream) as screen:
        for frame in frames:
            screen.show(frame)
            expected = FakeTerminal(columns, lines)
            expected.write("\x1b[?7l")
            expected.write("\r\n".join(plain([clip_row(row, columns)]) for row in frame[:lines]))
            assert displayed(stream.screen) == displayed(expected.screen)
            assert not stream.screen.history.top
    assert pyte.modes.DECTCEM in stream.screen.mode
    assert pyte.modes.DECAWM in stream.screen.mode


def test_what_stood_above_stays_there() -> None:
    stream = FakeTerminal(20, 6)
    stream.write("$ soundpost top\r\n")
    with SizedScreen(stream) as screen:
        for number in range(3):
            screen.show([[Span(f"frame {number}")], [Span("second")]])
    stream.write("$ ")
    assert displayed(stream.screen)[:4] == ["$ soundpost top", "frame 2", "second", "$"]


@pytest.mark.parametrize("size", [(12, 3), (60, 20)])
def test_a_new_size_is_drawn_afresh(size: tuple[int, int]) -> None:
    stream = FakeTerminal(40, 8)
    frame = [[Span(f"row {number} of a frame")] for number in range(8)]
    with SizedScreen(stream) as screen:
        screen.show(frame)
        stream.screen.resize(size[1], size[0])
        screen.show(frame)
        shown = [plain([clip_row(row, size[0])]) for row in frame[: size[1]]]
        assert displayed(stream.screen) == shown + [""] * (size[1] - len(shown))


def test_a_terminal_that_is_not_utf8_gets_what_it_can_show() -> None:
    class Latin(FakeTerminal):
        encoding = "latin-1"

    stream = Latin(20, 2)
    with SizedScreen(stream) as screen:
        screen.show([[Span("█▋│ café 煙…")]])
    assert displayed(stream.screen)[0] == "##| café ?~"


@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_can_be_switched_off(no_colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = FakeTerminal(20, 2)
    with SizedScreen(stream) as screen:
        screen.show([[Span("a", "red")]])
    assert stream.screen.buffer[0][0].fg == ("default" if no_colour else "red")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3_599.6, "1 h 00 min"),
        (7_800, "2 h 10 min"),
        (86_399.7, "1 d 0 h"),
        (1_051_200, "12 d 4 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_only_a_terminal_that_can_draw_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_terminal(io.StringIO())
    controller, terminal = os.openpty()
    with open(terminal, "w") as stream:  # noqa: PTH123
        monkeypatch.setenv("TERM", "xterm")
        assert is_terminal(stream)
        monkeypatch.setenv("TERM", "dumb")
        assert not is_terminal(stream)
    os.close(controller)


_DRAWING = """
import sys, time
from soundpost.device.interrupt import handle_interrupts
import signal
from soundpost.device.terminal import Screen, Span
handle_interrupts(signal.SIGINT, signal.SIGTERM)
try:
    with Screen() as screen:
        number = 0
        while screen.key() != "q":
            number += 1
            screen.show([[Span(f"{screen.size[0]} by {screen.size[1]}")], [Span("drawing", "red")]])
            time.sleep(0.01)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("end", ["q", "SIGINT", "SIGTERM", "SIGKILL"])
def test_the_terminal_is_as_before_at_any_end(end: str, terminal: Callable[..., Any]) -> None:
    running = terminal(30, 5, [sys.executable, "-c", _DRAWING])
    running.wait(lambda rows: rows[1] == "drawing")
    running.type("x\r")  # Not echoed into the picture.
    running.resize(25, 4)
    running.wait(lambda rows: rows[:2] == ["25 by 4", "drawing"])
    if end == "q":
        running.type("q")
    else:
        running.process.send_signal(signal.Signals[end])
    code = running.end()
    assert code == {"q": 0, "SIGKILL": -signal.SIGKILL}.get(end, 130)
    assert running.rows()[:2] == ["25 by 4", "drawing"]
    assert running.modes() == (True, True)
    if end == "SIGKILL":
        # Nobody can clean up after it: keys are not echoed until a shell sets that right.
        return
    assert running.settings_now() == running.settings
    assert running.screen.cursor.x == 0
