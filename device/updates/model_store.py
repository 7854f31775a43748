"""The models that this device keeps: the one that runs, the one before it, the one to try.

    models/<sha256>.bundle    content that nobody changes
    models.json               which of them is what

Each step writes files under new names first, then replaces models.json, then removes what it no
longer names: a power cut at any instant leaves the state from before the step or from after it.
The last model that proved itself is named until another one has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from soundpost.device.errors import InputError, UpdateDeferredError
from soundpost.device.files import write_atomically
from soundpost.device.manifest import VERSION
from soundpost.device.updates.offers import Installed

_LOGGER = logging.getLogger(__name__)

SCHEMA = "soundpost.models/1"
# What the outbox, the log and the event clips of a sensor must still find room in.
RESERVE_BYTES = 32_000_000
# Of the models that were taken back, those that a repository may still offer.
_MAX_REJECTED = 100
_HEX = set("0123456789abcdef")


@dataclass(frozen=True)
class StoreState:
    """Which model is what.

    current : runs, or is to; None: the one that the settings name
    previous : the last one that proved itself before current; None: the one that the settings name
    candidate : fetched and verified, not yet run
    confirmed : whether current has proved itself; else it is on probation
    rejected : sha256 of models that were taken back here, the oldest first
    """

    current: Installed | None = None
    previous: Installed | None = None
    candidate: Installed | None = None
    confirmed: bool = True
    rejected: tuple[str, ...] = ()

    @property
    def kept(self) -> set[str]:
        """sha256 of every model that must stay on disk."""
        named = (self.current, self.previous, self.candidate)
        return {model.sha256 for model in named if model is not None}

    def to_json(self) -> bytes:
        """Content of models.json."""
        table = {
            "schema": SCHEMA,
            **{role: _to_table(getattr(self, role)) for role in _ROLES},
            "confirmed": self.confirmed,
            "rejected": list(self.rejected),
        }
        return f"{json.dumps(table, indent=1)}\n".encode()

    @classmethod
    def from_json(cls, content: bytes) -> StoreState:
        """Read models.json; raises ValueError where it is not what `to_json` writes."""
        table = json.loads(content)
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            raise ValueError(f"is not of schema '{SCHEMA}'")
        rejected = table.get("rejected")
        if not isinstance(rejected, list) or not all(_is_sha256(one) for one in rejected):
            raise ValueError("rejected is no list of sha256")
        if type(table.get("confirmed")) is not bool:
            raise ValueError("confirmed is neither true nor false")
        models = {role: _from_table(table.get(role), role) for role in _ROLES}
        return cls(confirmed=table["confirmed"], rejected=tuple(rejected), **models)


_ROLES = ("current", "previous", "candidate")


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX


def _to_table(model: Installed | None) -> dict[str, str] | None:
    if model is None:
        return None
    return {"name": model.name, "version": model.version, "sha256": model.sha256}


def _from_table(table: Any, role: str) -> Installed | None:
    if table is None:
        return None
    if not (
        isinstance(table, dict)
        and _is_sha256(table.get("sha256"))
        and isinstance(table.get("name"), str)
        and isinstance(table.get("version"), str)
        and VERSION.fullmatch(table["version"])
    ):
        raise ValueError(f"{role} is no model with name, version and sha256")
    return Installed(table["name"], table["version"], table["sha256"])


class ModelStore:
    """The models of one device in a folder of their own; for one process at a time.

    Making one puts the folder in order: what an interrupted step has left is removed, and a model
    whose file is gone or changed is forgotten (`previous` then takes the place of `current`).

    Raises InputError where the folder cannot be written or models.json is damaged: its models are
    then left as they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._models = folder / "models"
        # Beside the models, so that one which is whole becomes one of them by a rename.
        self.downloads = folder / "downloads"
        self._file = folder / "models.json"
        try:
            self._models.mkdir(parents=True, exist_ok=True)
            self.downloads.mkdir(exist_ok=True)
            self._state = self._checked(self._read())
            self._remove_unnamed()
        except OSError as error:
            raise InputError(
                f"{folder}: cannot keep models here ({error.strerror}); see that this user may "
                "write there"
            ) from error

    @property
    def state(self) -> StoreState:
        """Which model is what, now."""
        return self._state

    def path(self, model: Installed) -> Path:
        """File of a model that the state names."""
        return self._models / f"{model.sha256}.bundle"

    def require_space(self, n_bytes: int) -> None:
        """Raise UpdateDeferredError unless so many bytes fit and the reserve stays free."""
        free = shutil.disk_usage(self.folder).free
        if free < n_bytes + RESERVE_BYTES:
            raise UpdateDeferredError(
                f"{self.folder}: {free / 1e6:.1f} MB are free: expected {n_bytes / 1e6:.1f} MB for "
                f"the model and {RESERVE_BYTES / 1e6:.0f} MB to spare; free some space"
            )

    def stage(self, path: Path, model: Installed) -> None:
        """Take a verified file from `downloads` as the candidate, in place of any other.

        Raises InputError where the content has another sha256 than the model.
        """
        if _sha256_of(path) != model.sha256:
            raise InputError(f"{path}: has changed since it was verified; fetch it again")
        with _writing(self.folder):
            _flush(path)
            path.replace(self.path(model))
            _flush(self._models)
        self._step(replace(self._state, candidate=model))

    def discard(self, *, rejected: bool) -> None:
        """Forget the candidate.

        rejected : it is unfit, and must not be fetched again
        """
        model = self._state.candidate
        if model is not None:
            self._step(replace(self._rejecting(model if rejected else None), candidate=None))

    def switch(self) -> Installed:
        """Make the candidate current, on probation; returns it. ValueError without one."""
        state = self._state
        model = state.candidate
        if model is None:
            raise ValueError("there is no candidate")
        # One that is still on probation is no place to return to.
        previous = state.current if state.confirmed else state.previous
        self._step(
            replace(state, current=model, previous=previous, candidate=None, confirmed=False)
        )
        return model

    def confirm(self) -> None:
        """Current has proved itself, and probation is over; `previous` is kept all the same."""
        self._step(replace(self._state, confirmed=True))

    def roll_back(self, *, rejected: bool = True) -> Installed | None:
        """Return to `previous`; returns the model that is now to run.

        Nothing happens where current is the settings' own.

        rejected : the one that was current is unfit, and must not be fetched again
        """
        state = self._state
        if state.current is not None:
            self._step(
                replace(
                    self._rejecting(state.current if rejected else None),
                    current=state.previous,
                    previous=None,
                    confirmed=True,
                )
            )
        return self._state.current

    def use_settings(self) -> None:
        """Go back to the model that the settings name, and keep no other."""
        self._step(StoreState(rejected=self._state.rejected))

    def forgive(self, sha256: str) -> None:
        """Let a model that was taken back be fetched again."""
        left = tuple(one for one in self._state.rejected if one != sha256)
        self._step(replace(self._state, rejected=left))

    def _rejecting(self, model: Installed | None) -> StoreState:
        if model is None:
            return self._state
        others = tuple(one for one in self._state.rejected if one != model.sha256)
        return replace(self._state, rejected=(*others, model.sha256)[-_MAX_REJECTED:])

    def _step(self, state: StoreState) -> None:
        write_atomically(self._file, state.to_json())
        self._state = state
        with _writing(self.folder):
            self._remove_unnamed()

    def _read(self) -> StoreState:
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return StoreState()
        try:
            return StoreState.from_json(content)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{self._file}: {str(error)[:80]}; move {self.folder} away to begin with the "
                "model of the settings"
            ) from error

    def _checked(self, state: StoreState) -> StoreState:
        """The state without models whose content is not what their name says."""
        whole = {
            sha256
            for sha256 in state.kept
            if _sha256_of(self._models / f"{sha256}.bundle") == sha256
        }
        models: dict[str, Any] = {
            role: model if model is not None and model.sha256 in whole else None
            for role, model in ((role, getattr(state, role)) for role in _ROLES)
        }
        checked = replace(state, **models)
        if state.current is not None and checked.current is None:
            _LOGGER.warning("%s: its current model is damaged", self.folder)
            checked = replace(checked, current=checked.previous, previous=None, confirmed=True)
        if checked != state:
            write_atomically(self._file, checked.to_json())
        return checked

    def _remove_unnamed(self) -> None:
        names = {f"{sha256}.bundle" for sha256 in self._state.kept}
        for path in self._models.iterdir():
            if path.name not in names:
                path.unlink()
        for path in self.folder.glob(".models.json.*.part"):
            path.unlink()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Makes an InputError of a disk that does not do as it is told."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); free some space, or see that this "
            "user may write there"
        ) from error


def _sha256_of(path: Path) -> str:
    """sha256 of a file, in hex; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
