"""The `soundpost` command as a program: what it lists, how it ends, what it says when it cannot."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.device import __version__, errors
from soundpost.device.cli import GROUP, load_command, run
from soundpost.device.command import Command

SOUNDPOST = [sys.executable, "-m", "soundpost.device"]
COMMANDS = [
    *("demo", "run", "devices", "top", "doctor", "service", "alerts", "replay"),
    *("config", "command", "bundle", "repo", "fleet", "collect"),
    *("record", "session", "images", "calibrate", "array", "scene"),
    *("soundscapes", "dataset", "train", "distil", "evaluate", "export"),
]


def soundpost(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SOUNDPOST, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def listed(text: str) -> list[str]:
    """Names below `commands:` up to the next blank line."""
    (block,) = re.findall(r"^commands:\n((?:  .+\n)+)", text, re.MULTILINE)
    return [line.split()[0] for line in block.splitlines()]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_every_command_in_the_order_of_use(arguments: list[str]) -> None:
    done = soundpost(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(done.stdout) == COMMANDS


def test_help_gives_the_exit_codes_of_the_errors() -> None:
    """Each code of a class in errors.py stands in the table, and what is no error; no more."""
    text = soundpost("--help").stdout
    table = text[text.index("exit codes:") :]
    shown = {int(code) for code in re.findall(r"^  (\d+) ", table, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.SoundpostError)}
    # 9, 10: what `doctor` found; 124: `alerts --timeout` and `command --timeout`. No errors.
    assert shown == codes | {0, 9, 10, 124, 130}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((SystemExit, errors.MissingExtraError)) as end:
        run([name, "--help"])
    if isinstance(end.value, errors.MissingExtraError):
        # Where the device stands alone; test_packaging holds what it says.
        assert name in ("soundscapes", "dataset", "train", "distil", "evaluate", "export")
        assert find_spec("torch") is None
        return
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"\n  soundpost {name}" in text[text.index("examples:") :]


def test_version() -> None:
    done = soundpost("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"soundpost {__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("replya", "soundpost: no command 'replya'; did you mean replay?\n"),
        ("evalute", "soundpost: no command 'evalute'; did you mean evaluate?\n"),
        (
            "--frobnicate",
            f"soundpost: no command '--frobnicate'; known: {', '.join(sorted(COMMANDS))}\n",
        ),
    ],
)
def test_an_unknown_command_names_the_nearest(typed: str, said: str) -> None:
    done = soundpost(typed, "street.wav")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_an_unknown_option_is_a_usage_error() -> None:
    done = soundpost("replay", "street.wav", "--frobnicate")
    assert done.returncode == 2
    assert done.stderr.endswith("unrecognized arguments: --frobnicate\n")


# ------------------------------------------------------------------------------- what is missing


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., list[str]]:
    """The command in an environment that holds everything but the named packages.

    A folder of links to what is installed takes the place of site-packages, which is left out by
    `python -S`: the packages are not hidden, they are not there.
    """

    def command(*packages: str) -> list[str]:
        here = tmp_path / "site-packages"
        here.mkdir()
        for place in [path for path in map(Path, sys.path) if path.name == "site-packages"]:
            for entry in place.iterdir():
                if entry.name not in packages and not (here / entry.name).exists():
                    (here / entry.name).symlink_to(entry)
        code = f"import site; site.addsitedir({str(here)!r}); "
        return [sys.executable, "-S", "-c", f"{code}from soundpost.device.cli import main; main()"]

    return command


def test_help_lists_the_commands_of_absent_extras(without: Callable[..., list[str]]) -> None:
    command = without("torch", "tensorflow", "safetensors", "onnx", "matplotlib", "tqdm")
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(done.stdout) == COMMANDS
    (replay,) = [line for line in done.stdout.splitlines() if line.startswith("  replay ")]
    assert replay == "  replay     (pip install 'soundpost[device]')"


def test_a_package_missing_when_the_command_is_loaded(without: Callable[..., list[str]]) -> None:
    command = [*without("tqdm"), "replay", "street.wav"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = "soundpost replay: needs the package tqdm: pip install 'soundpost[device]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (7, "", expected)


def test_a_package_missing_while_it_runs(
    without: Callable[..., list[str]], tiny_bundle: Path
) -> None:
    command = [*without("soundfile.py"), "replay", "street.wav", "--bundle", str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert done.stderr == (
        "soundpost replay: needs the package soundfile: pip install 'soundpost[device]'\n"
    )


def test_no_runtime_is_one_line(without: Callable[..., list[str]], tiny_bundle: Path) -> None:
    command = without("ai_edge_litert", "tflite_runtime", "tensorflow")
    done = subprocess.run(
        [*command, "replay", "street.wav", "--bundle", str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert "install soundpost[device]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_module_of_our_own_that_is_missing_is_a_fault() -> None:
    """It is not blamed on an extra that would not help."""
    with pytest.raises(ModuleNotFoundError, match=r"soundpost\.device\.nowhere"):
        load_command(EntryPoint("x", "soundpost.device.nowhere:COMMAND", GROUP))


def test_an_entry_point_that_is_no_command_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="is not a Command"):
        load_command(EntryPoint("x", "soundpost.device.cli:GROUP", GROUP))


# ------------------------------------------------------------------------------- where output goes


@pytest.fixture
def noisy_wav(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    sound = 0.1 * np.random.default_rng(1).standard_normal(16_000 * 5)
    soundfile.write(path, sound, 16_000)
    return path


@pytest.mark.parametrize("arguments", [["--help"], ["replay", "--help"], ["replay"]])
def test_a_reader_that_goes_away_is_no_error(
    arguments: list[str], noisy_wav: Path, tiny_bundle: Path
) -> None:
    if arguments == ["replay"]:
        arguments = ["replay", str(noisy_wav), "--bundle", str(tiny_bundle)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*SOUNDPOST, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("arguments", [["--help"], ["replay"]])
def test_a_full_disk_under_the_output_is_one_line(
    arguments: list[str], noisy_wav: Path, tiny_bundle: Path
) -> None:
    if arguments == ["replay"]:
        arguments = ["replay", str(noisy_wav), "--bundle", str(tiny_bundle)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*SOUNDPOST, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "soundpost: cannot write the output (No space left on device); free some space, then run "
        "the same command again"
    )
    assert "Traceback" not in done.stderr


def test_output_that_is_closed_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *SOUNDPOST, "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------- before numpy


def test_threads_are_bounded_before_numpy_reads_the_environment() -> None:
    """BLAS reads its number of threads once, when numpy is imported; a user's choice stands."""
    code = """
import os, sys
import soundpost.device.cli as cli
assert "numpy" not in sys.modules
sys.argv = ["soundpost", "--version"]
try:
    cli.main()
except SystemExit:
    print(os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"])
"""
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    for given, expected in [({}, "1 1"), ({"OMP_NUM_THREADS": "3"}, "3 1")]:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**environment, **given},
        )
        assert done.stdout.splitlines()[-1] == expected


def test_every_command_of_this_folder_is_reachable() -> None:
    package = importlib.import_module("soundpost.device.commands")
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        assert isinstance(module.COMMAND, Command)
        assert found.name in COMMANDS
