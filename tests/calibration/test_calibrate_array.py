"""Gains, faults and places from sessions: as from files, and gaps are left out and said."""

from datetime import datetime, timezone

import numpy as np
import pytest
import soundfile

from soundpost.calibration.array_health import examine
from soundpost.calibration.array_response import Take
from soundpost.calibration.calibrate_array import run_array, run_positions
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.scene import Noise, Scene, render
from soundpost.calibration.signals import at_level, chirp
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import Evidence, MicrophoneSection, ResponseSection
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_tables import Gap

RATE_HZ, N_MICS = 16_000, 12
# Microphone 0 on channel 1, and channel 0 unused.
ARRAY = ArrayDescription(vogel_spiral(N_MICS), tuple(range(1, N_MICS + 1)), ImageGrid(9, 12))
DATE = datetime(2026, 11, 29, tzinfo=timezone.utc)
NOTHING = Calibration.of(ARRAY.geometry)


def all_channels(samples):
    """With channel 0, which is no microphone's."""
    return np.concatenate([0.01 * np.ones((len(samples), 1)), samples], axis=1)


def same(one, other):
    """Whether two sections are the same but for their dates."""
    values = [of.to_dict() for of in (one, other)]
    for of in values:
        del of["date"]
    return values[0] == values[1]


def test_a_session_says_what_its_sound_says_as_a_file(record, faulty, record_session, tmp_path):
    takes = record(ARRAY.geometry.positions_m, faulty(N_MICS, 1, dead=[4], inverted=[7]))
    of_files, of_sessions = [], []
    for number, take in enumerate(takes):
        sound = all_channels(take.samples)
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, sound, RATE_HZ, subtype="PCM_24")
        of_files.append((path, take.place_m))
        folder = record_session(
            f"take-{number}", sound, RATE_HZ, array=ARRAY, temperature_c=15.0 + 5 * number
        )
        of_sessions.append((folder, take.place_m))
    # Of 15, 20 and 25 degrees.
    from_files = run_array(of_files, ARRAY, NOTHING, 20.0)
    from_sessions = run_array(of_sessions, ARRAY, NOTHING, None)
    assert same(from_files.section, from_sessions.section)
    assert from_files.lines == from_sessions.lines
    assert from_sessions.section.named("dead") == (4,)
    assert from_sessions.warnings == ()


def test_what_a_session_lacks_is_cut_out_and_said(record, faulty, record_session):
    truth = faulty(N_MICS, 2, dead=[5])
    takes = record(ARRAY.geometry.positions_m, truth, seconds=3.0)
    folders = []
    for number, take in enumerate(takes):
        sound = all_channels(take.samples)
        # Half a second from 0.2 s on is gone, and a packet of two microphones near the end.
        sound[3_200:11_200] = 0.0
        lost = LostPart(45_000, 48, 3, 2, "lost")
        folders.append(
            record_session(
                f"take-{number}",
                sound,
                RATE_HZ,
                array=ARRAY,
                gaps=[Gap(3_200, 8_000, "lost")],
                lost=[lost],
            )
        )
    found = run_array(
        [(folder, take.place_m) for folder, take in zip(folders, takes, strict=True)],
        ARRAY,
        NOTHING,
        None,
    )
    assert found.warnings == tuple(
        f"{folder}: lacks 0.503 s of sound; used is its longest part without a gap, from 0.700 to "
        "2.812 s"
        for folder in folders
    )
    assert found.report.warnings == found.warnings
    assert found.section.named("dead", "noisy", "clipped") == (5,)
    alive = np.arange(N_MICS) != 5
    gain = truth.gain[alive] / np.exp(np.log(truth.gain[alive]).mean())
    np.testing.assert_allclose(np.array(found.section.gain)[alive], gain, rtol=0.02)


def test_channels_that_never_came_are_dead_and_the_others_are_measured(
    record, faulty, record_session
):
    (take,) = record(ARRAY.geometry.positions_m, faulty(N_MICS, 3), places=[(0.8, 0.2, 1.5)])
    sound = all_channels(take.samples)
    # A stream of two channels that came at the very end alone.
    n_samples = len(sound)
    lost = LostPart(0, n_samples - 2_000, 6, 2, "silent")
    folder = record_session("take", sound, RATE_HZ, array=ARRAY, lost=[lost])
    found = run_array([(folder, take.place_m)], ARRAY, NOTHING, None)
    assert found.section.named("dead") == (5, 6)
    assert found.section.named("noisy", "clipped") == ()
    assert "channels 6, 7 lack most of their sound and are taken for dead" in found.warnings[0]
    nothing = LostPart(0, n_samples, 0, N_MICS + 1, "silent")
    folder = record_session("silence", sound, RATE_HZ, array=ARRAY, lost=[nothing])
    with pytest.raises(InputError, match="silence: most of its sound is missing"):
        run_array([(folder, take.place_m)], ARRAY, NOTHING, None)


