"""Streams with random timestamps fall into step by media clocks or by reports, or are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from array_streams import RATE_HZ, SENDER, describe, heard, packets_of, reference, scale
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import CaptureError
from soundpost.firmware_bridge.assembler import Assembler
from soundpost.firmware_bridge.rtcp_report import SenderReport, build_report, ntp_time
from soundpost.firmware_bridge.session_description import SessionDescription
from soundpost.firmware_bridge.stream_alignment import Alignment, needs_reports

ANY = st.integers(0, 2**32 - 1)


def changed(session: SessionDescription, index: int, **fields: object) -> SessionDescription:
    streams = list(session.streams)
    streams[index] = dataclasses.replace(streams[index], **fields)  # type: ignore[arg-type]
    return dataclasses.replace(session, streams=tuple(streams))


def test_who_needs_reports() -> None:
    aligned = describe([2, 2, 2], offsets=[1, 2, 3])
    assert not needs_reports(aligned)
    # Hexadecimal digits in either case name the same clock.
    reference_clock = aligned.streams[1].clock_reference
    assert reference_clock is not None
    assert not needs_reports(changed(aligned, 1, clock_reference=reference_clock.lower()))
    assert needs_reports(changed(aligned, 1, clock_reference="localmac=00-11-22-33-44-55"))
    assert needs_reports(changed(aligned, 1, media_clock_offset=None))
    assert needs_reports(changed(aligned, 1, clock_reference=None))
    assert needs_reports(describe([2, 2]))
    # One stream alone has nothing to be in step with.
    assert not needs_reports(describe([2]))


@given(
    starts=st.lists(ANY, min_size=2, max_size=5),
    report_s=st.lists(st.floats(0.0, 5.0), min_size=5, max_size=5),
    second_s=st.lists(st.floats(3.0, 7.0), min_size=5, max_size=5),
    drift_ppm=st.floats(-100, 100),
    unix_s=st.sampled_from([0.0, 1_764_000_000.25, 2_085_978_490.0]),
)
def test_two_reports_of_each_give_step_to_the_sample(
    starts: list[int],
    report_s: list[float],
    second_s: list[float],
    drift_ppm: float,
    unix_s: float,
) -> None:
    """Whenever they come, and however far the media clock is off from the clock of the reports.

    2,085,978,490 is six seconds before NTP's seconds run over in 2036 (RFC 5905).
    """
    session = describe([1] * len(starts))
    alignment = Alignment(session)
    rate_hz = RATE_HZ * (1 + drift_ppm * 1e-6)

    def tell(index: int, after_s: float) -> None:
        timestamp = (starts[index] + round(after_s * rate_hz)) % 2**32
        alignment.report(index, SenderReport(index, ntp_time(unix_s + after_s), timestamp))

    ssrcs = list(range(len(starts)))
    assert alignment.bases(ssrcs, 0.0) is None
    for index in ssrcs:
        tell(index, report_s[index])
    for index in ssrcs:
        tell(index, report_s[index] + second_s[index])
    bases = alignment.bases(ssrcs, 10.0)
    assert bases is not None
    steps = [(base - start) % 2**32 for base, start in zip(bases, starts, strict=True)]
    # Rounding of two timestamps, extrapolated over no more than their distance.
    assert max(steps) - min(steps) <= 3


def test_reports_of_one_moment_are_enough() -> None:
    alignment = Alignment(describe([1, 1]))
    alignment.report(0, SenderReport(7, ntp_time(100.0), 5_000))
    assert alignment.bases([7, 8], 0.0) is None
    alignment.report(1, SenderReport(8, ntp_time(100.01), 90_480))
    bases = alignment.bases([7, 8], 0.1)
    assert bases is not None
    # 480 samples lie between the two instants.
    assert bases[1] - bases[0] == 90_480 - 480 - 5_000


def test_reports_of_another_sender_do_not_count() -> None:
    alignment = Alignment(describe([1, 1]))
    alignment.report(0, SenderReport(7, ntp_time(100.0), 5_000))
    alignment.report(1, SenderReport(9, ntp_time(100.0), 1))
    assert alignment.bases([7, 8], 0.0) is None
    alignment.report(1, SenderReport(8, ntp_time(100.0), 6_000))
    assert alignment.bases([7, 8], 0.0) is not None


def test_several_streams_without_either_are_refused() -> None:
    alignment = Alignment(describe([1, 1, 1]))
    alignment.report(1, SenderReport(8, ntp_time(100.0), 6_000))
    assert alignment.bases([7, 8, None], 50.0) is None
    message = r"no sender reports \(RTCP\) for stream 1, 3 in 20 s.*a=mediaclk:direct=OFFSET"
    with pytest.raises(CaptureError, match=message):
        alignment.bases([7, 8, None], 70.1)


def test_samples_are_in_step_by_reports() -> None:
    """Through the assembler: packets and reports in, the reference out."""
    session = describe([2, 2], "L16")
    samples = reference(RATE_HZ // 2, 4, "L16")
    starts = [123, 2**32 - 2_000]
    streams = [
        packets_of(session, index, samples, [48], 9, start, ssrc=index)
        for index, start in enumerate(starts)
    ]
    assembler = Assembler(session, "test")
    blocks = []
    for number in range(len(streams[0])):
        for index in range(2):
            packet = streams[index][number]
            assembler.push(index, packet.data, SENDER, number / 1_000)
            if number == 100 + 7 * index:
                now = SenderReport(
                    index, ntp_time(50.0 + number / 1_000), starts[index] + number * 48
                )
                assembler.push_report(index, build_report(now), SENDER)
        blocks += assembler.ready(number / 1_000)
    blocks += assembler.flush()
    found, there = heard(blocks, 4)
    assert there.all()
    origin = assembler.origin(0)
    assert origin is not None
    assert np.array_equal(found, scale(samples, "L16")[origin - starts[0] :])
    assert len(found) > RATE_HZ // 3


def test_what_is_no_report_is_counted() -> None:
    assembler = Assembler(describe([1, 1]), "test")
    assembler.push_report(0, b"hello", SENDER)
    assert assembler.statistics().total.malformed == 1
