"""Messages to systemd, against a real datagram socket in the place of its own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's socket, and its address as NOTIFY_SOCKET gives it."""
    address = f"{tmp_path}/notify" if request.param == "path" else f"@soundpost-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        receiver.settimeout(30)
        yield receiver, address


def told(receiver: socket.socket) -> dict[str, str]:
    """Assignments of the next message."""
    text = receiver.recv(65_536).decode()
    return dict(line.split("=", 1) for line in text.split("\n"))


def test_every_message_arrives_as_sd_notify_asks(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready("listens to mic0")
    assert told(receiver) == {"READY": "1", "STATUS": "listens to mic0"}
    notifier.status("mic0 is lost")
    assert told(receiver) == {"STATUS": "mic0 is lost"}
    notifier.watchdog()
    assert told(receiver) == {"WATCHDOG": "1"}
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    message = told(receiver)
    after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert message["RELOADING"] == "1"
    assert before_us <= int(message["MONOTONIC_USEC"]) <= after_us
    notifier.stopping("bye")
    assert told(receiver) == {"STOPPING": "1", "STATUS": "bye"}


@given(st.text())
def test_a_status_is_one_line_and_adds_no_assignment(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        # The kernel chooses an abstract name.
        receiver.bind("")
        receiver.settimeout(30)
        address = receiver.getsockname()
        Notifier("@" + address[1:].decode()).status(text)
        message = receiver.recv(65_536)
    assert message.startswith(b"STATUS=")
    assert b"\n" not in message


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    assert notifier.address is None
    assert notifier.watchdog_s is None
    notifier.ready("listens")


def test_a_manager_that_is_gone_or_does_not_read_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier(f"{tmp_path}/nobody").ready("listens")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"{tmp_path}/deaf")
        notifier = Notifier(f"{tmp_path}/deaf")
        # The kernel queues so many datagrams; one more would wait for ever.
        limit = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text(encoding="ascii"))
        for _ in range(limit + 3):
            notifier.watchdog()
    # Each told once, not every time.
    assert sum("cannot be told" in message for message in caplog.messages) == 2


@pytest.mark.parametrize(
    ("usec", "pid", "expected_s"),
    [
        ("30000000", None, 30.0),
        ("500000", "own", 0.5),
        ("30000000", "1", None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("", None, None),
    ],
)
def test_the_watchdogs_time_is_for_the_process_that_it_names(
    usec: str, pid: str | None, expected_s: float | None
) -> None:
    environment = {"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": usec}
    if pid is not None:
        environment["WATCHDOG_PID"] = str(os.getpid()) if pid == "own" else pid
    assert Notifier.from_environment(environment).watchdog_s == expected_s


def test_an_address_of_another_kind_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1"}).address is None
    assert "vsock:2:1" in caplog.text
