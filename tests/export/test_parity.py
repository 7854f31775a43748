"""Figures of a parity table, worked out by hand, and the bounds that stop an export."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from soundpost.device.errors import ExportError
from soundpost.export.parity import (
    ENGINES,
    INT8_TFLITE,
    TORCH,
    Parity,
    ParityBounds,
    check_parity,
    measure_parity,
)
from soundpost.export.windows import LabelledWindows

LABELS = ("dog", "rain", "smoke_alarm")
NONE = ParityBounds(top1_agreement=0.0, accuracy_drop=1.0, class_drop=1.0)


def case() -> tuple[dict[str, np.ndarray], LabelledWindows]:
    """Twelve clips of two windows: six dogs, three rains, two alarms, one of none."""
    clip_labels = np.array([0] * 6 + [1] * 3 + [2] * 2 + [-1])
    windows = LabelledWindows(
        np.zeros((24, 1, 1), np.float32),
        np.repeat(np.arange(12), 2),
        clip_labels,
        np.arange(12) >= 9,
    )
    logits = np.full((24, 3), -4.0, np.float32)
    for window, label in enumerate(windows.window_labels):
        if label >= 0:
            logits[window, label] = 4.0
    return {engine: logits.copy() for engine in ENGINES}, windows


def measure(logits: dict[str, np.ndarray], windows: LabelledWindows) -> Parity:
    return measure_parity(logits, windows, LABELS, "ai-edge-litert")


def test_equal_logits_differ_by_nothing() -> None:
    logits, windows = case()
    parity = measure(logits, windows)
    for engine in ENGINES:
        row = parity.of(engine)
        assert (row.max_difference, row.mean_difference, row.top1_agreement) == (0, 0, 1)
        assert row.figures.top1 == 1.0
        # Two alarms are synthesised and one clip is of none: nine recorded clips are left.
        assert row.figures.n_clips == 9
        assert row.average_precision == {"dog": 1.0, "rain": 1.0, "smoke_alarm": 1.0}
    check_parity(parity, windows, LABELS, ParityBounds())


def test_differences_are_those_of_probabilities() -> None:
    logits, windows = case()
    logits[INT8_TFLITE][0, 0] = 0.0
    row = measure(logits, windows).of(INT8_TFLITE)
    expected = 1 / (1 + np.exp(-4.0)) - 0.5
    assert row.max_difference == pytest.approx(expected, rel=1e-6)
    assert row.mean_difference == pytest.approx(expected / 72, rel=1e-6)


def test_windows_that_change_their_label_stop_the_export() -> None:
    logits, windows = case()
    # One of the 24 windows, a rain, is heard as a dog: 0.9583.
    logits[INT8_TFLITE][12, 0] = 5.0
    parity = measure(logits, windows)
    assert parity.of(INT8_TFLITE).top1_agreement == pytest.approx(23 / 24)
    with pytest.raises(ExportError, match=r"0\.958 of the windows: .* 0\.97; .* 'rain'"):
        check_parity(parity, windows, LABELS, ParityBounds())
    check_parity(parity, windows, LABELS, ParityBounds(top1_agreement=0.95))


def test_lost_clips_stop_the_export() -> None:
    logits, windows = case()
    logits[INT8_TFLITE][12:14, 0] = 5.0
    parity = measure(logits, windows)
    bounds = replace(NONE, accuracy_drop=0.01)
    with pytest.raises(ExportError, match=r"falls by 11\.1 points from 100\.0 %.*'rain'"):
        check_parity(parity, windows, LABELS, bounds)
    check_parity(parity, windows, LABELS, replace(NONE, accuracy_drop=0.12))


def test_a_label_that_loses_stops_the_export_by_name() -> None:
    logits, windows = case()
    # All but the dogs are now likelier dogs than the sixth dog is.
    logits[INT8_TFLITE][10:12, 0] = -5.0
    parity = measure(logits, windows)
    # Ranked last of twelve: precision at the sixth hit is 6 / 12 instead of 1.
    assert parity.class_drop("dog") == pytest.approx(0.5 / 6)
    with pytest.raises(ExportError, match=r"'dog' falls by 0\.083 from 1\.000.*0\.05"):
        check_parity(parity, windows, LABELS, replace(NONE, class_drop=0.05))
    check_parity(parity, windows, LABELS, replace(NONE, class_drop=0.05, class_clips=7))


def test_a_gain_is_no_loss() -> None:
    logits, windows = case()
    logits[TORCH][12:14, 0] = 5.0
    parity = measure(logits, windows)
    check_parity(parity, windows, LABELS, NONE)
    assert parity.class_drop("rain") <= 0


def test_clips_of_several_labels_count_for_each_of_them() -> None:
    logits, windows = case()
    # As before, but clips 0 to 2 are of rain as well, which is said less loudly.
    matrix = windows.clip_labels[:, None] == np.arange(3)
    for form in (windows.clip_labels, matrix):
        same = measure(logits, replace(windows, clip_labels=form)).of(TORCH)
        assert same.figures.to_dict() == measure(logits, windows).of(TORCH).figures.to_dict()
    matrix[:3, 1] = True
    several = replace(windows, clip_labels=matrix)
    for engine in ENGINES:
        logits[engine][:6, 1] = 3.0
    row = measure(logits, several).of(TORCH)
    assert row.figures.top1 == 1.0
    assert row.average_precision == {"dog": 1.0, "rain": 1.0, "smoke_alarm": 1.0}
    # Clips of a label by the best label of each: three of the six rains are heard as dogs first.
    assert row.figures.confusion.tolist() == [[6, 0, 0], [3, 3, 0], [0, 0, 0]]
    assert row.figures.recall == {"dog": 1.0, "rain": 1.0}
    # Int8 no longer hears the rain in them.
    logits[INT8_TFLITE][:6, 1] = -6.0
    parity = measure(logits, several)
    assert parity.of(INT8_TFLITE).figures.top1 == 1.0
    # Three rains stand first, three share the last place of twelve: precision 1 and 6 / 12.
    assert parity.class_drop("rain") == pytest.approx(1 - (3 + 3 * 6 / 12) / 6)
    with pytest.raises(ExportError, match=r"'rain' falls by 0\.250"):
        check_parity(parity, several, LABELS, ParityBounds())
    assert several.window_labels.tolist() == windows.window_labels.tolist()
