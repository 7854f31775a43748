"""Real receivers of RTP that tests start: GStreamer and FFmpeg, and a plain socket."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: sudo apt-get install {package}")


def bound_ports() -> set[int]:
    """UDP ports on which somebody listens on this machine."""
    tables = [Path("/proc/net/udp"), Path("/proc/net/udp6")]
    lines = [line for table in tables for line in table.read_text().splitlines()[1:]]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}


def wait_for(met: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < until_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)


# GStreamer 1.22 takes eight channels for the loudspeakers of 7.1, sides before back, and lays them
# in its own order, back before sides.
GSTREAMER_ORDER = {8: [0, 1, 2, 3, 6, 7, 4, 5]}


class GStreamer:
    """gst-launch-1.0 that writes the payload of each stream, as it came, to a file."""

    def __init__(
        self, folder: Path, port: int, channels: Sequence[int], encoding: str, rate_hz: int
    ) -> None:
        need("gst-launch-1.0", "gstreamer1.0-tools gstreamer1.0-plugins-good")
        self.files = [folder / f"stream{number}.raw" for number in range(len(channels))]
        pipelines = []
        for number, n_channels in enumerate(channels):
            caps = (
                f"application/x-rtp,media=audio,clock-rate={rate_hz},encoding-name={encoding},"
                f"channels={n_channels},payload=98"
            )
            # fmt: off
            pipelines += [
                "udpsrc", f"port={port + 2 * number}", "address=127.0.0.1", f"caps={caps}",
                "buffer-size=4194304",
                "!", f"rtp{encoding}depay", "!", "filesink", f"location={self.files[number]}",
                "buffer-mode=2",
            ]
            # fmt: on
        self._program = subprocess.Popen(
            ["gst-launch-1.0", "-q", *pipelines], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        ports = {port + 2 * number for number in range(len(channels))}
        wait_for(lambda: ports <= bound_ports(), "GStreamer listens")

    def heard(self, lengths: Sequence[int]) -> list[bytes]:
        """Payload of each stream, once so many bytes have come."""
        try:
            wait_for(
                lambda: all(
                    path.exists() and path.stat().st_size >= length
                    for path, length in zip(self.files, lengths, strict=True)
                ),
                "all that was sent",
            )
        finally:
            self.close()
        return [path.read_bytes() for path in self.files]

    def close(self) -> None:
        self._program.terminate()
        self._program.communicate(timeout=60)


class FFmpeg:
    """ffmpeg that reads a session description and writes each stream as raw samples."""

    def __init__(self, folder: Path, sdp: Path, port: int, n_streams: int, sample: str) -> None:
        need("ffmpeg", "ffmpeg")
        self.files = [folder / f"stream{number}.raw" for number in range(n_streams)]
        outputs: list[str] = []
        for number, path in enumerate(self.files):
            outputs += ["-map", f"0:{number}", "-c:a", f"pcm_{sample}", "-f", sample, str(path)]
        # fmt: off
        self._program = subprocess.Popen(
            ["ffmpeg", "-nostdin", "-y", "-loglevel", "error",
             "-protocol_whitelist", "file,udp,rtp", "-buffer_size", "4194304",
             # Without probing: it would wait for seconds of sound.
             "-probesize", "32", "-analyzeduration", "0", "-fflags", "nobuffer",
             "-i", str(sdp), *outputs],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        # fmt: on
        ports = {port + 2 * number for number in range(n_streams)}
        wait_for(lambda: ports <= bound_ports(), "FFmpeg listens")

    def heard(self) -> list[bytes]:
        """Samples of each stream; FFmpeg ends by itself when the sender says that it does."""
        try:
            said, _ = self._program.communicate(timeout=60)
        finally:
            self._program.kill()
        assert self._program.returncode == 0, said
        return [path.read_bytes() for path in self.files]
