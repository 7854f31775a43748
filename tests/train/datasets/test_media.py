"""Sound and pictures of a part of a file: those of the whole file, whoever cuts it."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose, assert_array_equal

from soundpost.device.audio import read_clip
from soundpost.device.errors import InputError
from soundpost.train.datasets.media import (
    count_decoded,
    frame_times_s,
    probe,
    read_audio,
    read_frames,
    read_frames_per_second,
)

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[4] / "shared" / "data")
RATE = 16_000


def noise(seconds, rate=RATE, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype("f4")


@pytest.fixture(scope="module")
def video(layouts, tmp_path_factory):
    return layouts.write_video(tmp_path_factory.mktemp("video") / "a.mp4", 6.0)


@pytest.fixture(scope="module")
def lossless(layouts, tmp_path_factory):
    """A .mkv whose sound is exact 16-bit samples."""
    path = tmp_path_factory.mktemp("video") / "b.mkv"
    return layouts.write_video(path, 6.0, samples=noise(6.0)[:, 0])


def greys(layouts, indices):
    return [layouts.grey_level(i) for i in indices]


def levels(frames):
    return frames.mean(axis=(1, 2, 3))


def test_a_container_says_what_it_holds(video):
    info = probe(video)
    assert info.seconds == pytest.approx(6.0, abs=0.1)
    assert (info.rate_hz, info.n_channels) == (16_000, 1)
    assert (info.size, info.frame_rate, info.n_frames) == ((48, 64), 10.0, 60)


@pytest.mark.parametrize("rate_hz", [16_000, 20_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_is_that_of_libsndfile_and_soxr(tmp_path, rate_hz, channels):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1.3, 44_100, channels), 44_100, subtype="FLOAT")
    expected = read_clip(path, rate_hz)
    found = read_audio(path, rate_hz)
    assert found.dtype == np.float32
    assert abs(len(found) - len(expected)) <= 1
    n = min(len(found), len(expected))
    # read_clip resamples in blocks, whose joints are good to 1e-4 of full scale.
    assert_allclose(found[:n], expected[:n], atol=2e-4)


@pytest.mark.parametrize("rate_hz", [16_000, 20_000, 22_050])
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (1.2345, 3.0), (3.1, 5.9)])
def test_a_part_is_the_same_part_of_the_whole(video, rate_hz, start_s, end_s):
    whole = read_audio(video, rate_hz)
    part = read_audio(video, rate_hz, start_s, end_s)
    first, last = (int(np.floor(t * rate_hz + 0.5)) for t in (start_s, end_s))
    assert len(part) == last - first
    assert_allclose(part, whole[first:last], atol=1e-5)


def test_a_part_to_the_end(video):
    whole = read_audio(video, RATE)
    assert_array_equal(read_audio(video, RATE, start_s=4.5), whole[round(4.5 * RATE) :])


def test_samples_are_those_that_were_written(lossless):
    expected = noise(6.0)[:, 0]
    part = read_audio(lossless, RATE, 2.5, 4.0)
    assert_allclose(part, expected[40_000:64_000], atol=1 / 32_768)


def test_sound_that_starts_late_is_silent_before(layouts, tmp_path):
    path = layouts.write_video(tmp_path / "late.mkv", 2.0, sound_from_s=0.25)
    samples = read_audio(path, RATE, 0.0, 1.0)
    # Times of this container are whole milliseconds: 16 samples.
    assert np.abs(samples[: 4_000 - 16]).max() == 0
    assert_allclose(samples[4_000:], layouts.tone(1.0)[:12_000], atol=2e-3, rtol=0)


def test_a_gap_in_the_sound_is_silent_and_moves_nothing_behind_it(layouts, tmp_path):
    # Blocks have 1,024 samples: the gap begins with the tenth.
    begins = 10_240
    samples = noise(2.0)[:, 0]
    path = tmp_path / "gap.mkv"
    layouts.write_video(path, 2.0, samples=samples, gap=(begins / RATE, 0.5))
    found = read_audio(path, RATE, 0.0, 2.0)
    assert_allclose(found[:begins], samples[:begins], atol=1 / 32_768)
    assert np.abs(found[begins : begins + 8_000 - 16]).max() == 0
    # Times of this container are whole milliseconds, here exact ones.
    behind = found[begins + 8_000 : begins + 12_000]
    assert_allclose(behind, samples[begins : begins + 4_000], atol=1 / 32_768)


def test_a_decoder_that_needs_its_past_has_it_after_a_seek(layouts, tmp_path):
    """A frame of AAC at 8 kHz is 128 ms long and made of two."""
    path = layouts.write_video(tmp_path / "slow.mp4", 4.0, rate=8_000, pictures=False)
    whole = read_audio(path, 8_000)
    # 0.1 s before it the 20th frame has just begun.
    assert_allclose(read_audio(path, 8_000, 2.54, 3.5), whole[20_320:28_000], atol=1e-5)


def test_what_a_file_lacks_at_its_end_is_silent(layouts, tmp_path):
    path = layouts.write_video(tmp_path / "short.mkv", 1.8)
    samples = read_audio(path, RATE, 0.0, 2.0)
    assert len(samples) == 32_000
    assert np.abs(samples[28_800:]).max() == 0
    assert np.abs(samples[28_000:28_800]).max() > 0.2


def test_a_picture_is_the_one_that_is_shown_at_its_time(video, layouts):
    # Picture i is shown from i / 10 s on.
    frames = read_frames(video, [5.95, 0.0, 0.1, 0.19, 3.05])
    assert frames.shape == (5, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert_allclose(levels(frames), greys(layouts, [59, 0, 1, 1, 30]), atol=3)


def test_pictures_after_a_seek_are_those_of_a_decoding_from_the_start(video):
    # The first time decides whether it seeks.
    late = [2.05, 3.33, 5.5]
    assert_array_equal(read_frames(video, late), read_frames(video, [0.0, *late])[1:])


def test_pictures_of_equal_distance(video, layouts):
    frames = read_frames_per_second(video, 2, 1.0, 3.0)
    assert_allclose(levels(frames), greys(layouts, [10, 15, 20, 25]), atol=3)
    assert read_frames_per_second(video, 1).shape[0] == 6


@pytest.mark.parametrize(
    ("start_s", "end_s", "per_second", "n"),
    [(0, 10.0, 1, 10), (0, 10.008, 1, 10), (0, 9.98, 1, 10), (5, 7.5, 12, 30), (0, 0.2, 1, 1)],
)
def test_nominal_lengths_have_their_number_of_pictures(start_s, end_s, per_second, n):
    times = frame_times_s(start_s, end_s, per_second)
    assert len(times) == n
    assert times[0] == start_s
    assert times[-1] < end_s
    assert_allclose(np.diff(times), 1 / per_second)


def test_pictures_are_scaled(video, layouts):
    frames = read_frames(video, [1.0], (24, 30))
    assert frames.shape == (1, 24, 30, 3)
    assert_allclose(levels(frames), greys(layouts, [10]), atol=3)
    assert read_frames(video, [], (24, 30)).shape == (0, 24, 30, 3)


def test_everything_is_counted(video):
    n_frames, seconds = count_decoded(video)
    assert n_frames == 60
    assert seconds == pytest.approx(6.0, abs=0.1)


def test_a_file_without_sound(layouts, tmp_path):
    path = layouts.write_video(tmp_path / "mute.mp4", sound=False)
    with pytest.raises(InputError, match=r"mute\.mp4: has no sound stream \(it has video\)"):
        read_audio(path, RATE)
    assert probe(path).rate_hz is None


def test_a_file_without_pictures(tmp_path, layouts):
    path = layouts.write_sound(tmp_path / "a.wav")
    with pytest.raises(InputError, match=r"a\.wav: has no video stream \(it has audio\)"):
        read_frames(path, [0.0])
    assert probe(path).size is None


@pytest.mark.parametrize("read", [lambda p: read_audio(p, RATE), lambda p: read_frames(p, [0.0])])
def test_a_file_that_is_no_container(tmp_path, read):
    path = tmp_path / "page.mp4"
    path.write_text("<html>this video is not available</html>" * 20)
    with pytest.raises(InputError, match=r"page\.mp4: is not a container .*expected a media file"):
        read(path)


def test_a_container_that_is_cut_short(tmp_path, video):
    path = tmp_path / "cut.mp4"
    # The table of contents stands at the end.
    content = video.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.mp4: is not a container .*download it again"):
        read_audio(path, RATE)


def test_a_container_that_is_cut_behind_its_table_of_contents(layouts, tmp_path):
    path = layouts.write_video(tmp_path / "a.mp4", 6.0, options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert probe(path).n_frames == 60
    with pytest.raises(InputError, match=r"a\.mp4: "):
        read_audio(path, RATE, 5.0, 6.0)
    with pytest.raises(InputError, match=r"a\.mp4: "):
        read_frames(path, [5.9])


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing.mp4", "no such file"), ("empty.mp4", "is empty"), ("folder", "is a folder")],
)
def test_a_path_that_is_no_file(tmp_path, name, message):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=rf"{name}: {message}.*expected"):
        read_audio(tmp_path / name, RATE)


def test_a_part_outside_the_file(video):
    with pytest.raises(InputError, match=r"9 s is asked for; expected sound of that time"):
        read_audio(video, RATE, 8.0, 9.0)
    with pytest.raises(InputError, match=r"7 s is asked for; expected sound up to 6\.\d\d s"):
        read_audio(video, RATE, 5.0, 7.0)
    with pytest.raises(InputError, match=r"6\.7 s is asked for; expected pictures up to 6\.00 s"):
        read_frames(video, [0.0, 6.7])


@pytest.mark.parametrize(("start_s", "end_s"), [(-1.0, 1.0), (2.0, 2.0), (float("nan"), 1.0)])
def test_a_part_that_is_none(video, start_s, end_s):
    with pytest.raises(InputError, match=r"expected a start of 0 or more and an end after it"):
        read_audio(video, RATE, start_s, end_s)


@pytest.mark.data
@pytest.mark.parametrize("name", ["3qesirWAGt4_20000_30000.mp4", "ZYc410CE4Rg_0_10000.mp4"])
def test_a_real_video(name):
    path = DATA / "audiovisual" / name
    assert count_decoded(path)[0] == 250
    samples = read_audio(path, 22_050, 0.0, 10.0)
    assert samples.shape == (220_500,)
    assert_allclose(read_audio(path, 22_050, 4.0, 6.0), samples[88_200:132_300], atol=1e-5)
    frames = read_frames_per_second(path, 1, size=(224, 224))
    assert frames.shape == (10, 224, 224, 3)
    assert_array_equal(frames[6], read_frames(path, [6.0], (224, 224))[0])
    # Something happens in it.
    assert np.abs(np.diff(frames.astype(float), axis=0)).mean() > 1
