"""A recorded session as a source and a camera: heard and seen at the pace at which it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from soundpost.device.audio import AudioBlock, Channel
from soundpost.device.session.camera import CameraFrame
from soundpost.device.session.session_reader import Session

_BLOCK_S = 0.02


class _Pace:
    """Time since whoever of sound and pictures came first; may be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._ended = threading.Event()

    def wait(self, at_s: float) -> bool:
        """Wait for a time of the session; False where it was ended meanwhile."""
        with self._lock:
            if self._began_s is None:
                self._began_s = time.monotonic()
            left_s = self._began_s + at_s - time.monotonic()
        return not self._ended.wait(max(0.0, left_s))

    def end(self) -> None:
        self._ended.set()


class SessionSource:
    """The sound of a session; see BlockSource."""

    live = False
    channel: Channel = 0
    overflows = 0
    fault: str | None = None

    def __init__(self, session: Session, pace: _Pace) -> None:
        self._session = session
        self._pace = pace
        self.name = str(session.folder)
        self.rate_hz = session.rate_hz
        self.n_channels = session.n_channels

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order until the session ends or is closed."""
        length = max(1, round(_BLOCK_S * self.rate_hz))
        position = 0
        for samples in self._session.blocks(length):
            if not self._pace.wait((position + len(samples)) / self.rate_hz):
                return
            yield AudioBlock(samples, position, self.rate_hz, time.monotonic())
            position += len(samples)

    def close(self) -> None:
        """Stop; safe in any state and from any thread."""
        self._pace.end()

    def __enter__(self) -> SessionSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SessionCamera:
    """The pictures of a session; see Camera."""

    monotonic = True
    paced = True
    settling_s = 0.0

    def __init__(self, session: Session, pace: _Pace) -> None:
        assert session.description.video is not None
        self._session = session
        self._pace = pace
        self.name = f"of {session.folder}"
        self.size = (session.description.video.width, session.description.video.height)

    def frames(self) -> Iterator[CameraFrame]:
        """Pictures in order until the session ends or is closed."""
        import av

        for frame in self._session.frames():
            if not self._pace.wait(frame.sample / self._session.rate_hz):
                return
            picture = av.VideoFrame.from_ndarray(frame.picture, format="rgb24")
            now_s = time.monotonic()
            yield CameraFrame(picture, now_s, now_s)

    def close(self) -> None:
        """Stop; safe in any state and from any thread."""
        self._pace.end()


def replay(session: Session) -> tuple[SessionSource, SessionCamera | None]:
    """A session's sound and, where it has some, its pictures, in step with each other."""
    pace = _Pace()
    seen = session.description.video is not None and session.frame_table.n_frames
    return SessionSource(session, pace), SessionCamera(session, pace) if seen else None
