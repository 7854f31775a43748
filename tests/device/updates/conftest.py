"""Helpers of this folder: a web server, repositories, power cuts."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from soundpost.device.errors import InputError

# signed_repository imports the operator's side, which needs no more than the updates extra.
for _name in ("kill_points", "web", "signed_repository", "simulated_sensor", "update_bench"):
    _specification = spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    assert _specification is not None
    assert _specification.loader is not None
    _module = module_from_spec(_specification)
    sys.modules[_name] = _module
    _specification.loader.exec_module(_module)


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Function that starts a `Web` over a folder."""
    started: list[Any] = []

    def start(*arguments: Any) -> Any:
        started.append(sys.modules["web"].Web(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where that can be had: a busy disk flushes for minutes."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="soundpost-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def bench(memory_path: Path) -> Any:
    """A simulated sensor and its repository."""
    return sys.modules["update_bench"].Bench(memory_path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Of the models and the state of updates: `full` says whether it takes anything."""
    from soundpost.device.updates import model_store, update_record

    found = SimpleNamespace(full=False)
    write = model_store.write_atomically

    def limited(path: Path, content: bytes, mode: int = 0o644) -> None:
        if found.full:
            raise InputError(f"{path}: cannot be written (No space left on device)")
        write(path, content, mode)

    for module in (model_store, update_record):
        monkeypatch.setattr(module, "write_atomically", limited)
    return found
