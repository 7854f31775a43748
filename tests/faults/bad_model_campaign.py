"""Running sensors are given bad models and good ones: which are taken back, which are kept?

python tests/faults/bad_model_campaign.py --sound ESC50 --lives 100

A life: `soundpost run` hears clips in an order of its own, is told over MQTT to install what its
channel of a real repository offers, and has ended when it keeps that model or is back at the one
before. There is neither self-test nor shadow (unless `--tested`), so that nothing but the probation
can find a bad model out:

- permuted : hears as the old one does and calls everything by another one's name
- constant : the same scores whatever it hears
- slow : the old one's scores, computed ten times over
- nan : the old one's scores, no numbers where it is sure of one
- good : weights off by up to 12 of 127 steps, and what `--good` names

Many lives are lived side by side. Prints a table; ends with 1 where one ended otherwise than it
should.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import soundfile
from campaign import Broker
from model_variants import (
    not_a_number_above,
    off_by_steps,
    packed,
    reweighted,
    slower,
)
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from tqdm import tqdm
from update_campaign import load

from soundpost.device.audio import read_clip
from soundpost.device.bundle import Bundle, read_bundle, starter_bundle_path
from soundpost.device.soundscape import soundscape
from soundpost.device.updates.model_state import ModelState
from soundpost.export.repository.settings import RepositorySettings

HERE = Path(__file__).parent
KINDS = ("permuted", "constant", "slow", "nan", "good")
ENDS = ("confirmed", "rejected", "rolled_back")
# Of permuted and good ones there are so many, of the others one.
VARIANTS = 10
# Probations, after which something is wrong that time will not mend.
PATIENCE = 3.0
# A sensor ends within so long of being told to.
STOPPED_S = 60.0


def derangement(rng: np.random.Generator, n_labels: int) -> NDArray[np.int64]:
    """A permutation that leaves nothing in its place."""
    while True:
        order = rng.permutation(n_labels)
        if not (order == np.arange(n_labels)).any():
            return order


def variants(starter: Bundle, good: list[Path]) -> dict[str, list[bytes]]:
    """Bundles of each kind."""
    rng = np.random.default_rng(1)
    model, n_labels = starter.model, len(starter.manifest.labels)
    highest = float(starter.golden.logits.max()) + 0.1
    made: dict[str, list[bytes]] = {
        "permuted": [
            packed(starter, model, f"1.1.{number}", derangement(rng, n_labels))
            for number in range(VARIANTS)
        ],
        "constant": [packed(starter, reweighted(model, lambda weights: weights * 0), "1.2.0")],
        "slow": [packed(starter, slower(model, 10), "1.3.0")],
        "nan": [packed(starter, not_a_number_above(model, highest), "1.4.0")],
        "good": [path.read_bytes() for path in good],
    }
    made["good"] += [
        packed(starter, reweighted(model, off_by_steps(rng, 1.0)), f"1.5.{number}")
        for number in range(VARIANTS - len(good))
    ]
    return made


class Sounds:
    """Clips in a random order, with a second of quiet or so between them."""

    def __init__(self, folder: Path | None, n_clips: int, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        if folder is None:
            self._clips = [soundscape(seed, rate_hz)[0] for seed in range(n_clips)]
            return
        kinds = (".wav", ".flac", ".ogg")
        paths = sorted(path for path in folder.rglob("*") if path.suffix in kinds)
        chosen = np.random.default_rng(0).choice(len(paths), min(n_clips, len(paths)), False)
        self._clips = [read_clip(paths[number], rate_hz) for number in chosen]

    def write(self, path: Path, seconds: float, seed: int) -> None:
        """A file of so many seconds."""
        rng = np.random.default_rng(seed)
        parts: list[NDArray[Any]] = []
        while sum(map(len, parts)) < seconds * self._rate_hz:
            quiet = 1e-3 * rng.standard_normal(int(rng.exponential(1.0) * self._rate_hz))
            parts += [quiet, self._clips[rng.integers(len(self._clips))]]
        soundfile.write(path, np.clip(np.concatenate(parts), -1.0, 1.0), self._rate_hz)


@dataclass
class Life:
    """One sensor with one update.

    told_s : when it was told to install it; installed_s : when it heard with it; monotonic
    final : its state when the update had ended, and it was told to stop; final_s : since when
    """

    kind: str
    device: str
    folder: Path
    process: subprocess.Popen[bytes]
    began_s: float
    state: ModelState | None = None
    told_s: float = 0.0
    installed_s: float = 0.0
    final: ModelState | None = None
    final_s: float = 0.0


@dataclass
class Outcome:
    """Of a kind's lives; `wrong` has a line for each that ended otherwise than it should."""

    results: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    proved_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Campaign:
    """A broker, a repository, and sensors that come and go."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self._folder, self._arguments = folder, arguments
        starter = read_bundle(starter_bundle_path())
        self._sha256 = starter.sha256
        made = variants(starter, arguments.good)
        self._channels = {
            kind: [f"{kind}-{number}" for number in range(len(made[kind]))] for kind in KINDS
        }
        signed = load(
            "signed_repository", HERE.parent / "device" / "updates" / "signed_repository.py"
        )
        names = tuple(name for channels in self._channels.values() for name in channels)
        self._operator = signed.Operator(folder / "operator", RepositorySettings(channels=names))
        for kind in KINDS:
            for channel, content in zip(self._channels[kind], made[kind], strict=True):
                self._operator.add(content, channel, allow_older=True)
        self._operator.push()
        (folder / "root.json").write_bytes(self._operator.root)
        self._sounds = Sounds(
            arguments.sound, arguments.clips, starter.manifest.front_end.sample_rate_hz
        )
        self._broker = Broker(folder)
        self._broker.start()
        self._lives: dict[str, Life] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe("soundpost/+/model/state", 1)
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        self.outcomes = {kind: Outcome() for kind in KINDS}

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        life = self._lives.get(message.topic.split("/")[1])
        if life is None or not message.payload:
            return
        life.state = ModelState.from_json(message.payload)
        if life.state.result == "installed" and not life.installed_s:
            life.installed_s = time.monotonic()

    def _begin(self, kind: str, number: int) -> None:
        device = f"{kind}-life-{number}"
        folder = self._folder / device
        folder.mkdir()
        seconds = self._arguments.live_s + 1.5 * self._arguments.probation_s
        self._sounds.write(folder / "sound.wav", seconds, number)
        channels = self._channels[kind]
        (folder / "soundpost.toml").write_text(
            f'device_id = "{device}"\n[mqtt]\nhost = "127.0.0.1"\nport = {self._broker.port}\n'
            '[source.mic0]\nurl = "file:sound.wav"\nloop = true\nblock_s = 0.25\n'
            f'[outbox]\npath = "outbox"\n[commands]\nenabled = true\n'
            f'[updates]\nrepository = "{self._operator.public}"\n'
            f'root = "{self._folder / "root.json"}"\nfolder = "models"\n'
            f'channel = "{channels[number % len(channels)]}"\ninstall = "ask"\nspread_s = 0\n'
            f"shadow_s = 60\nprobation_s = {self._arguments.probation_s}\n",
            "utf-8",
        )
        tested = "1" if self._arguments.tested else "0"
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    HERE / "untested_sensor.py",
                    *("-v", "run"),
                    *("--config", "soundpost.toml"),
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TESTED": tested},
            )
        self._lives[device] = Life(kind, device, folder, process, time.monotonic())

    def run(self) -> None:
        """All lives of all kinds, the kinds in turn."""
        waiting = [(kind, number) for number in range(self._arguments.lives) for kind in KINDS]
        random.Random(2).shuffle(waiting)
        with tqdm(total=len(waiting), unit="life", disable=None) as bar:
            while waiting or self._lives:
                if waiting and len(self._lives) < self._arguments.together:
                    self._begin(*waiting.pop())
                for life in list(self._lives.values()):
                    if self._go_on(life):
                        del self._lives[life.device]
                        bar.update()
                time.sleep(0.1)

    def _go_on(self, life: Life) -> bool:
        """Tell it what is due; whether it is over."""
        now_s, state, status = time.monotonic(), life.state, life.process.poll()
        if status is not None:
            self._judge(life, status)
            return True
        if life.final is not None:
            if now_s - life.final_s > STOPPED_S:
                life.process.kill()
        elif not life.told_s:
            if state is not None and now_s - life.began_s > self._arguments.live_s:
                self._client.publish(f"soundpost/{life.device}/cmd/update", '{"install": true}', 1)
                life.told_s = now_s
        elif state is not None:
            ended = state.result in ENDS and state.phase == "idle"
            patience_s = 60.0 + PATIENCE * self._arguments.probation_s
            if ended or now_s - life.told_s > patience_s:
                life.final, life.final_s = state, now_s
                # As `systemctl stop` does; others are looked after meanwhile.
                life.process.send_signal(signal.SIGTERM)
        return False

    def _judge(self, life: Life, status: int) -> None:
        outcome, state, good = self.outcomes[life.kind], life.final, life.kind == "good"
        found = []
        if status:
            found.append(f"ended with {status}")
        if state is None:
            found.append("ended before its update had")
        else:
            result = str(state.result) if state.phase == "idle" else f"still {state.phase}"
            reason = (state.reason or "").split(": ", 1)[-1]
            outcome.results[result] += 1
            outcome.reasons["".join("#" if one.isdigit() else one for one in reason)] += 1
            if life.installed_s:
                outcome.proved_s.append(life.final_s - life.installed_s)
            back = state.installed.sha256 == self._sha256
            if result != ("confirmed" if good else "rolled_back") or back == good:
                found.append(f"{result}, {state.installed.version}; {reason}")
        (life.folder / "sound.wav").unlink()
        if found:
            outcome.wrong.append(f"{life.device}: {'; '.join(found)}")
        else:
            shutil.rmtree(life.folder)

    def close(self) -> None:
        """End everything."""
        for life in self._lives.values():
            life.process.kill()
            life.process.wait()
        self._client.disconnect()
        self._client.loop_stop()
        self._broker.kill()


def report(outcomes: dict[str, Outcome]) -> int:
    """Print what was found; returns how many ended otherwise than they should."""
    print("| model | lives | kept | taken back | refused | in s, middle | most | mostly because |")
    print("|---" * 8 + "|")
    for kind, outcome in outcomes.items():
        results, proved_s = outcome.results, outcome.proved_s or [float("nan")]
        (mostly, _), *_ = outcome.reasons.most_common(1) or [("", 0)]
        print(
            f"| {kind} | {results.total()} | {results['confirmed']} | {results['rolled_back']} | "
            f"{results['rejected']} | {statistics.median(proved_s):.0f} | {max(proved_s):.0f} | "
            f"{mostly} |"
        )
    wrong = [line for outcome in outcomes.values() for line in outcome.wrong]
    print(f"\n{len(wrong)} ended otherwise than they should", *wrong, sep="\n  ")
    return len(wrong)


def main() -> int:
    """Live all lives and print; 1 where one ended otherwise than it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lives", type=int, default=100, help="of each kind; default 100")
    parser.add_argument("--sound", type=Path, help="folder of clips; default: synthesised sound")
    parser.add_argument("--clips", type=int, default=200, help="of them; default 200")
    parser.add_argument("--good", type=Path, action="append", default=[], help="a better bundle")
    parser.add_argument("--live-s", type=float, default=45.0, help="before the update; default 45")
    parser.add_argument("--probation-s", type=float, default=600.0, help="default 600")
    parser.add_argument("--together", type=int, default=40, help="side by side; default 40")
    parser.add_argument("--tested", action="store_true", help="self-test and a minute of shadow")
    parser.add_argument("--folder", type=Path, help="where to work, and what is kept afterwards")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        folder = arguments.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(folder.resolve(), arguments)
        try:
            campaign.run()
        except KeyboardInterrupt:
            print("stopped")
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        finally:
            campaign.close()
        return 1 if report(campaign.outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
