"""Prints what came of a million hostile packets: how fast they were dealt with, and the memory.

python tests/benchmarks/rtp_fuzz.py                       1,000,000 packets
python tests/benchmarks/rtp_fuzz.py --packets 5000000

Half of them come from other addresses, to an array whose samples are all compared: not one may
change. The other half come from the right address, among good packets: any samples or one clear
line may come of it, but no crash, and no more memory. Descriptions (SDP) that are nearly right
follow, a fiftieth as many.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from machine import describe as describe_machine
from machine import one_thread
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "firmware_bridge"))
sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from array_streams import SENDER, Packet, describe, packets_of, reference, scale, started
from hostile_packets import hostile
from mutate import mutated

from soundpost.device.errors import CaptureError, InputError
from soundpost.firmware_bridge.assembler import Assembler
from soundpost.firmware_bridge.session_description import parse_sdp

OFFSETS = [11, 2**32 - 20_000]
# Good packets of one stream, which are played again and again with new timestamps.
LENGTH = 500
HOSTILE_EACH = 20


def memory_mb() -> float:
    """Most that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def streams() -> list[list[Packet]]:
    """Two streams of eight channels, half a second."""
    session = describe([8, 8], "L24", OFFSETS)
    samples = reference(LENGTH * 48, 16, "L24")
    return [
        packets_of(session, index, samples, [48], 65_400, offset)
        for index, offset in enumerate(OFFSETS)
    ]


def from_others(n_packets: int, rng: random.Random, bar: tqdm[None]) -> int:
    """Samples that hostile packets of others changed; 20 of them come with each good one."""
    session = describe([8, 8], "L24", OFFSETS)
    expected = scale(reference(LENGTH * 48, 16, "L24"), "L24").astype(np.float32)
    good_streams, wrong, sent = streams(), 0, 0
    while sent < n_packets:
        first = [packet for packets in good_streams for packet in packets[:2]]
        assembler, _ = started(session, first)
        for number in range(2, LENGTH):
            now_s = number / 1_000
            for packets in good_streams:
                good = packets[number]
                for _ in range(HOSTILE_EACH):
                    data = hostile(good.data, rng)
                    other = (f"203.0.113.{rng.randrange(256)}", rng.randrange(1, 65_536))
                    assembler.push(good.index, data, other, now_s)
                    sent += 1
                assembler.push(good.index, good.data, SENDER, now_s)
            for block in assembler.ready(now_s):
                start = 96 + block.first_sample
                wrong += int((block.samples != expected[start : start + len(block.samples)]).sum())
                wrong += len(block.missing)
        bar.update(2 * HOSTILE_EACH * (LENGTH - 2))
    return wrong


def from_the_sender(n_packets: int, rng: random.Random, bar: tqdm[None]) -> Counter[str]:
    """What came of hostile packets of the right address, one for each good one."""
    session = describe([8, 8], "L24", OFFSETS)
    good_streams, outcomes = streams(), Counter[str]()
    assembler = Assembler(session, "array")
    for number in range(n_packets):
        now_s = number / 4_000
        index = number % 2
        good = good_streams[index][number // 2 % LENGTH].data
        try:
            assembler.push(index, good, SENDER, now_s)
            assembler.push(index, hostile(good, rng), SENDER, now_s)
            assembler.push_report(index, hostile(good, rng), SENDER)
            for block in assembler.ready(now_s):
                outcomes["blocks"] += 1
                outcomes["gaps"] += len(block.missing)
        except CaptureError as error:
            if "\n" in str(error) or not str(error).isprintable():
                raise
            kind = re.sub(r"\d+", "N", str(error).partition(": ")[2])
            outcomes[kind.partition(":")[0].partition(" (")[0]] += 1
            assembler = Assembler(session, "array")
        if number % 1_000 == 0:
            bar.update(1_000)
    return outcomes


def descriptions(n_texts: int, rng: random.Random) -> tuple[int, int]:
    """Descriptions that were read, and refused in one line."""
    seeds = [describe([8] * count, "L24", [5] * count).to_sdp().encode() for count in (1, 2, 16)]
    read = refused = 0
    for _ in range(n_texts):
        text = mutated(rng.choice(seeds), seeds, rng).decode("utf-8", "replace")
        try:
            parse_sdp(text, "array.sdp")
            read += 1
        except InputError as error:
            if "\n" in str(error) or not str(error).startswith("array.sdp:"):
                raise
            refused += 1
    return read, refused


def main() -> int:
    """Send them, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--packets", type=int, default=1_000_000, help="default 1,000,000")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    one_thread()
    describe_machine()
    rng = random.Random(options.seed)
    half = options.packets // 2
    with tqdm(total=options.packets, unit="packet", disable=options.quiet) as bar:
        # Everything is loaded and made once before memory is compared.
        from_others(1, rng, bar)
        from_the_sender(20_000, rng, bar)
        bar.reset()
        before_mb, began_s = memory_mb(), time.process_time()
        wrong = from_others(half, rng, bar)
        outcomes = from_the_sender(half, rng, bar)
        seconds = time.process_time() - began_s
    print(
        f"{options.packets} hostile packets and {half + half // HOSTILE_EACH} good ones in "
        f"{seconds:.0f} s of one core, with making and comparing them; peak memory "
        f"{before_mb:.0f} MB before, {memory_mb():.0f} MB after"
    )
    print(f"from other addresses: {wrong} samples changed or missing")
    counted = ", ".join(f"{count} {what}" for what, count in outcomes.most_common())
    print(f"from the right address: {counted}")
    good = streams()[0][5].data
    pool = [hostile(good, rng) for _ in range(10_000)]
    assembler = Assembler(describe([8, 8], "L24", OFFSETS), "array")
    began_s = time.process_time()
    for number, data in enumerate(pool):
        assembler.push(0, data, ("203.0.113.1", number), 0.0)
    each_us = 1e6 * (time.process_time() - began_s) / len(pool)
    print(f"a hostile packet costs {each_us:.1f} µs, {1e6 / each_us:.0f} a second of one core")
    read, refused = descriptions(options.packets // 50, rng)
    print(f"descriptions: {read} read, {refused} refused in one line each")
    return 1 if wrong or memory_mb() > before_mb + 20 else 0


if __name__ == "__main__":
    sys.exit(main())
