"""The camera's delay and map from a session: its own pictures on the timeline of its own sound."""

from datetime import datetime, timezone

import numpy as np
import pytest

from soundpost.calibration.calibrate_video import run_camera, run_sync
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.scene import Noise, Scene, render
from soundpost.calibration.signals import at_level, white_noise
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import Evidence
from soundpost.device.array.camera_map import camera_pixels, to_pixels
from soundpost.device.array.camera_sections import SyncSection
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError
from soundpost.device.session.lost_parts import LostPart
from soundpost.device.session.session_tables import Gap

RATE_HZ, FRAME_RATE = 16_000, 20
ARRAY = ArrayDescription(vogel_spiral(16), tuple(range(16)), ImageGrid(18, 24))
NOTHING = Calibration.of(ARRAY.geometry)
LATE_S = 0.1


@pytest.fixture
def flashes(tmp_path, write_film):
    """A film of flashes, and the sound of their clicks, 0.1 s late and 15 m away."""
    rng = np.random.default_rng(3)
    events_s = np.array([0.61, 1.83, 2.94, 4.27, 5.4])
    lit = [40 + rng.integers(0, 3, (48, 64)).astype(np.uint8) for _ in range(130)]
    heard = 1e-4 * rng.standard_normal((round(6.5 * RATE_HZ), 3))
    for event_s in events_s:
        lit[int(event_s * FRAME_RATE)][20:24, 30:34] = 250
        first = round((event_s + LATE_S + 15 / 343.2) * RATE_HZ)
        decay = np.exp(-np.arange(1_600) / 400)[:, None]
        heard[first : first + 1_600] += 0.2 * decay * rng.standard_normal((1_600, 1))
    # What the camera's stamps are for the flash: the first moment of its frame.
    stamps_s = np.floor(events_s * FRAME_RATE) / FRAME_RATE
    return write_film(tmp_path / "flash.mkv", lit, FRAME_RATE), heard, events_s, stamps_s


def test_a_session_says_how_late_its_own_pictures_are(flashes, record_session):
    film, heard, events_s, stamps_s = flashes
    folder = record_session("flashes", heard, RATE_HZ, film=film)
    found = run_sync(folder, folder, NOTHING, None, 15.0, 1).section
    # The mean of what each pair says, to a sample: click minus stamp, without the way of 15 m.
    assert found.audio_late_s == pytest.approx(LATE_S + (events_s - stamps_s).mean(), abs=3e-4)
    assert found.evidence.residuals["pairs"] == 5
    # As of the files that it was made of.
    other = run_sync(film, folder.with_name("flashes-played.wav"), NOTHING, 20.0, 15.0, 1).section
    assert found.audio_late_s == pytest.approx(other.audio_late_s, abs=1e-4)


def test_a_click_that_a_gap_cuts_is_none(flashes, record_session):
    film, heard, events_s, stamps_s = flashes
    # Of the second click the gap takes the first 20 ms, and of the fourth a lost packet all.
    begin = [round((events_s[of] + LATE_S + 15 / 343.2) * RATE_HZ) for of in (1, 3)]
    gaps = [Gap(begin[0] - 3_000, 3_320, "lost")]
    lost = [LostPart(begin[1] - 100, 1_800, 1, 1, "lost")]
    folder = record_session("flashes", heard, RATE_HZ, film=film, gaps=gaps, lost=lost)
    found = run_sync(folder, folder, NOTHING, None, 15.0, 1)
    kept = [0, 2, 4]
    expected = LATE_S + (events_s - stamps_s)[kept].mean()
    assert found.section.audio_late_s == pytest.approx(expected, abs=3e-4)
    assert found.warnings == (
        f"{folder}: lacks 0.320 s of sound on channel 1; clicks in it are not heard",
    )


def test_a_session_without_pictures_is_refused(record_session, flashes):
    folder = record_session("mute", flashes[1], RATE_HZ)
    with pytest.raises(InputError, match="mute: has no pictures; expected some: record with"):
        run_sync(folder, folder, NOTHING, None, 1.0, None)


def test_a_film_with_fewer_pictures_than_its_table_is_refused(record_session, flashes):
    folder = record_session("flashes", flashes[1], RATE_HZ, film=flashes[0])
    with (folder / "video.csv").open("a") as file:
        file.write("130,6.500000,104000.0,6.500000\n")
    with pytest.raises(InputError, match=r"video\.mkv: holds 130 frames; expected 131"):
        run_sync(folder, folder, NOTHING, None, 15.0, 1)


def test_a_session_maps_its_own_pictures(tmp_path, record_session, write_film):
    """A buzzing lamp at fourteen places, each for 0.9 s; the sound of two of them has gaps."""
    # So late that a place is half heard in the next one's stay where the lag is not minded.
    late_s = 0.45
    rng = np.random.default_rng(4)
    matrix = np.array([[110.0, 0, 80], [0, -110, 60], [0, 0, 1]])
    u, v = np.meshgrid([-0.5, -0.17, 0.17, 0.5], [-0.35, 0.0, 0.35])
    places = np.stack([u.ravel(), v.ravel(), np.ones(12)], axis=1)
    places = 3.0 * np.concatenate([places, [[0.3, 0.2, 1.0], [-0.3, -0.2, 1.0]]])
    buzz = at_level(white_noise(0.9, RATE_HZ, rng), -20)
    scene = Scene(
        tuple(
            PointSource(buzz, Trajectory.at_rest(place), number + late_s)
            for number, place in enumerate(places)
        ),
        round(15.0 * RATE_HZ),
        RATE_HZ,
        noises=(Noise("self", snr_db=15.0),),
    )
    sound = render(scene, ARRAY.geometry.positions_m).samples
    rows, columns = np.indices((120, 160))
    frames = []
    for number in range(14 * FRAME_RATE):
        column, row = to_pixels(matrix, 0.0, places[number // FRAME_RATE][None])[0]
        distance = (rows - row) ** 2 + (columns - column) ** 2
        frames.append((30 + 200 * np.exp(-distance / 8)).astype(np.uint8))
    film = write_film(tmp_path / "target.mkv", frames, FRAME_RATE)
    folder = record_session(
        "target",
        sound,
        RATE_HZ,
        array=ARRAY,
        film=film,
        temperature_c=20.0,
        gaps=[Gap(round(13.9 * RATE_HZ), 400, "lost")],
        lost=[LostPart(round(8.5 * RATE_HZ), 48, 2, 3, "lost")],
    )
    evidence = Evidence(datetime(2026, 11, 29, tzinfo=timezone.utc), "click")
    known = NOTHING.with_section(SyncSection(evidence, late_s, 0.001))
    found = run_camera(folder, folder, ARRAY, known, None)
    assert found.warnings == (f"{folder}: 2 stays are left out: sound is missing",)
    assert found.lines[0].startswith("12 of 12 places of the target fit within")
    off = camera_pixels(found.section, places) - to_pixels(matrix, 0.0, places)
    # Three pixels of the video are half of one of the acoustic image.
    assert np.abs(off).max() < 3
    assert found.section.evidence.temperature_c == 20.0
    other = ArrayDescription(vogel_spiral(16, 0.4))
    with pytest.raises(InputError, match=r"target: was recorded with the array"):
        run_camera(folder, folder, other, Calibration.of(other.geometry), None)
