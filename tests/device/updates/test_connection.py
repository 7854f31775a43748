"""Finding a web server and reaching it takes no longer than it may, whatever stands in the way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from soundpost.device.errors import UpdateUnreachableError
from soundpost.device.updates.bounded_fetch import Pace, open_body
from soundpost.device.updates.connection import Deadline


def black_hole() -> socket.socket:
    """A socket that answers nobody who connects: its queue is full."""
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    return hole


def test_addresses_that_swallow_what_is_sent_leave_time_for_the_last(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    web = serve(tmp_path)
    port = urlsplit(web.address).port
    with contextlib.closing(black_hole()) as hole:
        queued = [socket.socket() for _ in range(4)]
        for one in queued:
            one.setblocking(False)
            one.connect_ex(hole.getsockname())
        tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        listed = [(*tcp, hole.getsockname())] * 2 + [(*tcp, ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_more: listed)
        pace = Pace(connect_s=3.0)
        with open_body("http://many.example/file", 100, pace, Deadline(60.0)) as body:
            assert b"".join(body.blocks) == b"content"
        # And where none answers, the bound is that of one.
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_more: listed[:2] * 20)
        with (
            pytest.raises(UpdateUnreachableError, match="cannot be fetched"),
            open_body("http://many.example/file", 100, Pace(connect_s=0.5), Deadline(60.0)),
        ):
            pass
        for one in queued:
            one.close()


def test_a_name_server_that_hangs_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = threading.Event()

    def hang(*_arguments: object, **_more: object) -> list[Any]:
        ending.wait(60.0)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with (
        pytest.raises(UpdateUnreachableError, match=r"no address was found for far\.example"),
        open_body("http://far.example/file", 100, Pace(connect_s=0.2), Deadline(60.0)),
    ):
        pass
    ending.set()
