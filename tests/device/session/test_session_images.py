"""Images of a session are those of its whole sound, however they are cut, and gaps are told."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.mfcc import MelSettings
from soundpost.device.errors import InputError, UsageError
from soundpost.device.session import session_images
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_images import SessionImages
from soundpost.device.session.session_tables import Gap

KINDS = ("mfcc", "log_mel", "power", "energy")


class Recording:
    """What SessionImages reads of a session, from memory."""

    def __init__(self, sound, rate_hz, gaps=()):
        self.sound, self.rate_hz, self.gaps, self.folder = sound, rate_hz, gaps, "memory"
        self.n_samples, self.n_channels = sound.shape
        self.lost = ()
        self.duration_s = len(sound) / rate_hz
        self.description = SimpleNamespace(id="x", calibration_sha256=None)

    def read(self, first, n_samples):
        assert 0 <= first <= first + n_samples <= self.n_samples
        return self.sound[first : first + n_samples]


def imager(rate_hz=12_288, length=1_024, n_mics=5, **more):
    mel = MelSettings(layout="frequency")
    given_settings = ImageSettings(sample_rate_hz=rate_hz, snapshot_length=length, mel=mel)
    return AcousticImager(vogel_spiral(n_mics), ImageGrid(3, 4), given_settings, **more)


def noise(n, n_channels=5, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (n, n_channels)).astype("f4")


def together(images, kinds=KINDS, **more):
    chunks = list(images.make(kinds, **more))
    return {kind: np.concatenate([chunk.images[kind] for chunk in chunks]) for kind in kinds}


@settings(max_examples=8, deadline=None)
@given(
    rate_hz=st.sampled_from([48_000, 44_100, 16_000, 12_288]),
    first=st.integers(0, 9_000),
    seconds=st.floats(0.3, 0.9),
    seed=st.integers(0, 99),
)
def test_images_are_those_of_the_whole_sound_resampled_at_once(rate_hz, first, seconds, seed):
    sound = noise(first + round(seconds * rate_hz), seed=seed)
    # Chunks of four, so that there are some
    previous, session_images.CHUNK_IMAGES = session_images.CHUNK_IMAGES, 4
    try:
        images = SessionImages(Recording(sound, rate_hz), imager(), range(5), first)
        found = together(images)
    finally:
        session_images.CHUNK_IMAGES = previous
    n_images = int((len(sound) - first) * 12 / rate_hz + 1e-9)
    assert images.n_images == n_images
    # soxr itself, and the sound before the first image in front of it: half a second is whole
    # samples at each rate.
    lead = rate_hz // 2
    before = np.pad(sound, ((lead, 0), (0, 0)))[first : first + lead]
    resampled = soxr.resample(np.concatenate([before, sound[first:]]), rate_hz, 12_288, "HQ")
    resampled = np.pad(resampled[6_144:], ((0, 1_024), (0, 0)))[: n_images * 1_024]
    expected = imager().power(cut_snapshots(resampled))
    # The first image of all begins with silence before it, which is cut off at another sample.
    some = slice(0 if first > 0.15 * rate_hz or first == 0 else 1, n_images)
    difference = np.abs(found["power"] - expected)[some]
    assert difference.max(initial=0) < 2e-5 * expected.max()
    samples = first + (np.arange(n_images) + 0.5) * rate_hz / 12
    assert images.samples == pytest.approx(samples)


@pytest.mark.parametrize("workers", [1, 3])
def test_one_by_one_or_in_threads_they_are_the_same_bits(workers):
    sound = noise(48_000 * 7)
    images = SessionImages(Recording(sound, 48_000), imager(), range(5))
    assert (images.n_images, images.n_chunks) == (84, 4)
    whole = together(images, workers=workers)
    for number in (2, 0, 3):
        (chunk,) = images.make(("energy", "mfcc"), [number])
        some = slice(24 * number, 24 * number + 24)
        assert chunk.number == number
        assert np.array_equal(chunk.images["energy"], whole["energy"][some])
        assert np.array_equal(chunk.images["mfcc"], whole["mfcc"][some])


def test_every_kind_is_what_the_imager_makes_of_it():
    sound = noise(3 * 1_024)
    images = SessionImages(Recording(sound, 12_288), imager(), range(5))
    found = together(images)
    snapshots = cut_snapshots(sound)
    for kind in KINDS:
        expected = getattr(imager(), kind)(snapshots)
        assert found[kind] == pytest.approx(expected, rel=1e-4, abs=1e-3)
        assert images.shapes(KINDS)[kind] == expected.shape[1:]


def test_channels_are_those_of_the_microphones():
    sound = noise(4_096, 8)
    channels = (6, 0, 3, 7, 1)
    found = together(SessionImages(Recording(sound, 12_288), imager(), channels), ("energy",))
    expected = imager().energy(cut_snapshots(sound[:, list(channels)]))
    assert found["energy"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match=r"5 channels up to 8 for 5 microphones.*the 8 recorded"):
        SessionImages(Recording(sound, 12_288), imager(), (8, 0, 1, 2, 3))


@given(
    first=st.integers(0, 5_000),
    gaps=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 4_000)), max_size=4),
)
@settings(deadline=None, max_examples=40)
def test_an_image_is_valid_where_no_sample_of_it_is_missing(first, gaps):
    stated = [Gap(place, length, "lost") for place, length in sorted(gaps)]
    images = SessionImages(
        Recording(np.zeros((24_000, 5), "f4"), 16_000, stated), imager(), range(5), first
    )
    missing = np.zeros(30_000, bool)
    for place, length in gaps:
        missing[place : place + length] = True
    # A 12th of 16,000 samples is 1,333 and a third.
    for index, valid in enumerate(images.valid()):
        start, end = (first + part * 16_000 / 12 for part in (index, index + 1))
        # The third of a sample at either end is the neighbour's as well.
        held = range(int(np.floor(start + 1e-9)), int(np.ceil(end - 1e-9)))
        assert valid == (not missing[list(held)].any())


def test_images_without_their_sound_are_not_numbers():
    sound = noise(12_288)
    gaps = [Gap(2_900, 100, "lost"), Gap(8_190, 4, "lost")]
    images = SessionImages(Recording(sound, 12_288, gaps), imager(), range(5))
    (chunk,) = images.make(KINDS)
    assert np.flatnonzero(~chunk.valid).tolist() == [2, 7, 8]
    for kind in KINDS:
        lost = np.isnan(chunk.images[kind]).reshape(12, -1)
        assert lost.all(axis=1).tolist() == lost.any(axis=1).tolist() == (~chunk.valid).tolist()


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [(0, 1_000, "0.062 s were chosen"), (15_000, None, "0.062 s"), (20_000, None, "0.000 s")],
)
def test_less_than_one_image_is_refused(first, last, said):
    recording = Recording(noise(16_000), 16_000)
    with pytest.raises(UsageError, match=f"{said}.*at least 0.083 s, which is one image"):
        SessionImages(recording, imager(), range(5), first, last)


def test_a_rate_in_parts_of_a_hertz_is_refused():
    with pytest.raises(UsageError, match=r"rate 12288.5 Hz; expected a whole number"):
        SessionImages(Recording(noise(16_000), 16_000), imager(12_288.5), range(5))


def test_settings_tell_what_images_depend_on():
    recording = Recording(noise(16_000), 16_000)
    plain = SessionImages(recording, imager(), range(5)).settings
    for other in (
        SessionImages(recording, imager(dead=[2]), range(5)).settings,
        SessionImages(recording, imager(length=512), range(5)).settings,
        SessionImages(recording, imager(), range(5), 10).settings,
        SessionImages(recording, imager(), (1, 0, 2, 3, 4)).settings,
    ):
        assert other != plain
    assert SessionImages(recording, imager(), range(5)).settings == plain


def test_settings_tell_what_is_missing_of_the_part_that_is_looked_at():
    """A repair finds more missing: images that were made before it are not those of now."""
    sound = noise(16_000)

    def told(gaps=(), lost=(), last=None):
        recording = Recording(sound, 16_000, gaps)
        recording.lost = lost
        return SessionImages(recording, imager(), range(5), 4_000, last).settings

    part = LostPart(9_000, 48, 1, 2, "lost")
    every = [
        told(),
        told([Gap(9_000, 48, "lost")]),
        told([Gap(9_000, 49, "lost")]),
        told(lost=[part]),
        told(lost=[dataclasses.replace(part, first_channel=2)]),
        told(lost=[dataclasses.replace(part, n_channels=1)]),
    ]
    assert all(one != other for one, other in itertools.combinations(every, 2))
    # What ends before the part or begins after it is no matter, nor is the cause.
    before, after = Gap(3_000, 1_000, "lost"), Gap(12_000, 48, "lost")
    assert told([before, after], last=12_000) == told(last=12_000)
    assert told([before._replace(length=1_001)], last=12_000) != told(last=12_000)
    assert told([after._replace(first_sample=11_999)], last=12_000) != told(last=12_000)
    assert told([Gap(9_000, 48, "damaged")]) == every[1]
