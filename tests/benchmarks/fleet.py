"""Prints what a roll-out to a fleet costs its web server, and draws how its requests are spread.

python tests/benchmarks/fleet.py                            200 sensors, three waves
python tests/benchmarks/fleet.py --sensors 20 --spread 5s   a short one

Every sensor is a real updater with its MQTT and TUF clients and its store, four processes of them;
what they hear is simulated, and passes ten times as fast. There is one Mosquitto, one static web
server, which counts every byte that it sends, headers included, and one `soundpost fleet roll-out`
of the starter bundle. Limits: all sensors confirm the model; the server sends at most 1.05 times
the bundle for each; no second has more than twice the requests that the sensors of a wave, spread
evenly, would make.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from machine import describe, one_thread, verdict

from soundpost.device.bundle import pack_bundle, parse_bundle, read_bundle, starter_bundle_path
from soundpost.export.fleet.roll_out import LOG_FILE, read_roll_out
from soundpost.export.fleet.settings import parse_duration
from soundpost.export.repository.ceremony import RootKeys, init_repository
from soundpost.export.repository.contents import add_bundle
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import PASSPHRASE_VARIABLE, KeyRing, Passphrase
from soundpost.export.repository.publish import push
from soundpost.export.repository.settings import RepositorySettings
from soundpost.export.repository.signing import utc_now

MOST_TRAFFIC = 1.05
MOST_PEAK = 2.0
N_PROCESSES = 4
LOOKED_S = 15.0
SECRET = {PASSPHRASE_VARIABLE: "of this benchmark alone"}
TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Traffic:
    """Requests as (monotonic time, path, bytes sent), and how many are served now."""

    requests: list[tuple[float, str, int]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def serve(folder: Path, traffic: Traffic) -> ThreadingHTTPServer:
    """A static web server that counts."""

    class Counted:
        def __init__(self, stream: Any) -> None:
            self.stream, self.sent = stream, 0

        def write(self, content: bytes) -> int:
            self.stream.write(content)
            self.sent += len(content)
            return len(content)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came_s = time.monotonic()
            with traffic.lock:
                traffic.at_once += 1
                traffic.most_at_once = max(traffic.most_at_once, traffic.at_once)
            counted: Any = Counted(self.wfile)
            self.wfile = counted
            try:
                self._answer(folder / self.path.lstrip("/"))
            except OSError:
                self.close_connection = True
            finally:
                with traffic.lock:
                    traffic.at_once -= 1
                    traffic.requests.append((came_s, self.path, counted.sent))

        def _answer(self, path: Path) -> None:
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            self.send_response(206 if start else 200)
            if start:
                end = len(content)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def repository(folder: Path, devices: list[str]) -> tuple[RepositoryFolder, str, bytes]:
    """The starter bundle in `stable` and its next version in `canary`; name and new file."""
    settings = RepositorySettings(devices=tuple(devices))
    init_repository(folder, settings, RootKeys(1, 1), Passphrase(SECRET), utc_now())
    made = RepositoryFolder(folder)
    ring = KeyRing([folder / "keys"], Passphrase(SECRET), SECRET)
    starter = read_bundle(starter_bundle_path())
    old = starter_bundle_path().read_bytes()
    major, minor, patch = starter.manifest.version.partition("-")[0].split(".")
    manifest = replace(starter.manifest, version=f"{major}.{minor}.{int(patch) + 1}")
    new = pack_bundle(manifest, starter.model, starter.golden, starter.model_card)
    add_bundle(made, starter, old, ring, utc_now(), channels=["stable"])
    add_bundle(made, parse_bundle(new, "next"), new, ring, utc_now(), channels=["canary"])
    push(made, ring, utc_now())
    return made, f"{manifest.name}-{manifest.version}", new


def start_broker(program: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Mosquitto as it comes, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    user = "user root\n" if os.geteuid() == 0 else ""
    settings = folder / "mosquitto.conf"
    settings.write_text(f"{user}listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = subprocess.Popen(
        [program, "-c", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while socket.socket().connect_ex(("127.0.0.1", port)):
        time.sleep(0.05)
    return broker, port


def start_sensors(
    folder: Path, port: int, url: str, made: RepositoryFolder, n_sensors: int
) -> list[subprocess.Popen[str]]:
    """Processes of simulated sensors, all connected."""
    started = []
    each = -(-n_sensors // N_PROCESSES)
    for begin in range(0, n_sensors, each):
        words = [
            *("--port", port, "--url", url, "--root", made.root_file(1)),
            *("--folder", folder / "sensors", "--begin", begin),
            *("--count", min(each, n_sensors - begin)),
        ]
        program = TESTS / "export" / "fleet" / "updater_sensor.py"
        started.append(
            subprocess.Popen(
                [sys.executable, program, *map(str, words)], stdout=subprocess.PIPE, text=True
            )
        )
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("sensors\n")
    return started


def waves_of(log: str) -> list[float]:
    """Unix times at which waves began, by the log of the roll-out."""
    return [
        datetime.fromisoformat(f"{line[:19]}+00:00").timestamp()
        for line in log.splitlines()
        if re.search(r"Z wave \d+ of \d+: \d+ sensors?$", line)
    ]


def draw(path: Path, times_s: list[float], begins_s: list[float], even: float) -> None:
    """Requests in each second, and where waves began."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    seconds = Counter(int(moment) for moment in times_s)
    span = range(0, int(max(times_s)) + 2)
    figure, axes = plt.subplots(figsize=(10, 4), layout="constrained")
    axes.bar(span, [seconds[second] for second in span], width=1.0, label="requests")
    for number, begin in enumerate(begins_s, 1):
        axes.axvline(begin, color="tab:red", lw=1)
        axes.text(begin, axes.get_ylim()[1] * 0.96, f" wave {number}", color="tab:red", va="top")
    axes.axhline(even, color="tab:green", ls="--", label="the largest wave, spread evenly")
    axes.set(xlabel="time (s)", ylabel="requests per second", xlim=(0, span[-1]))
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sensors", type=int, default=200, help="default 200")
    parser.add_argument("--waves", default="5%,25%,100%", help="default 5%%,25%%,100%%")
    parser.add_argument("--spread", default="60s", help="of each wave; default 60s")
    parser.add_argument("--hold", default="5s", help="default 5s")
    parser.add_argument("--out", type=Path, default=Path("build/fleet"), help="plot and figures")
    arguments = parser.parse_args()
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        print("left out: it needs a broker: sudo apt-get install mosquitto")
        return
    one_thread()
    describe()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        measure(Path(place), program, arguments)


