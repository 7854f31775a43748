"""What drifts is told, what stays is not, whatever the model has heard before."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from soundpost.device.updates.comparison import LEAST_WINDOWS, score_shift
from soundpost.device.updates.drift import SPAN_S, Drift
from soundpost.device.updates.live_sensor import N_BINS, Tally

DAY = 86_400


def tally(n_low: int, n_high: int = 0, source: str = "yard") -> Tally:
    counts = [n_low] + [0] * (N_BINS - 2) + [n_high]
    n_windows = n_low + n_high
    return Tally(source, float(n_windows), n_windows, 0, 1.0, {"dog": 1}, {"dog": counts})


USUAL = tally(DAY - 800, 800)


def test_nothing_is_told_before_it_is_known() -> None:
    drift = Drift()
    assert drift.update("a", [tally(DAY)], None) is None
    assert drift.update("a", [tally(300)], USUAL) is None


@given(hours=st.lists(st.integers(1, 48), min_size=1, max_size=10))
def test_the_same_sound_is_no_drift(hours: list[int]) -> None:
    drift, heard = Drift(), 0
    for number in hours:
        heard += 3_600 * number
        found = drift.update("a", [tally(heard - heard // 108, heard // 108)], USUAL)
        assert found is not None
        assert found < 0.05


def test_another_sound_is_drift_and_what_was_before_does_not_hide_it() -> None:
    drift = Drift()
    month = 30 * DAY
    assert drift.update("a", [tally(month)], USUAL) is not None
    changed = tally(month, int(SPAN_S))
    found = drift.update("a", [changed], USUAL)
    assert found is not None
    assert found > 1.0
    # And it goes when the sound comes back.
    back = replace(tally(month + DAY, int(SPAN_S)), heard_s=month + DAY + SPAN_S)
    found = drift.update("a", [back], USUAL)
    assert found is not None
    assert found < 0.25


def test_another_model_begins_anew() -> None:
    drift = Drift()
    assert drift.update("a", [tally(DAY)], USUAL) is not None
    assert drift.update("b", [tally(60)], USUAL) is None


# What a source has done since the look before: heard so many windows low and high, begun anew and
# heard them, or gone.
HEARD = st.tuples(st.integers(0, 20_000), st.integers(0, 400))
STEP = st.tuples(st.sampled_from(["on", "on", "on", "anew", "gone"]), HEARD)


@given(looks=st.lists(st.tuples(STEP, STEP, STEP), max_size=12))
@example(
    looks=[
        (("on", (10_400, 500)), ("on", (10_900, 0)), ("gone", (0, 0))),
        (("anew", (300, 0)), ("on", (12_100, 0)), ("gone", (0, 0))),
    ]
)
def test_what_is_compared_is_the_sound_of_the_span_whichever_source_heard_it(
    looks: list[tuple[tuple[str, tuple[int, int]], ...]],
) -> None:
    """A source that begins anew, or goes, takes with it what it heard before, and nothing else.

    The oracle adds up what each source has heard since the span began, look by look. One that
    hears as much anew at once as it had before cannot be told from one that goes on: here none
    does, for a source that begins anew lacks the first windows that it had.
    """
    drift = Drift()
    total: dict[str, tuple[int, int]] = {}
    span: dict[str, tuple[int, int]] = {}
    last: float | None = None
    for steps in looks:
        for source, (what, (low, high)) in zip("abc", steps, strict=True):
            before = total.get(source, (0, 0))
            if what == "gone":
                total.pop(source, None)
                span.pop(source, None)
                continue
            if what == "anew" and (low < before[0] or high < before[1]):
                before = (0, 0)
                span.pop(source, None)
            total[source] = (before[0] + low, before[1] + high)
            part = span.get(source, (0, 0))
            span[source] = (part[0] + low, part[1] + high)
        found = drift.update("a", [tally(*heard, source) for source, heard in total.items()], USUAL)
        recent = tally(sum(low for low, _ in span.values()), sum(high for _, high in span.values()))
        if recent.heard_s >= 600.0 and recent.windows >= LEAST_WINDOWS:
            shift = score_shift(USUAL, recent)
            assert shift is not None
            last = max(0.0, shift)
        assert found == last
        if recent.heard_s >= SPAN_S:
            span = {}


@given(looks=st.lists(st.tuples(HEARD, HEARD, HEARD), max_size=12))
def test_steady_sources_are_as_one(looks: list[tuple[tuple[int, int], ...]]) -> None:
    """Three of them tell what one tells that has heard all of their sound."""
    several, one = Drift(), Drift()
    heard = [(0, 0)] * 3
    for more in looks:
        heard = [(a + c, b + d) for (a, b), (c, d) in zip(heard, more, strict=True)]
        whole = tally(sum(low for low, _ in heard), sum(high for _, high in heard))
        apart = [tally(*each, source) for each, source in zip(heard, "abc", strict=True)]
        assert several.update("a", apart, USUAL) == one.update("a", [whole], USUAL)
