"""Live maps are those of the sound, whatever blocks it comes in, and none spans a gap."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.live_images import LiveImages, below_greatest_db, live_settings
from soundpost.device.array.mfcc import MelSettings
from soundpost.device.audio import AudioBlock
from soundpost.device.errors import InputError, UsageError

N_MICS = 5
SETTINGS = ImageSettings(snapshot_length=256, mel=MelSettings())
IMAGER = AcousticImager(vogel_spiral(N_MICS), ImageGrid(3, 4), SETTINGS)


def noise(n, n_channels=N_MICS, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (n, n_channels)).astype("f4")


def maps_of(snapshots):
    """The imager's, one by one: together their last bits are others."""
    return [IMAGER.energy(snapshot[None])[0] for snapshot in snapshots]


def blocks(sound, places, rate_hz, first=0):
    position = 0
    for part in np.split(sound, sorted(places)):
        yield AudioBlock(part, first + position, rate_hz)
        position += len(part)


@settings(max_examples=12, deadline=None)
@given(
    rate_hz=st.sampled_from([12_288, 16_000, 48_000]),
    first=st.integers(0, 10**9),
    places=st.lists(st.integers(0, 9_000), max_size=12),
)
def test_the_cut_does_not_matter(rate_hz, first, places):
    sound = noise(9_000)
    live = LiveImages(IMAGER)
    found = [one for block in blocks(sound, places, rate_hz, first) for one in live.push(block)]
    # soxr and the imager, of all at once
    resampled = soxr.resample(sound, rate_hz, 12_288, "HQ")
    expected = maps_of(cut_snapshots(resampled, 256))
    # The resampler holds at most 60 ms back.
    assert len(found) >= (9_000 / rate_hz - 0.06) * 48 - 1
    assert np.array_equal([one.energy for one in found], expected[: len(found)])
    middles = first + (np.arange(len(found)) + 0.5) * 256 * rate_hz / 12_288
    assert [one.sample for one in found] == pytest.approx(middles)


def test_no_map_spans_a_gap():
    sound = noise(5_000)
    live = LiveImages(IMAGER)
    before = live.push(AudioBlock(sound[:1_000], 0, 12_288))
    after = live.push(AudioBlock(sound[3_000:4_000], 3_000, 12_288))
    assert [one.sample for one in before] == [128, 384, 640]
    assert [one.sample for one in after] == [3_128, 3_384, 3_640]
    expected = maps_of(cut_snapshots(sound[3_000:4_000], 256))
    assert np.array_equal([one.energy for one in after], expected)
    # Another rate is another stream, though it goes on where the last ended.
    (one, *_) = live.push(AudioBlock(noise(4_000), 4_000, 48_000))
    assert one.sample == 4_000 + 500


def test_some_may_be_left_out_and_channels_are_those_of_the_microphones():
    sound = noise(256 * 7, 8)
    channels = (6, 0, 3, 7, 1)
    live = LiveImages(IMAGER, channels, skip=2)
    found = live.push(AudioBlock(sound, 0, 12_288))
    expected = maps_of(cut_snapshots(sound[:, list(channels)], 256))
    assert np.array_equal([one.energy for one in found], expected[::3])


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
@pytest.mark.parametrize(("row", "column"), [(10, 12), (30, 40)])
def test_a_source_shows_where_it_is(rate_hz, row, column):
    """Noise of 1 to 6 kHz from the middle of a pixel; channels are not in order."""
    geometry, grid = vogel_spiral(32, 0.3), ImageGrid()
    channels = np.random.default_rng(1).permutation(34)[:32].tolist()
    settings = live_settings(rate_hz, 20.0)
    live = LiveImages(AcousticImager(geometry, grid, settings), channels)
    # Pixels of a sphere grid are cells of equal size in u and v.
    direction = grid.directions()[row * grid.columns + column]
    delays_s = -(geometry.positions_m @ direction) / 343.2
    rng = np.random.default_rng(2)
    n = 8_192
    frequencies = np.fft.rfftfreq(n, 1 / rate_hz)
    spectrum = np.exp(2j * np.pi * rng.uniform(size=len(frequencies)))
    spectrum[(frequencies < 1_000) | (frequencies > 6_000)] = 0
    waves = np.fft.irfft(spectrum * np.exp(-2j * np.pi * frequencies * delays_s[:, None]), n)
    samples = np.zeros((n, 34), np.float32)
    samples[:, channels] = 0.1 * waves.T / np.abs(waves).max()
    maps = live.push(AudioBlock(samples, 0, rate_hz))
    # Twelve a second, at the stream's own rate.
    assert len(maps) == n * 12 // rate_hz
    found = below_greatest_db(maps[0].energy)
    assert found.shape == (36, 48)
    assert found.max() == 0
    assert np.unravel_index(found.argmax(), found.shape) == (row, column)


def test_silence_is_no_error():
    live = LiveImages(AcousticImager(vogel_spiral(8, 0.2), ImageGrid(), live_settings(16_000)))
    (one,) = live.push(AudioBlock(np.zeros((1_334, 8), np.float32), 0, 16_000))
    assert (below_greatest_db(one.energy) == -120).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="4 channels for 5 microphones"):
        LiveImages(IMAGER, range(4))
    with pytest.raises(InputError, match="a block of 3 channels; expected at least 5"):
        LiveImages(IMAGER).push(AudioBlock(noise(100, 3), 0, 12_288))
    odd = ImageSettings(sample_rate_hz=12_288.5)
    with pytest.raises(UsageError, match=r"rate 12288.5 Hz; expected a whole number"):
        LiveImages(AcousticImager(vogel_spiral(5), ImageGrid(3, 4), odd))
