import subprocess
import sys

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


# As with setuptools from 82 on, whichever is installed.
WITHOUT = "import sys; sys.modules['pkg_resources'] = None; import sed_scores_eval"


def test_the_stand_in_is_still_needed():
    """When this fails, dcase_util imports without pkg_resources: the stand-in can go."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "ModuleNotFoundError: import of pkg_resources halted" in done.stderr
