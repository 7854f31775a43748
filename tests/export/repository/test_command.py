"""`soundpost repo` as an operator types it."""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signed_repository import PASSPHRASE, bundle_bytes

from soundpost.device.errors import BundleError, InputError, SoundpostError, UsageError
from soundpost.device.updates.trusted_download import TrustedRepository
from soundpost.export.repository.command import COMMAND

Repo = Callable[..., Any]


@pytest.fixture
def repo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Repo:
    """Function that runs `soundpost repo` with these words, and reads its JSON."""
    monkeypatch.setenv("SOUNDPOST_REPO_PASSPHRASE", PASSPHRASE)

    def run(action: str, *words: object) -> Any:
        parser = argparse.ArgumentParser()
        COMMAND.add_arguments(parser)
        assert COMMAND.run(parser.parse_args([action, *map(str, words), "--json"])) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def bundle(memory_path: Path) -> Path:
    path = memory_path / "tiny.bundle"
    path.write_bytes(bundle_bytes("1.0.0"))
    return path


def test_from_the_ceremony_to_a_device(repo: Repo, memory_path: Path, bundle: Path) -> None:
    place, stick = memory_path / "models", memory_path / "stick"
    made = repo("init", place, "--root-keys-to", stick, "--device", "porch-pi")
    assert (made["root"], len(made["keys"])) == (str(place / "signed/1.root.json"), 6)
    repo("add", place, bundle, "--channel", "canary")
    assert repo("push", place)["targets"] == 2
    added = repo("add", place, bundle, "--channel", "stable", "--device", "porch-pi")
    assert (added["channels"], added["devices"]) == (["canary", "stable"], ["porch-pi"])
    repo("push", place)
    assert repo("status", place, "--channel", "stable")["channels"]["stable"]["version"] == "1.0.0"
    repo("unpin", place, "porch-pi")
    where = {row["role"]: bool(row["place"]) for row in repo("keys", place)}
    assert where == {"root": False, "targets": True, "snapshot": True, "timestamp": True}
    assert all(row["place"] for row in repo("keys", place, "--keys", stick))
    for role in ("root", "targets", "snapshot", "timestamp"):
        change = repo("rotate", place, role, "--keys", stick, "--new-keys-to", stick)
        assert change["missing"] == []
        repo("push", place, "--keys", stick)
    # Made, added to twice, unpinned from, signed by the next key: this is the sixth.
    assert repo("rotate", place, "targets", "--renew", "--keys", stick)["version"] == 6
    published = repo("push", place, "--keys", stick)
    assert (published["root"], published["notes"]) == (5, [])
    reader = TrustedRepository(
        str(place / "public"),
        (place / "signed/1.root.json").read_bytes(),
        memory_path / "device",
        synchronised=lambda: True,
    )
    (offer,) = reader.refresh()
    assert (offer.channels, offer.devices) == (("canary", "stable"), ())


def test_what_a_person_reads(
    repo: Repo, memory_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = memory_path / "models"
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)

    def said(*words: object) -> str:
        assert COMMAND.run(parser.parse_args([*map(str, words)])) == 0
        return capsys.readouterr().out

    assert f"give each device, by a way you trust: {place}/signed/1.root.json" in said(
        "init", place
    )
    assert said("add", place, bundle, "--channel", "stable").startswith(
        "signed in: tiny 1.0.0 for stable; `soundpost repo push"
    )
    assert said("push", place).startswith("published: root 1, models 2 (1 new files), snapshot 2")
    assert "  stable     tiny 1.0.0 (" in said("status", place)
    assert said("keys", place).count("2 must sign") == 3
    assert said("rotate", place, "root").endswith(
        "root 2 is staged and signed; `soundpost repo push` publishes it\n"
    )


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (["status", "{here}/none"], InputError, "none: is no repository"),
        (["push", "{repo}", "--keys", "{here}/none"], UsageError, "is the stick mounted?"),
        (["add", "{repo}", "{here}/none", "--channel", "stable"], InputError, "cannot be read (No"),
        (["add", "{repo}", "{here}/junk", "--channel", "stable"], BundleError, "or no bundle"),
        (["add", "{repo}", "{bundle}", "--channel", "x"], UsageError, "channel 'x' is not in"),
        (["add", "{repo}", "{bundle}", "--device", "x"], UsageError, "give --new-device if it is"),
        (["status", "{repo}", "--channel", "stable"], UsageError, "channel 'stable' is empty"),
        (["rotate", "{repo}", "targets", "--threshold", "2"], UsageError, "only for `rotate REPO"),
        (
            ["rotate", "{repo}", "root", "--renew", "--new-keys-to", "x"],
            UsageError,
            "makes no keys",
        ),
        (["sign", "{repo}"], UsageError, "no root waits for signatures"),
        (["init", "{repo}"], InputError, "is there already"),
        (["init", "{here}/new", "--threshold", "9"], UsageError, "3 root keys of which 9 sign"),
        (["init", "{here}/new", "--timestamp-days", "0"], UsageError, "days.timestamp is 0"),
        (["init", "{here}/file/new"], InputError, "cannot be made (Not a directory"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(
    repo: Repo,
    memory_path: Path,
    bundle: Path,
    words: list[str],
    kind: type[SoundpostError],
    told: str,
) -> None:
    repo("init", memory_path / "models")
    (memory_path / "junk").write_bytes(b"junk")
    (memory_path / "file").write_bytes(b"")
    names = {"here": memory_path, "repo": memory_path / "models", "bundle": bundle}
    before = {path: path.is_file() and path.read_bytes() for path in memory_path.rglob("*")}
    before.pop(memory_path / "models/.lock")
    with pytest.raises(kind) as error:
        repo(*(word.format(**names) for word in words))
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    after = {path: path.is_file() and path.read_bytes() for path in memory_path.rglob("*")}
    after.pop(memory_path / "models/.lock")
    assert after == before


PROGRAM = """
import argparse, sys
from soundpost.device.errors import SoundpostError
from soundpost.export.repository.command import COMMAND
parser = argparse.ArgumentParser()
COMMAND.add_arguments(parser)
try:
    COMMAND.run(parser.parse_args())
except SoundpostError as error:
    sys.exit(str(error))
"""


def test_an_operator_without_passphrase_or_terminal_is_told(memory_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "SOUNDPOST_REPO_PASSPHRASE"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "init", str(memory_path / "models")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "no passphrase for the keys: set SOUNDPOST_REPO_PASSPHRASE, or run this in a terminal\n"
    )
    assert list(memory_path.iterdir()) == []


@pytest.mark.parametrize(("again", "made"), [(PASSPHRASE, True), ("something else", False)])
def test_a_terminal_is_asked_twice_for_a_new_passphrase(
    memory_path: Path, again: str, made: bool
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "SOUNDPOST_REPO_PASSPHRASE"}
    child, terminal = pty.fork()
    if child == 0:
        words = [sys.executable, "-c", PROGRAM, "init", str(memory_path / "models")]
        os.execve(sys.executable, words, environment)
    shown = b""
    for prompt, answer in ((b"passphrase of the keys: ", PASSPHRASE), (b"once more: ", again)):
        while prompt not in shown:
            shown += os.read(terminal, 1_000)
        os.write(terminal, f"{answer}\n".encode())
    try:
        while block := os.read(terminal, 1_000):
            shown += block
    except OSError:
        pass  # Linux ends a terminal that nobody holds with an error.
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert (os.waitstatus_to_exitcode(status) == 0) is made, shown
    assert (memory_path / "models").exists() is made
    assert PASSPHRASE.encode() not in shown
