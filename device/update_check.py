"""What `soundpost doctor` looks at of updates: root, repository, clock, folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from soundpost.device.clock import clock_synchronised
from soundpost.device.errors import (
    InputError,
    SoundpostError,
    UpdateDeferredError,
    UpdateUnreachableError,
)
from soundpost.device.files import nearest_folder
from soundpost.device.findings import Finding
from soundpost.device.model_updates import read_root
from soundpost.device.settings import Settings
from soundpost.device.updates.model_store import RESERVE_BYTES, StoreState
from soundpost.device.updates.offers import choose
from soundpost.device.updates.update_settings import UpdateSettings

_AREA = "updates"
# For a person who waits: a repository that needs longer is told as one that does not answer.
_REFRESH_S = 20.0


def check_updates(
    settings: Settings, synchronised: Callable[[], bool] = clock_synchronised
) -> Iterator[Finding]:
    """Whether a newer model could come; nothing where updates are off. It installs nothing."""
    updates = settings.updates
    if updates.repository is None or updates.folder is None:
        return
    state = _state(updates)
    if isinstance(state, Finding):
        yield state
        return
    current = state.current
    if current is not None:
        how = "" if state.confirmed else ", on probation"
        yield Finding(_AREA, "ok", f"installed: {current.name} {current.version}{how}")
    yield _check_space(updates.folder)
    yield _check_repository(updates, settings.device_id, state, synchronised)


def _state(updates: UpdateSettings) -> StoreState | Finding:
    assert updates.folder is not None
    file = updates.folder / "models.json"
    try:
        return StoreState.from_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return StoreState()
    except PermissionError:
        remedy = "run the same command as the sensor's user, or with sudo"
        return Finding(_AREA, "warning", f"{file}: this user may not read it", remedy)
    except (OSError, ValueError, RecursionError) as error:
        remedy = f"move {updates.folder} away: it begins with the model of the settings"
        return Finding(_AREA, "fault", f"{file}: {str(error)[:80]}", remedy)


def _check_space(folder: Path) -> Finding:
    there = nearest_folder(folder)
    free_mb, need_mb = shutil.disk_usage(there).free / 1e6, RESERVE_BYTES / 1e6
    text = f"{there}: {free_mb:,.0f} MB free for models"
    if free_mb < need_mb:
        return Finding(_AREA, "warning", text, f"free at least {need_mb - free_mb:,.0f} MB")
    return Finding(_AREA, "ok", text)


def _check_repository(
    updates: UpdateSettings, device: str, state: StoreState, synchronised: Callable[[], bool]
) -> Finding:
    assert updates.repository is not None
    try:
        root = read_root(updates)
        # Only here: a sensor may be without.
        from soundpost.device.updates.trusted_download import TrustedRepository

        # In a folder of its own: what the sensor has seen is the sensor's.
        with tempfile.TemporaryDirectory() as name:
            repository = TrustedRepository(
                updates.repository,
                root,
                Path(name, "metadata"),
                refresh_s=_REFRESH_S,
                synchronised=synchronised,
            )
            offers = repository.refresh()
    except ModuleNotFoundError as error:
        remedy = "install soundpost[updates]"
        return Finding(_AREA, "fault", f"the package {error.name} is missing", remedy)
    except UpdateDeferredError as error:
        return Finding(_AREA, "warning", str(error), "see the line on the clock")
    except UpdateUnreachableError as error:
        return Finding(_AREA, "warning", str(error), "see that address and network are right")
    except InputError as error:
        return Finding(_AREA, "fault", str(error), "correct updates.root")
    except SoundpostError as error:
        return Finding(_AREA, "fault", str(error), "ask who runs the repository")
    found = choose(offers, device, updates.channel, state.current, state.rejected)
    return Finding(_AREA, "ok", f"{updates.repository}: {found.reason}")
