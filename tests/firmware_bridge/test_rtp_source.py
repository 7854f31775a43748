"""`rtp:FILE.sdp` with FFmpeg and GStreamer as senders, to blocks and alerts; bad descriptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from array_streams import RATE_HZ, describe, free_ports, heard
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.capture import open_source
from soundpost.device.errors import CaptureError, InputError, UsageError
from soundpost.device.soundscape import soundscape
from soundpost.firmware_bridge.rtp_packet import encode_samples
from soundpost.firmware_bridge.rtp_source import open_rtp

PATIENCE_S = 30.0
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg is missing: sudo apt-get install ffmpeg"
)
needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None,
    reason="gst-launch-1.0 is missing: sudo apt-get install gstreamer1.0-tools "
    "gstreamer1.0-plugins-good",
)
Play = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def play() -> Iterator[Play]:
    """Start a sender's program; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def noise(seconds: float, n_channels: int) -> NDArray[np.int32]:
    """24-bit samples, no two alike in a row."""
    rng = np.random.default_rng(4)
    shape = (round(seconds * RATE_HZ), n_channels)
    return rng.integers(-(1 << 23), 1 << 23, shape).astype(np.int32)


def write_sound(path: Path, samples: NDArray[np.int32]) -> Path:
    soundfile.write(path, samples << 8, RATE_HZ, subtype="PCM_24")
    return path


