"""Prints the memory of a running sensor, its own broker included, and where it goes.

python tests/benchmarks/daemon_memory.py                 the starter bundle
python tests/benchmarks/daemon_memory.py my.bundle

Proportional set size (PSS): a page that k processes map counts 1/k. Where other programs on the
machine map the same libraries that makes it smaller than on a sensor, so what would remain if all
were the sensor's own (resident, RSS) stands beside it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import soundfile
from machine import children, describe, one_thread, verdict

from soundpost.device.soundscape import soundscape

LIMIT_MB = 150.0
RATE_HZ = 16_000
# Imported one after the other in one process, in the order in which the sensor needs them.
PARTS = {
    "numpy": "numpy",
    "scipy.fft": "scipy.fft",
    "resampler, sound files": "soxr, soundfile",
    "MQTT client": "paho.mqtt.client",
    "manifest checks": "soundpost.device.manifest",
    "embedded broker": "soundpost.device.broker",
    "TFLite runtime": "ai_edge_litert.interpreter",
    "the rest of the sensor": "soundpost.device.commands.run",
}


def memory_mb(pid: int) -> Counter[str]:
    """Pss, Rss and the parts of Pss of one process, in MB (10^6 bytes)."""
    found: Counter[str] = Counter()
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    for line in text.splitlines()[1:]:
        name, amount, _unit = line.split()
        found[name.rstrip(":")] = int(amount) * 1024
    return found


def growth_by_import() -> None:
    """Print what each part adds to a Python process that imports it."""
    lines = ["import sys", "def told(name): print(name, flush=True); sys.stdin.readline()"]
    lines.append("told('Python itself')")
    for name, modules in PARTS.items():
        lines += [f"import {modules}", f"told({name!r})"]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    before: Counter[str] = Counter()
    print("imports, MB that each adds:        PSS    RSS")
    with process:
        for line in process.stdout:
            now = memory_mb(process.pid)
            pss, rss = ((now[kind] - before[kind]) / 1e6 for kind in ("Pss", "Rss"))
            print(f"  {line.strip():<28} {pss:7.1f} {rss:6.1f}")
            before = now
            process.stdin.write("\n")
            process.stdin.flush()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", help="default: the starter bundle")
    parser.add_argument("--seconds", type=float, default=20.0, help="of listening (default 20)")
    arguments = parser.parse_args()
    one_thread()
    describe()
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "soundscape.wav")
        soundfile.write(wav, soundscape(0, RATE_HZ)[0], RATE_HZ)
        command = [
            sys.executable,
            "-m",
            "soundpost.device",
            "run",
            f"--set=source.mic0.url=file:{wav}",
        ]
        command += ["--set=source.mic0.loop=true", "--set=broker.port=0"]
        command += [f"--set=outbox.path={Path(folder, 'outbox.sqlite3')}"]
        command += [f"--bundle={arguments.bundle}"] if arguments.bundle else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        print(first or "the sensor did not start")
        if not first:
            raise SystemExit(process.wait() or 1)
        time.sleep(arguments.seconds)
        pids = [process.pid, *children(process.pid)]
        total: Counter[str] = Counter()
        for pid in pids:
            total += memory_mb(pid)
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=30)[0]
        print(rest.strip().splitlines()[-1])
    pss, rss = total["Pss"] / 1e6, total["Rss"] / 1e6
    print(
        f"after {arguments.seconds:g} s, {len(pids)} process{'es' if len(pids) > 1 else ''}: "
        f"PSS {pss:.1f} MB, {pss / LIMIT_MB:.2f} x {LIMIT_MB:g} MB, {verdict(pss, LIMIT_MB)}; "
        f"RSS {rss:.1f} MB, {verdict(rss, LIMIT_MB)}"
    )
    print(
        f"of the PSS: {total['Pss_Anon'] / 1e6:.1f} MB its own data, "
        f"{total['Pss_File'] / 1e6:.1f} MB files (libraries)"
    )
    growth_by_import()


if __name__ == "__main__":
    main()
