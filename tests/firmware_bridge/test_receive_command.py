"""`soundpost array receive`: what it tells of a real sender, and of none."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from array_streams import describe, free_ports, packets_of, reference, send, sender_for

from soundpost.device.errors import StreamStalledError, UsageError
from soundpost.firmware_bridge.receive_command import COMMAND

OFFSETS = [5, 6]


def receive(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return COMMAND.run(parser.parse_args(list(map(str, arguments))))


@pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg is missing: sudo apt-get install ffmpeg"
)
def test_it_tells_how_an_array_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sdp = tmp_path / "array.sdp"
    place = f"rtp://127.0.0.1:{free_ports(1)}"
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi"]
    command += ["-i", "anoisesrc=r=48000,aformat=channel_layouts=stereo", "-c:a", "pcm_s24be"]
    command += ["-f", "rtp", "-payload_type", "98", "-sdp_file", str(sdp), place]
    sender = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        while not sdp.exists() or not sdp.read_text().endswith("\n"):
            assert sender.poll() is None
            time.sleep(0.01)
        assert receive(sdp, "--seconds", 1, "--quiet") == 0
    finally:
        sender.kill()
        sender.wait()
    first, header, stream, own, clock = capsys.readouterr().out.splitlines()
    assert first == (
        "array.sdp: 1.000 s of 2 channels at 48000 Hz; 0 gaps, 0.000 ms of each channel on average"
    )
    row = dict(zip(header.split(), stream.split(), strict=True))
    assert (row["stream"], row["channels"], row["lost"], row["malformed"]) == ("1", "0-1", "0", "0")
    assert int(row["received"]) > 100
    assert own == "lost by this machine: nothing"
    assert clock == "clock of the array: too short to tell (at least 10 s)"


def test_losses_are_told_by_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = describe([2, 2], "L16", OFFSETS, free_ports(2))
    sdp = tmp_path / "array.sdp"
    sdp.write_text(session.to_sdp())
    samples = reference(48_000 * 8, 4, "L16")
    streams = [
        packets_of(session, index, samples, [48], 0, offset) for index, offset in enumerate(OFFSETS)
    ]
    # Whenever it begins to listen, twenty of a thousand are missing.
    for number in range(0, len(streams[1]), 50):
        streams[1][number] = streams[1][number]._replace(data=b"lost")
    stop = threading.Event()
    opened = sender_for("127.0.0.1")
    sender = threading.Thread(target=send, args=(session, streams, opened, 1.0, stop))
    sender.start()
    try:
        assert receive(sdp, "--seconds", 1, "--quiet", "--json") == 0
    finally:
        stop.set()
        sender.join()
        opened.close()
    told = json.loads(capsys.readouterr().out)
    assert 19 <= told["gaps"] <= 21
    assert told["missing_samples"] >= told["gaps"] * 48 * 2
    assert told["missing_samples"] % (48 * 2) == 0
    first, second = told["streams"]
    assert (first["lost"], first["malformed"]) == (0, 0)
    assert second["lost"] >= told["gaps"] - 1
    assert second["malformed"] >= second["lost"]
    assert told["seconds"] >= 1


def test_what_cannot_be_received_is_said(tmp_path: Path) -> None:
    sdp = tmp_path / "array.sdp"
    sdp.write_text(describe([2], port=free_ports(1)).to_sdp())
    with pytest.raises(StreamStalledError, match=r"array\.sdp: no packets on 127\.0\.0\.1 port"):
        receive(sdp, "--quiet")
    with pytest.raises(UsageError, match="--seconds 0: expected more than 0"):
        receive(sdp, "--seconds", 0)
