"""Prints the processor time of a running sensor, with one source and with eight.

python tests/benchmarks/daemon_cpu.py
python tests/benchmarks/daemon_cpu.py --sources 1 --set levels.enabled=true

A source is a file of 48 kHz in real time, or a microphone of a real sound server, PulseAudio: what
its null sink plays, which comes in blocks as long as the client asks for, as from a sound card.
Everything counts that the sensor and its child processes use, the embedded broker and the processes
that capture too; the sound server does not. Processor time and not the wall's: other programs'
shares of a busy machine do not count, though what they push out of the caches does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from machine import children, describe, one_thread, verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

from sound_server import ALSA, PulseAudio

from soundpost.device.soundscape import soundscape

RATE_HZ = 48_000
# Percent of one core, by the number of sources.
LIMITS = {1: 3.0, 8: 25.0}
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def used_s(pid: int) -> float:
    """Processor time of a process, its threads and its children so far."""
    total = 0.0
    for one in [pid, *children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * _TICK_S
    return total


def percent(url: str, n_sources: int, settings: list[str], span_s: float, n_spans: int) -> float:
    """Median share of one core over the spans, in percent, once the sensor has settled."""
    command = [sys.executable, "-m", "soundpost.device", "run", "--set=broker.port=0"]
    for number in range(n_sources):
        command += [f"--set=source.mic{number}.url={url}"]
        command += [f"--set=source.mic{number}.loop=true"] if url.startswith("file:") else []
    command += [f"--set={setting}" for setting in settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for _ in range(n_sources):
            if not process.stdout.readline():
                raise SystemExit(process.wait() or 1)
        time.sleep(5.0)
        shares = []
        for _ in range(n_spans):
            began_s, before_s = time.monotonic(), used_s(process.pid)
            time.sleep(span_s)
            shares.append((used_s(process.pid) - before_s) / (time.monotonic() - began_s))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    return 100 * statistics.median(shares)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, action="append", help="default: 1 and 8")
    parser.add_argument("--kinds", nargs="+", choices=("file", "microphone"), help="default: both")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--spans", type=int, default=3, help="of 38 s, a round of the sound")
    arguments = parser.parse_args()
    one_thread()
    describe()
    house = soundscape(0, RATE_HZ)[0]
    room = np.random.default_rng(0).normal(0, 10 ** (-52 / 20), len(house)).astype(np.float32)
    sounds = {"a quiet room": room, "a house full of alarms": house}
    counts = arguments.sources or list(LIMITS)
    kinds = arguments.kinds or ("file", "microphone")

    def measure(what: str, name: str, url: str) -> None:
        for n_sources in counts:
            settings = [*arguments.set, f"outbox.path={outbox}"]
            found = percent(url, n_sources, settings, len(house) / RATE_HZ, arguments.spans)
            limit = LIMITS.get(n_sources, LIMITS[1] * n_sources)
            print(
                f"{n_sources} {what}{'s' if n_sources > 1 else ''} of {RATE_HZ / 1000:g} kHz, "
                f"{name}: {found:.2f} % of a core, {found / limit:.2f} x {limit:g} %, "
                f"{verdict(found, limit)}",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        outbox = folder / "outbox.sqlite3"
        wav = folder / "sound.wav"
        for name, sound in sounds.items() if "file" in kinds else ():
            soundfile.write(wav, np.clip(sound, -1, 1), RATE_HZ)
            measure("file", name, f"file:{wav}")
        if "microphone" not in kinds:
            return
        if shutil.which("pulseaudio") is None:
            raise SystemExit("pulseaudio is missing, microphones are left out: apt-get install it")
        server = PulseAudio(folder)
        try:
            alsa = folder / "asound.conf"
            alsa.write_text(ALSA.replace('"yard"', '"null.monitor"'))
            os.environ.update(server.environment, ALSA_CONFIG_PATH=str(alsa))
            rounds = arguments.spans + 2
            for name, sound in sounds.items():
                soundfile.write(wav, np.tile(np.clip(sound, -1, 1), rounds * len(counts)), RATE_HZ)
                server.play(wav)
                measure("microphone", name, "mic:yard")
                server.stop_playing()
        finally:
            server.kill()


if __name__ == "__main__":
    main()
