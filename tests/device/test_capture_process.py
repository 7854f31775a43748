"""The ring between PortAudio's thread and the sender, and a process that outlives nobody."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.capture_process import CHUNK, CHUNK_HEADER, HEADER, ChunkRing

PATIENCE_S = 30.0


def numbered(first: int, length: int) -> bytes:
    """Samples of two channels that hold their own number in the stream."""
    return bytes(np.repeat(np.arange(first, first + length, dtype=np.float32), 2))


def unpacked(message: memoryview) -> tuple[int, bytes]:
    """Position and samples of a chunk's message."""
    kind, size = HEADER.unpack_from(message)
    assert (kind, size) == (CHUNK, len(message) - HEADER.size)
    position, arrived_s, age_s, overflow = CHUNK_HEADER.unpack_from(message, HEADER.size)
    assert (arrived_s, age_s, overflow) == (position / 8, 0.25, position % 2 == 1)
    return position, bytes(message[HEADER.size + CHUNK_HEADER.size :])


def write(ring: ChunkRing, position: int, length: int) -> bool:
    return ring.write(numbered(position, length), length, position / 8, 0.25, position % 2 == 1)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 70)), max_size=80), st.integers(1, 9))
def test_every_chunk_is_sent_once_at_its_place_or_dropped_whole(
    steps: list[tuple[bool, int]], n_chunks: int
) -> None:
    ring = ChunkRing(n_chunks, 70 * 2 * 4)
    waiting: list[tuple[int, int]] = []
    position = 0

    def send() -> None:
        message = ring.oldest()
        if not waiting:
            assert message is None
            return
        assert message is not None
        first, length = waiting.pop(0)
        assert unpacked(message) == (first, numbered(first, length))
        ring.release()

    for writing, length in steps:
        if writing:
            room = len(waiting) < n_chunks
            assert write(ring, position, length) is room
            if room:
                waiting.append((position, length))
            position += length
        else:
            send()
    for _ in range(len(waiting) + 1):
        send()


def test_a_writer_and_a_sender_on_two_threads_never_mix_up_chunks() -> None:
    ring = ChunkRing(4, 100 * 2 * 4)
    n_chunks, length = 20_000, 100
    kept: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def fill() -> None:
        for chunk in range(n_chunks):
            kept.put(write(ring, chunk * length, length))

    writer = threading.Thread(target=fill)
    writer.start()
    last, n_sent = -1, 0
    writing = True
    while writing:
        writing = writer.is_alive()  # asked first: what it wrote last is still sent below
        while (message := ring.oldest()) is not None:
            position, samples = unpacked(message)
            ring.release()
            assert position > last
            assert samples == numbered(position, length)
            last, n_sent = position, n_sent + 1
    writer.join()
    assert 0 < n_sent == sum(kept.get() for _ in range(n_chunks))


# The process


def start(*, parent: int | None = None, name: str | None = "pulse") -> subprocess.Popen[bytes]:
    request = {
        "parent": os.getpid() if parent is None else parent,
        "name": name,
        "rate_hz": 48_000,
        "channels": 1,
        "block_s": 0.05,
        "latency_s": 0.1,
        "ring_s": 1.0,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "soundpost.device.capture_process", json.dumps(request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def eventually(met: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Ended; a process that nobody has waited for yet is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_signals_of_the_group_do_not_end_it_and_the_end_of_its_input_does(
    pulseaudio: Any,
) -> None:
    process = start()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.read(100_000)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    process.stdout.read(100_000)
    process.stdin.close()
    # Nobody reads what it sends: it is held up, and ends all the same.
    assert process.wait(PATIENCE_S) == 0
    process.stdout.close()


def test_it_ends_at_once_where_its_parent_already_has() -> None:
    with start(parent=1) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""


def test_it_dies_with_its_parent_even_while_it_is_stopped(pulseaudio: Any) -> None:
    """The end of its input would tell a stopped process nothing."""
    code = (
        "import time\n"
        "from soundpost.device.microphone_source import open_microphone\n"
        "source = open_microphone('mic:pulse', digital_silence_s=0)\n"
        "next(source.blocks())\n"
        "print(source.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    eventually(lambda: gone(child))
    parent.stdout.close()
