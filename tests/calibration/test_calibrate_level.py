"""Level from a session, and makers' responses of all microphones and of single ones."""

from datetime import datetime, timezone

import numpy as np
import pytest

from soundpost.calibration.calibrate_level import run_level, run_response
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import Evidence, MicrophoneSection
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError
from soundpost.device.microphone import MicrophoneProfile
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_tables import Gap

RATE_HZ = 16_000
ARRAY = ArrayDescription(vogel_spiral(3, 0.2), (3, 1, 2))
NOTHING = Calibration.of(ARRAY.geometry)
FLAT = ((100.0, 0.0), (10_000.0, 0.0))
RISING = ((1_000.0, 0.0), (2_000.0, 3.0))
FALLING = ((1_000.0, 0.0), (2_000.0, -5.0))


@pytest.fixture
def tone():
    """4 s of 1 kHz, -20 dBFS on channel 2 and hardly anything on the others."""
    times_s = np.arange(4 * RATE_HZ) / RATE_HZ
    samples = 1e-4 * np.random.default_rng(0).standard_normal((len(times_s), 4))
    samples[:, 2] += 0.1 * np.sin(2 * np.pi * 1_000 * times_s)
    return samples


def test_the_tone_of_a_session_is_that_where_nothing_is_missing(tone, record_session):
    # Zeros in the tone would make its level unsteady.
    gaps = [Gap(20_000, 4_000, "lost")]
    lost = [LostPart(40_000, 160, 0, 1, "lost"), LostPart(60_000, 160, 2, 1, "lost")]
    folder = record_session(
        "tone", tone, RATE_HZ, array=ARRAY, temperature_c=11.0, gaps=gaps, lost=lost
    )
    whole, found = run_level(folder, None, 94.0, 0.3, ARRAY, NOTHING)
    assert whole.section.channel == 2
    # 94 dB re 20 µPa are 1.0024 Pa; a sine of amplitude 0.1 is 0.0707 RMS.
    assert whole.section.pa_per_unit == pytest.approx(1.0024 / 0.0707107, rel=1e-3)
    assert whole.section.evidence.temperature_c == 11.0
    assert whole.calibration.level == whole.section
    assert whole.lines[0] == "channel 2: sensitivity -20.00 dBFS at 94 dB SPL"
    assert "from 0.000 to 1.250 s" in whole.warnings[0]
    # Of the tone's own channel less is missing.
    named, _ = run_level(folder, 2, 94.0, 0.3, ARRAY, NOTHING)
    assert "from 1.500 to 3.750 s" in named.warnings[0]
    assert len(found.pieces_db) == 5


def test_another_array_and_a_channel_of_no_microphone_are_refused(tone, record_session):
    folder = record_session("tone", tone, RATE_HZ, array=ARRAY)
    with pytest.raises(InputError, match="channel 0 is no microphone of 'vogel-3'"):
        run_level(folder, 0, 94.0, 0.3, ARRAY, NOTHING)
    elsewhere = ArrayDescription(ARRAY.geometry, (0, 1, 3))
    with pytest.raises(InputError, match="channel 2 is no microphone of 'vogel-3'"):
        run_level(folder, None, 94.0, 0.3, elsewhere, NOTHING)
    other = ArrayDescription(vogel_spiral(3, 0.3))
    with pytest.raises(InputError, match="was recorded with the array"):
        run_level(folder, 2, 94.0, 0.3, other, Calibration.of(other.geometry))
    with pytest.raises(InputError, match="has channels 0 to 3, no 4"):
        run_level(folder, 4, 94.0, 0.3)


def test_responses_are_kept_microphone_by_microphone():
    first = run_response(MicrophoneProfile("maker", response=RISING), {}, NOTHING)
    assert first.section.points == RISING
    assert first.section.by_microphone == {}
    assert first.lines == ("a response for all microphones, 0 of 3 with one of their own",)
    second = run_response(
        None, {2: MicrophoneProfile("spare", response=FALLING)}, first.calibration
    )
    assert second.section.points == RISING
    assert second.section.by_microphone == {2: FALLING}
    # What is given anew takes the place of what was, and the rest stays.
    third = run_response(
        MicrophoneProfile("other", response=FLAT),
        {0: MicrophoneProfile("new", response=FALLING)},
        second.calibration,
    )
    assert third.section.points == FLAT
    assert third.section.by_microphone == {0: FALLING, 2: FALLING}
    assert third.section.evidence.method == "response files, all: other, 0: new"
    found = third.section.response_db(np.array([500.0, 1_000.0, 2_000.0, 8_000.0]), 3)
    np.testing.assert_allclose(found[:, 0], [0, 0, -5, -5], atol=1e-12)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-12)
    assert third.warnings == ()
    assert third.report.html().count("<path") == 3


def test_gains_that_were_found_before_are_told_of():
    evidence = Evidence(datetime(2026, 11, 29, tzinfo=timezone.utc), "known")
    section = MicrophoneSection(
        evidence, (1.0,) * 3, (0.0,) * 3, (False,) * 3, ("good",) * 3, (3, 1, 2), ""
    )
    found = run_response(
        MicrophoneProfile("maker", response=RISING), {}, NOTHING.with_section(section)
    )
    assert len(found.warnings) == 1
    assert "run soundpost calibrate array again" in found.warnings[0]
    assert found.report.warnings == found.warnings


@pytest.mark.parametrize("mic", [-1, 3])
def test_a_microphone_that_is_not_there_is_refused(mic):
    with pytest.raises(InputError, match=f"microphone {mic} is none of 'vogel-3'; expected 0 to 2"):
        run_response(None, {mic: MicrophoneProfile("x", response=FLAT)}, NOTHING)
