"""`soundpost service` up to where it would change this machine; test_service_install goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import Distribution, version
from pathlib import Path

import pytest

from soundpost.device.errors import InputError, ServiceError, UsageError
from soundpost.device.service import (
    Layout,
    Origin,
    Step,
    copy_source,
    find_origin,
    find_python,
    installed_versions,
    perform,
    removal,
)

PATIENCE_S = 120.0
SYSTEM_PYTHON = "/usr/bin/python3"


def service(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soundpost.device", "service", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        **options,  # type: ignore[call-overload]
    )


# --------------------------------------------------------------------------------- what and where


def installed(folder: Path, direct: dict[str, object] | None) -> Distribution:
    """A package as pip leaves it, with its direct_url.json (PEP 610)."""
    information = folder / "soundpost-1.2.3.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: soundpost\nVersion: 1.2.3\n"
    )
    if direct is not None:
        (information / "direct_url.json").write_text(json.dumps(direct))
    return Distribution.at(information)


def test_from_an_index(tmp_path: Path) -> None:
    assert find_origin(installed(tmp_path, None)) == Origin("1.2.3", "soundpost==1.2.3")


def test_from_a_clone_with_a_space_in_its_name(tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    direct = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    assert find_origin(installed(tmp_path, direct)) == Origin("1.2.3", folder=clone)


def test_from_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "soundpost-1.2.3-py3-none-any.whl"
    wheel.touch()
    direct: dict[str, object] = {"url": wheel.as_uri(), "archive_info": {}}
    assert find_origin(installed(tmp_path, direct)) == Origin("1.2.3", str(wheel))


def test_from_a_repository_and_from_an_address(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    direct: dict[str, object] = {
        "url": "https://example.org/soundpost.git",
        "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": commit},
    }
    expected = f"git+https://example.org/soundpost.git@{commit}"
    assert find_origin(installed(tmp_path, direct)).requirement == expected
    (tmp_path / "other").mkdir()
    address = "https://example.org/soundpost-1.2.3-py3-none-any.whl"
    other = installed(tmp_path / "other", {"url": address, "archive_info": {}})
    assert find_origin(other).requirement == address


def test_a_source_that_is_gone_is_said_with_another_way(tmp_path: Path) -> None:
    direct: dict[str, object] = {"url": (tmp_path / "gone").as_uri(), "dir_info": {}}
    with pytest.raises(InputError, match=r"gone: .*--wheels DIR"):
        find_origin(installed(tmp_path, direct))


def test_the_running_versions_are_the_constraints() -> None:
    lines = installed_versions().splitlines()
    assert f"numpy=={version('numpy')}" in lines
    assert not any(line.startswith("soundpost==") for line in lines)


@pytest.mark.parametrize("folder", ["/home/pi/.pyenv", "/root", "/tmp/x"])
def test_a_python_that_the_service_cannot_see(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", f"{folder}/bin/python3", raising=False)
    with pytest.raises(UsageError, match="--python /usr/bin/python3"):
        find_python()


def test_a_python_of_the_system_by_its_own_name() -> None:
    assert find_python(SYSTEM_PYTHON) == Path(SYSTEM_PYTHON).resolve()
    with pytest.raises(UsageError, match="no such program"):
        find_python("/nowhere/python")


def test_a_wheel_is_built_apart_from_the_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("device", "recordings", ".venv"):
        (clone / name).mkdir(parents=True)
        (clone / name / "file").touch()
    (clone / "README.md").touch()
    (clone / "LICENSE").touch()
    (clone / "pyproject.toml").write_text(
        '[project]\nreadme = "README.md"\nlicense-files = ["LICENSE"]\n'
        '[tool.setuptools.package-dir]\n"soundpost.device" = "device"\n'
    )
    copy = copy_source(clone, tmp_path / "copy")
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == [
        *("LICENSE", "README.md", "device", "device/file", "pyproject.toml")
    ]
    with pytest.raises(ServiceError, match="not the source of Soundpost"):
        copy_source(tmp_path, tmp_path / "other")


def test_the_step_that_fails_is_named_and_ends_it(tmp_path: Path) -> None:
    done: list[str] = []
    steps = [
        Step("first", lambda: done.append("first")),
        Step("write the unit", lambda: (tmp_path / "none" / "file").write_text("x")),
        Step("last", lambda: done.append("last")),
    ]
    with pytest.raises(ServiceError, match=r"write the unit: failed: .*No such file or directory"):
        perform(steps, done.append)
    assert done == ["first", "first", "write the unit"]


# ------------------------------------------------------------------------------------ the command


def test_a_dry_run_shows_steps_and_unit_and_changes_nothing(tmp_path: Path) -> None:
    told = service("install", "--dry-run", "--root", tmp_path, "--python", SYSTEM_PYTHON)
    assert told.returncode == 0, told.stderr
    assert "would make an environment with /usr/bin/python3" in told.stdout
    assert f"would write the settings {tmp_path}/etc/soundpost/soundpost.toml" in told.stdout
    assert "\nType=notify\n" in told.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_unit_of_somebody_else_stays(tmp_path: Path) -> None:
    unit = Layout(tmp_path).unit
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/home/pi/run\n", encoding="utf-8")
    told = service("install", "--root", tmp_path, "--python", SYSTEM_PYTHON)
    assert told.returncode == 2
    assert "was not written by `soundpost service install`: move it away" in told.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "etc"]


def test_wheels_that_are_not_there(tmp_path: Path) -> None:
    told = service("install", "--root", tmp_path, "--wheels", tmp_path, "--python", SYSTEM_PYTHON)
    assert (told.returncode, told.stderr) == (2, f"--wheels {tmp_path}: no wheels there\n")


def test_a_failed_upgrade_leaves_the_version_before(tmp_path: Path) -> None:
    """A folder with a wheel that is none: pip fails at once, without a network."""
    layout = Layout(tmp_path)
    before = layout.versions / "0.0.9-20260101T000000"
    before.mkdir(parents=True)
    layout.current.symlink_to("versions/0.0.9-20260101T000000")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "soundpost-0.0.1-py3-none-any.whl").write_bytes(b"no zip")
    told = service("install", "--root", tmp_path, "--wheels", wheels, "--python", SYSTEM_PYTHON)
    assert told.returncode == 11
    assert f"install {wheels} and the packages it needs: failed: " in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert "back to 0.0.9-20260101T000000" in told.stdout
    assert layout.current.resolve() == before
    assert list(layout.versions.iterdir()) == [before]
    assert not layout.unit.exists()


def test_who_may_not_is_told_how(tmp_path: Path) -> None:
    """Root becomes another user for this; another user is one already."""
    if os.geteuid() != 0:
        told = service("remove")
    else:
        # The test's own packages may lie in root's home, which nobody else can read.
        code = (
            "import os, sys; from soundpost.device.cli import main; "
            "import soundpost.device.commands.service; os.seteuid(65534); "
            "sys.argv = ['soundpost', 'service', 'remove']; main()"
        )
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    assert told.returncode == 2
    assert "which only root may: sudo " in told.stderr
    assert told.stderr.endswith("/soundpost service remove\n")


def test_remove_keeps_settings_and_state_unless_told(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for path in (layout.versions / "1", layout.settings.parent, *layout.state, layout.unit.parent):
        path.mkdir(parents=True)
    layout.current.symlink_to("versions/1")
    layout.settings.touch()
    foreign = layout.launcher
    foreign.parent.mkdir(parents=True)
    foreign.write_text("#!/bin/sh\necho another\n")
    perform(removal(layout, purge=False), lambda _text: None)
    assert not layout.prefix.exists()
    assert layout.settings.exists()
    assert all(path.exists() for path in layout.state)
    assert foreign.exists()
    perform(removal(layout, purge=True), lambda _text: None)
    assert not layout.settings.parent.exists()
    assert not any(path.exists() for path in layout.state)
    assert removal(layout, purge=True) == []
    assert service("remove", "--root", tmp_path).stdout == "nothing to remove\n"
