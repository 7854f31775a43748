"""sed_scores_eval, the field's library for frame scores, brought in when a figure first needs it.

Ebbers, Serizel and Haeb-Umbach, "Threshold-independent evaluation of sound event detection scores"
(2022). It takes seconds to import, for it draws in sed_eval, dcase_util and librosa.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType


@cache
def score_library() -> ModuleType:
    """The imported package.

    dcase_util 0.2.20 imports pkg_resources, which setuptools has dropped since version 82, and uses
    it only to find its own example recordings and to list versions. An empty module stands in while
    it is imported, and only where the real one is gone: whatever used it would fail by name.
    """
    stands_in = importlib.util.find_spec("pkg_resources") is None
    if stands_in:
        sys.modules["pkg_resources"] = ModuleType("pkg_resources")
    try:
        return importlib.import_module("sed_scores_eval")
    finally:
        if stands_in:
            del sys.modules["pkg_resources"]
