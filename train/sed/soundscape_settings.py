"""Settings of a set of synthetic soundscapes: one TOML file, `key=value` changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from soundpost.device.errors import ConfigError
from soundpost.train.recipe import build_settings, read_tables
from soundpost.train.sed.rooms import RoomSettings
from soundpost.train.sed.segments import EnergyRule

ROLES = ("event", "stationary", "background")


@dataclass(frozen=True)
class Counts:
    """Recordings of each split. test is made of the clips of the fold that is held out."""

    train: int = 2_000
    validation: int = 200
    test: int = 400


@dataclass(frozen=True)
class Shares:
    """How much of the training recordings tells what: events with times, labels, nothing."""

    strong: float = 0.1
    weak: float = 0.2
    unlabelled: float = 0.7


@dataclass(frozen=True)
class SoundscapeSettings:
    """What decides every sample of a set, beside the clips.

    roles : label of the clips to "event" (cut out by the energy rule), "stationary" (any excerpt is
        the sound: its label is where it was placed) or "background" (never labelled)
    test_fold : fold of the clips whose sounds are in test alone
    validation_fraction : share of the other clips, whole groups, whose sounds are in validation
        alone
    seconds, rate_hz : of each recording, mono
    most_events : events are drawn from 1 to this many, all numbers as likely
    empty_share : of recordings with a background alone
    most_at_once : events that may sound at the same time; of one label never more than one, with
        apart_s between two
    stationary_s : range of the length of a stationary sound
    snr_db : range of an event's mean power within its label, over the background's in the whole
        recording
    background_dbfs : range of the background's level, dB of full scale
    """

    name: str = "soundscapes"
    roles: dict[str, str] = field(default_factory=dict)
    test_fold: int = 5
    validation_fraction: float = 0.2
    seconds: float = 10.0
    rate_hz: int = 16_000
    most_events: int = 4
    empty_share: float = 0.05
    most_at_once: int = 2
    apart_s: float = 0.5
    stationary_s: tuple[float, float] = (2.0, 6.0)
    snr_db: tuple[float, float] = (6.0, 30.0)
    background_dbfs: tuple[float, float] = (-50.0, -35.0)
    seed: int = 0
    counts: Counts = field(default_factory=Counts)
    shares: Shares = field(default_factory=Shares)
    room: RoomSettings = field(default_factory=RoomSettings)
    rule: EnergyRule = field(default_factory=EnergyRule)

    def labels(self) -> tuple[str, ...]:
        """The vocabulary: labels of events and of stationary sounds, in alphabetical order."""
        return tuple(sorted(name for name, role in self.roles.items() if role != "background"))


def load_soundscape_settings(path: Path, changes: list[str]) -> SoundscapeSettings:
    """Read settings and apply changes such as "counts.train=100".

    Raises ConfigError naming the file, the key, what was found and what is expected.
    """
    where = str(path)
    settings: SoundscapeSettings = build_settings(
        SoundscapeSettings, read_tables(path, changes), where
    )
    _check(settings, where)
    return settings


def _check(settings: SoundscapeSettings, where: str) -> None:
    for label, role in settings.roles.items():
        if role not in ROLES:
            raise ConfigError(f"{where}: roles.{label} is {role!r}; expected {', '.join(ROLES)}")
    if not settings.labels() or "background" not in settings.roles.values():
        raise ConfigError(
            f"{where}: roles has no {'background' if settings.labels() else 'event'}; "
            'expected at least one of each, such as dog = "event" and wind = "background"'
        )
    counts, shares, rule, room = settings.counts, settings.shares, settings.rule, settings.room
    total = shares.strong + shares.weak + shares.unlabelled
    low_s, high_s = settings.stationary_s
    checks = (
        (counts.train >= 1, "counts.train", counts.train, "at least 1"),
        (counts.validation >= 1, "counts.validation", counts.validation, "at least 1"),
        (counts.test >= 0, "counts.test", counts.test, "at least 0"),
        (
            min(shares.strong, shares.weak, shares.unlabelled) >= 0 and math.isclose(total, 1),
            "shares",
            f"{shares.strong:g} + {shares.weak:g} + {shares.unlabelled:g}",
            "none below 0, and 1 together",
        ),
        (
            0 < settings.validation_fraction <= 0.5,
            "validation_fraction",
            settings.validation_fraction,
            "above 0, up to 0.5",
        ),
        (1 <= settings.seconds <= 60, "seconds", settings.seconds, "1 to 60"),
        (8_000 <= settings.rate_hz <= 48_000, "rate_hz", settings.rate_hz, "8000 to 48000"),
        (settings.most_events >= 1, "most_events", settings.most_events, "at least 1"),
        (settings.most_at_once >= 1, "most_at_once", settings.most_at_once, "at least 1"),
        (0 <= settings.empty_share < 1, "empty_share", settings.empty_share, "0 to below 1"),
        (settings.apart_s >= 0, "apart_s", settings.apart_s, "at least 0"),
        (
            low_s >= 0.1 and high_s <= settings.seconds,
            "stationary_s",
            list(settings.stationary_s),
            f"within 0.1 and seconds ({settings.seconds:g})",
        ),
        (
            settings.background_dbfs[1] <= -10,
            "background_dbfs",
            list(settings.background_dbfs),
            "at most -10, which leaves room for the events",
        ),
        (settings.seed >= 0, "seed", settings.seed, "at least 0"),
        (0 <= room.share <= 1, "room.share", room.share, "0 to 1"),
        (room.rooms >= 1, "room.rooms", room.rooms, "at least 1"),
        (
            room.rt60_s[0] >= 0.1 and room.rt60_s[1] <= 1.0,
            "room.rt60_s",
            list(room.rt60_s),
            "within 0.1 and 1.0",
        ),
        (
            0.005 <= rule.hop_s <= rule.window_s <= 0.2,
            "rule.window_s, rule.hop_s",
            f"{rule.window_s:g}, {rule.hop_s:g}",
            "0.005 <= hop_s <= window_s <= 0.2",
        ),
        (
            0 < rule.headroom_db <= rule.depth_db,
            "rule.headroom_db",
            rule.headroom_db,
            f"above 0, up to depth_db ({rule.depth_db:g})",
        ),
    )
    for right, key, found, expected in checks:
        if not right:
            raise ConfigError(f"{where}: {key} is {found}; expected {expected}")
