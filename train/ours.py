"""Files of ours that a command takes by name: recipes, settings of soundscapes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from soundpost.device.errors import UsageError


def path_of_ours(name: str, package: str, what: str) -> Path:
    """A TOML file by its path, or one of a package by its name.

    Parameters
    ----------
    package : such as "soundpost.train.recipes"
    what : the file is, in the message of the UsageError where there is no such name
    """
    path = Path(name)
    # A folder may be called like a recipe: the data set that it learns from, for example.
    if path.suffix == ".toml" or path.is_file():
        return path
    ours = resources.files(package)
    found = Path(str(ours / f"{name}.toml"))
    if not found.is_file():
        names = sorted(
            entry.name.removesuffix(".toml")
            for entry in ours.iterdir()
            if entry.name.endswith(".toml")
        )
        raise UsageError(f"no {what} {name}; ours: {', '.join(names)}; or give a TOML file")
    return found