def measure(folder: Path, program: str, arguments: argparse.Namespace) -> None:
    """One roll-out, and what it cost."""
    devices = [f"sensor-{number:03}" for number in range(arguments.sensors)]
    made, model, bundle = repository(folder / "repository", devices)
    traffic = Traffic()
    server = serve(made.public, traffic)
    broker, port = start_broker(program, folder)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    sensors: list[subprocess.Popen[str]] = []
    try:
        sensors = start_sensors(folder, port, url, made, arguments.sensors)
        words = [
            *("roll-out", model, "--repo", str(made.path), "--port", str(port)),
            *("--waves", arguments.waves, "--hold", arguments.hold),
            *("--spread", arguments.spread, "--settle", "60"),
        ]
        # Each has its first look at the repository, which is counted too.
        time.sleep(LOOKED_S)
        began_s, offset_s = time.monotonic(), time.time() - time.monotonic()
        rolling = subprocess.run(
            [sys.executable, TESTS / "export" / "fleet" / "fleet_process.py", "-1", *words],
            env={**os.environ, **SECRET},
            capture_output=True,
            text=True,
            check=False,
        )
        took_s = time.monotonic() - began_s
        assert rolling.returncode == 0, rolling.stdout[-2000:] + rolling.stderr[-2000:]
        # What a sensor sends last is still under way.
        time.sleep(1.0)
    finally:
        for process in sensors:
            process.kill()
            process.communicate()
        broker.kill()
        broker.wait()
        server.shutdown()
    tell(made, arguments, traffic, len(bundle), began_s, offset_s, took_s)


def tell(
    made: RepositoryFolder,
    arguments: argparse.Namespace,
    traffic: Traffic,
    n_bundle: int,
    began_s: float,
    offset_s: float,
    took_s: float,
) -> None:
    """Print the figures beside their limits, and draw."""
    roll_out = read_roll_out(made.path)
    assert roll_out is not None
    outcomes = Counter(member.outcome for member in roll_out.members)
    n_sensors = arguments.sensors
    sent = sum(size for _, _, size in traffic.requests)
    of_bundles = sum(size for _, path, size in traffic.requests if path.startswith("/targets/"))
    log = (made.path / LOG_FILE).read_text()
    begins_s = [begin - offset_s - began_s for begin in waves_of(log)]
    times_s = [came_s - began_s for came_s, _, _ in traffic.requests if came_s > began_s]
    largest = max(Counter(member.wave for member in roll_out.members).values())
    spread_s = parse_duration(arguments.spread, "--spread")
    even = len(times_s) / n_sensors * largest / max(1.0, spread_s)
    peak = max(Counter(int(moment) for moment in times_s).values())
    share = sent / (n_bundle * n_sensors)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(arguments.out / "requests.png", times_s, begins_s, even)
    targets = made.published_targets()
    assert targets is not None
    figures = {
        "sensors": n_sensors,
        "outcomes": dict(outcomes),
        "took_s": round(took_s, 1),
        "bundle_bytes": n_bundle,
        "sent_per_sensor": round(sent / n_sensors),
        "of_metadata_per_sensor": round((sent - of_bundles) / n_sensors),
        "traffic": round(share, 4),
        "requests_per_sensor": round(len(traffic.requests) / n_sensors, 2),
        "peak_per_s": peak,
        "even_per_s": round(even, 1),
        "most_at_once": traffic.most_at_once,
    }
    (arguments.out / "figures.json").write_text(f"{json.dumps(figures, indent=1)}\n")
    print(
        f"{n_sensors} sensors in {roll_out.n_waves} waves: {dict(outcomes)} in {took_s:.0f} s\n"
        f"sent: {sent / n_sensors:,.0f} bytes a sensor, {share:.4f} x the bundle of {n_bundle:,} "
        f"({verdict(share, MOST_TRAFFIC)} {MOST_TRAFFIC}); metadata "
        f"{(sent - of_bundles) / n_sensors:,.0f} bytes in "
        f"{len(traffic.requests) / n_sensors - 1:.1f} requests\n"
        f"requests: {peak} in the busiest second, {even:.1f} a second if spread evenly, "
        f"{peak / even:.1f} x ({verdict(peak / even, MOST_PEAK)} {MOST_PEAK}); at most "
        f"{traffic.most_at_once} at once\n"
        f"plot: {arguments.out / 'requests.png'}"
    )
    if outcomes != {"confirmed": n_sensors}:
        print("ABOVE: not all have confirmed")


if __name__ == "__main__":
    main()
