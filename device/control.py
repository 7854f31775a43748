"""What a person changes while the sensor runs: its settings, pauses and thresholds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from soundpost.device.bundle import AnyInterpreter, Bundle, read_bundle, starter_bundle_path
from soundpost.device.daemon import Daemon
from soundpost.device.detection import ClassSettings
from soundpost.device.errors import ConfigError, SoundpostError, UsageError
from soundpost.device.overlay import ALL, Overlay, save_overlay
from soundpost.device.plan import SourcePlan, check_labels, plan_sources, planned_classes
from soundpost.device.publisher import Publisher
from soundpost.device.reload import needs_restart
from soundpost.device.settings import Settings, nearest

logger = logging.getLogger(__name__)


class Control:
    """Changes a running sensor, one change at a time; methods may be called from any thread.

    Each returns one line on what was done, or raises SoundpostError, and then nothing has changed.

    read : reads the settings as they are now, the command line included
    settings, overlay : that the daemon runs with
    on_settings : told of settings that were taken over, and of what became of them
    model : that an update has installed, in place of the settings'; None: there is none

    Attributes
    ----------
    on_choice : told of the settings' bundle (None: the starter) where a reload found another one
        than before; it then runs, whatever was installed
    on_update : looks for a newer model, and takes it where that is True; None: updates are off
    on_thresholds : told after a command has changed thresholds
    lock : held while what the sources hear with changes; may be taken again by who holds it
    """

    def __init__(
        self,
        read: Callable[[], Settings],
        settings: Settings,
        overlay: Overlay,
        daemon: Daemon,
        publisher: Publisher,
        on_settings: Callable[[Settings, Sequence[SourcePlan]], None] = lambda *_: None,
        model: Bundle | None = None,
    ) -> None:
        self.on_choice: Callable[[Path | None], None] = lambda _: None
        self.on_update: Callable[[bool], str] | None = None
        self.on_thresholds: Callable[[], None] = lambda: None
        self.lock = threading.RLock()
        self._read = read
        self._settings = settings
        self._overlay = overlay
        self._daemon = daemon
        self._publisher = publisher
        self._on_settings = on_settings
        self._model = model
        self._named = _bundle_named(settings)

    @property
    def settings(self) -> Settings:
        """That the sensor runs with."""
        return self._settings

    def reload(self) -> str:
        """Read the settings again and take over what changed, without losing a sample.

        Everything is read, loaded and checked before the first change. What cannot be used leaves
        the sensor as it was, and health says why.
        """
        with self.lock:
            try:
                return self._reload()
            except SoundpostError as error:
                logger.error("settings were not reloaded: %s", error)
                self._daemon.notice(f"settings were not reloaded: {error}")
                raise

    def _reload(self) -> str:
        old, new = self._settings, self._read()
        keys = needs_restart(old, new)
        if keys:
            raise ConfigError(
                f"{new.path or 'settings'}: {', '.join(keys)}: restart to change; nothing else was "
                "taken over either"
            )
        same_runtime = (old.model.runtime, old.model.threads) == (
            new.model.runtime,
            new.model.threads,
        )
        named = _bundle_named(new)
        chosen = named.sha256 != self._named.sha256
        model = None if chosen else self._model
        running = self._daemon.plans if same_runtime else None
        plans = plan_sources(new, self._overlay, running, model)
        self._settings, self._named = new, named
        parts = [str(self._daemon.apply(plans))]
        if chosen and self._model is not None:
            parts.append("the settings' model is in place of the installed one")
        self._model = model
        if new.mqtt is not None and new.mqtt != old.mqtt:
            parts.append(f"mqtt: now {new.mqtt.address}")
            self._publisher.use(new.mqtt)
        if chosen:
            self.on_choice(new.model.bundle)
        self._on_settings(new, plans)
        self._daemon.notice(None)
        done = "; ".join(part for part in parts if part) or "nothing has changed for the sources"
        logger.info("settings reloaded: %s", done)
        return f"settings reloaded: {done}"

    def update(self, install: bool) -> str:
        """Look for a newer model, and take it where `install` says so."""
        if self.on_update is None:
            raise UsageError("update: updates are off: name a repository in [updates]")
        return self.on_update(install)

    @property
    def model(self) -> Bundle:
        """What the sources without a bundle of their own hear with, or are about to."""
        with self.lock:
            return self._model or self._named

    def plan_model(
        self,
        bundle: Bundle,
        *,
        strict: bool = True,
        loaded: Mapping[str, AnyInterpreter | None] | None = None,
    ) -> list[SourcePlan]:
        """Plans of the sources that would hear with another model, each with its interpreter.

        strict : raise ConfigError where the settings speak of labels that would be lost
        loaded : interpreters of this model that sources have already, by source
        """
        loaded = loaded or {}
        with self.lock:
            model = self._settings.model
            plans = {
                name: replace(
                    plan,
                    bundle=bundle,
                    interpreter=loaded.get(name)
                    or bundle.load_interpreter(model.runtime, model.threads),
                    classes=self._classes(plan, bundle, lenient=not strict),
                )
                for name, plan in self._daemon.plans.items()
                if not plan.own_bundle
            }
            if strict:
                check_labels(self._settings, list({**self._daemon.plans, **plans}.values()))
            return list(plans.values())

    def use_model(self, bundle: Bundle) -> None:
        """Let them hear with another model from the next window on.

        What the settings say of labels that it lacks is left out.
        """
        with self.lock:
            plans = {plan.name: plan for plan in self.plan_model(bundle, strict=False)}
            self._model = None if bundle.sha256 == self._named.sha256 else bundle
            wanted = [plans.get(name, plan) for name, plan in self._daemon.plans.items()]
            self._daemon.apply(wanted)
            self._on_settings(self._settings, wanted)

    def _classes(
        self, plan: SourcePlan, bundle: Bundle, *, lenient: bool
    ) -> tuple[ClassSettings, ...]:
        of_settings = planned_classes(self._settings, plan.name, bundle, lenient=lenient)
        return self._overlay.classes(plan.name, of_settings)

    def pause(self, source: str | None, duration_s: float | None) -> str:
        """Close a source, or all: nothing is heard, scored or kept until `resume`, or so long."""
        with self.lock:
            names = self._sources(source)
            self._daemon.pause(names, duration_s)
        length = "" if duration_s is None else f" for {duration_s:g} s"
        return f"{', '.join(names)} paused{length}"

    def resume(self, source: str | None) -> str:
        """Open a paused source, or all."""
        with self.lock:
            names = self._sources(source)
            self._daemon.resume(names)
        return f"{', '.join(names)} listening"

    def set_threshold(
        self, source: str | None, label: str, onset: float, release: float | None
    ) -> str:
        """Set a label's thresholds at a source, or at all; they are kept over restarts."""
        with self.lock:
            self._check_label(source, label)
            name = ALL if source is None else source
            self._use(self._overlay.with_threshold(name, label, onset, release))
            plan = next(iter(self._plans(source, label).values()))
            (found,) = [known for known in plan.classes if known.label == label]
        return f"{label}: onset {found.onset:g}, release {found.release:g}"

    def reset_threshold(self, source: str | None, label: str | None) -> str:
        """Forget what was set for a source, a label, or both; for all where neither is named."""
        with self.lock:
            if source is not None:
                self._sources(source)
            self._use(self._overlay.without(source, label))
        return f"{label or 'all labels'}: as in settings and bundle"

    def _use(self, overlay: Overlay) -> None:
        save_overlay(self._settings.overlay_path, overlay)
        self._overlay = overlay
        self._daemon.apply(
            [
                replace(
                    plan, classes=self._classes(plan, plan.bundle, lenient=self._has_model(plan))
                )
                for plan in self._daemon.plans.values()
            ]
        )
        self.on_thresholds()

    def _has_model(self, plan: SourcePlan) -> bool:
        return self._model is not None and not plan.own_bundle

    def _sources(self, source: str | None) -> list[str]:
        known = list(self._daemon.plans)
        if source is None:
            return known
        if source not in known:
            raise UsageError(f"source {source!r}: no such source{nearest(source, known)}")
        return [source]

    def _plans(self, source: str | None, label: str) -> Mapping[str, SourcePlan]:
        names = self._sources(source)
        return {
            name: plan
            for name, plan in self._daemon.plans.items()
            if name in names and label in plan.bundle.manifest.labels
        }

    def _check_label(self, source: str | None, label: str) -> None:
        if not self._plans(source, label):
            plans = [self._daemon.plans[name] for name in self._sources(source)]
            known = sorted({known for plan in plans for known in plan.bundle.manifest.labels})
            raise UsageError(f"label {label!r}: no such label{nearest(label, known)}")


def _bundle_named(settings: Settings) -> Bundle:
    return read_bundle(settings.model.bundle or starter_bundle_path())
