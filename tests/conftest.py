"""Settings of all tests, and `--device-only`: tests/device as on a sensor, with its extra alone.

Such an environment lacks what some tests compare with (librosa, torch, the train folder). A file
that imports one of those at its top is left out, and so is a test that imports one in its body or
has an absent runtime as its parameter; the run names them once it has collected the rest. Every
other missing module is a failure, as it should be.
"""

import ast
import inspect
import os
import signal
import tempfile
import textwrap
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Sensors of these tests are seen by no other, nor by those of tests that run beside them.
_RUNTIME = tempfile.TemporaryDirectory(prefix="soundpost-")
os.environ["XDG_RUNTIME_DIR"] = _RUNTIME.name
# One thread for each of the test processes, which share the cores: threads that wait for a core
# take forty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# tensorflow before it in one process breaks it (see load_model); which files share a process, and
# in which order, is chance.
if find_spec("tflite_runtime"):
    import_module("tflite_runtime.interpreter")
# A shell starts its background jobs with Ctrl-C ignored, and what they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Pace is measured by the benchmarks: a property holds on a loaded or emulated machine as well.
settings.register_profile(
    "soundpost", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("soundpost")

# Packages of other extras, by the name that is imported.
OTHERS = {"torch", "tensorflow", "onnx", "onnxruntime", "librosa", "sklearn", "matplotlib"}
OTHERS |= {"tflite_runtime", "safetensors", "pyroomacoustics", "av", "h5py", "acoular"}
# TFLite runtimes of other extras, as the parameter of a test.
RUNTIMES = {"tflite-runtime": "tflite_runtime", "tensorflow": "tensorflow"}
OTHER_FOLDERS = ("soundpost.train", "soundpost.export")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device-only",
        action="store_true",
        help="leave out the tests that need packages beyond the device extra",
    )


def beyond_the_device(body: list[ast.stmt]) -> set[str]:
    """Modules of other extras that these statements import (nested functions not looked into)."""
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names.add(statement.module)
    return {
        name
        for name in names
        if name.startswith(OTHER_FOLDERS)
        or (name.split(".")[0] in OTHERS and find_spec(name.split(".")[0]) is None)
    }


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--device-only") or collection_path.suffix != ".py":
        return None
    tree = ast.parse(collection_path.read_text(encoding="utf-8"))
    missing = beyond_the_device(tree.body)
    if missing:
        left_out(config).append(f"{collection_path.name} ({', '.join(sorted(missing))})")
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--device-only"):
        return
    kept, dropped = [], []
    for item in items:
        function = getattr(item, "function", None)
        missing: set[str] = set()
        if function is not None:
            source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
            definition = ast.parse(source).body[0]
            assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
            missing = beyond_the_device(definition.body)
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            wanted = [RUNTIMES.get(str(value)) for value in item.callspec.params.values()]
            missing |= {name for name in wanted if name and find_spec(name) is None}
        if missing:
            left_out(config).append(
                f"{getattr(item, 'originalname', item.name)} ({', '.join(sorted(missing))})"
            )
            dropped.append(item)
        else:
            kept.append(item)
    if dropped:
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)


_LEFT_OUT = pytest.StashKey[list[str]]()


def left_out(config: pytest.Config) -> list[str]:
    """What this run leaves out, with the modules it would need."""
    return config.stash.setdefault(_LEFT_OUT, [])


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    names = left_out(config)
    return (
        [f"left out, as they need other extras: {'; '.join(dict.fromkeys(names))}"] if names else []
    )
