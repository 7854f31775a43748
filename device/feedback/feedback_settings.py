"""What a sensor may keep for relabelling, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

What = Literal["clips", "features"]
WHATS: Final[tuple[What, ...]] = ("clips", "features")


@dataclass(frozen=True)
class FeedbackSettings:
    """Hard examples, and what is kept of them.

    enabled : keep any, and hand them to whoever may send the sensor the command `feedback`. To set
        it is to say that those who may be heard there know of it and agree: seconds of sound are
        kept and listened to by a person. Off unless asked for
    what : "clips": sound, to be listened to and trained with. "features": the log-mel spectrogram,
        for statistics. It is no sound, but no secret either: from 64 bands every 10 ms a sound can
        be made again in which words are understood. The privacy gate holds for both
    folder : where they wait
    sources : of these only; none given: of all
    margin : an example is uncertain where a label's highest score lies so near its onset threshold,
        in logits: 0.5 is 0.38 to 0.62 around 0.5, and 0.03 to 0.08 around 0.05
    short_s : an event that lasts no longer is one; of an alarm with a cadence, one that ends with
        the groups that began it. 0: none is
    shadow : what two models disagree on, while one is tried beside the other
    length_s : of an example, its middle is what was uncertain
    apart_s : examples of one label closer than this are one
    per_day : examples of a day, shared fairly among the labels
    max_age_days : older ones go
    max_size_mb : of all; beyond, those go first that were collected or say least
    min_free_mb : left free on the disk
    """

    enabled: bool = False
    what: What = "clips"
    folder: Path = Path("feedback")
    sources: tuple[str, ...] = ()
    margin: float = 0.5
    short_s: float = 0.3
    shadow: bool = True
    length_s: float = 3.0
    apart_s: float = 10.0
    per_day: int = 20
    max_age_days: float = 14.0
    max_size_mb: float = 50.0
    min_free_mb: float = 200.0
