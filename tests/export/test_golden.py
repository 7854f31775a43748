"""The golden input is ours, repeatable, and reaches what a model can hear."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from soundpost.device.bundle import GoldenTolerance
from soundpost.device.errors import ExportError
from soundpost.device.features import FrontEnd, log_mel
from soundpost.export.golden import golden_input, golden_tolerance

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


def test_tolerance_is_twice_what_is_seen_and_bounded(tiny: ModuleType) -> None:
    student, manifest = tiny.tiny_student(), tiny.tiny_manifest()
    golden = tiny.tiny_golden(student, manifest)
    assert golden_tolerance(student.model, golden, manifest) == GoldenTolerance(1e-3, 0.05)
    # Logits of zero have a slope of a quarter: 0.24 more is 0.0597 in probability.
    logits = np.zeros_like(golden.logits)
    for wanted, shift in ((0.06, 0.2412), (0.10, 0.4055)):
        flat = replace(golden, logits=logits + np.float32(shift))
        zero = tiny.tiny_student(zero=True)
        found = golden_tolerance(zero.model, flat, manifest)
        assert found.scores == pytest.approx(2 * wanted, abs=2e-3)
    with pytest.raises(ExportError, match=r"golden vector: .* differ by 0\.5"):
        golden_tolerance(zero.model, replace(golden, logits=logits + 8), manifest)
