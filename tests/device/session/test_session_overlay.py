"""Videos and pictures of a session as another player decodes them: the map follows the sound."""

import av
import numpy as np
import pytest

from soundpost.device.array.geometry import ImageGrid
from soundpost.device.array.map_overlay import OverlayStyle
from soundpost.device.errors import InputError, UsageError
from soundpost.device.session.session_overlay import draw_at, smoothed, write_overlay_video
from soundpost.device.session.session_reader import open_session

STYLE = OverlayStyle(saturation=0.0, opacity=1.0, legend=False, smoothing_s=0.0)
GRID = ImageGrid()


def maps(pixels, n_each):
    energies = np.full((len(pixels) * n_each, 36 * 48), 1e-6, np.float32)
    for number, pixel in enumerate(pixels):
        energies[number * n_each : (number + 1) * n_each, pixel] = 1.0
    return energies.reshape(-1, 36, 48)


def decoded(path):
    with av.open(str(path)) as container:
        pictures = [
            (frame.time, frame.to_ndarray(format="rgb24").astype(int))
            for frame in container.decode(video=0)
        ]
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate_hz = container.streams.audio[0].rate
    return pictures, np.concatenate(sound, axis=1)[0], rate_hz


@pytest.mark.parametrize(("name", "video"), [("a.mp4", True), ("b.mkv", True), ("c.mp4", False)])
def test_the_map_of_each_picture_is_that_of_its_time(write_scene_session, tmp_path, name, video):
    pixels = (200, 1_500)
    folder = write_scene_session(pixels, 1.0, video=video)
    path = tmp_path / name
    with open_session(folder) as session:
        samples = (np.arange(24) + 0.5) * session.rate_hz / 12
        told = []
        write_overlay_video(
            path, session, maps(pixels, 12), samples, GRID, None, STYLE, progress=told.append
        )
        expected_sound = session.read(0, session.n_samples)[:, 0]
    pictures, sound, rate_hz = decoded(path)
    # The camera's 10 a second, or one for each image without it
    assert len(pictures) == len(told) == (20 if video else 24)
    assert pictures[-1][0] == pytest.approx(1.9 if video else 23 / 12, abs=0.002)
    for at_s, picture in pictures:
        # Yellow at the top, where camera and darkness are grey
        row, column = np.unravel_index(
            (picture[..., 0] - picture[..., 2]).argmax(), picture.shape[:2]
        )
        x, y, z = GRID.directions()[pixels[int(at_s >= 1.0)]]
        height, width = picture.shape[:2]
        assert column == pytest.approx((x / z + 1) / 2 * width, abs=0.04 * width)
        assert row == pytest.approx(
            (1 - y / z / np.tan(np.radians(32))) / 2 * height, abs=0.06 * height
        )
    assert rate_hz == 48_000
    assert len(sound) / rate_hz == pytest.approx(2.0, abs=0.05)
    # AAC keeps the sound, not the samples.
    at_rate = np.interp(np.arange(90_000) / 48_000, np.arange(32_000) / 16_000, expected_sound)
    lag = np.fft.irfft(np.fft.rfft(sound[:90_000]) * np.fft.rfft(at_rate).conj()).argmax()
    assert min(lag, 90_000 - lag) < 0.002 * 48_000
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == [name]


def test_a_picture_is_the_nearest_of_the_camera(write_scene_session):
    folder = write_scene_session((200, 1_500), 1.0)
    with open_session(folder) as session:
        silent = np.zeros((36, 48), np.float32)
        early, late = (draw_at(session, silent, at, GRID, None, STYLE) for at in (15_100, 16_100))
        assert early.shape == (64, 96, 3)
        # The square of the camera is where the sound comes from.
        for picture, pixel in ((early, 200), (late, 1_500)):
            row, column = np.unravel_index(picture.sum(axis=2).argmax(), (64, 96))
            x, y, z = GRID.directions()[pixel]
            assert column == pytest.approx((x / z + 1) * 48, abs=3)
            assert row == pytest.approx((1 - y / z / np.tan(np.radians(32))) * 32, abs=3)


def test_smoothed_maps_rise_at_once_and_fall_with_the_time_constant():
    energies = np.zeros((30, 1, 1), np.float32)
    energies[5] = 1.0
    energies[20] = np.nan
    found = smoothed(energies, 1 / 12, 0.5)[:, 0, 0]
    assert (found[:5] == 0).all()
    expected = np.exp(-np.arange(15) / 12 / 0.5)
    assert found[5:20] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(found[20])
    assert (found[21:] == 0).all()
    assert smoothed(energies, 1 / 12, 0.0) is energies


@pytest.mark.parametrize(
    ("name", "channel", "error", "message"),
    [
        ("a.avi", 0, UsageError, r"expected a name that ends in \.mp4 or \.mkv"),
        ("a.mp4", 24, UsageError, "channel 24; expected 0 to 23"),
        ("none/a.mp4", 0, InputError, r"a\.mp4: cannot be written"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    write_scene_session, tmp_path, name, channel, error, message
):
    folder = write_scene_session((200,), 0.5)
    samples = (np.arange(6) + 0.5) * 16_000 / 12
    given = (samples, GRID, None, STYLE)
    with open_session(folder) as session, pytest.raises(error, match=message):
        write_overlay_video(tmp_path / name, session, maps((200,), 6), *given, channel=channel)
    assert [entry for entry in tmp_path.iterdir() if entry.is_file()] == []
