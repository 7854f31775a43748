"""Resampling by time spans against the overlap integral, worked out second by second."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd
from soundpost.train.multimodal.time_spans import (
    edges_of_rows,
    resample,
    spans_between,
    window_spans,
)
from soundpost.train.sed.frame_grid import frame_edges_s

WHERE = "store: clip a"


def overlap_integral(rows, edges, spans):
    """For each span, every row's time in common with it, one pair at a time."""
    found = []
    for begin, end in spans:
        total, weight = np.zeros(rows.shape[1]), 0.0
        for row, low, high in zip(rows, edges[:-1], edges[1:], strict=True):
            shared = max(0.0, min(end, high) - max(begin, low))
            total += shared * row
            weight += shared
        found.append(total / weight)
    return np.array(found)


# Grids of milliseconds: every span then has a whole millisecond in common or nothing.
milliseconds = st.integers(1, 400)
scores = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed))


@given(
    rng=scores,
    widths=st.lists(milliseconds, min_size=1, max_size=12),
    start=st.integers(-300, 300),
    data=st.data(),
)
def test_resampling_equals_the_overlap_integral(rng, widths, start, data):
    edges = (start + np.concatenate([[0], np.cumsum(widths)])) / 1000
    rows = rng.random((len(widths), 3))
    first, last = start, start + sum(widths)
    spans = []
    for _ in range(data.draw(st.integers(1, 8))):
        begin = data.draw(st.integers(first - 200, last - 1))
        end = data.draw(st.integers(max(begin, first) + 1, last + 200))
        spans.append((begin / 1000, end / 1000))
    spans = np.array(spans)
    found = resample(rows, edges, spans, WHERE)
    np.testing.assert_allclose(found, overlap_integral(rows, edges, spans), atol=1e-5)


