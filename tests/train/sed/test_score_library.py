import importlib.util
import subprocess
import sys

import pytest

PROGRAM = """
import importlib.util, sys
from soundpost.train.sed.score_library import score_library
had = importlib.util.find_spec("pkg_resources") is not None
library = score_library()
assert library is score_library()
assert library.collar_based.fscore and library.intersection_based.psds
# Nobody else is told that there is a pkg_resources where there is none.
assert (importlib.util.find_spec("pkg_resources") is not None) == had
assert had or "pkg_resources" not in sys.modules
"""


def test_the_library_imports_with_and_without_pkg_resources():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_stand_in_is_still_needed():
    """When this fails, dcase_util imports without pkg_resources: the stand-in can go."""
    if importlib.util.find_spec("pkg_resources") is not None:
        pytest.skip("setuptools below 82 is installed, with pkg_resources")
    done = subprocess.run(
        [sys.executable, "-c", "import sed_scores_eval"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'pkg_resources'" in done.stderr
