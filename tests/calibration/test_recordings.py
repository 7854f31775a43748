"""What is used of a recording is what its channels have, and each sample knows its place."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from soundpost.calibration.recordings import (
    Recording,
    air_temperature_c,
    check_array,
    pick_channels,
    read_recording,
)
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_tables import Gap

RATE_HZ, N_CHANNELS = 8_000, 4
PART = st.tuples(st.integers(0, 70), st.integers(1, 30), st.integers(0, 3), st.integers(1, 4))


def numbered(n_samples, parts):
    """A recording whose samples are their own numbers, and (n_samples, n_channels) what is there"""
    there = np.ones((n_samples, N_CHANNELS), bool)
    missing = []
    for first, length, channel, count in parts:
        first, count = min(first, n_samples - 1), min(count, N_CHANNELS - channel)
        length = min(length, n_samples - first)
        there[first : first + length, channel : channel + count] = False
        missing.append(LostPart(first, length, channel, count, "lost"))
    samples = np.arange(n_samples)[:, None] + np.zeros((1, N_CHANNELS))
    return Recording("x", samples.astype("f4"), RATE_HZ, tuple(missing)), there


@given(
    st.integers(1, 90),
    st.lists(PART, max_size=5),
    st.sets(st.integers(0, 3), min_size=1),
    st.integers(0, 89),
    st.integers(0, 89),
)
def test_parts_are_those_in_which_no_channel_lacks_a_sample(n_samples, parts, channels, one, other):
    recording, there = numbered(n_samples, parts)
    channels = sorted(channels)
    whole = there[:, channels].all(axis=1)
    joined = recording.joined(channels)
    kept = np.flatnonzero(whole)
    np.testing.assert_array_equal(joined.samples, kept[:, None] + np.zeros((1, len(channels))))
    assert [joined.place(at) for at in range(len(kept))] == kept.tolist()
    low, high = sorted((min(one, n_samples), min(other, n_samples)))
    assert recording.lacks(low, high, channels) == (not whole[low:high].all())
    # A seam wherever the sample before, or the one after, is missing.
    before = {at for at, place in enumerate(kept) if place > 0 and not whole[place - 1]}
    after = {
        at + 1 for at, place in enumerate(kept) if place + 1 < n_samples and not whole[place + 1]
    }
    assert set(joined.seams) == before | after
    for at in range(len(kept) + 1):
        assert joined.is_whole(at, at) == (at not in joined.seams)


@given(st.integers(1, 90), st.lists(PART, max_size=5), st.sets(st.integers(0, 3), min_size=1))
def test_the_longest_part_is_used_and_said(n_samples, parts, channels):
    recording, there = numbered(n_samples, parts)
    whole = there[:, sorted(channels)].all(axis=1)
    if not whole.any():
        with pytest.raises(InputError, match="all of its sound is missing"):
            recording.longest_whole(channels)
        return
    used, told = recording.longest_whole(channels)
    runs = "".join("1" if of else "0" for of in whole).split("0")
    assert len(used.samples) == max(map(len, runs))
    first = int(used.samples[0, 0])
    assert whole[first : first + len(used.samples)].all()
    assert len(told) == (not whole.all())
    if told:
        assert f"lacks {(~whole).sum() / RATE_HZ:.3f} s of sound" in told[0]
        assert (
            f"from {first / RATE_HZ:.3f} to {(first + len(used.samples)) / RATE_HZ:.3f} s"
            in told[0]
        )


def test_a_session_is_what_was_played_and_says_what_it_lacks(record_session, tmp_path):
    array = ArrayDescription(vogel_spiral(3, 0.2))
    rng = np.random.default_rng(0)
    played = np.round(rng.uniform(-0.5, 0.5, (4_000, N_CHANNELS)) * 2**20) / 2**20
    lost = LostPart(2_000, 40, 1, 2, "lost")
    folder = record_session(
        "hall",
        played,
        RATE_HZ,
        array=array,
        temperature_c=12.5,
        gaps=[Gap(100, 7, "away")],
        lost=[lost],
    )
    found = read_recording(folder)
    heard = played.astype("f4")
    heard[100:107] = 0
    np.testing.assert_array_equal(found.samples, heard)
    assert (found.rate_hz, found.temperature_c) == (RATE_HZ, 12.5)
    assert found.missing == (LostPart(100, 7, 0, N_CHANNELS, "away"), lost)
    check_array(found, array)
    with pytest.raises(InputError, match=r"hall: was recorded with the array .*'vogel-3'"):
        check_array(found, ArrayDescription(vogel_spiral(3, 0.3)))
    soundfile.write(tmp_path / "same.wav", played, RATE_HZ, subtype="PCM_24")
    file = read_recording(tmp_path / "same.wav")
    np.testing.assert_array_equal(file.samples, played.astype("f4"))
    assert file.missing == ()
    check_array(file, ArrayDescription(vogel_spiral(3, 0.3)))
    # Given, told, or usual.
    assert air_temperature_c(30.0, [found, file]) == 30.0
    assert air_temperature_c(None, [file, found]) == 12.5
    assert air_temperature_c(None, [file]) == 20.0


def test_a_damaged_session_and_channels_that_were_not_recorded_are_refused(record_session):
    folder = record_session("hall", np.zeros((900, 2)), RATE_HZ)
    with pytest.raises(InputError, match=r"x: has 2 channels, and .* channels up to 2"):
        pick_channels(read_recording(folder).samples, (0, 2), "x")
    (folder / "audio" / "000000.wav").unlink()
    with pytest.raises(InputError, match=r"000000\.wav: is missing.* --repair"):
        read_recording(folder)
