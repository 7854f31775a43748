"""Helpers of tests/device/updates, which the operator's side is tested with too."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

for _name in ("kill_points", "signed_repository"):
    if _name not in sys.modules:
        _path = Path(__file__).parents[2] / "device" / "updates" / f"{_name}.py"
        _specification = spec_from_file_location(_name, _path)
        assert _specification is not None
        assert _specification.loader is not None
        _module = module_from_spec(_specification)
        sys.modules[_name] = _module
        _specification.loader.exec_module(_module)


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where that can be had: a busy disk flushes for minutes."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="soundpost-", dir=memory) as folder:
        yield Path(folder)
