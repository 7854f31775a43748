"""The page: what it serves, and to whom."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from soundpost.device.errors import UsageError
from soundpost.device.session.live_page import LivePage

STATE = {"device": "porch-pi", "facts": [["1.0 s", False]], "frames": 0, "map_db": None}


@pytest.fixture
def page() -> Iterator[LivePage]:
    live = LivePage(0, lambda: STATE, lambda: None)
    live.start()
    yield live
    live.close()


def get(page: LivePage, path: str, host: str | None = None) -> tuple[int, bytes]:
    address = urlsplit(page.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host or address.netloc})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_serves_page_and_state(page: LivePage) -> None:
    code, content = get(page, "/")
    assert code == 200
    assert content.startswith(b"<!doctype html>")
    # Nothing from elsewhere.
    assert b"http" not in content.replace(b"http-equiv", b"")
    code, content = get(page, "/state.json")
    assert (code, json.loads(content)) == (200, STATE)
    assert get(page, "/picture.jpg?3")[0] == 404
    assert get(page, "/../etc/passwd")[0] == 404


def test_other_names_for_this_machine_are_refused(page: LivePage) -> None:
    assert get(page, "/state.json", "evil.example")[0] == 403
    assert get(page, "/state.json", "localhost:1")[0] == 200


def test_a_port_that_is_taken_is_told(page: LivePage) -> None:
    port = urlsplit(page.url).port
    with pytest.raises(UsageError, match=f"--page {port}: cannot be served"):
        LivePage(port or 0, lambda: STATE, lambda: None)


def test_two_who_look_at_one_picture_do_not_end_the_recording() -> None:
    """In a process of its own: what goes wrong here kills it."""
    import av  # noqa: F401 - which the process needs: without the extra, this is left out

    program = """
import threading
import av, numpy as np
from soundpost.device.session.live_page import jpeg
picture = av.VideoFrame.from_ndarray(np.full((480, 640, 3), 90, np.uint8), format="rgb24")
threads = [threading.Thread(target=lambda: [jpeg(picture) for _ in range(40)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("whole")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
