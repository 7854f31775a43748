"""The guards themselves: each refuses what it is there to refuse."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("device", "firmware_bridge", "calibration", "train", "export")
BIN = Path(sys.executable).parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project's settings over packages that hold nothing but what a test adds."""
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    for folder in FOLDERS:
        package = tmp_path / "soundpost" / folder
        package.mkdir(parents=True)
        (package / "__init__.py").write_text('"""Empty."""\n', encoding="utf-8")
    shutil.copy2(ROOT / "device" / "command.py", tmp_path / "soundpost" / "device")
    return tmp_path


def run_in(checkout: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(checkout), "MYPYPATH": str(checkout)},
    )


@pytest.mark.parametrize(
    ("folder", "line", "contract"),
    [
        ("device", "import soundpost.train", "imports point towards the device"),
        ("calibration", "import soundpost.train", "imports point towards the device"),
        ("train", "from soundpost import export", "imports point towards the device"),
        ("device", "import torch.nn", "the device stays light"),
        ("device", "def late():\n    import tensorflow", "the device stays light"),
        ("train", "import ai_edge_litert.interpreter", "one module knows the TFLite runtimes"),
        ("device", "import tflite_runtime", "one module knows the TFLite runtimes"),
    ],
)
def test_imports_against_the_rules_are_refused(
    checkout: Path, folder: str, line: str, contract: str
) -> None:
    (checkout / "soundpost" / folder / "wrong.py").write_text(line + "\n", encoding="utf-8")
    told = run_in(checkout, BIN / "lint-imports", "--no-cache")
    assert told.returncode == 1, told.stdout + told.stderr
    assert f"{contract} BROKEN" in told.stdout
    assert "1 broken" in told.stdout


def test_imports_towards_the_device_pass(checkout: Path) -> None:
    right = {
        "export": "import soundpost.train\nimport torch",
        "train": "import soundpost.device",
        "device": "import numpy",
    }
    for folder, lines in right.items():
        (checkout / "soundpost" / folder / "right.py").write_text(lines, encoding="utf-8")
    told = run_in(checkout, BIN / "lint-imports", "--no-cache")
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bare_import_of_a_folder_is_refused(checkout: Path, folder: str) -> None:
    (checkout / "wrong.py").write_text(f'"""Wrong."""\nimport {folder}\n', encoding="utf-8")
    told = run_in(checkout, BIN / "ruff", "check", "--no-cache", "wrong.py")
    assert told.returncode == 1
    assert "TID251" in told.stdout


def test_types_are_followed_from_one_folder_into_another(checkout: Path) -> None:
    (checkout / "soundpost" / "train" / "wrong.py").write_text(
        "from soundpost.device.command import Command\n\nCommand(1, 2, 3, 4)\n", encoding="utf-8"
    )
    told = run_in(checkout, BIN / "mypy", "--cache-dir", os.devnull, "--package", "soundpost")
    assert told.returncode == 1, told.stdout + told.stderr
    assert 'Argument 1 to "Command" has incompatible type "int"; expected "str"' in told.stdout


def test_a_python_is_found_by_its_version_and_never_by_its_name_alone() -> None:
    def found(version: str) -> str:
        return subprocess.run(
            [ROOT / ".ci" / "find_python", version], capture_output=True, text=True, check=True
        ).stdout.strip()

    asked = f"{sys.version_info[0]}.{sys.version_info[1]}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    told = subprocess.run([found(asked), "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == asked
    assert found("3.99") == ""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("def test_one(): pass", 0),
        ("def test_one(): pass\ndef test_two(): __import__('pytest').skip('no broker')", 1),
        ("import pytest\npytest.skip('no broker', allow_module_level=True)", 1),
        ("def helper(): pass", 1),
    ],
)
def test_the_build_server_notices_every_skip(tmp_path: Path, body: str, code: int) -> None:
    (tmp_path / "test_it.py").write_text(body, encoding="utf-8")
    report = tmp_path / "reports" / "unit.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "test_it.py"]
    run_in(tmp_path, *command)
    told = run_in(tmp_path, sys.executable, ROOT / ".ci" / "no_skips", report.parent)
    assert told.returncode == code, told.stdout + told.stderr
    assert ("no broker" in told.stderr) == ("no broker" in body)
