"""The free field against closed forms: delay, 1/r, Doppler shift, fractions of a sample."""

import numpy as np
import pytest
from scipy import optimize

from soundpost.calibration.propagation import (
    PointSource,
    emission_times,
    free_field,
    pieces,
)
from soundpost.calibration.signals import tone
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.errors import UsageError

RATE = 12_288
C = 343.2
MICS = np.array([[0.1, 0.2, 0.0], [-0.2, 0.05, 0.0], [0.0, -0.15, 0.02]])


def hear(samples, place, n_samples, mics=MICS, start_s=0.0, sound_m_s=C):
    source = PointSource(samples.astype(np.float32), place, start_s)
    return free_field([source], mics, n_samples, RATE, sound_m_s)


def long_sine(hz, n_samples):
    """A sine with soft ends, and where it is untouched."""
    n = np.arange(n_samples)
    rise = np.clip(np.minimum(n, n_samples - 1 - n) / 1500, 0, 1)
    return np.sin(2 * np.pi * hz / RATE * n) * np.sin(np.pi / 2 * rise) ** 2


@pytest.mark.parametrize("hz", [97.0, 1_000.0, 0.9 * RATE / 2])
def test_a_sine_is_late_by_r_over_c_and_weak_by_one_over_r(hz):
    place = np.array([0.7, -0.3, 2.5])
    heard = hear(long_sine(hz, 12_000), Trajectory.at_rest(place), 14_000, start_s=0.05)
    middle = slice(4_000, 10_000)
    t = np.arange(14_000)[middle] / RATE
    for mic, position in enumerate(MICS):
        r = np.linalg.norm(place - position)
        expected = np.sin(2 * np.pi * hz * (t - 0.05 - r / C)) / r
        np.testing.assert_allclose(heard[middle, mic], expected, atol=1e-6)


def test_an_impulse_becomes_a_sinc_between_the_samples():
    """The band-limited signal through one sample is sinc: the ringing is cut 70 dB down."""
    impulse = np.zeros(1, np.float32)
    impulse[0] = 1
    mic = np.array([[0.0, 0.0, 0.0]])
    # 20.37 samples away.
    r = 20.37 / RATE * C
    heard = hear(impulse, Trajectory.at_rest([0, 0, r]), 600, mic, start_s=200 / RATE)
    expected = np.sinc(np.arange(600) - 220.37) / r
    assert np.abs(heard[:, 0] - expected).max() < 10 ** (-70 / 20) / r


def test_a_source_twice_as_far_is_half_as_strong():
    mic = np.zeros((1, 3))
    levels = [
        np.std(hear(long_sine(500, 9_000), Trajectory.at_rest([0, 0, r]), 8_000, mic)[4_000:6_000])
        for r in (1.0, 2.0, 4.0)
    ]
    assert levels[0] == pytest.approx(np.sqrt(0.5), rel=1e-3)
    assert levels[0] / levels[1] == pytest.approx(2, rel=1e-3)
    assert levels[0] / levels[2] == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("towards", [1.0, -1.0])
def test_a_tone_that_approaches_is_higher_by_doppler(towards):
    """f = f0 / (1 - v/c), from the phase of a microphone on the line of motion."""
    speed, f0 = towards * 20.0, 1_000.0
    path = Trajectory.through([[0, 0, 0, 50 + 40 * towards], [4, 0, 0, 50 - 40 * towards]])
    heard = hear(long_sine(f0, 3 * RATE), path, 3 * RATE, np.zeros((1, 3)))[:, 0]
    t = np.arange(len(heard)) / RATE
    phase = np.unwrap(np.angle(np.exp(-2j * np.pi * f0 * t) * analytic(heard)))
    middle = slice(RATE, 2 * RATE)
    slope = np.polyfit(t[middle], phase[middle], 1)[0]
    assert f0 + slope / (2 * np.pi) == pytest.approx(f0 / (1 - speed / C), abs=0.01)


