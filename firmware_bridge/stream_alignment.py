"""Which timestamps of an array's streams belong to the same instant.

RTP timestamps begin at random, each stream's for itself. Streams that say at which timestamp their
media clock stands at 0 (RFC 7273, a=mediaclk:direct), and whose clocks follow one reference
(a=ts-refclk), are aligned by these numbers alone, to the sample and for good. All others are by the
sender reports of RTCP, pairs of an RTP timestamp and an instant by the sender's clock (RFC 3550,
6.4.1): as well as the sender rounds these (GStreamer's are good to a sample) where the reports of
all streams are of the same moment, or where there are two of each, which tell by how much that
clock and the media clock differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from soundpost.device.errors import CaptureError
from soundpost.firmware_bridge.rtcp_report import SenderReport
from soundpost.firmware_bridge.session_description import SessionDescription
from soundpost.firmware_bridge.stream_input import signed

_WRAP: Final = 1 << 32
# A report comes every five seconds or so, each time more or less by half (RFC 3550, 6.2): two of
# each stream have come by then.
_REPORTS_S: Final = 20.0
# Two clocks that differ by 100 ppm move by a tenth of a sample at 48 kHz in that time.
_SAME_MOMENT: Final = round(0.02 * _WRAP)
# Reports closer together give no slope.
_APART: Final = round(1.0 * _WRAP)
# No crystal is further off: what two reports say beyond is an error of theirs.
_MAX_SLOPE_ERROR: Final = 1e-3


def needs_reports(session: SessionDescription) -> bool:
    """Whether only sender reports can align the streams."""
    streams = session.streams
    if len(streams) == 1:
        return False
    # Names of clocks are in hexadecimal, in either case.
    references = {(stream.clock_reference or "").upper() for stream in streams}
    offsets = [stream.media_clock_offset for stream in streams]
    return None in offsets or len(references) > 1 or "" in references


class Alignment:
    """Timestamps at one common instant, for every stream: known at once, or once reports tell."""

    def __init__(self, session: SessionDescription) -> None:
        self._streams = session.streams
        self._rate_hz = session.rate_hz
        self.by_reports = needs_reports(session)
        self._reports: list[list[SenderReport]] = [[] for _ in self._streams]
        self._began_s: float | None = None
        self._bases: list[int] | None = None
        if not self.by_reports:
            # One stream alone is aligned with itself.
            self._bases = [stream.media_clock_offset or 0 for stream in self._streams]

    def report(self, index: int, report: SenderReport) -> None:
        """A report of a stream's sender; its first and its last one count."""
        known = self._reports[index]
        if known and known[0].ssrc != report.ssrc:
            known.clear()
        if len(known) < 2:
            known.append(report)
        else:
            known[1] = report

    def bases(self, ssrcs: Sequence[int | None], now_s: float) -> list[int] | None:
        """Timestamp of each stream at the common instant; None while reports are awaited.

        ssrcs : of the streams' senders, None where there is none yet
        now_s : monotonic clock, for the patience

        Raises CaptureError where reports do not come.
        """
        if self._bases is not None:
            return self._bases
        if self._began_s is None:
            self._began_s = now_s
        known = [
            reports if reports and reports[0].ssrc == ssrc else []
            for reports, ssrc in zip(self._reports, ssrcs, strict=True)
        ]
        if all(known) and (_one_moment(known) or all(map(_is_line, known))):
            self._bases = self._from_reports(known)
        elif now_s - self._began_s > _REPORTS_S:
            without = [number for number, reports in enumerate(known, 1) if not reports]
            if without:
                raise CaptureError(
                    f"no sender reports (RTCP) for stream {_listed(without)} in {_REPORTS_S:g} s, "
                    "and the description does not say how the streams are aligned: let the sender "
                    "write a=ts-refclk and a=mediaclk:direct=OFFSET (RFC 7273), or send RTCP"
                )
            self._bases = self._from_reports(known)
        return self._bases

    def _from_reports(self, known: Sequence[list[SenderReport]]) -> list[int]:
        leads = _leads(known)
        bases = []
        for reports, lead in zip(known, leads, strict=True):
            last = reports[-1]
            since_s = (max(leads) - lead) / _WRAP
            rate_hz = self._rate_hz * (1.0 + self._slope_error(reports))
            bases.append((last.timestamp + round(since_s * rate_hz)) % _WRAP)
        return bases

    def _slope_error(self, reports: Sequence[SenderReport]) -> float:
        """By which part the media clock is faster than the clock of the reports."""
        if not _is_line(reports):
            return 0.0
        first, last = reports
        seconds = _apart(last, first) / _WRAP
        samples = signed(last.timestamp - first.timestamp, 32)
        error = samples / seconds / self._rate_hz - 1.0
        return error if abs(error) <= _MAX_SLOPE_ERROR else 0.0


def _one_moment(known: Sequence[list[SenderReport]]) -> bool:
    leads = _leads(known)
    return max(leads) - min(leads) <= _SAME_MOMENT


def _is_line(reports: Sequence[SenderReport]) -> bool:
    return len(reports) == 2 and _apart(reports[1], reports[0]) >= _APART


def _leads(known: Sequence[Sequence[SenderReport]]) -> list[int]:
    """By how much the last report of each stream is younger than that of the first stream."""
    return [_apart(reports[-1], known[0][-1]) for reports in known]


def _apart(later: SenderReport, earlier: SenderReport) -> int:
    """Time between two reports; NTP's seconds run over in 2036."""
    return signed(later.ntp - earlier.ntp, 64)


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown} and {len(numbers) - 8} more"
