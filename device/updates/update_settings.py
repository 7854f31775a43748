"""When and how a sensor changes its model: the settings of the table `[updates]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Final

from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import NAME

_DAY_S: Final = 86_400.0
INSTALL_CHOICES: Final = ("automatic", "ask")
HOURS_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$"


@dataclass(frozen=True)
class UpdateSettings:
    """Updates of the model. Off unless a repository is named.

    repository : address or folder that holds `metadata` and `targets`; None: no updates
    root : the repository's root.json, which came to this device by a safe way
    folder : where models and the state of updates are kept; None: updates cannot run
    channel : of the repository, whose model this device takes
    install : `automatic`, or `ask`: what is offered waits for the command `update`
    interval_s : between two looks at the repository
    spread_s : the first look comes at a random time within so long of the start, so that sensors
        that get power together do not come together; later ones vary by a quarter of interval_s
    hours : local time of day, `02:00-05:00`, in which an update may begin; None: at any time
    shadow_s : sound for which the new model hears beside the old one before it takes its place
    probation_s : sound for which it must then prove itself
    latency_share : of the time between two windows that computing one may take
    slowdown : how many times as long as the old model the new one may compute
    memory_mb : that loading and running the model may add to a process
    min_agreement : share of the time in which either model hears something that both must, 0 to 1
    max_score_shift : of the scores on the same sound, as a population stability index
    max_event_ratio : how many times as many events as the old model the new one may report on the
        same sound, or as few
    max_crashes : a model that is tried, and with which the sensor has ended so often without being
        told to, is rejected or taken back before it is loaded again

    Raises UsageError where values contradict.
    """

    repository: str | None = None
    root: Path | None = None
    folder: Path | None = None
    channel: str = "stable"
    install: str = "automatic"
    interval_s: float = 21_600.0
    spread_s: float = 600.0
    hours: str | None = None
    shadow_s: float = 600.0
    probation_s: float = 86_400.0
    latency_share: float = 0.5
    slowdown: float = 4.0
    memory_mb: float = 256.0
    min_agreement: float = 0.15
    max_score_shift: float = 1.0
    max_event_ratio: float = 5.0
    max_crashes: int = 2

    def __post_init__(self) -> None:
        if self.repository is not None and self.root is None:
            raise UsageError(
                "root is missing: the repository's root.json tells whose models are trusted; copy "
                "it to this device and name it"
            )
        if self.install not in INSTALL_CHOICES:
            raise UsageError(f"install must be automatic or ask, found {self.install!r}")
        if not NAME.fullmatch(self.channel):
            raise UsageError(
                f"channel must be a name of letters, digits and ._-, found {self.channel[:60]!r}"
            )
        if self.hours is not None and not re.fullmatch(HOURS_PATTERN, self.hours):
            raise UsageError(
                f"hours must be two times of day, such as '02:00-05:00', found {self.hours[:60]!r}"
            )

    def until_hours_s(self, now: datetime) -> float:
        """Seconds until an update may begin, by this local time; 0.0: now."""
        if self.hours is None:
            return 0.0
        first, last = (_of_day_s(time.fromisoformat(text)) for text in self.hours.split("-"))
        at = _of_day_s(now.time())
        # Since they began last: the same over midnight.
        if (at - first) % _DAY_S < ((last - first) % _DAY_S or _DAY_S):
            return 0.0
        return (first - at) % _DAY_S

    @property
    def hours_s(self) -> float:
        """How long the hours last, of a day."""
        if self.hours is None:
            return _DAY_S
        first, last = (_of_day_s(time.fromisoformat(text)) for text in self.hours.split("-"))
        return (last - first) % _DAY_S or _DAY_S


def _of_day_s(at: time) -> float:
    return 3600.0 * at.hour + 60.0 * at.minute + at.second
