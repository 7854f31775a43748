"""The picture of a session: well-formed, levels by a closed form, PNG as libavcodec reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np

from soundpost.device.session.session_picture import channel_levels, session_svg
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import FrameTable, Gap


def test_levels_are_root_mean_squares_of_what_was_heard(write_session: Callable[..., Any]) -> None:
    written = write_session(gaps=[Gap(0, 1_000, "lost"), Gap(2_000, 500, "lost")])
    with open_session(written.folder) as session:
        levels = channel_levels(session, 5)
    assert np.isnan(levels[:, 0]).all()
    for column in (1, 3, 4):
        part = written.sound[1_000 * column : 1_000 * (column + 1)].astype(np.float64)
        expected = 10 * np.log10((part**2).mean(axis=0))
        np.testing.assert_allclose(levels[:, column], expected, atol=1e-3)
    half = written.sound[2_500:3_000].astype(np.float64)
    np.testing.assert_allclose(levels[:, 2], 10 * np.log10((half**2).mean(axis=0)), atol=1e-3)


def test_the_picture_shows_gaps_and_pictures(write_session: Callable[..., Any]) -> None:
    times = np.arange(12) / 25
    table = FrameTable(times, 8_000 * times, times)
    written = write_session(gaps=[Gap(1_250, 1_250, "Süd & <lost>")], frames=table)
    with open_session(written.folder) as session:
        root = ElementTree.fromstring(session_svg(session))
    space = "{http://www.w3.org/2000/svg}"
    titles = [title.text for title in root.iter(f"{space}title")]
    assert titles == ["no sound for 0.156 s: Süd & <lost>"]
    (gap,) = [rect for rect in root.iter(f"{space}rect") if len(rect)]
    assert float(gap.attrib["x"]) == 70 + 900 / 4
    assert float(gap.attrib["width"]) == 900 / 4
    texts = [text.text or "" for text in root.iter(f"{space}text")]
    assert any("12 in all, 0 dropped" in text for text in texts)
    # Nothing is loaded from elsewhere.
    for image in root.iter(f"{space}image"):
        assert image.attrib["href"].startswith("data:image/png;base64,")
