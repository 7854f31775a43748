"""Programs that are run for alerts: what they are told, and that none of them holds anything up."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alert_examples import start_of

from soundpost.device import alert_program
from soundpost.device.alert_program import AlertProgram, environment_of
from soundpost.device.errors import UsageError
from soundpost.device.events import SoundEvent

END = replace(
    start_of("煙, 'x' $(id)"), phase="end", offset=start_of().onset + timedelta(seconds=4.25)
)


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def wait(met: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


class Faults(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


def test_values_are_in_the_environment_and_the_event_on_standard_input(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = "import json, os, sys; json.dump([dict(os.environ), sys.stdin.read(), sys.argv[1:]], "
    code += f"open({str(told)!r}, 'w'))"
    faults = Faults()
    with AlertProgram(f"{python(code)} 'two words' '$HOME'", on_fault=faults) as program:
        program.put(END)
    environment, stdin, arguments = json.loads(told.read_text())
    assert SoundEvent.from_json(stdin) == END
    # No shell has looked at them.
    assert arguments == ["two words", "$HOME"]
    told_of = {name: value for name, value in environment.items() if name.startswith("SOUNDPOST_")}
    assert told_of == environment_of(END)
    assert told_of["SOUNDPOST_LABEL"] == "煙, 'x' $(id)"
    assert told_of["SOUNDPOST_DURATION_S"] == "4.25"
    assert told_of["SOUNDPOST_OFFSET"] == "2026-11-20T10:00:05.500900Z"
    assert told_of["SOUNDPOST_CLIP"] == ""
    assert environment["PATH"] == os.environ["PATH"]
    assert (program.runs, program.failed, faults) == (1, 0, [])


def test_at_most_so_many_run_at_once_and_none_is_left_out(tmp_path: Path) -> None:
    """Each run counts those that run beside it by the files they hold."""
    code = (
        f"import os, pathlib, time; here = pathlib.Path({str(tmp_path)!r}); "
        "mine = here / f'run{os.getpid()}'; mine.touch(); "
        "n = len(list(here.glob('run*'))); time.sleep(0.1); mine.unlink(); "
        "(here / f'count{os.getpid()}').write_text(str(n))"
    )
    with AlertProgram(python(code), jobs=2, on_fault=Faults()) as program:
        began_s = time.monotonic()
        for _ in range(6):
            program.put(start_of())
        assert time.monotonic() - began_s < 0.1
    counts = [int(path.read_text()) for path in tmp_path.glob("count*")]
    assert len(counts) == 6
    assert max(counts) <= 2


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(7)", "ended with code 7"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("import sys; sys.stdin.close()", None),
    ],
)
def test_a_run_that_fails_is_reported_and_counted(
    code: str, said: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    faults = Faults()
    with AlertProgram(python(code), on_fault=faults) as program:
        program.put(start_of("dog"))
        wait(lambda: program.runs == 1)
    assert faults == ([] if said is None else [f"dog start: {said}"])
    told = f" (the last: dog start: {said})" if said else ""
    assert capfd.readouterr().err == f"exec: 1 run, {len(faults)} failed{told}\n"


def test_a_run_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    code = (
        f"import os, subprocess, sys; it = subprocess.Popen([sys.executable, '-c', {stubborn!r}]); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{it.pid}}'); {stubborn}"
    )
    faults = Faults()
    with AlertProgram(python(code), limit_s=1.5, on_fault=faults) as program:
        program.put(start_of("dog"))
        wait(lambda: program.runs == 1)
    assert faults == ["dog start: ended after 1.5 s, its time limit"]

    def gone(pid: int) -> bool:
        state = Path(f"/proc/{pid}/stat")
        # A zombie has ended, and waits for whatever process adopted it.
        try:
            return state.read_text().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return True

    for pid in map(int, pids.read_text().split()):
        wait(lambda pid=pid: gone(pid))  # type: ignore[misc]


def test_too_many_that_wait_are_left_out_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_program, "MAX_WAITING", 5)
    faults = Faults()
    program = AlertProgram(python("import time; time.sleep(600)"), jobs=1, on_fault=faults)
    began_s = time.monotonic()
    for _ in range(20):
        program.put(start_of())
    assert time.monotonic() - began_s < 1
    assert program.dropped >= 14
    assert len(faults) == 1
    assert "5 alerts wait" in faults[0]
    program.close(finish=False)
    assert time.monotonic() - began_s < 30
    assert f"{program.dropped} left out" in program.summary()


def test_an_error_ends_the_runs_at_once() -> None:
    began_s = time.monotonic()
    program = AlertProgram(python("import time; time.sleep(600)"), on_fault=Faults())
    for _ in range(10):
        program.put(start_of())
    program.__exit__(KeyboardInterrupt)
    assert time.monotonic() - began_s < 30
    assert all(not thread.name.startswith("exec-") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "is empty"),
        ("no-such-program-here x", "there is no program 'no-such-program-here'"),
        ("echo 'open", "close the quotes"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_first_alert(command: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AlertProgram(command, on_fault=Faults())


def test_ctrl_c_in_a_terminal_is_not_for_the_runs(tmp_path: Path) -> None:
    """They are in a group of their own: a sync that has begun is not cut off by our Ctrl-C."""
    told = tmp_path / "group"
    with AlertProgram(
        python(f"import os; open({str(told)!r}, 'w').write(str(os.getpgid(0)))"), on_fault=Faults()
    ) as program:
        program.put(start_of())
    assert int(told.read_text()) != os.getpgid(0)


def test_an_alert_that_no_program_can_be_told_of_takes_no_place_from_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = tmp_path / "told"
    faults = Faults()
    with AlertProgram(shlex.join(["touch", str(told)]), jobs=2, on_fault=faults) as program:
        for _ in range(4):
            # Half a character, as no message brings it: reading refuses that.
            program.put(start_of("dog", clip="\ud800"))
        wait(lambda: program.failed == 4)
        assert not told.exists()
        program.put(start_of())
    assert told.exists()
    assert (program.runs, program.failed) == (5, 4)
    assert len(faults) == 4
    assert faults[0].startswith("dog start: fault in soundpost: UnicodeEncodeError")
    assert "Traceback" in caplog.text


def test_output_goes_where_it_is_sent(tmp_path: Path) -> None:
    with (
        (tmp_path / "out").open("wb") as file,
        AlertProgram("echo heard", output=file.fileno(), on_fault=Faults()) as program,
    ):
        program.put(start_of())
    assert (tmp_path / "out").read_text() == "heard\n"