@given(
    value=st.floats(0, 1, width=32),
    n_rows=st.integers(1, 50),
    hop=milliseconds,
    student_hop=milliseconds,
)
def test_a_constant_label_stays_what_it_is(value, n_rows, hop, student_hop):
    edges = edges_of_rows(n_rows, 0.0, hop / 1000, hop / 1000)
    n_frames = max(1, n_rows * hop // student_hop)
    spans = spans_between(np.arange(n_frames + 1) * min(student_hop, n_rows * hop) / 1000)
    found = resample(np.full((n_rows, 2), value, np.float32), edges, spans, WHERE)
    np.testing.assert_allclose(found, value, rtol=1e-6)


@given(rng=scores, n_rows=st.integers(1, 200), cuts=st.sets(st.integers(1, 9999), max_size=40))
def test_spans_that_tile_the_clip_keep_its_mass(rng, n_rows, cuts):
    edges = edges_of_rows(n_rows, 0.0, 10 / n_rows, 10 / n_rows)
    rows = rng.random((n_rows, 2))
    borders = np.array([0, *sorted(cuts), 10_000]) / 1000
    found = resample(rows, edges, spans_between(borders), WHERE)
    mass = (found * np.diff(borders)[:, None]).sum(0)
    np.testing.assert_allclose(mass, rows.mean(0) * 10, rtol=1e-5)


@given(
    rng=scores,
    n_rows=st.integers(1, 300),
    hop=milliseconds,
    window=milliseconds,
    start=st.integers(-500, 500),
)
def test_equal_grids_give_the_same_numbers_to_the_last_bit(rng, n_rows, hop, window, start):
    edges = edges_of_rows(n_rows, start / 1000, max(hop, window) / 1000, hop / 1000)
    rows = rng.random((n_rows, 3)).astype(np.float32)
    # Times that went through a decimal table are not the same floats any more.
    spans = spans_between(edges + 1e-13)
    np.testing.assert_array_equal(resample(rows, edges, spans, WHERE), rows)


@given(rng=scores, n_rows=st.integers(1, 60), shift=st.integers(0, 5000))
def test_the_result_stays_between_the_least_and_the_greatest_row(rng, n_rows, shift):
    rows = np.round(rng.random((n_rows, 1)))
    edges = edges_of_rows(n_rows, 0.0, 1 / 3, 1 / 3) + shift
    spans = edges[0] + (edges[-1] - edges[0]) * np.sort(rng.random((40, 2)), 1)
    spans = spans[spans[:, 1] - spans[:, 0] > 1e-6]
    found = resample(rows, edges, spans, WHERE)
    assert found.min(initial=0) >= 0
    assert found.max(initial=1) <= 1


def test_a_row_stands_for_the_hop_around_the_middle_of_what_it_heard():
    # Windows of 1 s every 0.25 s: middles at 0.5, 0.75 and 1; the first reaches back to 0, the last
    # on to 1.5, the end of its window.
    np.testing.assert_allclose(edges_of_rows(3, 0.0, 1.0, 0.25), [0.0, 0.625, 0.875, 1.5])
    np.testing.assert_allclose(edges_of_rows(1, 2.0, 5.0, 5.0), [2.0, 7.0])
    # Windows shorter than the hop: bounds half-way between them.
    np.testing.assert_allclose(edges_of_rows(2, 0.0, 0.5, 1.0), [0.0, 0.75, 1.5])


def test_bounds_of_rows_are_those_of_the_front_ends_frames():
    front_end = FrontEnd()
    ours = edges_of_rows(998, 0.0, 0.025, 0.010)
    np.testing.assert_allclose(ours[1:-1], frame_edges_s(front_end, 998)[1:-1])


@pytest.mark.parametrize(
    ("n_rows", "window_s", "hop_s"),
    [
        (1996, 0.024, 0.005),  # li2018: 20 kHz, 24 ms, 5 ms
        (1001, 440 / 22050, 220 / 22050),  # perez2020: 22.05 kHz, a hop of 9.977 ms
        (100, 0.1, 0.1),  # 10 Hz
        (1, 10.0, 10.0),  # a clip's tags
    ],
)
def test_teachers_of_other_front_ends_cover_the_students_ten_seconds(n_rows, window_s, hop_s):
    spans = spans_between(frame_edges_s(FrontEnd(), 998))
    edges = edges_of_rows(n_rows, 0.0, window_s, hop_s)
    # A label that rises with time: each frame hears its own middle, but for half a teacher's row.
    rows = ((edges[:-1] + edges[1:]) / 20)[:, None]
    found = resample(rows, edges, spans, WHERE)[:, 0]
    middles = spans.mean(1) / 10
    assert np.abs(found - middles).max() <= np.diff(edges).max() / 20 + 1e-6


def test_windows_of_half_a_second():
    # Rows of 1 s with labels 0, 1, 0: windows at 0.75, 1.25, 1.9 s share 0.25 of 0.5 s, all of it
    # and 0.1 of 0.5 s with the middle row.
    spans = window_spans(np.array([0.75, 1.25, 1.9]), 0.5)
    rows = np.array([[0.0], [1.0], [0.0]])
    found = resample(rows, np.array([0.0, 1.0, 2.0, 3.0]), spans, WHERE)
    np.testing.assert_allclose(found[:, 0], [0.5, 1.0, 0.2], atol=1e-7)


def test_a_span_that_sticks_out_is_judged_by_what_is_covered():
    rows = np.array([[0.2], [0.8]])
    found = resample(rows, np.array([0.0, 1.0, 2.0]), np.array([[-5.0, 0.5], [1.5, 9.0]]), WHERE)
    np.testing.assert_allclose(found[:, 0], [0.2, 0.8], atol=1e-7)


@pytest.mark.parametrize("span", [(-1.0, 0.0), (2.0, 3.0), (5.0, 6.0), (1.0, 1.0)])
def test_no_overlapping_time_is_an_error_that_says_where(span):
    spans = np.array([[0.0, 1.0], span])
    with pytest.raises(InputError) as error:
        resample(np.zeros((2, 1)), np.array([0.0, 1.0, 2.0]), spans, WHERE)
    message = str(error.value)
    assert message.startswith("store: clip a: soft labels cover 0.000 to 2.000 s and 1 of 2 frames")
    assert f"the first {span[0]:.3f} to {span[1]:.3f} s" in message


def test_no_spans_give_no_rows():
    assert resample(np.zeros((2, 3)), np.array([0.0, 1, 2]), np.empty((0, 2)), WHERE).shape == (
        0,
        3,
    )
