"""Prints what receiving an array costs, and whether anything is lost or shifted on the way.

python tests/benchmarks/rtp_receiver.py                          128 channels for a minute
python tests/benchmarks/rtp_receiver.py --seconds 600            for ten
python tests/benchmarks/rtp_receiver.py --loss 0.01 --reorder 0.05 --drift-ppm 100

A process of its own sends 16 streams of 8 channels, 48 kHz, 24 bit, in packets of 1 ms, over the
loopback; every sample tells where it belongs. Compared are all samples, every gap with what was
left out, and the drift with what was set. Processor time is the receiver's, of all its threads,
without the comparison.
"""

from __future__ import annotations

import argparse
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import describe, one_thread, verdict
from rtp_sender_process import PERIOD, Plan

from soundpost.device.audio import AudioBlock
from soundpost.device.errors import StreamStalledError
from soundpost.device.gaps import GapLog
from soundpost.firmware_bridge.receiver import Receiver

LIMIT_OF_A_CORE = 0.60


class Comparison:
    """Compares blocks with the pattern, and gaps with the packets that were left out.

    wrong : samples that are neither what was sent nor marked as missing
    seconds : processor time that this took
    """

    def __init__(self, plan: Plan) -> None:
        self.wrong = 0
        self.seconds = 0.0
        self.first_sample = 0
        self.end = 0
        self._plan = plan
        pattern = plan.pattern().astype(np.float32) / np.float32(1 << 23)
        # Twice, so that no block needs two parts.
        self._pattern = np.concatenate([pattern, pattern[: plan.rate_hz]])
        self._log = GapLog()

    def begin(self, origin: int) -> None:
        """Where in what was sent the first sample is."""
        self.first_sample = origin

    def take(self, block: AudioBlock) -> None:
        """The next block."""
        began_s = time.thread_time()
        length = len(block.samples)
        place = (self.first_sample + block.first_sample) % (PERIOD * self._plan.packet_samples)
        expected = self._pattern[place : place + length]
        differs = block.samples != expected
        for gap in block.missing:
            start = gap.first_sample - block.first_sample
            columns = slice(gap.first_channel, gap.first_channel + gap.n_channels)
            part = block.samples[start : start + gap.length, columns]
            differs[start : start + gap.length, columns] = part != 0
        self.wrong += int(differs.sum())
        self._log.add(block)
        self.end = block.first_sample + length
        self.seconds += time.thread_time() - began_s

    def gaps(self) -> tuple[int, int, int]:
        """Packets that are marked and were lost, marked and were not, lost and are not marked."""
        plan = self._plan
        length, width = plan.packet_samples, plan.n_channels
        marked: list[set[int]] = [set() for _ in range(plan.n_streams)]
        for gap in [*self._log.gaps, *self._log.open_gaps()]:
            first, rest = divmod(self.first_sample + gap.first_sample, length)
            count, more = divmod(gap.length, length)
            if rest or more or gap.first_channel % width or gap.n_channels % width:
                self.wrong += 1
            first_stream = gap.first_channel // width
            for stream in range(first_stream, first_stream + gap.n_channels // width):
                marked[stream].update(range(first, first + count))
        right = other = missed = 0
        begin = self.first_sample // length
        # The sender keeps what it holds back at the end.
        end = min((self.first_sample + self.end) // length, plan.n_packets - 20)
        for numbers, truth in zip(marked, plan.lost(), strict=True):
            found = {number for number in numbers if number < end}
            inside = {number for number in truth if begin <= number < end}
            right += len(found & inside)
            other += len(found - inside)
            missed += len(inside - found)
        return right, other, missed


def free_port(n_streams: int) -> int:
    """First of so many even ports that are free."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1]) & ~1
        if port + 2 * n_streams < 65_536:
            return port


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="default 60")
    parser.add_argument("--streams", type=int, default=16, help="default 16, of 8 channels")
    parser.add_argument("--packet-ms", type=float, default=1.0, help="default 1")
    parser.add_argument("--loss", type=float, default=0.0, help="part of the packets, default 0")
    parser.add_argument("--reorder", type=float, default=0.0, help="the same, default 0")
    parser.add_argument("--drift-ppm", type=float, default=0.0, help="of the array, default 0")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    options = parser.parse_args()
    one_thread()
    describe()
    rate_hz = 48_000
    plan = Plan(
        free_port(options.streams),
        options.streams,
        8,
        rate_hz,
        round(options.packet_ms / 1e3 * rate_hz),
        options.seconds,
        options.loss,
        options.reorder,
        options.drift_ppm,
        options.seed,
    )
    script = Path(__file__).with_name("rtp_sender_process.py")
    comparison = Comparison(plan)
    sender = subprocess.Popen(
        [sys.executable, script, *map(str, plan)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sender.stdin is not None
    assert sender.stdout is not None
    sender.stdout.readline()
    with Receiver(plan.session(), "benchmark") as receiver:
        print("go", file=sender.stdin, flush=True)
        blocks = receiver.blocks()
        first = next(blocks)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        origin = receiver.origin(0)
        assert origin is not None
        comparison.begin(origin - plan.starts()[0][1] & 0xFFFFFFFF)
        comparison.take(first)
        last_s, cpu_s = began_s, 0.0
        try:
            for block in blocks:
                comparison.take(block)
                last_s = time.perf_counter()
                cpu_s = time.process_time() - began_cpu_s - comparison.seconds
        except StreamStalledError:
            pass
        counted = receiver.statistics()
        late_ms, _ = sender.communicate()
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    share = cpu_s / (last_s - began_s)
    total = counted.total
    right, other, missed = comparison.gaps()
    n_channels = plan.n_streams * plan.n_channels
    print(
        f"{n_channels} channels, {rate_hz} Hz, 24 bit, {plan.n_streams} streams, packets of "
        f"{options.packet_ms:g} ms, {options.seconds:g} s; loss {options.loss:g}, reordering "
        f"{options.reorder:g}, drift {options.drift_ppm:g} ppm; the sender was late by up to "
        f"{late_ms.strip()} ms"
    )
    print(
        f"processor: {100 * share:.1f} % of a core, {verdict(share, LIMIT_OF_A_CORE)} "
        f"{100 * LIMIT_OF_A_CORE:.0f} %; peak memory {memory_mb:.0f} MB"
    )
    print(
        f"packets: {total.received} received, {total.reordered} reordered, {total.late} late, "
        f"{total.duplicates} twice, {counted.kernel_drops} dropped by the kernel, "
        f"{counted.blocks_dropped} blocks not fetched"
    )
    print(
        f"gaps: {right} packets lost and marked, {other} marked and not lost, {missed} lost and "
        f"not marked; {comparison.wrong} samples wrong of {counted.n_samples * n_channels}"
    )
    print(f"drift: {counted.drift}, set {options.drift_ppm:+g} ppm")
    faults = other + missed + comparison.wrong + (counted.kernel_drops or 0) + total.late
    return 1 if faults + counted.blocks_dropped or share > LIMIT_OF_A_CORE else 0


if __name__ == "__main__":
    sys.exit(main())
