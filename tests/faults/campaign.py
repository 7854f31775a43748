"""Random faults over a day of sound: what was put arrives, in order, and nothing grows.

Two sensors hear soundscapes faster than real time and publish to a real Mosquitto through a proxy.
`steady` is never killed: it shows what happens to memory, file handles and threads. `frail` is
killed, and its power is cut, again and again. All other faults meet both. A seed fixes which faults
come and how long they last; what the processes do meanwhile is theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from city_source import RATE_HZ
from disk import Disk, can_mount
from oracle import PATIENCE_S, Verdict, Witness, judge, read_ledger
from proxy import Proxy

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import open_bundle, write_bundle
from soundpost.device.pipeline import Pipeline
from soundpost.device.soundscape import soundscape

HERE = Path(__file__).parent
# How often of each hundred faults, and for how many seconds at least and at most.
FAULTS = {
    "kill": (18, 0.0, 0.1),
    "power cut": (10, 0.0, 0.1),
    "kill broker": (8, 0.05, 0.5),
    "long outage": (1, 3.0, 5.0),
    "cut": (17, 0.0, 0.0),
    "refuse": (6, 0.1, 1.0),
    "stall": (9, 0.1, 2.0),
    "garble": (8, 0.0, 0.0),
    "unplug": (9, 0.05, 0.6),
    "gap": (6, 0.0, 0.0),
    "fill disk": (4, 0.3, 1.5),
    "torn tail": (2, 0.0, 0.1),
    "overwritten tail": (2, 0.0, 0.1),
}
OUTBOX_MB = 0.6


def make_bundle(path: Path, scenes: list[np.ndarray]) -> None:
    """The tiny student with half a second between windows, and thresholds that scenes pass."""
    specification = spec_from_file_location(
        "tiny_student", HERE.parent / "device" / "tiny_student.py"
    )
    assert specification is not None
    assert specification.loader is not None
    tiny = module_from_spec(specification)
    sys.modules["tiny_student"] = tiny
    specification.loader.exec_module(tiny)
    tiny.N_FRAMES = 50
    student, manifest = tiny.tiny_student(), tiny.tiny_manifest()
    hop = tiny.N_FRAMES * manifest.front_end.hop_length
    manifest = replace(manifest, hop_samples=hop)

    def write() -> None:
        path.unlink(missing_ok=True)
        write_bundle(path, manifest, student.model, tiny.tiny_golden(student, manifest), "# tiny\n")

    write()
    bundle, interpreter, _ = open_bundle(path)
    pipeline = Pipeline(bundle, interpreter, RATE_HZ)
    blocks = (AudioBlock(scenes[0][:, None], 0, RATE_HZ),)
    scores = np.array([window.scores for block in blocks for window in pipeline.push(block)])
    classes = []
    for index, settings in enumerate(manifest.classes):
        onset, release = np.quantile(scores[:, index], [0.85, 0.75])
        classes.append(
            replace(
                settings,
                onset=float(onset),
                release=float(min(release, onset)),
                smoothing="none",
                smoothing_windows=1,
                min_duration_s=0.0,
                min_gap_s=1.0,
            )
        )
    manifest = replace(manifest, classes=tuple(classes))
    write()


class Broker:
    """A Mosquitto with persistence that can be killed."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            raise SystemExit("mosquitto is missing: sudo apt-get install mosquitto")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(
            f"{user}listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 2\n"
            "max_queued_messages 0\nmax_inflight_messages 0\n"
        )
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.005)
        raise AssertionError("mosquitto does not listen")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Nursery:
    """The process that sensors are forked from; see sensor.py."""

    def __init__(self, folder: Path) -> None:
        information = folder / "plugin" / "city_source-0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: city_source\nVersion: 0\n"
        )
        (information / "entry_points.txt").write_text(
            "[soundpost.sources]\ncity = city_source:City\n"
        )
        path = os.pathsep.join(
            [str(folder / "plugin"), str(HERE), os.environ.get("PYTHONPATH", "")]
        )
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "sensor.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads, "PYTHONPATH": path},
        )

    def ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Sensor:
    """One sensor through all its lives."""

    def __init__(
        self, device: str, folder: Path, nursery: Nursery, order: dict[str, Any], mounted: bool
    ) -> None:
        self.device = device
        self.disk = Disk(folder / "disk", mounted=mounted)
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.log = folder / "log"
        self.sound = folder / "sound"
        self._nursery = nursery
        self._order = {
            **order,
            "device": device,
            "ledger": str(self.ledger),
            "log": str(self.log),
            "outbox": str(self.disk.outbox),
            "outbox_mb": OUTBOX_MB,
        }
        self.life = 0
        self.killed: set[int] = set()
        self.overwritten: set[int] = set()
        self.pid: int | None = None

    def start(self) -> None:
        self.life += 1
        self.pid = self._nursery.ask({**self._order, "life": self.life})

    def end(self, which: signal.Signals) -> int:
        """Its exit status; negative for the signal that ended it."""
        assert self.pid is not None
        os.kill(self.pid, which)
        status = self._nursery.ask({"wait": self.pid})
        self.pid = None
        if which == signal.SIGKILL:
            self.killed.add(self.life)
        return os.waitstatus_to_exitcode(status)

    def hold(self) -> None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)

    def heard_s(self) -> float:
        """Seconds of sound so far, of its first source."""
        heard = self.sound / "mic0" / "heard"
        if not heard.exists():
            return 0.0
        return int.from_bytes(heard.read_bytes(), "little") / RATE_HZ


