"""A part of a session is what the whole has there: sound, gaps, pictures, time."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError, UsageError
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import FrameTable, Gap
from soundpost.device.session.session_trim import trim_session


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(data=st.data())
def test_any_part_holds_what_the_whole_holds(
    write_session: Callable[..., Any], tmp_path: Path, data: st.DataObject
) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, 5_000), max_size=6), "edges"))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    written = write_session(gaps=[Gap(low, high - low, "lost") for low, high in pairs])
    first = data.draw(st.integers(0, 4_999), "first")
    last = data.draw(st.integers(first + 1, 5_000), "last")
    out = tmp_path / uuid4().hex
    with open_session(written.folder) as session:
        trim_session(session, first, last, out)
        began = session.utc(first)
    with open_session(out) as part:
        np.testing.assert_array_equal(part.read(0, part.n_samples), written.sound[first:last])
        missing = np.zeros(5_000, bool)
        for gap in session.gaps:
            missing[gap.first_sample : gap.first_sample + gap.length] = True
        found = np.zeros(part.n_samples, bool)
        for gap in part.gaps:
            found[gap.first_sample : gap.first_sample + gap.length] = True
        np.testing.assert_array_equal(found, missing[first:last])
        assert abs((part.utc(0) - began).total_seconds()) < 1e-5
        assert part.array is not None


def test_it_says_what_it_is_a_part_of(write_session: Callable[..., Any], tmp_path: Path) -> None:
    written = write_session(calibration=b"{}")
    with open_session(written.folder) as session:
        trim_session(session, 100, 200, tmp_path / "part")
    table = json.loads((tmp_path / "part" / "session.json").read_text())
    assert table["part_of"] == {
        "id": written.description.id,
        "first_sample": 100,
        "last_sample": 200,
    }
    assert table["id"] != written.description.id
    with open_session(tmp_path / "part") as part:
        assert part.calibration == tmp_path / "part" / "calibration.json"
        with pytest.raises(InputError, match="is not empty"):
            trim_session(part, 0, 10, tmp_path / "part")


@pytest.mark.parametrize(("first", "last"), [(-1, 5), (5, 5), (0, 5_001)])
def test_a_part_that_is_none_is_refused(
    write_session: Callable[..., Any], tmp_path: Path, first: int, last: int
) -> None:
    with (
        open_session(write_session().folder) as session,
        pytest.raises(UsageError, match=r"expected a part of its 0\.625 s"),
    ):
        trim_session(session, first, last, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_pictures_come_along(write_session: Callable[..., Any], tmp_path: Path) -> None:
    import av

    from soundpost.device.session.video_file import VideoEncoder

    times = np.arange(15) / 25
    written = write_session(frames=FrameTable(times, 8_000 * times, times))
    encoder = VideoEncoder(written.folder / "video.mkv", 64, 48)
    for number, time_s in enumerate(times):
        frame = av.VideoFrame.from_ndarray(
            np.full((48, 64, 3), 15 * number + 10, np.uint8), format="rgb24"
        )
        frame.time_base = Fraction(1, 1000)
        encoder.add(frame, time_s)
    encoder.close()
    with open_session(written.folder) as session:
        trim_session(session, 1_000, 3_000, tmp_path / "part")
    with open_session(tmp_path / "part") as part:
        np.testing.assert_allclose(part.frame_table.samples, np.arange(4, 10) * 320 - 1_000)
        shades = [frame.picture.mean() for frame in part.frames()]
        np.testing.assert_allclose(shades, np.arange(4, 10) * 15 + 10, atol=2)
