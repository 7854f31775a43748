"""Meters and their groups."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.session.level_meters import LevelMeters, Levels
from soundpost.device.session.record_screen import groups, plain_line, quiet_channels, record_rows
from soundpost.device.session.record_settings import RecordSettings, RecordStatus
from soundpost.device.terminal import plain, text_width

SETTINGS = RecordSettings("porch-pi", "mic:", camera="v4l2:", seconds=600.0)


def status(n_channels: int = 128, **changes: object) -> RecordStatus:
    levels = np.full((3, n_channels), -40.0, np.float32)
    values: dict[str, object] = {
        "n_samples": 4_800_000,
        "rate_hz": 48_000,
        "lost": 0,
        "n_gaps": 0,
        "waiting": 0.01,
        "free_bytes": 60_000_000_000,
        "bytes_s": 18_432_000.0,
        "levels": Levels(*levels),
        "frames": 3_000,
        "frames_dropped": 0,
        "camera_fps": 29.97,
        "camera_fault": None,
    }
    return RecordStatus(**(values | changes))  # type: ignore[arg-type]


@given(n_channels=st.integers(1, 1_024), most=st.integers(1, 60))
def test_groups_hold_every_channel_once(n_channels: int, most: int) -> None:
    found = groups(n_channels, most)
    assert [channel for first, last in found for channel in range(first, last)] == list(
        range(n_channels)
    )
    assert len(found) <= most
    sizes = {last - first for first, last in found[:-1]}
    assert len(sizes) <= 1


@given(columns=st.integers(20, 200), lines=st.integers(1, 60), n_channels=st.integers(1, 200))
def test_it_fits_any_terminal(columns: int, lines: int, n_channels: int) -> None:
    rows = record_rows(status(n_channels), SETTINGS, columns, lines)
    assert len(rows) <= lines
    assert all(text_width(line) <= columns for line in plain(rows).split("\n"))


def test_it_says_what_is_lost_and_how_long_the_disk_lasts() -> None:
    text = plain(record_rows(status(n_gaps=2, lost=4_800), SETTINGS, 100, 30))
    assert "1 min 40 s of 10 min 00 s" in text
    assert "2 gaps, 0.100 s" in text
    # 60 GB but for the half of one that is to stay free, at 18.432 MB/s.
    assert "60.0 GB, full in 53 min 48 s" in text
    assert "30.0 pictures a second, 3000 so far  0 dropped" in text
    gone = plain(record_rows(status(camera_fault="camera x: lost"), SETTINGS, 100, 30))
    assert "camera camera x: lost" in gone


def test_the_time_to_full_stops_at_what_is_to_stay_free() -> None:
    assert "disk 60.0 GB, 53 min 48 s" in plain_line(status(), SETTINGS)


def test_a_dead_microphone_is_named() -> None:
    levels = np.full((3, 16), -40.0, np.float32)
    levels[:, [3, 9]] = (-140.0, -90.0)
    found = status(levels=Levels(*levels))
    assert quiet_channels(found) == [3, 9]
    assert "far below the others: 3, 9" in plain(record_rows(found, SETTINGS, 80, 30))
    silent = status(levels=Levels(*np.full((3, 16), -140.0, np.float32)))
    assert quiet_channels(silent) == list(range(16))


def test_meters_are_of_what_came_since_the_last_look() -> None:
    meters = LevelMeters(1_000, 2)
    reader = meters.reader()
    samples = np.zeros((100, 2), np.float32)
    samples[:, 0] = np.where(np.arange(100) % 2, 0.5, -0.5)
    samples[10, 1] = -1.0
    meters.push(samples[:50])
    meters.push(samples[50:])
    first = reader.look()
    np.testing.assert_allclose(first.rms, [-6.02, -20.0], atol=0.01)
    np.testing.assert_allclose(first.peak, [-6.02, 0.0], atol=0.01)
    # Nothing new: what was seen is still shown.
    np.testing.assert_array_equal(reader.look().rms, first.rms)
    meters.push(np.zeros((1_500, 2), np.float32))
    second = reader.look()
    assert second.rms.tolist() == [-140.0, -140.0]
    # The peak is held for two seconds, and then let go.
    np.testing.assert_allclose(second.held, [-6.02, 0.0], atol=0.01)
    meters.push(np.zeros((600, 2), np.float32))
    assert reader.look().held.tolist() == [-140.0, -140.0]


@given(
    parts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    looks=st.lists(st.sets(st.integers(0, 2)), min_size=30, max_size=30),
)
def test_each_viewer_sees_all_that_came_since_its_own_last_look(
    parts: list[int], looks: list[set[int]]
) -> None:
    samples = np.random.default_rng(4).uniform(-0.9, 0.9, (sum(parts), 3)).astype(np.float32)
    meters = LevelMeters(1_000, 3)
    readers, seen = [meters.reader() for _ in range(3)], [0, 0, 0]
    end = 0
    for length, who in zip(parts, looks, strict=False):
        meters.push(samples[end : end + length])
        end += length
        for number in who:
            levels = readers[number].look()
            own, seen[number] = samples[seen[number] : end], end
            rms = np.sqrt((own.astype(np.float64) ** 2).mean(0))
            np.testing.assert_allclose(levels.rms, 20 * np.log10(rms), atol=1e-3)
            np.testing.assert_allclose(levels.peak, 20 * np.log10(abs(own).max(0)), atol=1e-3)
            held = abs(samples[max(0, end - 2_000) : end]).max(0)
            np.testing.assert_allclose(levels.held, 20 * np.log10(held), atol=1e-3)
