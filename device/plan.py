"""What a sensor is to listen to and with what: settings and files, loaded and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.device.audio import Channel
from soundpost.device.bundle import (
    AnyInterpreter,
    Bundle,
    open_bundle,
    read_bundle,
    starter_bundle_path,
)
from soundpost.device.detection import ClassSettings
from soundpost.device.errors import ConfigError, InputError
from soundpost.device.manifest import check_frame_class
from soundpost.device.microphone import MicrophoneProfile, load_profile
from soundpost.device.overlay import Overlay
from soundpost.device.settings import LevelSettings, Settings, SourceSettings, nearest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LevelPlan:
    """How the levels of a source are measured.

    publish : send level records; False where they serve events alone
    """

    interval_s: float = 60.0
    bands: bool = False
    profile: MicrophoneProfile = field(default_factory=MicrophoneProfile)
    publish: bool = True


@dataclass(frozen=True)
class SourcePlan:
    """What one source listens to and with what.

    name : of its topics
    url : "mic:", "mic:NAME", "file:PATH" or another scheme of soundpost.sources
    options : passed to the opener of the scheme
    classes : detector settings, one per label of the bundle
    levels : None: no levels are measured
    own_bundle : the settings name a bundle for this source; updates are not for it
    """

    name: str
    url: str
    bundle: Bundle
    interpreter: AnyInterpreter
    classes: Sequence[ClassSettings]
    channel: Channel = "mix"
    options: dict[str, Any] = field(default_factory=dict)
    levels: LevelPlan | None = None
    own_bundle: bool = False


def plan_sources(
    settings: Settings,
    overlay: Overlay | None = None,
    running: Mapping[str, SourcePlan] | None = None,
    model: Bundle | None = None,
) -> list[SourcePlan]:
    """Load and check what every source needs.

    Parameters
    ----------
    settings : what is wanted
    overlay : thresholds that commands have set
    running : plans by source whose interpreters go on where bundle and sound are still the same
    model : that an update has installed, in place of the one of [model]. What the settings say of
        labels that it lacks is left out: the sensor must start with it.

    Raises
    ------
    ConfigError
        A label that the bundles lack, of any table, or thresholds that contradict.
    InputError, BundleError
        A bundle or a profile cannot be used.
    """
    overlay = overlay or Overlay()
    running = running or {}
    loader = _Loader(settings, model)
    plans = []
    for source in settings.sources:
        bundle, interpreter = loader.load(source, running.get(source.name))
        installed = model is not None and source.bundle is None
        classes = planned_classes(settings, source.name, bundle, lenient=installed)
        plans.append(
            SourcePlan(
                source.name,
                source.url,
                bundle,
                interpreter,
                overlay.classes(source.name, classes),
                source.channel,
                dict(source.options),
                plan_levels(settings.levels, source.profile),
                source.bundle is not None,
            )
        )
    try:
        check_labels(settings, plans)
    except ConfigError as error:
        if model is None:
            raise
        logger.warning("%s; it goes on without, with the installed %s", error, model.manifest.name)
    _check_feedback(settings, plans)
    return plans


def _check_feedback(settings: Settings, plans: Sequence[SourcePlan]) -> None:
    """Refuse a source of [feedback] that there is not."""
    known = [plan.name for plan in plans]
    for name in settings.feedback.sources if settings.feedback.enabled else ():
        if name not in known:
            raise ConfigError(
                f"{settings.path or 'settings'}: [feedback] sources: there is no source {name!r}"
                f"{nearest(name, known) or '; take it out'}"
            )


class _Loader:
    """Reads each bundle once, and gives each source an interpreter."""

    def __init__(self, settings: Settings, model: Bundle | None) -> None:
        self._settings, self._installed = settings.model, model
        self._read: dict[Path, Bundle] = {}

    def load(self, source: SourceSettings, old: SourcePlan | None) -> tuple[Bundle, AnyInterpreter]:
        """What a source hears with; that of its old plan where nothing differs."""
        runtime, threads = self._settings.runtime, self._settings.threads
        path = source.bundle or self._settings.bundle or starter_bundle_path()
        if source.bundle is None and self._installed is not None:
            bundle = self._installed
        elif path in self._read:
            bundle = self._read[path]
        elif old is not None and read_bundle(path).sha256 == old.bundle.sha256:
            bundle = self._read[path] = old.bundle
        else:
            bundle, interpreter, _ = open_bundle(path, runtime, threads)
            self._read[path] = bundle
            return bundle, interpreter
        if (
            old is not None
            and bundle.sha256 == old.bundle.sha256
            and (old.url, old.channel, old.options)
            == (source.url, source.channel, dict(source.options))
        ):
            return old.bundle, old.interpreter
        # An interpreter holds tensors of one invocation: each source's thread needs its own, that
        # of a source which is opened afresh as well, for the old one may not end in time.
        return bundle, bundle.load_interpreter(runtime, threads)


def check_labels(settings: Settings, plans: Sequence[SourcePlan]) -> None:
    """Raise ConfigError for a label of [class], [home_assistant] or [clips] that none knows."""
    known = list(dict.fromkeys(label for plan in plans for label in plan.bundle.manifest.labels))
    settings.check_class_labels(known)
    wanted = {"home_assistant": settings.home_assistant.labels or ()}
    if settings.clips.enabled:
        wanted["clips"] = settings.clips.labels
    for table, labels in wanted.items():
        for label in labels:
            if label not in known:
                raise ConfigError(
                    f"{settings.path or 'settings'}: [{table}] labels: no source's bundle has "
                    f"{label!r}{nearest(label, known) or '; take it out'}"
                )


def planned_classes(
    settings: Settings, source: str, bundle: Bundle, *, lenient: bool = False
) -> tuple[ClassSettings, ...]:
    """A source's detector settings: its bundle's, with those of the settings file in their place.

    lenient : what they say of labels that the bundle lacks is left out

    Raises ConfigError for a label that the bundle lacks, thresholds that contradict, or what a
    bundle of this kind does not do.
    """
    if lenient:
        settings = settings.only_labels(source, bundle.manifest.labels)
    classes = settings.detector_classes(source, bundle.manifest.classes)
    if bundle.manifest.frames is not None:
        where = str(settings.path) if settings.path is not None else "settings"
        for known in classes:
            try:
                check_frame_class(known)
            except InputError as error:
                raise ConfigError(f"{where}: {error}") from error
    return classes


def plan_levels(levels: LevelSettings, profile: Path | None) -> LevelPlan | None:
    """What is measured of a source: levels to publish, levels of its events, or none.

    Raises ConfigError or InputError where the profile cannot be used.
    """
    microphone = MicrophoneProfile() if profile is None else load_profile(profile)
    # A calibrated microphone tells how loud an event was, whether or not levels are published.
    if not levels.enabled and not microphone.calibrated:
        return None
    bands = levels.enabled and levels.bands
    return LevelPlan(levels.interval_s, bands, microphone, levels.enabled)
