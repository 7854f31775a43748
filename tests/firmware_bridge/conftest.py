"""Helpers of several files of tests: arrays that are sent, real receivers, the C sender."""

from __future__ import annotations

import ctypes
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def load_helper(name: str) -> ModuleType:
    """A module of this folder that is no test: pytest's importlib mode has no path to it."""
    specification = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


load_helper("array_streams")
load_helper("hostile_packets")
load_helper("receivers")
load_helper("c_library")


@pytest.fixture(scope="session")
def c_build(tmp_path_factory: pytest.TempPathFactory) -> tuple[ctypes.CDLL, str]:
    """The C sender as a library, and what building it printed."""
    loaded: tuple[ctypes.CDLL, str] = sys.modules["c_library"].load(tmp_path_factory.mktemp("host"))
    return loaded


@pytest.fixture(scope="session")
def library(c_build: tuple[ctypes.CDLL, str]) -> ctypes.CDLL:
    """The C sender as a library."""
    return c_build[0]
