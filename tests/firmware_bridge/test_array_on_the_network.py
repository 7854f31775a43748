"""`soundpost array simulate` heard by `rtp:`: nothing shifted, every gap marked to the sample."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from array_streams import RATE_HZ, free_ports, heard, reference
from receivers import wait_for

from soundpost.firmware_bridge.impairments import read_truth
from soundpost.firmware_bridge.rtp_source import open_rtp

SIMULATE = [sys.executable, "-m", "soundpost.device", "array", "simulate"]
N_SAMPLES, N_CHANNELS = 480_000, 20
N_HEARD = 48_000


@pytest.mark.parametrize("clock", [(), ("--no-media-clock",)], ids=["media clock", "reports"])
def test_what_is_lost_is_marked_and_the_rest_is_in_place(tmp_path, clock):
    """Three streams with random offsets over a bad network, aligned by either kind of clock."""
    whole = reference(N_SAMPLES, N_CHANNELS, "L24")
    path, sdp, truth = (tmp_path / f"array.{suffix}" for suffix in ("wav", "sdp", "csv"))
    soundfile.write(path, whole << 8, RATE_HZ, subtype="PCM_24")
    blocks = []
    sender = subprocess.Popen(
        [
            *(*SIMULATE, path, "--to", f"127.0.0.1:{free_ports(3)}", "--truth", truth, *clock),
            *("--loss", "0.01", "--reorder", "0.05", "--duplicate", "0.01", "--jitter-ms", "2"),
            *("--drift-ppm", "100", "--seed", "1", "--quiet"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        sender.stdout.readline()
        # Longer than a busy machine keeps the sender waiting.
        with open_rtp(f"rtp:{sdp}", window_s=0.9, buffer_s=10.0) as source:
            streams = source.session.streams
            reader = threading.Thread(target=lambda: blocks.extend(source.blocks()))
            reader.start()
            wait_for(lambda: sum(len(block.samples) for block in blocks) > N_HEARD, "sound")
            source.close()
            reader.join(60)
            counted = source.statistics().total
        sender.send_signal(signal.SIGINT)
        sender.communicate(timeout=60)
    finally:
        sender.kill()
    assert [stream.n_channels for stream in streams] == [8, 8, 4]
    lost = [row for row in read_truth(truth) if row.what == "lost"]
    arrived = np.ones((N_SAMPLES, N_CHANNELS), bool)
    for row in lost:
        stream = streams[row.stream]
        channels = slice(stream.first_channel, stream.first_channel + stream.n_channels)
        arrived[row.first_sample : row.first_sample + row.n_samples, channels] = False

    samples, there = heard(blocks, N_CHANNELS)
    # What was sent while it began to listen, by a row that all channels have.
    row = int(np.flatnonzero(there.all(axis=1))[0])
    (place,) = np.flatnonzero((whole / 2**23 == samples[row]).all(axis=1))
    # A stream may be heard a packet later than the first; from then on nothing else is missing.
    heard_from = slice(place, place - row + len(samples))
    samples, there = samples[row:], there[row:]
    assert len(samples) > N_HEARD - 480
    assert np.array_equal(there, arrived[heard_from])
    assert np.array_equal(samples, np.where(there, whole[heard_from] / 2**23, 0))
    assert counted.duplicates > 0
    assert counted.reordered > 0
    assert counted.lost > 0
    assert not there.all()
