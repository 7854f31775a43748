"""Transfers and fits against microphones that are known, and against GCC-PHAT on a real array."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.calibration.array_response import (
    Take,
    fit_microphones,
    measure_transfer,
    one_factor,
)
from soundpost.device.array.geometry import vogel_spiral

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[3] / "shared" / "data")
SOUND_M_S = 343.2


def test_one_factor_splits_what_is_shared_from_what_is_not():
    """Exactly, where the cross spectra are of that form: whatever the noise of each is."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal((5, 8, 2)) @ np.array([1, 1j])
    noise = 10 ** rng.uniform(-2, 0, (5, 8))
    cross = u[:, :, None] * u[:, None].conj() + np.apply_along_axis(np.diag, 1, noise)
    values, found = one_factor(cross)
    turn = np.einsum("bm,bm->b", values.conj(), u)
    turn = turn / np.abs(turn)
    np.testing.assert_allclose(values * turn[:, None], u, atol=3e-3)
    # Of the power of each, of which little noise is a small part.
    assert (np.abs(found - noise) <= 0.01 * (np.abs(u) ** 2 + noise)).all()


@pytest.mark.parametrize("kind", ["self", "diffuse"])
def test_five_seconds_at_20_db_give_gain_and_phase(record, faulty, kind):
    """The bound of the project, 2 % and 0.02 rad RMS to 6 kHz; and errors as large as it says."""
    positions = vogel_spiral(16).positions_m
    truth = faulty(16, inverted=(2, 9))
    takes = record(positions, truth, kind=kind)
    transfers = [measure_transfer(take, positions, SOUND_M_S) for take in takes]
    fit = fit_microphones(transfers, np.ones(16, bool), 2e-3)
    assert np.flatnonzero(fit.inverted).tolist() == [2, 9]
    gain = fit.gain / (truth.gain / np.exp(np.log(truth.gain).mean())) - 1
    late_s = fit.delay_s - (truth.delay_s - truth.delay_s.mean())
    phase = 2 * np.pi * 6000 * late_s
    assert np.sqrt(np.mean(gain**2)) < 0.002
    assert np.sqrt(np.mean(phase**2)) < 0.003
    assert 0.5 < np.sqrt(np.mean((gain / fit.gain_error) ** 2)) < 2
    assert 0.5 < np.sqrt(np.mean((late_s / fit.delay_error_s) ** 2)) < 2


def test_the_snr_is_that_of_the_scene(record):
    positions = vogel_spiral(16).positions_m
    (take,) = record(positions, places=[(0.3, 0.2, 2.0)], snr_db=12.0)
    snr = measure_transfer(take, positions, SOUND_M_S).snr()
    assert abs(10 * np.log10(np.median(snr)) - 12) < 0.5


@pytest.mark.data
def test_delays_of_a_real_array_are_those_of_gcc_phat():
    """Eight microphones in a line, a talker before them (CMU array A): another estimator agrees."""
    samples, rate_hz = soundfile.read(
        DATA / "multichannel" / "cmu_arrA_8ch" / "an101-mtms-arrA.flac", dtype="float32"
    )
    # Far away and straight ahead, where steering changes nothing.
    far = np.array([0.0, 0.0, 1e4])
    positions = np.zeros((8, 3))
    positions[:, 0] = (np.arange(8) - 3.5) * 0.07
    transfer = measure_transfer(Take(samples, rate_hz, far), positions, SOUND_M_S)
    fit = fit_microphones([transfer], np.ones(8, bool), 1e-3)

    spectra = np.fft.rfft(samples, axis=0)
    hertz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    used = np.flatnonzero((hertz > 200) & (hertz < 6000))[::3]
    lags = np.arange(-100, 101) * 4e-6
    turning = np.exp(2j * np.pi * np.outer(lags, hertz[used]))
    cross = (spectra * spectra[:, :1].conj())[used]
    found = lags[(turning @ (cross / np.abs(cross))).real.argmax(axis=0)]
    np.testing.assert_allclose(fit.delay_s - fit.delay_s[0], found, atol=1e-5)
