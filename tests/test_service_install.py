"""`soundpost service install` into the root folder of an image: from a clone to a sensor there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from soundpost.device.service import Layout

SYSTEM_PYTHON = "/usr/bin/python3"


def soundpost(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "soundpost.device", "service", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
        # The service's user reads what a careful root has written.
        umask=0o077,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(
    shutil.which("systemctl") is None, reason="systemctl is missing: sudo apt-get install systemd"
)
def test_from_nothing_to_a_sensor_and_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "root")
    # Two versions that ran before, of which the last is kept.
    for name in ("0.0.1-20250101T000000", "0.0.2-20250201T000000"):
        (layout.versions / name).mkdir(parents=True)
    layout.current.symlink_to("versions/0.0.2-20250201T000000")
    layout.settings.parent.mkdir(parents=True)
    layout.settings.write_text('device_id = "mine"\n', encoding="utf-8")

    told = soundpost("install", "--root", layout.root, "--python", SYSTEM_PYTHON)
    assert "installed; systemd does not run here" in told
    version = layout.current.resolve()
    assert {path.name for path in layout.versions.iterdir()} == {
        version.name,
        "0.0.2-20250201T000000",
    }
    # Settings that were there are as they were; the password is root's alone.
    assert layout.settings.read_text("utf-8") == 'device_id = "mine"\n'
    assert layout.password.stat().st_mode & 0o777 == 0o600
    # Enabled, by a path that holds in the image.
    wanted = layout.unit.parent / "multi-user.target.wants/soundpost.service"
    assert wanted.readlink() == Path("/etc/systemd/system/soundpost.service")
    # Everybody may read all of it, and nothing else is written to.
    for path in [layout.prefix, *layout.prefix.rglob("*")]:
        if not path.is_symlink():
            assert path.stat().st_mode & 0o044 == 0o044, path
    # The launcher names the place that the image will have.
    launcher = layout.launcher.read_text("utf-8")
    assert "exec /opt/soundpost/current/bin/python -I -m soundpost.device" in launcher
    assert os.access(layout.launcher, os.X_OK)

    # What the unit starts there knows every command, and hears nothing of this clone.
    python = layout.current / "bin/python"
    code = "import soundpost.device as d; print(d.__file__)"
    found = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.startswith(str(layout.prefix)), found
    checked = subprocess.run(
        [python, "-I", "-m", "soundpost.device", "bundle", "check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr

    soundpost("remove", "--root", layout.root)
    assert not layout.prefix.exists()
    assert not layout.unit.exists()
    assert not wanted.is_symlink()
    assert layout.settings.exists()
    soundpost("remove", "--purge", "--root", layout.root)
    assert not layout.settings.parent.exists()
