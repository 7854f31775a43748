"""A session that is replayed is heard to the sample, and seen when it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_replay import replay


def test_sound_is_the_sessions_and_never_early(write_scene_session: Callable[..., Path]) -> None:
    with open_session(write_scene_session((200,), 0.5, video=False)) as session:
        source, camera = replay(session)
        assert camera is None
        began_s, parts, end = time.monotonic(), [], 0
        for block in source.blocks():
            assert block.first_sample == end
            end += len(block.samples)
            assert time.monotonic() - began_s >= end / session.rate_hz - 1e-3
            parts.append(block.samples)
        np.testing.assert_array_equal(np.concatenate(parts), session.read(0, session.n_samples))


def test_pictures_come_at_their_samples_and_both_end_when_closed(
    write_scene_session: Callable[..., Path],
) -> None:
    import av

    assert av
    with open_session(write_scene_session((200, 1_500), 30.0)) as session:
        source, camera = replay(session)
        assert camera is not None
        frames = camera.frames()
        first = next(frames)
        began_s = time.monotonic()
        for number in range(1, 8):
            assert next(frames).arrived_s >= first.arrived_s + number / 10 - 5e-3
        assert time.monotonic() - began_s >= 0.69
        heard: list[int] = []
        thread = threading.Thread(
            target=lambda: heard.extend(len(block.samples) for block in source.blocks())
        )
        thread.start()
        source.close()
        thread.join(30)
        assert not thread.is_alive()
        assert list(frames) == []
        assert sum(heard) < session.n_samples
