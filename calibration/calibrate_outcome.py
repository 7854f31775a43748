"""What an action of `soundpost calibrate` gives back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Final

from soundpost.calibration.report import Report
from soundpost.device.array.calibration_file import Calibration, Section

# What changed under the gains and delays of `soundpost calibrate array`.
MEASURE_AGAIN: Final = (
    "gains and delays were found with the {}: run soundpost calibrate array again"
)


@dataclass(frozen=True)
class Outcome:
    """What an action found.

    calibration : with the section in its place; None where there is no array
    section : what was measured
    lines : for the terminal
    warnings : what to mind; also on the page
    """

    calibration: Calibration | None
    section: Section
    lines: tuple[str, ...]
    report: Report
    warnings: tuple[str, ...] = ()

    def with_warnings(self, more: tuple[str, ...]) -> Outcome:
        """The same with more to mind."""
        warnings = (*self.warnings, *more)
        return replace(self, warnings=warnings, report=self.report.with_warnings(warnings))


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)
