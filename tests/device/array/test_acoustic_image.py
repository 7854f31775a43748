"""Images: what is loud where it is, bands, MFCC, calibration applied, dead microphones."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.fast_path import SeparableBeamformer
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid, vogel_spiral
from soundpost.device.array.mfcc import MelSettings, log_mel, mfcc
from soundpost.device.errors import InputError

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[4] / "shared" / "data")
RATE_HZ = 12_288.0
FREQUENCIES_HZ = np.arange(513) * 12.0
SMALL = vogel_spiral(24)
SMALL_GRID = ImageGrid(9, 12)


def noise(n_frames, n_mics=24, seed=0):
    return np.random.default_rng(seed).normal(0, 0.01, (n_frames, n_mics, 1_024)).astype("f4")


def from_directions(array, directions, plane_waves, seed=0, level=0.1):
    """Snapshots of noise from one direction each, (n_directions, n_mics, 1024)."""
    rng = np.random.default_rng(seed)
    source = np.fft.rfft(rng.normal(0, level, (len(directions), 1_024)))
    spectra = plane_waves(array.positions_m, directions, FREQUENCIES_HZ)
    samples = np.fft.irfft(spectra.transpose(2, 1, 0) * source[:, None])
    return samples.astype("f4")


@pytest.mark.parametrize("route", ["fast", "general"])
def test_noise_from_a_pixel_is_loudest_in_it(spiral, plane_waves, route):
    grid = ImageGrid()
    pixels = [0, 47, 500, 863, 1_201, 1_680, 1_727]
    samples = from_directions(spiral, grid.directions()[pixels], plane_waves)
    imager = AcousticImager(spiral, settings=ImageSettings(route=route))
    energy = imager.energy(samples)
    assert energy.shape == (7, 36, 48)
    assert energy.dtype == np.float32
    assert [int(image.argmax()) for image in energy] == pixels


def test_both_routes_make_the_same_images(spiral):
    samples = noise(26, 128)
    fast, general = (
        AcousticImager(spiral, settings=ImageSettings(route=route)).images(samples)
        for route in ("fast", "general")
    )
    assert fast.mfcc.shape == general.mfcc.shape == (26, 36, 48, 12)
    assert np.abs(fast.energy - general.energy).max() < 1e-5 * general.energy.max()
    assert np.abs(fast.mfcc - general.mfcc).max() < 2e-3
    assert general.mfcc.std() > 1


def test_a_pixel_hears_the_windowed_spectrum_of_its_source():
    # Straight ahead all microphones hear the same; the middle of an odd grid is straight ahead.
    samples = np.random.default_rng(1).normal(0, 0.1, 1_024).astype("f4")
    snapshot = np.tile(samples, (1, 24, 1))
    power = AcousticImager(SMALL, ImageGrid(5, 7)).power(snapshot)
    assert power.shape == (1, 5, 7, 512)
    windowed = samples * scipy.signal.windows.tukey(1_024, 0.75)
    expected = np.abs(np.fft.rfft(windowed)[:512]) ** 2
    assert power[0, 2, 3] == pytest.approx(expected, rel=1e-4, abs=1e-6 * expected.max())


def test_energy_is_the_sum_of_the_power_from_900_to_6400_hz():
    imager = AcousticImager(SMALL, SMALL_GRID)
    samples = noise(3)
    # 900 Hz is bin 75; 6,400 Hz lies beyond the last, 511.
    expected = imager.power(samples)[..., 75:512].sum(axis=-1)
    assert imager.energy(samples) == pytest.approx(expected, rel=1e-5)
    narrow = ImageSettings(band_low_hz=1_000.0, band_high_hz=1_200.0)
    # 84 * 12 = 1,008 and 100 * 12 = 1,200
    expected = imager.power(samples)[..., 84:101].sum(axis=-1)
    found = AcousticImager(SMALL, SMALL_GRID, narrow).energy(samples)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mel", [MelSettings(), MelSettings(layout="frequency", n_filters=40)])
def test_mfcc_and_log_mel_are_those_of_each_pixels_power(mel):
    imager = AcousticImager(SMALL, SMALL_GRID, ImageSettings(mel=mel))
    samples = noise(2)
    power = imager.power(samples)
    assert imager.mfcc(samples) == pytest.approx(mfcc(power, mel, RATE_HZ), abs=2e-3)
    filters = power @ imager._filters.T
    assert imager.log_mel(samples) == pytest.approx(log_mel(filters, mel), abs=1e-4)
    assert imager.log_mel(samples).shape == (2, 9, 12, mel.n_filters)


def test_images_together_are_those_made_alone():
    imager = AcousticImager(SMALL, SMALL_GRID)
    samples = noise(2)
    energy, coefficients = imager.images(samples)
    assert energy == pytest.approx(imager.energy(samples), rel=1e-5)
    assert coefficients == pytest.approx(imager.mfcc(samples), abs=1e-3)


@pytest.mark.parametrize("n_frames", [0, 1, 2, 24, 25, 49])
@pytest.mark.parametrize("route", ["fast", "general"])
def test_an_image_does_not_depend_on_those_beside_it(n_frames, route):
    imager = AcousticImager(vogel_spiral(6), ImageGrid(3, 4), ImageSettings(route=route))
    samples = noise(n_frames, 6)
    energy, coefficients = imager.images(samples)
    assert energy.shape == (n_frames, 3, 4)
    assert coefficients.shape == (n_frames, 3, 4, 12)
    for index in {0, n_frames // 2, n_frames - 1} if n_frames else set():
        alone = imager.images(samples[index : index + 1])
        assert np.abs(alone.energy[0] - energy[index]).max() < 1e-5 * energy.max()
        assert np.abs(alone.mfcc[0] - coefficients[index]).max() < 0.01


def test_another_rate_and_length_are_settings(plane_waves):
    changed = ImageSettings(
        sample_rate_hz=48_000.0, snapshot_length=256, mel=MelSettings(layout="frequency")
    )
    assert changed.bin_hz == 187.5
    # 937.5 to 6,375 Hz
    assert changed.band == range(5, 35)
    imager = AcousticImager(SMALL, SMALL_GRID, changed)
    waves = plane_waves(SMALL.positions_m, SMALL_GRID.directions()[31], np.arange(129) * 187.5)
    samples = np.fft.irfft(waves[:, :, 0].T)[None].astype("f4")
    images = imager.images(samples)
    assert images.energy.argmax() == 31
    assert images.mfcc.shape == (1, 9, 12, 12)


def test_a_warmer_day_is_another_speed_of_sound(spiral, plane_waves):
    # 1.7 % for 10 degrees: a source at the edge looks as if it stood so much nearer to the middle.
    grid = ImageGrid(1, 401, half_height_deg=1.0)
    direction = np.array([[0.6, 0.0, 0.8]])
    samples = from_directions(spiral, direction, plane_waves)
    found = []
    for temperature_c in (20.0, 30.0):
        warm = ImageSettings(temperature_c=temperature_c, route="general")
        column = AcousticImager(spiral, grid, warm).energy(samples).argmax()
        found.append(grid.cosines()[0][column])
    assert found[0] == pytest.approx(0.6, abs=0.002)
    assert found[1] == pytest.approx(0.6 * np.sqrt(303.15 / 293.15), abs=0.002)


# --------------------------------------------------------------------------------- microphones


def test_dead_microphones_are_not_looked_at(spiral, plane_waves):
    samples = from_directions(spiral, ImageGrid().directions()[[300]], plane_waves)
    whole = AcousticImager(spiral).energy(samples)
    spoilt = samples.copy()
    spoilt[:, 79] = np.nan
    spoilt[:, 105] = 1e6
    living = np.setdiff1d(np.arange(128), [79, 105])
    for route in ("fast", "general"):
        without = AcousticImager(
            spiral, settings=ImageSettings(route=route), dead=[79, 105]
        ).energy(spoilt)
        assert without.argmax() == 300
        # Two of 128 change little, and nothing at the source.
        assert without[0].flat[300] == pytest.approx(whole[0].flat[300], rel=1e-3)
        # Plane waves do not care where the centre is.
        fewer = ArrayGeometry(spiral.positions_m[living])
        expected = AcousticImager(fewer).energy(samples[:, living])
        assert np.abs(without - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize("per_bin", [False, True])
def test_gains_undo_what_microphones_do(plane_waves, per_bin):
    rng = np.random.default_rng(3)
    samples = from_directions(SMALL, SMALL_GRID.directions()[[17, 60]], plane_waves)
    imager = AcousticImager(SMALL, SMALL_GRID, ImageSettings(taper=0.0))
    expected = imager.images(samples)
    if per_bin:
        # Gain, delay of up to 3 samples and polarity
        delays_s = rng.uniform(-3, 3, 24) / RATE_HZ
        response = rng.uniform(0.5, 2, 24) * np.exp(
            -2j * np.pi * np.outer(FREQUENCIES_HZ, delays_s)
        )
        response *= rng.choice([-1, 1], 24)
        heard = np.fft.irfft(np.fft.rfft(samples) * response.T).astype("f4")
        gains = 1 / response[:512]
    else:
        gains = rng.uniform(0.5, 2, 24) * rng.choice([-1, 1], 24)
        heard = (samples / gains[:, None]).astype("f4")
    spoilt = imager.energy(heard)
    assert spoilt.max() < 0.5 * expected.energy.max()
    found = AcousticImager(SMALL, SMALL_GRID, ImageSettings(taper=0.0), gains=gains).images(heard)
    assert np.abs(found.energy - expected.energy).max() < 1e-4 * expected.energy.max()
    assert np.abs(found.mfcc - expected.mfcc).max() < 0.05


@pytest.mark.parametrize("route", ["fast", "general"])
def test_without_the_diagonal_each_microphones_own_power_is_gone(route):
    samples = noise(2)
    kept, removed = (
        AcousticImager(
            SMALL, SMALL_GRID, ImageSettings(route=route, remove_diagonal=remove), dead=[5]
        ).power(samples)
        for remove in (False, True)
    )
    window = scipy.signal.windows.tukey(1_024, 0.75)
    spectra = np.fft.rfft(np.delete(samples, 5, axis=1) * window)[..., :512]
    # sum |x_m|^2 / M^2
    own = (np.abs(spectra) ** 2).sum(axis=1) / 23**2
    expected = np.broadcast_to(own[:, None, None], kept.shape)
    assert np.abs(kept - removed - expected).max() < 1e-5 * kept.max()


def test_the_diagonal_of_unrelated_noise_is_all_there_is():
    samples = noise(40)
    kept = AcousticImager(SMALL, SMALL_GRID).energy(samples)
    removed = AcousticImager(SMALL, SMALL_GRID, ImageSettings(remove_diagonal=True)).energy(samples)
    assert abs(removed.mean()) < 0.02 * kept.mean()
    # Filters of too little energy are at the floor, not NaN.
    coefficients = AcousticImager(SMALL, SMALL_GRID, ImageSettings(remove_diagonal=True)).mfcc(
        samples[:2]
    )
    assert np.isfinite(coefficients).all()


def test_integers_are_samples_of_full_scale():
    integers = np.random.default_rng(4).integers(-(2**20), 2**20, (1, 24, 1_024))
    imager = AcousticImager(SMALL, SMALL_GRID)
    expected = imager.energy((integers / 2**31).astype("f4"))
    assert imager.energy(integers.astype(np.int32)) == pytest.approx(expected, rel=1e-6)


def test_a_recording_is_cut_into_snapshots():
    recording = np.arange(5_000 * 3, dtype="f4").reshape(5_000, 3)
    snapshots = cut_snapshots(recording)
    assert snapshots.shape == (4, 3, 1_024)
    assert np.array_equal(snapshots[2, 1], recording[2_048:3_072, 1])
    assert np.shares_memory(snapshots, recording)
    assert cut_snapshots(recording[:1_000]).shape == (0, 3, 1_024)
    with pytest.raises(InputError, match="expected \\(n_samples, n_mics\\)"):
        cut_snapshots(recording[0])


def test_a_recording_gives_the_images_of_its_snapshots():
    recording = np.ascontiguousarray(noise(3).transpose(0, 2, 1)).reshape(-1, 24)
    imager = AcousticImager(SMALL, SMALL_GRID)
    assert np.array_equal(imager.energy(cut_snapshots(recording)), imager.energy(noise(3)))


# ------------------------------------------------------------------------------------- choices


def test_the_fast_route_is_taken_where_there_is_one():
    def fast(array, grid):
        return isinstance(AcousticImager(array, grid)._beamformer, SeparableBeamformer)

    assert fast(SMALL, SMALL_GRID)
    assert not fast(SMALL, ImageGrid(9, 12, distance_m=1.0))
    assert not fast(SMALL, ImageGrid(9, 12, surface="plane"))
    bent = SMALL.positions_m.copy()
    bent[3, 2] = 0.001
    assert not fast(ArrayGeometry(bent), SMALL_GRID)
    with pytest.raises(InputError, match="fast route"):
        AcousticImager(ArrayGeometry(bent), SMALL_GRID, ImageSettings(route="fast"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate_hz": 0.0}, "sample_rate_hz 0"),
        ({"snapshot_length": 1_023}, "snapshot_length 1023; expected an even number"),
        ({"taper": 1.5}, "taper 1.5"),
        ({"temperature_c": 293.0}, "temperature_c 293; expected -60 to 70"),
        ({"band_low_hz": 6_200.0}, "band 6200 to 6400 Hz; expected one with a bin.*up to 6132 Hz"),
        ({"band_high_hz": 100.0}, "band 900 to 100 Hz"),
        ({"route": "slow"}, "route 'slow'"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ImageSettings(**changes)


@pytest.mark.parametrize(
    ("given_extra", "message"),
    [
        ({"dead": [24]}, "24 is none of the array's; expected 0 to 23"),
        ({"dead": range(23)}, "23 of 24; expected 2 alive at least"),
        ({"gains": np.ones(23)}, r"gains of shape \(23,\); expected \(24 microphones,\)"),
        ({"gains": np.full(24, np.inf)}, "gains: one is not a finite number"),
    ],
)
def test_what_does_not_belong_to_the_array_is_refused(given_extra, message):
    with pytest.raises(InputError, match=message):
        AcousticImager(SMALL, SMALL_GRID, **given_extra)


def test_wrong_snapshots_are_refused():
    imager = AcousticImager(SMALL, SMALL_GRID, dead=[0])
    with pytest.raises(InputError, match=r"expected \(n_frames, 24 microphones, 1024 samples\)"):
        imager.energy(noise(2)[0])
    spoilt = noise(30)
    spoilt[26, 7, 3] = np.nan
    with pytest.raises(InputError, match="snapshot 26: microphone 7 has a sample that is not a"):
        imager.mfcc(spoilt)
    with pytest.raises(InputError, match="complex128"):
        imager.energy(noise(1).astype(complex))


@pytest.mark.data
def test_a_real_array_of_128_finds_noise_in_its_pixel(plane_waves):
    raw = json.loads(
        (DATA / "multichannel" / "geometries" / "norsonic_nor848a_128mic.json").read_bytes()
    )
    array = ArrayGeometry(np.array([[place[axis] for axis in "xyz"] for place in raw["elements"]]))
    pixels = [5, 700, 1_111, 1_690]
    samples = from_directions(array, ImageGrid().directions()[pixels], plane_waves)
    energy = AcousticImager(array).energy(samples)
    assert [int(image.argmax()) for image in energy] == pixels