@dataclass
class Sample:
    """A sensor at one moment. handles : its own, without those of the sound that it is fed with."""

    hour: float
    pss_mb: float
    handles: int
    threads: int


def sample_of(pid: int, hour: float, fed_from: tuple[Path, ...]) -> Sample:
    """Read from /proc.

    fed_from : where the campaign's part in the process has its files: a source opens its next sound
        now and then, twice for a moment
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    handles = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # One that was closed meanwhile is counted no more.
        with contextlib.suppress(OSError):
            target = entry.readlink()
            handles += not any(target.is_relative_to(place) for place in fed_from)
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return Sample(hour, pss * 1024 / 1e6, handles, threads)


@dataclass
class Outcome:
    """What a campaign found."""

    faults: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    lives: int = 0
    heard_h: dict[str, float] = field(default_factory=dict)
    strange: int = 0
    seconds: float = 0.0
    mounted: bool = False
    left: int = 0

    def of(self, first_h: float, last_h: float) -> list[Sample]:
        """Samples between two hours of sound."""
        return [one for one in self.samples if first_h <= one.hour < last_h]


class Campaign:
    """A day of faults; `run` it."""

    def __init__(self, folder: Path, faults: int, hours: float, speed: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._n_faults = faults
        self._hours = hours
        self._outcome = Outcome(mounted=can_mount(folder))
        n_scenes = 12 if hours >= 1 else 4
        scenes = [soundscape(seed * 100 + number, RATE_HZ)[0] for number in range(n_scenes)]
        bundle = folder / "tiny.bundle"
        make_bundle(bundle, scenes)
        self._broker = Broker(folder)
        self._proxy = Proxy(self._broker.port, seed)
        self._witness = Witness()
        self._nursery = Nursery(folder)
        self._sensors: list[Sensor] = []
        for device, names in (("steady", ("mic0", "mic1")), ("frail", ("mic0",))):
            sound = folder / device / "sound"
            for number, name in enumerate(names):
                (sound / name).mkdir(parents=True)
                for index, scene in enumerate(scenes[number::2]):
                    np.save(sound / name / f"{index:03}.npy", scene)
                (sound / name / "speed").write_text(str(speed))
            order = {
                "bundle": str(bundle),
                "port": self._proxy.port,
                "sources": {name: str(sound / name) for name in names},
            }
            self._sensors.append(
                Sensor(device, folder / device, self._nursery, order, self._outcome.mounted)
            )
        self._steady, self._frail = self._sensors
        # What is to be undone, and when; a fault whose name is here is under way.
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._active: set[str] = set()

    def run(self) -> Outcome:
        """All of it."""
        began_s = time.monotonic()
        self._raise_broker()
        for sensor in self._sensors:
            sensor.start()
        try:
            done, sampled_s = 0, 0.0
            length_s = 3_600 * self._hours
            while (heard_s := self._steady.heard_s()) < length_s or done < self._n_faults:
                now_s = time.monotonic()
                if now_s - sampled_s > 1.0 and self._steady.pid is not None:
                    sampled_s = now_s
                    fed_from = (self._steady.sound, self._steady.ledger)
                    self._outcome.samples.append(
                        sample_of(self._steady.pid, heard_s / 3_600, fed_from)
                    )
                while self._later and self._later[0][0] <= now_s:
                    heapq.heappop(self._later)[2]()
                if done < self._n_faults and heard_s >= done * length_s / self._n_faults:
                    self._fault()
                    done += 1
                else:
                    time.sleep(0.005)
            self._finish()
        finally:
            for sensor in self._sensors:
                if sensor.pid is not None:
                    sensor.end(signal.SIGKILL)
                sensor.disk.remove()
            self._nursery.close()
            self._broker.kill()
        self._outcome.seconds = time.monotonic() - began_s
        return self._outcome

    def _finish(self) -> None:
        while self._later:
            heapq.heappop(self._later)[2]()
        for sensor in self._sensors:
            # An orderly end sends what waits.
            status = sensor.end(signal.SIGTERM)
            if status:
                raise AssertionError(f"{sensor.device} ended with {status}: {sensor.log}")
            self._outcome.left += len(sensor.disk.waiting())
            self._outcome.heard_h[sensor.device] = sensor.heard_s() / 3_600
            self._outcome.lives += sensor.life
        time.sleep(0.5)
        for sensor in self._sensors:
            self._outcome.verdicts[sensor.device] = judge(
                read_ledger(sensor.ledger),
                self._witness.events[sensor.device],
                self._witness.healths[sensor.device],
                sensor.overwritten,
                sensor.killed,
            )
        self._outcome.strange = len(self._witness.strange)

    # --- faults

    def _fault(self) -> None:
        """One that is possible now."""
        while True:
            (kind,) = self._rng.choices(list(FAULTS), [share for share, *_ in FAULTS.values()])
            _, least_s, most_s = FAULTS[kind]
            duration_s = self._rng.uniform(least_s, most_s)
            if getattr(self, "_" + kind.replace(" ", "_"))(duration_s):
                self._outcome.faults[kind] += 1
                return
            # Something that is in its way ends.
            while self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()

    def _undo(self, duration_s: float, action: Callable[[], None], *names: str) -> bool:
        self._active.update(names)

        def undo() -> None:
            self._active.difference_update(names)
            action()

        due_s = time.monotonic() + duration_s
        heapq.heappush(self._later, (due_s, next(self._count), undo))
        return True

    def _dies(self, duration_s: float, meanwhile: Callable[[], None]) -> bool:
        """`frail` is killed; what happens before it is started again."""
        frail = self._frail
        if frail.pid is None or "frail disk" in self._active:
            return False
        frail.end(signal.SIGKILL)
        meanwhile()
        return self._undo(duration_s, frail.start)

    def _kill(self, duration_s: float) -> bool:
        return self._dies(duration_s, lambda: None)

    def _power_cut(self, duration_s: float) -> bool:
        frail = self._frail
        if frail.pid is None or "frail disk" in self._active:
            return False
        frail.hold()
        frail.disk.snapshot()
        return self._dies(duration_s, lambda: frail.disk.restore(self._rng))

    def _torn_tail(self, duration_s: float) -> bool:
        return self._dies(duration_s, lambda: self._frail.disk.extend_log(self._rng))

    def _overwritten_tail(self, duration_s: float) -> bool:
        disk = self._frail.disk

        def overwrite() -> None:
            before = disk.waiting()
            disk.overwrite_tail(self._rng)
            self._frail.overwritten |= before - disk.waiting()

        return self._dies(duration_s, overwrite)

    def _kill_broker(self, duration_s: float) -> bool:
        if "broker" in self._active:
            return False
        self._proxy.gate(False)
        self._broker.kill()
        self._witness.disconnected()
        return self._undo(duration_s, self._raise_broker, "broker")

    def _raise_broker(self) -> None:
        self._broker.start()
        # The witness first: a broker that was killed remembers no subscription of seconds ago.
        self._witness.connect(self._broker.port)
        self._proxy.gate(True)

    def _long_outage(self, duration_s: float) -> bool:
        return self._kill_broker(duration_s)

    def _cut(self, _duration_s: float) -> bool:
        self._proxy.cut()
        return True

    def _refuse(self, duration_s: float) -> bool:
        if "broker" in self._active:
            return False
        self._proxy.gate(False)
        return self._undo(duration_s, lambda: self._proxy.gate(True), "broker")

    def _stall(self, duration_s: float) -> bool:
        if "stall" in self._active:
            return False
        self._proxy.stall(True)
        return self._undo(duration_s, lambda: self._proxy.stall(False), "stall")

    def _garble(self, _duration_s: float) -> bool:
        self._proxy.garble()
        return True

    def _source(self) -> Path:
        sensor = self._rng.choice(self._sensors)
        return self._rng.choice([p for p in sorted(sensor.sound.iterdir()) if p.is_dir()])

    def _unplug(self, duration_s: float) -> bool:
        file = self._source() / "unplugged"
        if file.exists():
            return False
        file.touch()
        return self._undo(duration_s, file.unlink)

    def _gap(self, _duration_s: float) -> bool:
        gap = self._source() / "gap"
        new = gap.with_suffix(".new")
        new.write_text(str(self._rng.randrange(1, 60 * RATE_HZ)))
        new.replace(gap)
        return True

    def _fill_disk(self, duration_s: float) -> bool:
        sensor = self._rng.choice(self._sensors)
        name = f"{sensor.device} disk"
        if sensor.pid is None or name in self._active:
            return False
        sensor.disk.fill(sensor.pid)
        return self._undo(duration_s, lambda: sensor.disk.empty(sensor.pid), name)


def report(outcome: Outcome, hours: float) -> bool:
    """Print what was found; whether all is well."""
    total = sum(outcome.faults.values())
    print(
        f"{total} faults in {outcome.seconds:.0f} s: "
        + ", ".join(f"{count} {kind}" for kind, count in outcome.faults.most_common())
    )
    disk = "ext4 images, un-flushed writes discarded" if outcome.mounted else "folders (no root)"
    heard = ", ".join(f"{device} {hour:.1f} h" for device, hour in outcome.heard_h.items())
    print(f"heard: {heard}; {outcome.lives} lives; disks: {disk}")
    good = True
    for device, found in outcome.verdicts.items():
        good = good and found.good
        print(
            f"{device}: {found.put} put, {found.heard} heard, {found.repeats} repeats with equal "
            f"ids, {found.lost} LOST, {found.reordered} reordered, {found.changed} changed; given "
            f"up when full {found.dropped_lost} (counted in health: {found.health_dropped}, by all "
            f"lives: {found.dropped}), in memory on a full disk when killed {found.unsaved_lost}, "
            f"overwritten by the campaign {found.overwritten_lost}; {found.unknown} put by a "
            "process that was killed before it could note them"
            + (f"; lost: {found.lost_numbers[:10]}" if found.lost_numbers else "")
        )
    steady = outcome.verdicts["steady"]
    # It lived all the time: what it gave up it must have told.
    if steady.dropped_lost > steady.health_dropped or steady.dropped != steady.health_dropped:
        print(f"steady gave up {steady.dropped}, and its health says {steady.health_dropped}")
        good = False
    if outcome.left:
        print(f"{outcome.left} events are left in the outboxes")
        good = False
    print(f"{outcome.strange} payloads that the proxy garbled reached the witness")
    return good and told_of_growth(outcome, hours)


def told_of_growth(outcome: Outcome, hours: float) -> bool:
    """Print what `steady` took in its second hour and in its last; whether that is the same."""
    # A short campaign is over before everything has been loaded, and after few samples: it is told
    # and not judged.
    day = hours >= 12
    first = outcome.of(1.0, 2.0) if day else outcome.of(hours / 4, hours / 2)
    last = outcome.of(hours - 1.0, hours + 1.0) if day else outcome.of(hours * 3 / 4, hours + 1)
    if not first or not last:
        print("no samples of the first or of the last part")
        return False
    before_mb, after_mb = (statistics.median(one.pss_mb for one in part) for part in (first, last))
    growth = 100 * (after_mb / before_mb - 1)
    handles = [[one.handles for one in part] for part in (first, last)]
    threads = [[one.threads for one in part] for part in (first, last)]
    print(
        f"steady, {'second hour' if day else 'second quarter'} and last: PSS {before_mb:.1f} and "
        f"{after_mb:.1f} MB ({growth:+.1f} %); "
        + "; ".join(
            f"{name} {min(a)} to {max(a)}, median {statistics.median(a):g}, and "
            f"{min(b)} to {max(b)}, median {statistics.median(b):g}"
            for name, (a, b) in (("file handles", handles), ("threads", threads))
        )
    )
    if not day:
        return True
    # While it is not connected it has one handle and one thread less, and two while it connects.
    steady = all(
        statistics.median(b) <= max(a) and max(b) <= max(a) + 1 for a, b in (handles, threads)
    )
    return steady and growth <= 5.0


def main() -> int:
    """Run a campaign and print its outcome; 1 where something was lost or grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faults", type=int, default=1_000)
    parser.add_argument("--hours", type=float, default=24.0, help="of sound")
    parser.add_argument("--speed", type=float, default=200.0, help="seconds of sound per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept afterwards, for a look at what happened")
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="kinds of faults")
    arguments = parser.parse_args()
    for kind in set(FAULTS) - set(arguments.only or FAULTS):
        del FAULTS[kind]
    # So that what was started is ended, and what was mounted unmounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(exist_ok=True)
        campaign = Campaign(
            folder, arguments.faults, arguments.hours, arguments.speed, arguments.seed
        )
        outcome = campaign.run()
    good = report(outcome, arguments.hours)
    print("all is well" if good else "NOT all is well")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
