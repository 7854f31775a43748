"""The golden input is ours, repeatable, and reaches what a model can hear."""

from __future__ import annotations

import numpy as np

from soundpost.device.features import FrontEnd, log_mel
from soundpost.export.golden import golden_input

FRONT_END = FrontEnd()
N_SAMPLES = FRONT_END.samples_of(100) + 3 * 4_000


def test_it_runs_from_silence_to_full_level_in_every_band() -> None:
    samples = golden_input(FRONT_END, N_SAMPLES)
    assert samples.dtype == np.float32
    assert samples.shape == (N_SAMPLES,)
    assert np.abs(samples).max() <= 1.0
    features = log_mel(samples, FRONT_END)
    quietest = np.log(FRONT_END.log_offset)
    np.testing.assert_allclose(features[0], quietest, atol=1e-6)
    assert features.max() > 2.0
    # Each band is loud at some time and quiet at another.
    assert (np.ptp(features, axis=0) > 4.0).all()


def test_it_is_the_same_every_time() -> None:
    np.testing.assert_array_equal(
        golden_input(FRONT_END, N_SAMPLES), golden_input(FRONT_END, N_SAMPLES)
    )
