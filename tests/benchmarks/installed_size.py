"""Prints what the device extra occupies when installed, without bytecode.

python tests/benchmarks/installed_size.py                 in a fresh environment
python tests/benchmarks/installed_size.py SITE_PACKAGES   of one that exists
"""

import subprocess
import sys
import tempfile
import venv
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What `python -m venv` itself puts there.
INSTALLERS = {"pip", "setuptools", "pkg_resources", "_distutils_hack"}


def sizes(site_packages: Path) -> Counter[str]:
    """Bytes of each top-level entry, bytecode and installers left out."""
    found: Counter[str] = Counter()
    for path in site_packages.rglob("*"):
        top = path.relative_to(site_packages).parts[0]
        if top.split("-")[0] in INSTALLERS or "__pycache__" in path.parts:
            continue
        if path.is_file() and not path.is_symlink():
            found[top] += path.stat().st_size
    return found


def report(site_packages: Path) -> None:
    """Print the largest entries and the total."""
    found = sizes(site_packages)
    for name, size in found.most_common(10):
        print(f"{size / 1e6:8.1f} MB  {name}")
    total = found.total()
    print(f"{total / 1e6:8.1f} MB  total ({total / 2**20:.1f} MiB), budget 300 MB")


def main() -> None:
    """Measure the given site-packages, or those of a fresh environment."""
    if len(sys.argv) > 1:
        report(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [Path(folder, "bin", "python"), "-m", "pip", "install", "--quiet"]
        pins = ["--disable-pip-version-check", "--constraint", ROOT / "constraints.txt"]
        subprocess.run([*pip, *pins, f"{ROOT}[device]"], check=True)
        report(next(Path(folder).glob("lib/python3.*/site-packages")))


if __name__ == "__main__":
    main()
