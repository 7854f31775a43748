"""Some thousand hostile datagrams; tests/benchmarks/rtp_fuzz.py sends a million."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from array_streams import RATE_HZ, SENDER, describe, heard, packets_of, reference, scale, started
from hostile_packets import KINDS, hostile

from soundpost.device.errors import CaptureError
from soundpost.firmware_bridge.assembler import Assembler
from soundpost.firmware_bridge.stream_input import RESTART_S

OFFSETS = [11, 2**32 - 20_000]


@pytest.mark.parametrize("seed", range(2))
def test_what_others_send_changes_no_sample(seed: int) -> None:
    """From other addresses, to the ports of samples and of reports, ten for each good packet."""
    session = describe([8, 8], "L24", OFFSETS)
    samples = reference(RATE_HZ // 2, 16, "L24")
    streams = [
        packets_of(session, index, samples, [48], 65_400, offset)
        for index, offset in enumerate(OFFSETS)
    ]
    assembler, _ = started(session, [packet for packets in streams for packet in packets[:2]])
    rng = random.Random(seed)
    blocks = []
    for number in range(2, len(streams[0])):
        now_s = number / 1_000
        for index in range(2):
            good = streams[index][number].data
            for _ in range(10):
                other = (f"203.0.113.{rng.randrange(256)}", rng.randrange(1, 65_536))
                assembler.push(index, hostile(good, rng), other, now_s)
                assembler.push_report(index, hostile(good, rng), other)
            assembler.push(index, good, SENDER, now_s)
        blocks += assembler.ready(now_s)
    blocks += assembler.flush()
    found, there = heard(blocks, 16)
    assert there.all()
    assert np.array_equal(found, scale(samples, "L24")[96:])
    counted = assembler.statistics().total
    assert counted.other_senders > 1_000
    assert counted.malformed > 1_000
    assert counted.wrong_type > 100


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_the_stream_itself_gone_mad_ends_in_order(kind: object) -> None:
    """From the right address: samples, or one clear line; blocks stay blocks; memory is bounded."""
    assert callable(kind)
    session = describe([8, 8], "L24", OFFSETS)
    samples = reference(9_600, 16, "L24")
    streams = [
        packets_of(session, index, samples, [48], 0, offset) for index, offset in enumerate(OFFSETS)
    ]
    rng = random.Random(7)
    ended: list[str] = []
    n_blocks = 0
    assembler = Assembler(session, "test")
    tracemalloc.start()
    try:
        for number in range(1_500):
            index = number % 2
            good = streams[index][number // 2 % 200].data
            data = kind(good, rng) if rng.random() < 0.5 else good
            try:
                assembler.push(index, data, SENDER, number / 2_000)
                assembler.push_report(index, data, SENDER)
                blocks = list(assembler.ready(number / 2_000))
            except CaptureError as error:
                ended.append(str(error))
                assembler = Assembler(session, "test")
                continue
            for block in blocks:
                n_blocks += 1
                assert block.samples.shape[1] == 16
                assert 0 < len(block.samples) <= 960
                assert np.abs(block.samples).max() <= 1.0
                for gap in block.missing:
                    assert 0 <= gap.first_sample - block.first_sample < len(block.samples)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two rings of 1.14 s hold 2.6 MB, and one assembler follows another.
    assert peak < 12e6
    assert n_blocks or ended
    assert all(
        line.startswith(("test, stream", "test: streams")) and "\n" not in line for line in ended
    ), ended
    assert assembler.silent(1_000.0, RESTART_S) == [1, 2]
