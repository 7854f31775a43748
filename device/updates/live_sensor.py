"""What an update asks of the sensor that is listening, and what that tells of its models.

The updater (`updater.py`) decides and keeps the state on disk; the sensor, which has the sound,
hears with two models at once, changes from one to the other, and counts. Neither imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from soundpost.device.bundle import Bundle
from soundpost.device.updates.model_state import ModelState
from soundpost.device.updates.offers import Installed

# Scores are counted in so many equal parts of 0 to 1.
N_BINS = 20


@dataclass(frozen=True)
class Tally:
    """What one model made of one source's sound.

    heard_s : sound that its windows covered, without gaps and pauses
    windows, failed : scored; of these, without a usable score (not finite, or the model failed)
    compute_s : processor time of features and model, to which a busy machine adds little
    events : starts by label
    scores : by label, windows whose score fell in each of N_BINS parts of 0 to 1
    spread : between the lowest and the highest score of a label, of the label where that is most
    """

    source: str
    heard_s: float = 0.0
    windows: int = 0
    failed: int = 0
    compute_s: float = 0.0
    events: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, Sequence[int]] = field(default_factory=dict)
    spread: float = 0.0


@dataclass(frozen=True)
class ShadowTally:
    """Two models on the same sound of one source.

    old, new : what each made of it
    agreement : by label that both know, seconds in which both heard it, only the old, only the new,
        neither. One hears it above its onset; both do also where one is above its onset and the
        other above its release: two thresholds that are crossed a moment apart are no dispute
    """

    old: Tally
    new: Tally
    agreement: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)


class LiveSensor(Protocol):
    """The sensor, as the updater sees it. Every method returns at once, and from any thread.

    It speaks of the sources that hear with the model of the settings; one that names a bundle of
    its own keeps that.
    """

    @property
    def running(self) -> Installed:
        """What these sources hear with, or are about to."""

    def begin_shadow(self, bundle: Bundle) -> None:
        """Let each hear with this model too, of which nothing is reported.

        Raises SoundpostError where it cannot be loaded.
        """

    def shadow(self) -> tuple[ShadowTally, ...]:
        """By source, since `begin_shadow`; empty while no shadow runs."""

    def end_shadow(self) -> None:
        """Hear with one model again."""

    def swap(self, bundle: Bundle) -> None:
        """Go on with another model between two windows; no sample is lost.

        An event that goes on keeps its id. Raises SoundpostError where it cannot be loaded.
        """

    @property
    def swapped(self) -> bool:
        """Whether every source that listens has scored a window of the model of the last `swap`."""

    def tally(self) -> tuple[Tally, ...]:
        """By source, of the model that runs, since it began to run."""

    def show(self, state: ModelState) -> None:
        """Publish the state, retained."""
