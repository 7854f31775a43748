"""A roll-out to sensors as `soundpost run` makes them: real models, real sound from a file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from signed_repository import bundle_bytes

from soundpost.export.fleet.roll_out import LOG_FILE, read_roll_out

PATIENCE_S = 300.0
# Here the kernel may not say that its clock follows a reference, which updates wait for.
SENSOR = """
import sys
from soundpost.device import clock
clock.clock_synchronised = lambda: True
from soundpost.device.cli import main
sys.exit(main())
"""


def start(fleet: Any, device: str, more: str = "") -> subprocess.Popen[str]:
    folder: Path = fleet.folder / device
    folder.mkdir()
    rng = np.random.default_rng(8)
    sound = np.zeros(5 * 16_000)
    sound[16_000:40_000] = 0.3 * rng.standard_normal(24_000)
    soundfile.write(folder / "noise.wav", np.clip(sound, -1, 1), 16_000)
    (folder / "root.json").write_bytes(fleet.operator.root)
    (folder / "first.bundle").write_bytes(bundle_bytes("1.0.0"))
    settings = folder / "soundpost.toml"
    settings.write_text(
        f'device_id = "{device}"\n[mqtt]\nhost = "127.0.0.1"\nport = {fleet.port}\n'
        '[outbox]\npath = "outbox.sqlite3"\n[model]\nbundle = "first.bundle"\n'
        '[source.mic0]\nurl = "file:noise.wav"\nloop = true\n[commands]\nenabled = true\n'
        f'[updates]\nrepository = "{fleet.web.address}"\nroot = "root.json"\nfolder = "models"\n'
        "spread_s = 0\nlatency_share = 1\nslowdown = 100\nshadow_s = 3\nprobation_s = 4\n"
        f'install = "ask"\n{more}',
        "utf-8",
    )
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", SENSOR, "-v", "run", "--config", str(settings)],
            stdout=log,
            stderr=log,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


@pytest.fixture
def running(make_fleet: Callable[[], Any]) -> Iterator[Any]:
    """A fleet of two sensors that wait for the command to install."""
    fleet = make_fleet()
    processes = [start(fleet, device) for device in fleet.devices[:2]]
    yield fleet
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(PATIENCE_S)


def test_they_take_the_model_wave_by_wave(running: Any, run_fleet: Callable[..., Any]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while "2 sensors: 2 well" not in (
        told := run_fleet("list", "--port", running.port, "--where", "phase=idle").out
    ):
        assert time.monotonic() < end_s, told
    done = run_fleet(
        *("roll-out", "tiny-1.1.0", "--repo", running.repository, "--port", running.port),
        *("--hold", "0s", "--spread", "0s", "--waves", "1,100%"),
    )
    assert done.error is None, (running.repository / LOG_FILE).read_text()
    state = read_roll_out(running.repository)
    assert state is not None
    assert [member.outcome for member in state.members] == ["confirmed"] * 2
    listed = run_fleet("list", "--port", running.port)
    assert listed.lines[0] == "2 sensors: 2 well"
    assert all(row.split()[1:4] == ["tiny", "1.1.0", "stable"] for row in listed.lines[2:])