def test_a_known_response_is_no_part_of_the_gain(record, faulty):
    """Microphone 3 adds 6 dB above 1.5 kHz, which its maker says: its gain is that below.

    A dead one before it, so that the living are counted otherwise.
    """
    takes = record(ARRAY.geometry.positions_m, faulty(N_MICS, 4, dead=[1]))
    points = ((200.0, 0.0), (1_000.0, 0.0), (1_500.0, 6.0), (8_000.0, 6.0))
    known = ResponseSection(
        Evidence(DATE, "maker"), by_microphone={3: points, 8: ((100.0, 0.0), (9_000.0, 0.0))}
    )
    hertz, db = np.array(points).T
    spoilt = []
    for take in takes:
        spectrum = np.fft.rfft(take.samples[:, 3].astype(float))
        bins = np.maximum(np.fft.rfftfreq(len(take.samples), 1 / RATE_HZ), 1.0)
        spectrum *= 10 ** (np.interp(np.log(bins), np.log(hertz), db) / 20)
        samples = take.samples.copy()
        samples[:, 3] = np.fft.irfft(spectrum, len(samples))
        spoilt.append(Take(samples, RATE_HZ, take.place_m))
    expected = examine(takes, ARRAY.geometry, 343.2).fit.gain
    found = examine(spoilt, ARRAY.geometry, 343.2, known).fit.gain
    np.testing.assert_allclose(found, expected, rtol=0.005)
    without = examine(spoilt, ARRAY.geometry, 343.2).fit.gain
    assert without[3] > 1.3 * expected[3]


def test_positions_of_a_session_leave_out_events_that_a_gap_cuts(record_session):
    """Microphone 3 is known to be dead, and all are known to be on each other's channels."""
    rng = np.random.default_rng(2)
    drawn_m = ARRAY.geometry.positions_m
    true_m = drawn_m + rng.normal(0, 4e-3, drawn_m.shape)
    sound = at_level(chirp(300, 5500, 0.15, RATE_HZ), -20)
    z = (np.arange(14) + 0.5) / 14 * 0.75 + 0.2
    side, angle = np.sqrt(1 - z**2), np.arange(14) * 2.4
    places = np.stack([side * np.cos(angle), side * np.sin(angle), z], axis=1)
    places *= rng.uniform(0.6, 1.6, (14, 1))
    began_s = 0.3 + 0.4 * np.arange(14)

    def played(kept):
        scene = Scene(
            tuple(
                PointSource(sound, Trajectory.at_rest(places[number]), began_s[number])
                for number in kept
            ),
            round(6.2 * RATE_HZ),
            RATE_HZ,
            noises=(Noise("self", snr_db=30.0),),
        )
        sound_of = render(scene, true_m).samples
        sound_of[:, 3] = 0.0
        mixed = np.zeros((len(sound_of), N_MICS + 1))
        mixed[:, list(channels)] = sound_of
        return mixed

    channels = tuple(np.roll(ARRAY.channels, 5).tolist())
    known = NOTHING.with_section(
        MicrophoneSection(
            Evidence(DATE, "known"),
            gain=(1.0,) * N_MICS,
            delay_s=(0.0,) * N_MICS,
            inverted=(False,) * N_MICS,
            states=tuple("dead" if mic == 3 else "good" for mic in range(N_MICS)),
            channels=channels,
            positions_sha256=ARRAY.geometry.hash(),
        )
    )

    # Event 4, at 1.9 s, is cut by a gap; event 9, at 3.9 s, by a packet of two channels.
    whole = record_session("whole", played(np.arange(14)), RATE_HZ, array=ARRAY)
    spoilt = record_session(
        "spoilt",
        played(np.arange(14)),
        RATE_HZ,
        array=ARRAY,
        gaps=[Gap(round(1.96 * RATE_HZ), 908, "lost"), Gap(round(2.2 * RATE_HZ), 500, "lost")],
        lost=[LostPart(round(3.98 * RATE_HZ), 32, 2, 2, "lost")],
    )
    everything = run_positions([whole], ARRAY, known, None, 5e-3)
    rest = run_positions([spoilt], ARRAY, known, None, 5e-3)
    assert everything.section.evidence.method.startswith("14 chirps")
    assert rest.section.evidence.method.startswith("12 chirps")
    with pytest.raises(
        InputError, match=r"channel \d+ is dead: .* soundpost calibrate array first"
    ):
        run_positions([whole], ARRAY, NOTHING, None, 5e-3)
    assert rest.warnings[0] == (
        f"{spoilt}: lacks 0.090 s of sound; 2 of 14 events are cut by a gap and left out"
    )
    assert "run soundpost calibrate array again" in rest.warnings[1]
    np.testing.assert_array_equal(rest.section.positions_m[3], drawn_m[3])
    assert rest.section.evidence.residuals["residual_s"] < 1e-6
    # Two events fewer of fourteen change little.
    apart_m = rest.section.positions_m - everything.section.positions_m
    assert np.sqrt(np.mean(np.square(apart_m))) < 1.5e-3
    # Where the others are said to be, on the session's timeline.
    said = [float(row[1]) for row in rest.report.tables[0].rows]
    kept = [number for number in range(14) if number not in (4, 9)]
    np.testing.assert_allclose(said, began_s[kept], atol=0.02)
