"""Every fault is named, no other, and poor evidence is refused with what to do."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.calibration.array_health import clipped_columns, examine, plain_findings
from soundpost.calibration.array_response import Take
from soundpost.calibration.rooms import Room
from soundpost.device.array.geometry import ArrayGeometry, vogel_spiral
from soundpost.device.errors import InputError

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[3] / "shared" / "data")
SOUND_M_S = 343.2
SPIRAL = vogel_spiral(20)


def named(health):
    return {(of.microphone, of.kind) for of in health.findings}


def test_an_array_without_faults_has_none(record, faulty):
    health = examine(record(SPIRAL.positions_m, faulty(20)), SPIRAL, SOUND_M_S)
    assert named(health) == set()
    assert health.states == ("good",) * 20
    assert health.alike == ()
    assert abs(health.snr_db - 20) < 1
    assert health.turn_deg < 1


@pytest.mark.parametrize("kind", ["self", "diffuse"])
def test_every_fault_is_named_and_nothing_else(record, faulty, kind):
    truth = faulty(20, 1, dead=[4], inverted=[7, 16], noisy=[11], clipped=[13], swapped=[(2, 17)])
    health = examine(record(SPIRAL.positions_m, truth, kind=kind), SPIRAL, SOUND_M_S)
    assert named(health) == {
        (4, "dead"),
        (7, "inverted"),
        (16, "inverted"),
        (11, "noisy"),
        (13, "clipped"),
        (2, "swapped"),
        (17, "swapped"),
    }
    assert health.carries.tolist() == np.argsort(truth.order).tolist()
    good = np.array([state == "good" for state in health.states])
    assert np.flatnonzero(~good).tolist() == [4, 11, 13]
    gain = truth.gain / np.exp(np.log(truth.gain[good]).mean())
    np.testing.assert_allclose(health.fit.gain[good], gain[good], rtol=0.02)
    late_s = truth.delay_s - truth.delay_s[good].mean()
    np.testing.assert_allclose(health.fit.delay_s[good], late_s[good], atol=0.02 / 2 / np.pi / 6e3)


@pytest.mark.parametrize(
    ("snr_db", "louder_db", "noisy"), [(20, 5, False), (20, 12, True), (45, 12, False)]
)
def test_noise_counts_where_it_is_far_above_the_others_and_near_the_sound(
    record, snr_db, louder_db, noisy
):
    """Microphone 6 alone has so much more noise than the others; 33 dB below the sound it is no
    matter to an image."""
    rng = np.random.default_rng(6)
    takes = []
    for take in record(SPIRAL.positions_m, snr_db=snr_db):
        samples = take.samples.astype(float)
        own = np.square(samples[:, 6]).mean() / (1 + 10 ** (snr_db / 10))
        more = np.sqrt(own * (10 ** (louder_db / 10) - 1))
        samples[:, 6] += more * rng.standard_normal(len(samples))
        takes.append(Take(samples.astype("f4"), take.rate_hz, take.place_m))
    health = examine(takes, SPIRAL, SOUND_M_S)
    assert named(health) == ({(6, "noisy")} if noisy else set())


def test_a_swap_with_a_dead_microphone_and_a_ring_of_three_are_seen(record, faulty):
    truth = faulty(20, 2, dead=[5])
    order = truth.order.copy()
    # Column 5 carries 8, and 8 the dead one; 1, 2, 3 in a ring.
    order[[5, 8]] = [8, 5]
    order[[1, 2, 3]] = [2, 3, 1]
    ring = type(truth)(**{**vars(truth), "order": order})
    health = examine(record(SPIRAL.positions_m, ring), SPIRAL, SOUND_M_S)
    assert health.carries.tolist() == np.argsort(order).tolist()
    assert (5, "dead") in named(health)
    assert {mic for mic, kind in named(health) if kind == "swapped"} == {1, 2, 3, 8}


def test_from_one_place_pairs_that_sound_alike_are_told(record, faulty):
    # Straight ahead of a ring all microphones hear the source at once.
    angle = np.arange(8) * np.pi / 4
    ring = ArrayGeometry(np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1) * 0.1)
    health = examine(record(ring.positions_m, faulty(8), places=[(0.0, 0.0, 1.5)]), ring, SOUND_M_S)
    assert len(health.alike) == 8 * 7 / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr_db": 6.0}, r"recording 1: SNR [5-7] dB, expected 15: move the source closer"),
        ({"seconds": 0.5}, r"recording 1: 0\.51 s; expected at least 1 s"),
    ],
)
def test_poor_recordings_are_refused_with_what_to_do(record, options, message):
    with pytest.raises(InputError, match=message):
        examine(record(SPIRAL.positions_m, **options), SPIRAL, SOUND_M_S)


def test_a_source_elsewhere_than_said_is_refused(record):
    takes = record(SPIRAL.positions_m)
    wrong = [Take(of.samples, of.rate_hz, of.place_m * [-1, 1, 1]) for of in takes]
    with pytest.raises(InputError, match=r"heard \d+ degrees away from .*check its place"):
        examine(wrong, SPIRAL, SOUND_M_S)


def test_a_narrow_sound_silence_and_too_few_channels_are_refused():
    times_s = np.arange(32_000) / 16_000
    tone = np.sin(2 * np.pi * 1000 * times_s)[:, None] * np.ones(20)
    tone = (tone + 0.001 * np.random.default_rng(0).standard_normal(tone.shape)) * 0.1
    place = np.array([0.0, 0.0, 50.0])
    with pytest.raises(InputError, match="play noise or a sweep from 200 Hz"):
        examine([Take(tone.astype(np.float32), 16_000, place)], SPIRAL, SOUND_M_S)
    with pytest.raises(InputError, match="20 of 20 channels are silent"):
        examine([Take(np.zeros((32_000, 20), np.float32), 16_000, place)], SPIRAL, SOUND_M_S)
    with pytest.raises(InputError, match="3 channels for 20 microphones"):
        examine([Take(np.ones((32_000, 3), np.float32), 16_000, place)], SPIRAL, SOUND_M_S)


def test_a_mirror_image_as_loud_as_the_source_is_refused(record):
    """The same sound from a second place: loud, wide, and no gain and delay explain it."""
    (one,) = record(SPIRAL.positions_m, places=[(0.6, 0.2, 1.5)], snr_db=30.0)
    (other,) = record(SPIRAL.positions_m, places=[(-0.9, -0.5, 1.5)], snr_db=30.0)
    both = Take(one.samples + other.samples, one.rate_hz, one.place_m)
    with pytest.raises(InputError, match=r"leaves \d+% of the sound unexplained, expected 50%"):
        examine([both], SPIRAL, SOUND_M_S)


def test_a_faint_microphone_is_not_dead(record):
    """16 dB below the others, which its gain says; 45 dB below is as good as dead."""
    takes = record(SPIRAL.positions_m, snr_db=30.0)
    faint = [Take(take.samples.copy(), take.rate_hz, take.place_m) for take in takes]
    for take in faint:
        take.samples[:, 9] *= 0.158
    health = examine(faint, SPIRAL, SOUND_M_S)
    assert named(health) == set()
    assert health.fit.gain[9] == pytest.approx(0.158 / 0.158 ** (1 / 20), rel=0.02)
    assert plain_findings([take.samples for take in faint], range(20)) == []
    for take in faint:
        take.samples[:, 9] *= 10 ** (-29 / 20)
    (line,) = plain_findings([take.samples for take in faint], range(20))
    assert line == "channel 9 is dead: 45 dB below the others"


@pytest.mark.parametrize(("louder_db", "kind"), [(0, "dead"), (20, "noisy")])
def test_a_microphone_that_hears_only_itself_is_dead_or_where_it_is_loud_noisy(
    record, louder_db, kind
):
    rng = np.random.default_rng(3)
    takes = []
    for take in record(SPIRAL.positions_m):
        samples = take.samples.copy()
        own = rng.standard_normal(len(samples)) * np.sqrt(np.square(samples[:, 8]).mean())
        samples[:, 8] = 10 ** (louder_db / 20) * own
        takes.append(Take(samples, take.rate_hz, take.place_m))
    health = examine(takes, SPIRAL, SOUND_M_S)
    assert named(health) == {(8, kind)}
    assert health.states[8] == kind


def test_a_reverberant_room_is_refused(record):
    room = Room((4.0, 2.6, 5.0), (2.0, 1.3, 0.5), rt60_s=0.7)
    takes = record(SPIRAL.positions_m, places=[(0.8, 0.3, 3.5)], room=room, snr_db=30.0)
    # Its sound from everywhere is no source at a place, however loud.
    with pytest.raises(InputError, match=r"SNR -?\d dB, expected 15.*what echoes counts as noise"):
        examine(takes, SPIRAL, SOUND_M_S)


# A sine may touch its peak, noise may be quantised to a few steps: neither stays at a limit.
def test_only_samples_that_stay_at_a_limit_are_clipped():
    rng = np.random.default_rng(0)
    times_s = np.arange(48_000) / 48_000
    noise = 0.1 * rng.standard_normal(48_000)
    columns = [
        np.sin(2 * np.pi * 1000 * times_s),
        noise,
        np.clip(noise, -0.25, 0.25),
        np.clip(noise, -1, 0.2),
        np.round(noise * 2**11) / 2**11,
        np.round(1e-5 * noise * 2**23) / 2**23,
        np.zeros(48_000),
    ]
    found = clipped_columns(np.stack(columns, axis=1).astype(np.float32))
    assert found.tolist() == [False, False, True, True, False, False, False]


@pytest.mark.data
def test_the_dead_microphone_of_a_real_recording_is_found():
    """reSpeaker XVF3800: its fourth microphone, channel 5, gave nothing but zeros."""
    path = DATA / "multichannel" / "respeaker_xvf3800" / "output.flac"
    samples, _ = soundfile.read(path, dtype="float32")
    found = plain_findings([samples[:, 2:]], (2, 3, 4, 5))
    assert found == ["channel 5 is dead: silent to the last bit"]
    other, _ = soundfile.read(path.with_name("cal_test.flac"), dtype="float32")
    assert plain_findings([other[:, 2:]], (2, 3, 4, 5)) == []
