"""A sensor is killed, cut from power and starved at random instants of updates of its model.

python tests/faults/update_campaign.py --trials 200 --seed 1

Each trial: a newer model is pushed to a real repository behind a real web server, a running sensor
is told to install it, and at a random instant of the update something happens. Then, undisturbed,
the sensor must come to hear with the new model and confirm it. The laws:

- after every start it hears with a model, the one before or the new one;
- windows follow each other without one lost or doubled while it runs, whatever happens to disk,
  repository and clock;
- in the end the new model is confirmed, and the model before is still there.

Power cuts discard what was not flushed, where an ext4 image can be mounted (root).
"""

from __future__ import annotations

import argparse
import functools
import http.server
import importlib.util
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import soundfile
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).parent))

from campaign import Broker
from disk import Disk, can_mount

from soundpost.device.bundle import read_bundle
from soundpost.device.updates.model_state import ModelState

HERE = Path(__file__).parent
DEVICE = "porch-pi"
BASE = f"soundpost/{DEVICE}"
FAULTS = {"kill": 10, "power cut": 10, "full disk": 2, "no repository": 2, "wrong clock": 2}
# After so long something is wrong that time will not mend.
PATIENCE_S = 180.0
# The reserve that updates leave free is 32 MB.
IMAGE_MB = 72
# Longest that detection may pause for a reason that is not the process's own end.
LIMIT_S = 2.0


def load(name: str, path: Path) -> ModuleType:
    """A module of the tests by its file."""
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


