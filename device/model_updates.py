"""The updates of one running sensor: begun and ended with it, told of its reloads.

What decides is in `updates/`; this is what `soundpost run` does with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from soundpost.device.bundle import Bundle, read_bundle
from soundpost.device.control import Control
from soundpost.device.daemon import Daemon
from soundpost.device.errors import InputError, SoundpostError
from soundpost.device.live_models import LiveModels
from soundpost.device.publisher import Publisher
from soundpost.device.settings import Settings
from soundpost.device.updates.boot import Boot, boot
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.progress import Progress
from soundpost.device.updates.update_settings import UpdateSettings
from soundpost.device.updates.updater import Updater

# A root.json with dozens of keys stays far below this.
_MAX_ROOT_BYTES = 256_000


@contextmanager
def started(settings: Settings) -> Iterator[Boot | None]:
    """Which model this start hears with, noted as a start; None where updates are off.

    However the sensor ends as it should is noted too: what ends otherwise is a crash.
    """
    updates = settings.updates
    if updates.repository is None or updates.folder is None:
        yield None
        return
    found = boot(
        updates.folder,
        settings.model.bundle,
        max_crashes=updates.max_crashes,
        runtime=settings.model.runtime,
        threads=settings.model.threads,
    )
    try:
        yield found
    except (SoundpostError, KeyboardInterrupt):
        found.ended()
        raise
    found.ended()


def installed_model(found: Boot | None) -> Bundle | None:
    """What an update has installed; None: the settings' own bundle is to be heard with."""
    if found is None or found.path == found.settings_path:
        return None
    return read_bundle(found.path)


def read_root(settings: UpdateSettings) -> bytes:
    """Content of the trusted root; raises InputError where it cannot be read."""
    assert settings.root is not None
    try:
        with settings.root.open("rb") as file:
            content = file.read(_MAX_ROOT_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{settings.root}: cannot read the repository's root ({error.strerror}); copy its "
            "root.json there, or correct updates.root"
        ) from error
    if len(content) > _MAX_ROOT_BYTES:
        raise InputError(f"{settings.root}: larger than {_MAX_ROOT_BYTES} bytes: no root.json")
    return content


class ModelUpdates:
    """Updates of a daemon's model, if its settings ask for them.

    Parameters
    ----------
    found : of this start; None: updates are off
    tell : takes a line for a person
    """

    def __init__(
        self,
        settings: Settings,
        found: Boot | None,
        control: Control,
        daemon: Daemon,
        publisher: Publisher,
        tell: Callable[[str], None],
    ) -> None:
        self._settings, self._boot, self._control, self._tell = settings, found, control, tell
        self.live = LiveModels(control, daemon, publisher)
        self._updater: Updater | None = None
        self._why_off: str | None = None

    @property
    def running(self) -> bool:
        """Whether newer models are looked for."""
        return self._updater is not None

    def start(self) -> ModelUpdates:
        """Begin in the background; what keeps updates off is told, and the sensor goes on."""
        for line in self._boot.notices if self._boot is not None else ():
            self._tell(line)
        try:
            self._updater = self._made()
        except SoundpostError as error:
            self._why_off = str(error)
        except ModuleNotFoundError as error:
            self._why_off = f"[updates] needs the package {error.name}: install soundpost[updates]"
        if self._updater is None:
            if self._why_off is not None:
                self._tell(f"{self._why_off}; it listens without updates")
            self._show_off()
            return self
        self._control.on_update = self._updater.request
        self._control.on_choice = self._updater.choose_by_hand
        self._updater.start()
        return self

    def _made(self) -> Updater | None:
        found, settings = self._boot, self._settings
        if found is None:
            return None
        if found.store is None:
            raise InputError(found.fault or "the folder of models cannot be used")
        updates, model = settings.updates, settings.model
        assert updates.repository is not None
        root = read_root(updates)
        # Only here: what checks signatures takes memory that a sensor without updates lacks.
        from soundpost.device.updates.trusted_download import TrustedRepository

        return Updater(
            updates,
            settings.device_id,
            found,
            TrustedRepository(updates.repository, root, metadata_folder(updates)),
            self.live,
            runtime=model.runtime,
            threads=model.threads,
        )

    def follow_reload(self) -> None:
        """Settings were reloaded: sources and the model may be others now."""
        self.live.follow_reload()
        if self._updater is None:
            self._show_off()

    def _show_off(self) -> None:
        if self._boot is None:
            now = datetime.now(timezone.utc)
            device = self._settings.device_id
            self.live.show(ModelState(device, now, "off", self.live.running))
            return
        progress = Progress(self._settings.device_id, None, self._boot, self.live)
        self.live.show(replace(progress.state, reason=self._why_off))

    def close(self) -> None:
        """End; an update that goes on is continued at the next start."""
        if self._updater is not None:
            self._updater.close()


def metadata_folder(settings: UpdateSettings) -> Path:
    """Where what was verified of this repository is kept, apart from that of another one."""
    assert settings.folder is not None
    assert settings.repository is not None
    mark = hashlib.sha256(settings.repository.encode()).hexdigest()[:12]
    return settings.folder / f"metadata-{mark}"
