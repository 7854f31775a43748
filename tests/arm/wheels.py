"""Wheels of the device extra for another Python and machine, as constraints.txt pins them.

    python tests/arm/wheels.py --python 3.11 --machine aarch64             resolve, print the names
    python tests/arm/wheels.py --python 3.11 --machine aarch64 --dest DIR  and fetch them

Only wheels count: a Raspberry Pi must not compile. The C library is taken to be 2.34 or newer,
which Raspberry Pi OS 12, Debian 12, Ubuntu 22.04 and JetPack 6 have.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
# The C library versions that manylinux images were built on, up to that one.
GLIBC_MINORS = (5, 12, 17, 24, 26, 27, 28, 31, 34)


def applies(requirement: Requirement, python: str, machine: str) -> bool:
    """Whether a requirement's marker holds on the target."""
    target = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "implementation_name": "cpython",
        "extra": "",
    }
    return requirement.marker is None or requirement.marker.evaluate(target)


def device_requirements() -> list[Requirement]:
    """What soundpost[device,clips,metrics,updates] asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = list(project["dependencies"])
    for extra in ("device", "clips", "metrics", "updates"):
        lines += extras[extra]
    return [Requirement(line) for line in lines]


def constraints() -> list[Requirement]:
    """The pins of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def bare(requirement: Requirement) -> str:
    """A requirement without its marker, which pip would hold against the machine it runs on."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def pip_of(python: str) -> list[str]:
    """pip of the target's Python where there is one, as it judges markers by itself; else ours.

    (Ours with --python will not do: the pip of Debian 12 does not run on Python 3.13.)
    """
    found = subprocess.run(
        [ROOT / ".ci" / "find_python", python], capture_output=True, text=True, check=True
    ).stdout.strip()
    theirs = [found or sys.executable, "-m", "pip"]
    works = subprocess.run([*theirs, "--version"], capture_output=True, check=False)
    return theirs if works.returncode == 0 else [sys.executable, "-m", "pip"]


def fetch(python: str, machine: str, dest: Path | None, more: list[str]) -> list[str]:
    """Resolve (and fetch into dest) the device extra; return name==version of every wheel.

    Raises subprocess.CalledProcessError where a wheel is missing; pip has then said which.
    """
    tags = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC_MINORS]
    tags += [f"manylinux2014_{machine}", f"linux_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "constraints.txt")
        pins.write_text(
            "\n".join(bare(pin) for pin in constraints() if applies(pin, python, machine)),
            encoding="utf-8",
        )
        report = Path(folder, "report.json")
        asked = [
            bare(wanted)
            for wanted in [*device_requirements(), *map(Requirement, more)]
            if applies(wanted, python, machine)
        ]
        common = [
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
            "--implementation=cp",
            f"--python-version={python}",
            *(f"--platform={tag}" for tag in tags),
            f"--constraint={pins}",
            *asked,
        ]
        target = ["--dry-run", "--ignore-installed", f"--target={folder}", f"--report={report}"]
        subprocess.run([*pip_of(python), "install", *target, *common], check=True)
        if dest is not None:
            subprocess.run([*pip_of(python), "download", f"--dest={dest}", *common], check=True)
        wheels = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted(
        f"{wheel['metadata']['name']}=={wheel['metadata']['version']}" for wheel in wheels
    )


def main() -> None:
    """Resolve and print, or fetch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="3.10, 3.11, 3.12 or 3.13")
    parser.add_argument("--machine", required=True, choices=["aarch64", "x86_64"])
    parser.add_argument("--dest", type=Path, help="folder that receives the wheels")
    parser.add_argument("more", nargs="*", help="further requirements, such as pytest")
    options = parser.parse_args()
    try:
        wheels = fetch(options.python, options.machine, options.dest, options.more)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    print(f"Python {options.python} {options.machine}: {len(wheels)} wheels: {' '.join(wheels)}")


if __name__ == "__main__":
    main()