def written(path: Path) -> Path:
    """A file that another program writes, once it is complete."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return path


def to_the_end(url: str) -> tuple[list[AudioBlock], str]:
    blocks: list[AudioBlock] = []
    with open_source(url) as source, pytest.raises(CaptureError) as ended:
        blocks.extend(source.blocks())
    return blocks, str(ended.value)


def place_of(found: NDArray[np.float64], samples: NDArray[np.float64]) -> int:
    """Where the sound begins in what was played; it must be there once."""
    (places,) = np.nonzero((samples[: -len(found) + 1 or None] == found[0]).all(axis=1))
    assert len(places) == 1
    return int(places[0])


def expect_played(blocks: list[AudioBlock], samples: NDArray[np.int32], bits: int = 24) -> None:
    """All that was played, from somewhere near its beginning to its end, to the bit."""
    found, there = heard(blocks, samples.shape[1])
    assert there.all()
    played = (samples >> 24 - bits) / (1 << bits - 1)
    place = place_of(found, played)
    assert place < len(samples) / 2
    assert len(found) == len(samples) - place
    assert np.array_equal(found, played[place:])


@needs_ffmpeg
@pytest.mark.parametrize("bits", [16, 24])
def test_ffmpeg_is_received(bits: int, play: Play, tmp_path: Path) -> None:
    """By the description that FFmpeg itself writes."""
    samples = noise(3.0, 8) >> 24 - bits << 24 - bits
    file = write_sound(tmp_path / "noise.wav", samples)
    sdp = tmp_path / "array.sdp"
    place = f"rtp://127.0.0.1:{free_ports(1)}"
    codec = ("-c:a", f"pcm_s{bits}be", "-f", "rtp", "-payload_type", 98, "-sdp_file", sdp)
    play("ffmpeg", "-hide_banner", "-loglevel", "error", "-re", "-i", file, *codec, place)
    blocks, error = to_the_end(f"rtp:{written(sdp)}")
    assert "no packets on 127.0.0.1" in error
    expect_played(blocks, samples, bits)


@needs_gstreamer
@pytest.mark.parametrize("bits", [16, 24])
def test_gstreamer_is_received(bits: int, play: Play, tmp_path: Path) -> None:
    samples = noise(2.0, 8) >> 24 - bits << 24 - bits
    # Raw and without a mask: GStreamer takes eight channels for loudspeakers, and reorders them.
    file = tmp_path / "noise.raw"
    file.write_bytes(encode_samples(samples >> 24 - bits, "L24" if bits == 24 else "L16"))
    session = describe([8], "L24" if bits == 24 else "L16", port=free_ports(1))
    sdp = tmp_path / "array.sdp"
    sdp.write_text(session.to_sdp())
    with open_rtp(f"rtp:{sdp}") as source:
        play(
            *("gst-launch-1.0", "-q", "filesrc", f"location={file}", "!", "rawaudioparse"),
            *(f"pcm-format=s{bits}be", "num-channels=8", f"sample-rate={RATE_HZ}"),
            *("!", "capssetter", "caps=audio/x-raw,channel-mask=(bitmask)0"),
            *("!", f"rtpL{bits}pay", "pt=96", "!", "udpsink", "host=127.0.0.1"),
            f"port={session.streams[0].port}",
        )
        blocks = []
        with pytest.raises(CaptureError, match="no packets"):
            blocks.extend(source.blocks())
    expect_played(blocks, samples, bits)


@needs_gstreamer
def test_gstreamers_streams_fall_into_step_by_its_reports(play: Play, tmp_path: Path) -> None:
    """Two streams with timestamps that begin at random, and nothing but RTCP to align them."""
    samples = noise(14.0, 4)
    session = describe([2, 2], port=free_ports(2))
    sdp = tmp_path / "array.sdp"
    sdp.write_text(session.to_sdp())
    # Reports of when sound was taken, not of when a busy machine came to send it.
    command = ["gst-launch-1.0", "-q", "rtpbin", "name=b", "rtcp-sync-send-time=false"]
    for index, stream in enumerate(session.streams):
        file = write_sound(tmp_path / f"{index}.wav", samples[:, 2 * index : 2 * index + 2])
        command += ["filesrc", f"location={file}", "!", "wavparse", "!", "audioconvert"]
        command += ["dithering=none", "!", "audio/x-raw,format=S24BE", "!", "rtpL24pay", "pt=96"]
        command += ["!", f"b.send_rtp_sink_{index}", f"b.send_rtp_src_{index}", "!", "udpsink"]
        command += ["host=127.0.0.1", f"port={stream.port}", f"b.send_rtcp_src_{index}", "!"]
        command += ["udpsink", "host=127.0.0.1", f"port={stream.rtcp_port}", "sync=false"]
        command += ["async=false"]
    blocks = []
    with open_rtp(f"rtp:{sdp}") as source:
        play(*command)
        with pytest.raises(CaptureError, match="no packets"):
            blocks.extend(source.blocks())
    found, there = heard(blocks, 4)
    whole = there.all(axis=1)
    # But for where one stream is a sample ahead of the other.
    assert (~whole).sum() <= 4, (len(whole), np.flatnonzero(np.diff(there, axis=0).any(axis=1)))
    played = samples / (1 << 23)
    places = [place_of(found[whole][:, c : c + 2], played[:, c : c + 2]) for c in (0, 2)]
    assert abs(places[0] - places[1]) <= 2
    for place, columns in zip(places, (slice(0, 2), slice(2, 4)), strict=True):
        part = found[whole][:, columns]
        assert np.array_equal(part, played[place : place + len(part), columns])


@needs_ffmpeg
def test_an_array_is_listened_to(play: Play, tmp_path: Path) -> None:
    """`soundpost run` with one channel of an array that FFmpeg sends: a smoke alarm is told."""
    scene, _ = soundscape(1, RATE_HZ)
    seconds = 17
    samples = np.zeros((seconds * RATE_HZ, 3), np.float32)
    samples[:, 1] = scene[: len(samples)]
    file, sdp = tmp_path / "house.wav", tmp_path / "array.sdp"
    soundfile.write(file, samples, RATE_HZ, subtype="PCM_24")
    codec = ("-c:a", "pcm_s24be", "-f", "rtp", "-payload_type", 97, "-sdp_file", sdp)
    place = f"rtp://127.0.0.1:{free_ports(1)}"
    play(
        *("ffmpeg", "-hide_banner", "-loglevel", "error", "-re", "-stream_loop", -1),
        *("-i", file, *codec, place),
    )
    written(sdp)
    sensor = subprocess.Popen(
        [
            *(sys.executable, "-m", "soundpost.device", "run", "--source", "rtp:array.sdp"),
            *("--channel", "1", "--device-id", "porch", "--set", "broker.port=0"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )
    lines: list[str] = []
    told = threading.Event()

    def read() -> None:
        assert sensor.stdout is not None
        for line in sensor.stdout:
            lines.append(line)
            if "smoke_alarm start" in line:
                told.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert told.wait(60.0), lines
        sensor.send_signal(signal.SIGTERM)
        assert sensor.wait(PATIENCE_S) == 0
    finally:
        sensor.kill()
        reader.join()
    assert any("listening to rtp:" in line for line in lines)  # the broker may answer sooner


def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.sdp: cannot be read: No such file"):
        open_rtp(f"rtp:{tmp_path}/none.sdp")
    (tmp_path / "bad.sdp").write_bytes(b"v=0\ns=\xff\n")
    with pytest.raises(InputError, match=r"bad\.sdp: not UTF-8 text"):
        open_rtp(f"rtp:{tmp_path}/bad.sdp")
    (tmp_path / "long.sdp").write_text("v=0\n" * 100_000)
    with pytest.raises(InputError, match=r"long\.sdp: 262145 characters, more than"):
        open_rtp(f"rtp:{tmp_path}/long.sdp")
    sdp = tmp_path / "array.sdp"
    sdp.write_text(describe([2]).to_sdp())
    for options, problem in [
        ({"window_s": 0}, "window_s 0: expected"),
        ({"window_s": 1.5}, "at most 1"),
        ({"buffer_s": 31}, "buffer_s 31: expected"),
        ({"block_s": 0}, "block_s 0: expected"),
        ({"block_s": 2.0}, "block_s 2.0: expected at most 1 second"),
        ({"interface": "eth0"}, "interface 'eth0': expected this machine's IPv4 address"),
    ]:
        with pytest.raises(UsageError, match=problem):
            open_rtp(f"rtp:{sdp}", **options)  # type: ignore[arg-type]