class SlowHandler(http.server.SimpleHTTPRequestHandler):
    """Bundles in drips, so that an instant may fall into a download; ranges are not answered."""

    protocol_version = "HTTP/1.0"

    def copyfile(self, source: Any, outputfile: Any) -> None:
        try:
            while block := source.read(2_048):
                outputfile.write(block)
                if self.path.startswith("/targets/"):
                    time.sleep(0.02)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server:
    """The repository's web server, which can be taken away."""

    def __init__(self, folder: Path) -> None:
        self._handler = functools.partial(SlowHandler, directory=str(folder))
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class States:
    """What the sensor tells of its model, the last one."""

    def __init__(self, port: int) -> None:
        self.last: ModelState | None = None
        self.phases: Counter[str] = Counter()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe(f"{BASE}/model/state", 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        self.last = ModelState.from_json(message.payload)

    def install(self) -> None:
        self._client.publish(f"{BASE}/cmd/update", '{"install": true}', qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@dataclass
class Outcome:
    """What was found.

    starts_s : from a start to the first window, by fault
    pauses_s : longest span between two windows of a life, by fault
    instants : phase of the update at the fault
    broken : laws that did not hold, a line each
    """

    faults: Counter[str] = field(default_factory=Counter)
    instants: Counter[str] = field(default_factory=Counter)
    starts_s: list[float] = field(default_factory=list)
    pauses_s: dict[str, list[float]] = field(default_factory=dict)
    updates_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class Campaign:
    """One sensor through many updates."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.outcome = Outcome()
        self._folder = folder
        self.mounted = can_mount(folder)
        self.signed = load(
            "signed_repository", HERE.parent / "device" / "updates" / "signed_repository.py"
        )
        self._operator = self.signed.Operator(folder / "operator")
        self._disk = Disk(folder / "disk", mounted=self.mounted, image_mb=IMAGE_MB)
        self._state = self._disk.outbox.parent
        self._server = Server(self._operator.public)
        self._broker = Broker(folder)
        self._broker.start()
        self._states = States(self._broker.port)
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self._clock = folder / "clock"
        self._clock.write_text("0\n")
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._version = 0
        self._write_settings()

    def _write_settings(self) -> None:
        rng = np.random.default_rng(8)
        sound = np.zeros(5 * 16_000)
        sound[16_000:40_000] = 0.3 * rng.standard_normal(24_000)
        soundfile.write(self._folder / "noise.wav", np.clip(sound, -1, 1), 16_000)
        (self._folder / "root.json").write_bytes(self._operator.root)
        (self._folder / "first.bundle").write_bytes(self._operator.release("1.0.0"))
        (self._folder / "soundpost.toml").write_text(
            f'device_id = "{DEVICE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {self._broker.port}\n'
            "retry_min_s = 0.05\nretry_max_s = 0.2\n"
            f'[outbox]\npath = "{self._disk.outbox}"\n[model]\nbundle = "first.bundle"\n'
            '[source.mic0]\nurl = "file:noise.wav"\nloop = true\n'
            "[commands]\nenabled = true\nper_minute = 600\n"
            f'[updates]\nrepository = "http://127.0.0.1:{self._server.port}/"\n'
            f'root = "root.json"\nfolder = "{self._state / "models"}"\nspread_s = 0\n'
            "latency_share = 1\nslowdown = 100\nshadow_s = 1\nprobation_s = 2\n",
            "utf-8",
        )

    # ---------------------------------------------------------------------------- the sensor

    def start(self) -> None:
        """Begin a life, and wait for its first window."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        before = len(self.windows())
        self._started_s = time.monotonic()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, str(HERE / "updating_sensor.py"), str(self._ledger)),
                    str(self._clock),
                    *("-v", "run", "--config", str(self._folder / "soundpost.toml")),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
            )
        if not self._wait(lambda: len(self.windows()) > before, "no window after a start"):
            raise SystemExit(f"the sensor does not come back; see {self._folder / 'log'}")
        self.outcome.starts_s.append(self.windows()[before][0] - self._started_s)

    def _wait(self, met: Any, what: str) -> bool:
        deadline_s = time.monotonic() + PATIENCE_S
        while not met():
            if self._process is not None and self._process.poll() is not None:
                self._broke(f"{what}: the sensor ended with {self._process.returncode}")
                return False
            if time.monotonic() > deadline_s:
                self._broke(f"{what} within {PATIENCE_S:g} s; {self._states.last}")
                return False
            time.sleep(0.02)
        return True

    def _broke(self, line: str) -> None:
        self.outcome.broken.append(f"trial {sum(self.outcome.faults.values())}: {line}")

    def windows(self, after_s: float = 0.0) -> list[tuple[float, int]]:
        """Time and place of each window that was scored since."""
        found = []
        for line in self._ledger.read_text().splitlines():
            kind, *words = line.split()
            if kind == "scored" and len(words) == 3 and words[2] != "0":
                found.append((float(words[0]), int(words[1])))
        return [one for one in found if one[0] >= after_s]

    def _end(self, which: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(which)
        self._process.wait()
        self._process = None

    # ----------------------------------------------------------------------------- one trial

    def trial(self, fault: str, share: float) -> None:
        """An update with a fault after this share of the time that updates take."""
        if self._process is None:
            self.start()
        self._ledger.write_bytes(b"")
        self._version += 1
        version = f"1.0.{self._version}"
        before = self._states.last.installed.version if self._states.last else "1.0.0"
        self._operator.release(version)
        usual_s = statistics.median(self.outcome.updates_s) if self.outcome.updates_s else 8.0
        self._states.install()
        began_s = time.monotonic()
        time.sleep(share * usual_s)
        self.outcome.faults[fault] += 1
        last = self._states.last
        self.outcome.instants["before it" if last is None else last.phase] += 1
        killed = fault in ("kill", "power cut")
        getattr(self, "_" + fault.replace(" ", "_"))()
        if killed:
            self._judge_life(fault)
            self._ledger.write_bytes(b"")
            self.start()
        asked_s = time.monotonic()

        def confirmed() -> bool:
            nonlocal asked_s
            state = self._states.last
            if state is None:
                return False
            if state.installed.version not in (before, version):
                raise SystemExit(f"hears with {state.installed}, neither {before} nor {version}")
            if state.installed.version == version and state.confirmed:
                return True
            if state.phase in ("idle", "waiting") and time.monotonic() - asked_s > 1.0:
                self._states.install()
                asked_s = time.monotonic()
            return False

        if self._wait(confirmed, f"{version} was not confirmed after {fault}"):
            self._check_store(before, version)
        if not killed:
            self._judge_life(fault)
        if fault == "none":
            self.outcome.updates_s.append(time.monotonic() - began_s)

    def _judge_life(self, fault: str) -> None:
        """Windows of one life follow each other: a step of places, and no long pause."""
        windows = self.windows()
        places = [place for _, place in windows]
        steps = Counter(np.diff(places).tolist())
        if len(steps) > 1:
            self._broke(f"windows lost or doubled with {fault}: steps of {dict(steps)} samples")
        times_s = [time_s for time_s, _ in windows]
        if len(times_s) > 1:
            longest_s = float(np.diff(times_s).max())
            self.outcome.pauses_s.setdefault(fault, []).append(longest_s)

    def _check_store(self, before: str, version: str) -> None:
        """Both models are whole on the disk, by the file alone."""
        models = json.loads((self._state / "models" / "models.json").read_text())
        for role, expected in (("current", version), ("previous", before)):
            entry = models[role]
            if entry is None:
                if before != "1.0.0":
                    self._broke(f"no {role} model is kept")
                continue
            bundle = read_bundle(self._state / "models" / "models" / f"{entry['sha256']}.bundle")
            if bundle.manifest.version != expected or bundle.sha256 != entry["sha256"]:
                self._broke(f"{role} is {bundle.manifest.version}, expected {expected}")

    # ------------------------------------------------------------------------------ the faults

    def _none(self) -> None:
        """An undisturbed update, whose time the instants are drawn from."""

    def _kill(self) -> None:
        self._end(signal.SIGKILL)

    def _power_cut(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        self._disk.snapshot()
        self._end(signal.SIGKILL)
        # A self-test is a process of its own, which has files open on the disk.
        subprocess.run(
            ["pkill", "-KILL", "-f", str(self._state)], check=False, stdout=subprocess.DEVNULL
        )
        time.sleep(0.05)
        self._disk.restore(self.rng)

    def _full_disk(self) -> None:
        assert self._process is not None
        self._disk.fill(self._process.pid)
        time.sleep(self.rng.uniform(0.5, 4.0))
        self._disk.empty(self._process.pid)

    def _no_repository(self) -> None:
        self._server.stop()
        time.sleep(self.rng.uniform(0.5, 4.0))
        self._server.start()

    def _wrong_clock(self) -> None:
        years = self.rng.choice([-30, -5, -1, 1, 5, 12])
        self._clock.write_text(f"{years * 365 * 86_400}\n")
        time.sleep(self.rng.uniform(0.5, 4.0))
        self._clock.write_text("0\n")

    def close(self) -> None:
        """End everything."""
        if self._process is not None:
            self._end(signal.SIGTERM)
        self._states.close()
        self._server.stop()
        self._broker.kill()
        self._disk.remove()


def report(outcome: Outcome, mounted: bool) -> None:
    """Print what was found."""
    if not outcome.starts_s:
        return
    told = ", ".join(f"{name} {count}" for name, count in outcome.faults.items())
    print(f"{sum(outcome.faults.values())} updates: {told}")
    print(f"phases at the fault: {dict(outcome.instants.most_common())}")
    print(f"power cuts discard what was not flushed: {'yes, ext4' if mounted else 'no'}")
    starts = np.array(outcome.starts_s)
    print(
        f"from a start to the first window: median {np.median(starts):.2f} s, longest "
        f"{starts.max():.2f} s, {len(starts)} starts"
    )
    for fault, pauses_s in outcome.pauses_s.items():
        met = "within" if max(pauses_s) <= LIMIT_S else "ABOVE"
        print(
            f"longest pause between windows, {fault}: median {np.median(pauses_s):.2f} s, longest "
            f"{max(pauses_s):.2f} s: {met} {LIMIT_S:g} s"
        )
    for line in outcome.broken:
        print(f"BROKEN {line}")
    without = sum("no window" in line for line in outcome.broken)
    print(f"{without} of {sum(outcome.faults.values())} ended without a model")


def main() -> int:
    """Run trials and print; 1 where a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work, and what is kept afterwards")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(folder, arguments.seed)
        try:
            for _ in range(3):
                campaign.trial("none", 0.0)
                print(f"an update takes {campaign.outcome.updates_s[-1:]} s", flush=True)
            names, weights = list(FAULTS), list(FAULTS.values())
            for number in range(arguments.trials):
                (fault,) = campaign.rng.choices(names, weights)
                campaign.trial(fault, campaign.rng.random())
                print(
                    f"{number + 1}/{arguments.trials} {fault}, {len(campaign.outcome.broken)} "
                    "broken",
                    flush=True,
                )
        except KeyboardInterrupt:
            print("stopped")
            # A second one must not cost the report.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        finally:
            campaign.close()
        report(campaign.outcome, campaign.mounted)
        return 1 if campaign.outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