def analytic(signal):
    spectrum = np.fft.fft(signal)
    spectrum[len(signal) // 2 :] = 0
    return 2 * np.fft.ifft(spectrum)


def test_a_source_that_passes_by_is_heard_as_it_was_emitted():
    """Emission times from a root finder of scipy's, on a path with corners."""
    path = Trajectory.through([[0.1, -3, 0.2, 1], [0.6, 2, 0.2, 1], [1.2, 2, -1, 2]])
    hz = 700.0
    sine = long_sine(hz, 18_000)
    heard = hear(sine, path, 17_000)
    for mic, position in enumerate(MICS):
        for n in range(2_000, 15_000, 700):
            t = n / RATE

            def late(tau, position=position, t=t):
                return tau + np.linalg.norm(path.at(tau) - position) / C - t

            tau = optimize.brentq(late, t - 1, t, xtol=1e-13)
            r = np.linalg.norm(path.at(tau) - position)
            assert heard[n, mic] == pytest.approx(np.sin(2 * np.pi * hz * tau) / r, abs=2e-5)


def test_emission_times_solve_their_equation():
    path = Trajectory.through([[0, -3, 0.2, 1], [1, 3, 0.5, 2], [1.5, 3, 1, 1]])
    t = np.linspace(-1, 3, 5_000)
    tau = emission_times(path, MICS[0], t, C)
    arrival = tau + np.linalg.norm(path.at(tau) - MICS[0], axis=1) / C
    np.testing.assert_allclose(arrival, t, atol=1e-12)
    assert (tau < t).all()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_between_its_points_a_moving_sound_errs_by_no_more_than_stated(share):
    """w^4 / 384 with w = pi share / 16, and what single precision adds."""
    hz = share * RATE / 2
    # So slow that the place is the same, so that the closed form of rest holds for the phase.
    speed = 0.5
    path = Trajectory.through([[0, 0, 0, 2], [2, 0, 0, 2 + 2 * speed]])
    heard = hear(long_sine(hz, 14_000), path, 12_000, np.zeros((1, 3)))[:, 0]
    t = np.arange(4_000, 10_000) / RATE
    tau = (t - 2 / C) / (1 + speed / C)
    r = 2 + speed * tau
    error = np.abs(heard[4_000:10_000] * r - np.sin(2 * np.pi * hz * tau)).max()
    assert error < (np.pi * share / 16) ** 4 / 384 + 2e-6


@pytest.mark.parametrize("moved_m", [0.0, 1e-12])
def test_whole_samples_late_samples_come_back_as_they_were(moved_m):
    """White noise, up to the Nyquist frequency."""
    sound = np.random.default_rng(2).standard_normal(3_000)
    r = 100 / RATE * C
    place = Trajectory.through([[0, 0, 0, r], [1, 0, 0, r + moved_m]])
    heard = hear(sound, place, 3_500, np.zeros((1, 3)))[:, 0]
    np.testing.assert_allclose(heard[100:3_100] * r, sound, atol=2e-5)


def test_what_barely_moves_sounds_as_what_rests():
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(6_000) * np.hanning(6_000))
    spectrum[int(0.95 * len(spectrum)) :] = 0
    sound = np.fft.irfft(spectrum, 6_000) * np.hanning(6_000)
    rest = hear(sound, Trajectory.at_rest([0.3, 0.2, 2]), 9_000, start_s=0.1)
    still = Trajectory.through([[0, 0.3, 0.2, 2], [1, 0.3, 0.2, 2 + 1e-9]])
    moved = hear(sound, still, 9_000, start_s=0.1)
    assert np.abs(rest - moved).max() < 1e-6 * np.abs(rest).max()


def test_a_long_sound_is_the_sum_of_its_pieces():
    rng = np.random.default_rng(1)
    sound = rng.standard_normal(150_000).astype(np.float32)
    total = np.zeros(len(sound))
    cuts = list(pieces(sound))
    for first, piece in cuts:
        total[first : first + len(piece)] += piece
    assert len(cuts) == 3
    np.testing.assert_allclose(total, sound, atol=1e-6)


