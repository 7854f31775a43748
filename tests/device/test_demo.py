"""`soundpost demo`: ends by itself with its totals, and at any moment by Ctrl-C without a trace."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from soundpost.device.events import SoundEvent
from soundpost.device.soundscape import soundscape

# As the installed program does it: under `python -m`, CPython may end by the signal itself, which a
# shell shows as 130 too, where Ctrl-C met an exec() of a text (dataclasses are made that way).
SOUNDPOST = [sys.executable, "-c", "from soundpost.device.cli import main; main()", "demo"]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A demo that makes its temporary folders in this one, and would keep its state there."""
    places = dict.fromkeys(("TMPDIR", "STATE_DIRECTORY", "XDG_STATE_HOME"), str(folder))
    return subprocess.Popen(
        [*SOUNDPOST, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **places},
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[Any], str, list[Path]]:
    """Exit code, JSON lines, standard error and what is left of one whole demo."""
    folder: Path = tmp_path_factory.mktemp("demo")
    process = start(folder, "--json")
    out, err = process.communicate(timeout=300)
    return (
        process.returncode,
        [json.loads(line) for line in out.splitlines()],
        err,
        list(folder.iterdir()),
    )


Played = tuple[int, list[Any], str, list[Path]]


def test_it_ends_by_itself_with_its_totals(played: Played) -> None:
    code, lines, err, left = played
    assert code == 0
    assert left == []
    totals = lines[-1]
    print(totals)
    seconds = len(soundscape(0, 16_000)[0]) / 16_000
    assert totals["seconds_heard"] == pytest.approx(seconds)
    # Windows of 1.015 s every 0.25 s.
    assert totals["windows_scored"] == int((seconds - 1.015) / 0.25) + 1
    assert totals["alerts_received"] == len(lines) - 1 > 0
    # 0.05 s is asked of a machine that is not busy; the benchmarks print that.
    assert 0.0 < totals["delivered_median_s"] <= 0.5
    assert totals["delivered_worst_s"] >= totals["delivered_median_s"]
    assert "Traceback" not in err
    assert err.splitlines()[0].startswith("soundpost demo: bundle ")


def test_both_alarms_are_among_the_alerts_and_where_they_were_played(played: Played) -> None:
    _, lines, _, _ = played
    events = [SoundEvent.from_dict(line) for line in lines[:-1]]
    onsets = {event.label: event.sample / event.rate_hz for event in events[::-1]}
    truth = {label: onset_s for label, onset_s, _ in soundscape(0, 16_000)[1]}
    assert {"smoke_alarm", "co_alarm"} <= set(onsets)
    for label in ("smoke_alarm", "co_alarm"):
        assert onsets[label] == pytest.approx(truth[label], abs=0.1)


def test_every_alert_that_starts_ends(played: Played) -> None:
    _, lines, _, _ = played
    events = [SoundEvent.from_dict(line) for line in lines[:-1]]
    by_phase = {phase: [e.id for e in events if e.phase == phase] for phase in ("start", "end")}
    assert sorted(by_phase["start"]) == sorted(by_phase["end"])
    assert {line["label"] for line in lines[-1]["onset_to_alert_s"]} == {e.label for e in events}


def interrupted(
    folder: Path, after_s: float, which: signal.Signals, once_it_plays: bool = False
) -> None:
    process = start(folder)
    try:
        if once_it_plays:
            assert process.stdout is not None
            process.stdout.readline()
        # It is in our own code once numpy's libraries are mapped; before, it is Python's start.
        maps = Path(f"/proc/{process.pid}/maps")
        while "numpy" not in maps.read_text():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(after_s)
        told_s = time.monotonic()
        process.send_signal(which)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    print(f"{which.name} after {after_s:.2f} s: ended in {time.monotonic() - told_s:.2f} s")
    assert process.returncode == 130
    assert err == ""
    # Three seconds on a machine that is not busy.
    assert time.monotonic() - told_s < 15.0
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "after_s",
    [0.0, *(random.Random(count).uniform(0.1 * 2**count, 0.2 * 2**count) for count in range(6))],
)
def test_ctrl_c_ends_it_at_any_moment(after_s: float, tmp_path: Path) -> None:
    interrupted(tmp_path, after_s, signal.SIGINT)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_it_leaves_nothing_behind_when_it_is_terminated(tmp_path: Path) -> None:
    interrupted(tmp_path, 1.0, signal.SIGTERM, once_it_plays=True)


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    """As in `soundpost demo | head -1`."""
    process = start(tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("soundpost demo: ")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 0
    assert err == ""
    assert list(tmp_path.iterdir()) == []
