"""`soundpost images --live`: where it sounds now, by plane waves from known pixels."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from soundpost.device.array.geometry import ImageGrid

GRID = ImageGrid()


def degrees(pixel: int) -> tuple[float, float]:
    x, y, z = GRID.directions()[pixel]
    return float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arctan2(y, z)))


def test_a_line_a_second_says_where_it_is_loudest(
    recording: ModuleType, write_scene_session: Callable[..., Path]
) -> None:
    folder = write_scene_session((200, 1_500), 4.0, video=False)
    done = recording.run("images", "--live", folder, "--plain")
    assert done.returncode == 0, done.stderr
    told = re.findall(r"loudest (\d+)° (left|right), (\d+)° (up|down)", done.stdout)
    assert len(told) >= 3
    for pixel, (across, side, along, end) in ((200, told[0]), (1_500, told[-1])):
        right = float(across) * (1 if side == "right" else -1)
        up = float(along) * (1 if end == "up" else -1)
        assert (right, up) == pytest.approx(degrees(pixel), abs=2.5)
    assert "0 gaps" in done.stdout


def test_the_page_shows_it_over_the_picture_until_ctrl_c(
    recording: ModuleType, write_scene_session: Callable[..., Path], tmp_path: Path
) -> None:
    import av

    folder = write_scene_session((1_500,), 40.0)
    process = recording.start(
        "images", "--live", folder, "--page", "0", "--plain", errors=tmp_path / "log"
    )
    recording.wait_for(lambda: "127.0.0.1" in (tmp_path / "log").read_text(), 90)
    url = next(word for word in (tmp_path / "log").read_text().split() if "127" in word)
    states: list[dict[str, Any]] = []

    def told() -> bool:
        with urllib.request.urlopen(f"{url}state.json", timeout=30) as answer:
            states.append(json.load(answer))
        return states[-1]["map_db"] is not None and states[-1]["frames"] > 0

    recording.wait_for(told, 90)
    assert np.argmax(states[-1]["map_db"]) == 1_500
    assert states[-1]["title"] == "Listening"
    with urllib.request.urlopen(f"{url}picture.jpg", timeout=30) as answer:
        picture = tmp_path / "picture.jpg"
        picture.write_bytes(answer.read())
    with av.open(str(picture)) as container:
        (frame,) = container.decode(video=0)
    shown = frame.to_ndarray(format="gray")
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    # The camera has a white square where it sounds: at the pixel's place of its own picture.
    x, y, z = GRID.directions()[1_500]
    expected = (1 - y / z / np.tan(np.radians(32))) / 2 * shown.shape[0]
    assert row == pytest.approx(expected, abs=2.5)
    assert column == pytest.approx((x / z + 1) / 2 * shown.shape[1], abs=2.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", ["xterm-256color", "xterm"])
def test_a_terminal_shows_a_coarse_map(
    recording: ModuleType,
    write_scene_session: Callable[..., Path],
    terminal: Callable[..., Any],
    name: str,
) -> None:
    folder = write_scene_session((1_500,), 60.0, video=False)
    command = recording.command("images", "--live", folder)
    shown = terminal(60, 21, command, TERM=name, COLORTERM="")
    # Lit in the terminal's place of the pixel, and only about there.
    row, column = divmod(1_500, GRID.columns)
    mark = "▀" if name == "xterm-256color" else "█"

    def colours(rows: list[str]) -> list[int]:
        """How many there are in each row that is drawn."""
        buffer = shown.screen.buffer
        return [
            len({buffer[number][place].fg for place in range(len(text))})
            for number, text in enumerate(rows)
            if set(text) & set("▀░▒▓█")
        ]

    # Not only the marks: the first ones may be drawn before anything was heard.
    rows = shown.wait(
        lambda rows: (
            any(mark in row for row in rows) and (name == "xterm" or max(colours(rows)) > 1)
        ),
        90.0,
    )
    if name == "xterm":
        lit = [(number, text.index("█")) for number, text in enumerate(rows) if "█" in text]
        # Between the first line and the last one.
        at = (np.mean([one[0] for one in lit]) - 1 + 0.5) / 19 * GRID.rows
        assert at == pytest.approx(row, abs=4)
        across = (np.mean([one[1] for one in lit]) + 0.5) / 50 * GRID.columns
        assert across == pytest.approx(column, abs=4)
    else:
        # Inferno's bright end is where it is loudest, and nowhere in the uppermost row.
        found = colours(rows)
        assert max(found) > found[0]
    shown.type("q")
    assert shown.end() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--live", "mic:"], 2, "expected --array array.json as well"),
        (["--live", "porch", "--video", "a.mp4"], 2, "--live and --video: expected one of them"),
        (["porch", "--page"], 2, "--page: is for --live"),
        (["--live", "mic:", "--seconds", "0"], 2, "--seconds 0: expected more than 0"),
        (["--live", "mic:", "--array", "/nowhere.json"], 3, "/nowhere.json: cannot be read"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    recording: ModuleType, arguments: list[str], code: int, said: str
) -> None:
    done = recording.run("images", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
