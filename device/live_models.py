"""The sensor that listens, as its updater sees it (`updates/live_sensor.py`)."""

from __future__ import annotations

import logging

from soundpost.device.bundle import Bundle
from soundpost.device.control import Control
from soundpost.device.daemon import Daemon
from soundpost.device.errors import SoundpostError
from soundpost.device.publisher import Publisher
from soundpost.device.updates.live_sensor import ShadowTally, Tally
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.offers import Installed

logger = logging.getLogger(__name__)


def installed(bundle: Bundle) -> Installed:
    """A bundle by its name, version and hash."""
    return Installed(bundle.manifest.name, bundle.manifest.version, bundle.sha256)


class LiveModels:
    """Carries out what an updater asks for, over the daemon's sources.

    control : changes the model of the sources that have no bundle of their own
    """

    def __init__(self, control: Control, daemon: Daemon, publisher: Publisher) -> None:
        self._control, self._daemon, self._publisher = control, daemon, publisher
        # Changed under the control's lock: the sources and their settings stay meanwhile.
        self._tried: Bundle | None = None
        self._wanted = control.model.sha256
        self._heard_with = {self._wanted}
        control.on_thresholds = self._retune_shadows

    @property
    def running(self) -> Installed:
        """What the sources hear with, or are about to."""
        return installed(self._control.model)

    def begin_shadow(self, bundle: Bundle) -> None:
        """Let each hear with this model too, of which nothing is reported.

        Raises BundleError where it cannot be loaded; ConfigError where the settings speak of labels
        that it lacks, unless it is one that has been heard with.
        """
        with self._control.lock:
            plans = self._control.plan_model(bundle, strict=bundle.sha256 not in self._heard_with)
            self._tried = bundle
            self._daemon.begin_shadow(plans)

    def shadow(self) -> tuple[ShadowTally, ...]:
        """By source, since `begin_shadow`."""
        tallies = (models.shadow() for models in self._daemon.models.values())
        return tuple(tally for tally in tallies if tally is not None)

    def end_shadow(self) -> None:
        """Hear with one model again."""
        with self._control.lock:
            self._tried = None
            self._end_shadows()

    def follow_reload(self) -> None:
        """Sources, their detector settings and the model that runs may be others now.

        Sources that are new hear with the tried model too.
        """
        with self._control.lock:
            self._want(self._control.model)
            self._retune_shadows()

    def _want(self, bundle: Bundle) -> None:
        self._wanted = bundle.sha256
        self._heard_with.add(self._wanted)

    def _retune_shadows(self) -> None:
        """Let all sources hear with the tried model, with detector settings as they are now."""
        with self._control.lock:
            tried, daemon = self._tried, self._daemon
            if tried is None:
                return
            loaded = {name: models.tried_with for name, models in daemon.models.items()}
            try:
                plans = self._control.plan_model(tried, strict=False, loaded=loaded)
            except SoundpostError as error:
                # What runs has changed already, and is well: that must not fail.
                logger.warning("%s: not compared any more: %s", tried.where, error)
                self._end_shadows()
                return
            daemon.begin_shadow(plans, only_new=True)

    def _end_shadows(self) -> None:
        for models in self._daemon.models.values():
            models.end_shadow()

    def swap(self, bundle: Bundle) -> None:
        """Go on with another model between two windows; raises BundleError."""
        with self._control.lock:
            self._control.use_model(bundle)
            self._want(bundle)

    @property
    def swapped(self) -> bool:
        """Whether every source that listens has scored a window of the last `swap`'s model."""
        return self._daemon.hears_with(self._wanted)

    def tally(self) -> tuple[Tally, ...]:
        """By source that has scored a window of it, of the model that runs.

        One that was paused or lost at a swap still has the counts of the model before.
        """
        tallies = (models.tally_of(self._wanted) for models in self._daemon.models.values())
        return tuple(tally for tally in tallies if tally is not None)

    def show(self, state: ModelState) -> None:
        """Publish the state, retained."""
        self._publisher.publish_model_state(state.to_json())
