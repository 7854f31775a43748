"""The wheel, installed where nothing else is: what users get, not what the checkout holds."""

import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("device", "firmware_bridge", "calibration", "train", "export")
PINS = ROOT / "constraints.txt"
# The folders of the right-hand extras; the other three must import with the device extra alone.
HEAVY = ("soundpost.train", "soundpost.export")
# Modules that need an extra beside the device: without it they are not imported.
OPTIONAL = (*HEAVY, "soundpost.device.metrics", "soundpost.device.updates.trusted_download")


def python_runs(python: Path, code: str, *arguments: str, **environment: str) -> str:
    """Standard output of a program in a fresh interpreter, outside the checkout."""
    done = subprocess.run(
        [python, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def source_files() -> list[str]:
    """What git tracks or would track below the package folders and beside them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@dataclass(frozen=True)
class Installed:
    """A bare environment that holds the wheel and its device extra."""

    python: Path
    site_packages: Path

    @property
    def command(self) -> Path:
        return self.python.parent / "soundpost"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, which is built from a copy of the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in source_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    dist = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", dist, copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", PINS, f"{wheel}[device]"], check=True)
    (site_packages,) = folder.glob("lib/python3.*/site-packages")
    return Installed(python, site_packages)


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's own files, to put before the editable install of the environment at hand."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


# ------------------------------------------------------------------------------- what it holds


def test_the_wheel_holds_every_file_of_the_folders_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"soundpost/{name}" for name in source_files() if name.split("/")[0] in FOLDERS}
    assert names == expected


def test_every_folder_is_marked_as_typed(unpacked: Path) -> None:
    assert all((unpacked / "soundpost" / folder / "py.typed").is_file() for folder in FOLDERS)


def test_the_wheel_carries_licence_and_python_bound(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata


# ------------------------------------------------------------------------------- what imports

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import soundpost
failed, names = {}, []
def visit(package):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        names.append(found.name)
        # A __main__ is a program: importing it runs it.
        if found.name.endswith(".__main__") or found.name.startswith(tuple(sys.argv[2:])):
            continue
        try:
            module = importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            failed[found.name] = error.name
            continue
        if found.ispkg:
            visit(module)
visit(soundpost)
print(json.dumps({
    "where": list(soundpost.__path__), "names": names, "failed": failed,
    "heavy": sorted({"torch", "tensorflow", "scipy.signal", "_sounddevice"} & set(sys.modules)),
}))
"""


def test_every_module_imports_with_the_extras_it_belongs_to(bare: Installed) -> None:
    """With the device extra alone, only train and export may miss packages, and only known ones."""
    told = json.loads(python_runs(bare.python, IMPORT_ALL))
    assert [Path(place) for place in told["where"]] == [bare.site_packages / "soundpost"]
    assert {f"soundpost.{folder}" for folder in FOLDERS} <= set(told["names"])
    assert [name for name in told["failed"] if not name.startswith(OPTIONAL)] == []
    assert [name for name in told["failed"].values() if name.startswith("soundpost")] == []


def test_every_module_of_the_wheel_imports_where_everything_is_installed(unpacked: Path) -> None:
    told = json.loads(python_runs(Path(sys.executable), IMPORT_ALL, PYTHONPATH=str(unpacked)))
    assert told["where"][0] == str(unpacked / "soundpost")
    assert told["failed"] == {}


def test_the_device_pulls_in_nothing_heavy_where_everything_is_installed(unpacked: Path) -> None:
    told = json.loads(
        python_runs(Path(sys.executable), IMPORT_ALL, "--", *OPTIONAL, PYTHONPATH=str(unpacked))
    )
    assert "soundpost.device.features" in told["names"]
    assert told["heavy"] == []


def test_every_entry_point_loads_or_names_its_extra(bare: Installed) -> None:
    code = """
import json
from importlib.metadata import distribution
told = []
for point in distribution("soundpost").entry_points:
    try:
        point.load()
    except ModuleNotFoundError as error:
        told.append([point.name, point.extras, error.name])
print(json.dumps(told))
"""
    for name, extras, missing in json.loads(python_runs(bare.python, code)):
        assert extras, f"{name} needs {missing} and names no extra"
        assert not missing.startswith("soundpost"), f"{name} names a module that does not exist"


# ------------------------------------------------------------------------------- what is missing


def without_portaudio(command: list[str | Path]) -> list[str | Path]:
    """The command, run where the dynamic loader cannot find PortAudio.

    A mount namespace of its own hides the library and the loader's cache from it, as they are on
    a system that never had the package.
    """
    name = ctypes.util.find_library("portaudio")
    if name is None:
        return command
    places = ["/usr/lib", "/lib", "/usr/local/lib"]
    libraries = [str(path) for place in places for path in Path(place).rglob("libportaudio.so*")]
    hide = " && ".join(
        f"mount --bind /dev/null {path}" for path in ["/etc/ld.so.cache", *libraries]
    )
    namespace = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    if subprocess.run([*namespace, "sh", "-c", hide], capture_output=True).returncode:
        pytest.skip("PortAudio cannot be hidden without root: sudo make test")
    return [*namespace, "sh", "-c", f'{hide} && exec "$@"', "sh", *command]


def test_the_device_works_without_portaudio(bare: Installed) -> None:
    def told(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            without_portaudio(list(command)), capture_output=True, text=True, cwd="/", check=False
        )

    # The absence is real: the library itself refuses.
    refused = told(bare.python, "-c", "import sounddevice")
    assert "OSError" in refused.stderr
    imported = told(bare.python, "-c", IMPORT_ALL, "--", *OPTIONAL)
    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["failed"] == {}
    listed = told(bare.command, "devices")
    assert listed.returncode == 5
    assert "sudo apt-get install libportaudio2" in listed.stderr
    assert listed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["train", "recipe.toml", "--data", "clips", "--out", "run"], "train"),
        (["evaluate", "run", "--data", "clips"], "train"),
        (["soundscapes", "esc50_scenes", "--data", "clips", "--out", "set"], "train"),
        (["export", "run", "--out", "student.bundle"], "export"),
        (["repo", "status", "models"], "updates"),
    ],
)
def test_a_missing_extra_is_one_line(bare: Installed, command: list[str], extra: str) -> None:
    done = subprocess.run(
        [bare.command, *command], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 7
    assert f"soundpost[{extra}]" in done.stderr
    assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------- what is pinned


def pins() -> dict[str, str]:
    """Version of each pinned project on the Python at hand."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    applying = [pin for pin in wanted if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in applying}


LIST_INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps([[d.metadata["Name"], d.version, d.requires or []] for d in distributions()]))
"""


def needed(python: Path, extras: set[str]) -> dict[str, str]:
    """Version of every installed project that soundpost with these extras asks for, in the end.

    What a developer adds beside it (a debugger, say) is nobody's business.
    """
    listed = json.loads(python_runs(python, LIST_INSTALLED))
    projects = {canonicalize_name(name): (version, lines) for name, version, lines in listed}
    found: dict[str, str] = {}
    visited: set[tuple[str, str]] = set()
    ahead = [("soundpost", extra) for extra in ("", *extras)]
    while ahead:
        name, extra = ahead.pop()
        if (name, extra) in visited or name not in projects:
            continue
        visited.add((name, extra))
        version, lines = projects[name]
        found[name] = Version(version).public
        for wanted in map(Requirement, lines):
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                project = canonicalize_name(wanted.name)
                ahead += [(project, more) for more in ("", *wanted.extras)]
    # PyTorch's CUDA build brings libraries that it pins itself; the CPU build has none.
    own = re.compile(r"soundpost|nvidia-.*|cuda-.*|triton")
    return {name: version for name, version in found.items() if not own.fullmatch(name)}


@pytest.mark.parametrize("environment", ["bare", "full"])
def test_everything_needed_is_pinned_and_installed_as_pinned(
    environment: str, bare: Installed
) -> None:
    extras = {"device", "tflite", "array", "updates", "train", "export", "dev"}
    if environment == "bare":
        found = needed(bare.python, {"device"})
    else:
        found = needed(Path(sys.executable), extras)
        assert "torch" in found
    assert "ai-edge-litert" in found
    assert {name: pins().get(name) for name in found} == found


def test_no_project_is_pinned_twice_for_one_python() -> None:
    lines = PINS.read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for python in ("3.10", "3.11", "3.12", "3.13"):
        names = [
            canonicalize_name(pin.name)
            for pin in wanted
            if pin.marker is None or pin.marker.evaluate({"python_version": python})
        ]
        assert sorted(set(names)) == sorted(names)


def test_the_device_extra_resolves_to_wheels_on_every_supported_python() -> None:
    targets = [
        (python, machine)
        for python in ("3.10", "3.11", "3.12", "3.13")
        for machine in ("x86_64", "aarch64")
    ]

    def resolve(target: tuple[str, str]) -> subprocess.CompletedProcess[str]:
        python, machine = target
        script = ROOT / "tests" / "arm" / "wheels.py"
        return subprocess.run(
            [sys.executable, script, "--python", python, "--machine", machine],
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(4) as pool:
        for (python, machine), done in zip(targets, pool.map(resolve, targets), strict=True):
            assert done.returncode == 0, f"{python} {machine}: {done.stderr}"
            numpy = "numpy==1.26.4" if python != "3.13" else "numpy==2."
            assert numpy in done.stdout


def test_the_device_extra_stays_within_its_budget(bare: Installed) -> None:
    script = ROOT / "tests" / "benchmarks" / "installed_size.py"
    told = subprocess.run(
        [sys.executable, script, bare.site_packages], capture_output=True, text=True, check=True
    ).stdout
    total = re.search(r"([\d.]+) MB  total", told)
    assert total is not None
    assert float(total[1]) <= 300, told


def test_the_version_is_one(bare: Installed) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    code = "import soundpost.device as d; print(d.__version__)"
    assert python_runs(bare.python, code).strip() == project["version"]
