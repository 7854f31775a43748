import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from soundpost.device import platform_check
from soundpost.device.platform_check import platform_problem, refuse_unsupported_platform


@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_supported_pythons_pass(minor: int) -> None:
    assert platform_problem((3, minor), 64) is None


@pytest.mark.parametrize(
    ("python", "bits", "found", "remedy"),
    [
        ((3, 9), 64, "Python 3.9", "make PYTHON=python3.11"),
        ((2, 7), 64, "Python 2.7", "make PYTHON=python3.11"),
        # A 32-bit user land stays 32-bit whatever its Python: that is named first.
        ((3, 11), 32, "32-bit", "install the 64-bit"),
        ((3, 9), 32, "32-bit", "install the 64-bit"),
    ],
)
def test_others_are_refused_in_one_line(
    python: tuple[int, int], bits: int, found: str, remedy: str
) -> None:
    problem = platform_problem(python, bits)
    assert problem is not None
    assert found in problem
    assert remedy in problem
    assert "\n" not in problem


def test_the_interpreter_that_runs_the_tests_is_accepted() -> None:
    refuse_unsupported_platform()


def older_pythons() -> list[str]:
    """Real interpreters below 3.10 on this machine."""
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    found = [
        str(path)
        for root in roots
        for minor in (6, 7, 8, 9)
        for path in root.glob(f"3.{minor}.*/bin/python3.{minor}")
    ]
    return found + [path for minor in (7, 8, 9) if (path := shutil.which(f"python3.{minor}"))]


def test_the_file_runs_alone_on_pythons_too_old_to_install() -> None:
    # Where a machine has none, the syntax is still held to what Python 3.6 reads.
    source = Path(platform_check.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    for python in older_pythons():
        done = subprocess.run(
            [python, platform_check.__file__], capture_output=True, text=True, check=False
        )
        if "command exists in these Python versions" in done.stderr:
            continue  # a pyenv shim of a version that is not switched on
        assert done.returncode == 1
        assert done.stderr.startswith("this is Python 3.")
        assert done.stderr.count("\n") == 1