@pytest.mark.parametrize("moving", [False, True])
def test_a_long_tone_goes_on_where_its_pieces_meet(moving):
    n = 70_000
    path = [[0, 0, 0, 2]] + ([[8, 0, 0, 2.4]] if moving else [])
    heard = hear(long_sine(800, n), Trajectory.through(path), n, np.zeros((1, 3)))[:, 0]
    t = np.arange(63_000, 68_000) / RATE
    speed = 0.05 if moving else 0.0
    tau = (t - 2 / C) / (1 + speed / C)
    expected = np.sin(2 * np.pi * 800 * tau) / (2 + speed * tau)
    np.testing.assert_allclose(heard[63_000:68_000], expected, atol=5e-6)


def test_a_source_that_starts_later_is_heard_later_and_cut_at_the_ends():
    sound = long_sine(300, 4_000)
    place = Trajectory.at_rest([0, 0, 1.5])
    whole = hear(sound, place, 9_000, start_s=1_000 / RATE)
    late = hear(sound, place, 9_000, start_s=3_000 / RATE)
    np.testing.assert_allclose(late[2_000:], whole[:-2_000], atol=1e-6)
    early = hear(sound, place, 4_000, start_s=-2_000 / RATE)
    np.testing.assert_allclose(early, whole[3_000:7_000], atol=1e-6)
    assert not hear(sound, place, 4_000, start_s=2.0).any()


def test_sources_add_up():
    first, second = long_sine(300, 4_000), long_sine(900, 5_000)
    places = Trajectory.at_rest([0, 1, 2]), Trajectory.through([[0, 0, 0, 1], [1, 1, 0, 1]])
    alone = [hear(s, p, 6_000) for s, p in zip((first, second), places, strict=True)]
    sources = [
        PointSource(s.astype(np.float32), p) for s, p in zip((first, second), places, strict=True)
    ]
    np.testing.assert_allclose(free_field(sources, MICS, 6_000, RATE, C), sum(alone), atol=1e-6)


def test_sound_arrives_as_much_earlier_as_it_is_faster():
    place = Trajectory.at_rest([0, 0, 3.0])
    sound = tone(500, 0.2, RATE)
    arrivals = [
        np.argmax(np.abs(hear(sound, place, 6_000, np.zeros((1, 3)), sound_m_s=c)[:, 0]) > 1e-3)
        for c in (330.0, 350.0)
    ]
    expected = 3 / 330 - 3 / 350
    assert (arrivals[0] - arrivals[1]) / RATE == pytest.approx(expected, abs=1.5 / RATE)


def test_the_same_sources_give_the_same_bytes():
    path = Trajectory.through([[0, -1, 0, 2], [1, 1, 0, 2]])
    sound = long_sine(440, 5_000)
    assert hear(sound, path, 6_000).tobytes() == hear(sound, path, 6_000).tobytes()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([[0, 0.1, 0.2, 0.005]], r"within 0\.005 m of microphone 0; expected at least 0\.01 m"),
        # It passes the second microphone between two of its points.
        ([[0, -0.2, 0.05, -1], [1, -0.2, 0.05, 1]], "microphone 1"),
        ([[0, 0, 0, 1], [0.01, 0, 0, 3]], "moves at 200 m/s; expected at most 172 m/s"),
    ],
)
def test_sources_too_near_or_too_fast_are_refused(path, message):
    with pytest.raises(UsageError, match=message):
        hear(np.ones(10), Trajectory.through(path), 100)


def test_samples_that_are_no_numbers_are_refused():
    with pytest.raises(UsageError, match="source 'dog'"):
        PointSource(np.array([0, np.nan], np.float32), Trajectory.at_rest([0, 0, 1]), label="dog")
