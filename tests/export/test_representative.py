"""The representative set holds every class, both extremes and the clamped range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import ExportError
from soundpost.device.features import FrontEnd
from soundpost.export.representative import N_EXTREME, N_PATCHES, draw_representative

FRONT_END = FrontEnd()


def windows(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Patches whose first cell is their class and second their number."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(seed)
    patches = rng.uniform(-3, 3, (len(labels), 4, 5)).astype(np.float32)
    patches += rng.uniform(-2, 1, (len(labels), 1, 1)).astype(np.float32)
    patches[:, 0, 0] = labels / 100
    patches[:, 0, 1] = np.arange(len(labels)) / 1_000
    return patches, labels


@given(st.lists(st.integers(1, 300), min_size=4, max_size=40), st.integers(0, 5))
def test_every_class_and_both_extremes_are_in(counts: list[int], seed: int) -> None:
    patches, labels = windows([max(count, 3) for count in counts], seed)
    drawn = draw_representative(patches, labels, FRONT_END, seed)
    real, pin = drawn[:-1], drawn[-1]
    chosen = np.rint(real[:, 0, 1] * 1_000).astype(int)
    assert len(set(chosen)) == len(chosen)
    np.testing.assert_array_equal(real, patches[chosen])
    assert len(real) >= min(len(patches), N_PATCHES)
    assert len(real) <= N_PATCHES + 2 * N_EXTREME
    assert set(labels[chosen]) == set(labels)
    order = np.argsort(patches.mean(axis=(1, 2)))
    assert {*order[:N_EXTREME], *order[-N_EXTREME:]} <= set(chosen)
    assert (pin.min(), pin.max()) == (FRONT_END.clamp_low, FRONT_END.clamp_high)
    # Two cells at most differ from a real patch: the layers behind see real sound.
    assert (pin != patches[order[-1]]).sum() <= 2


def test_classes_take_turns() -> None:
    patches, labels = windows([1_000, 40, 40, 40])
    drawn = draw_representative(patches, labels, FRONT_END, 0)
    share = np.bincount(np.rint(drawn[:-1, 0, 0] * 100).astype(int))
    assert share.min() >= N_PATCHES // 4


def test_the_seed_decides() -> None:
    patches, labels = windows([100] * 5)
    one, again, other = (draw_representative(patches, labels, FRONT_END, s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or (one != other).any()


def test_too_few_windows_are_refused() -> None:
    patches, labels = windows([4, 5])
    with pytest.raises(ExportError, match="9 training windows are too few"):
        draw_representative(patches, labels, FRONT_END, 0)
