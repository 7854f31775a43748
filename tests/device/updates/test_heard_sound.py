"""However sources come and go, no more sound is heard than time passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.updates.heard_sound import HeardSound
from soundpost.device.updates.live_sensor import Tally

# What becomes of a source between two looks: it hears on, is paused, opened again, or away.
STEPS = st.lists(
    st.tuples(
        st.floats(0.1, 60.0),
        st.lists(st.sampled_from(["hears", "paused", "again", "away"]), min_size=3, max_size=3),
    ),
    max_size=30,
)


@given(STEPS, st.booleans())
def test_sources_that_come_and_go_hear_no_faster_than_time_passes(
    steps: list[tuple[float, list[str]]], steady: bool
) -> None:
    """With one that hears all the time, it is that time."""
    sound, counts = HeardSound(), dict.fromkeys(range(3), 0.0)
    heard_s = passed_s = 0.0
    for seconds, fates in steps:
        passed_s += seconds
        for source, fate in enumerate(fates):
            if fate == "again":
                counts[source] = seconds / 2
            elif fate == "hears":
                counts[source] += seconds
        present = [source for source, fate in enumerate(fates) if fate != "away"]
        tallies = [Tally(f"mic{source}", heard_s=counts[source]) for source in present]
        if steady:
            tallies.append(Tally("steady", heard_s=passed_s))
        more_s = sound.more_s(tallies)
        assert more_s >= 0.0
        heard_s += more_s
        # What one heard while it was away for us is heard, too.
        assert heard_s <= passed_s + 1e-6
    if steady:
        assert heard_s == pytest.approx(passed_s)


def test_one_that_is_opened_again_beside_one_that_lags() -> None:
    sound = HeardSound()
    first = sound.more_s([Tally("a", heard_s=3_961.0), Tally("b", heard_s=3_901.0)])
    again = sound.more_s([Tally("a", heard_s=5.0), Tally("b", heard_s=3_911.0)])
    assert (first, again) == (3_961.0, 10.0)
