"""What a check of the machine found, for people and programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warning", "fault"]
# From good to bad.
STATES: Final[tuple[State, ...]] = ("ok", "warning", "fault")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    area : what was looked at
    text : how it is, in one line
    remedy : what to do; empty where all is well
    """

    area: str
    state: State
    text: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> State:
    """The worst state among them."""
    return max((finding.state for finding in findings), key=STATES.index, default="ok")
