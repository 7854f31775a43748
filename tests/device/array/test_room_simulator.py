"""Sound of a simulator that is not ours, from a point in the free field."""

import numpy as np
import pyroomacoustics
import pytest

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.geometry import ImageGrid, vogel_spiral

RATE_HZ = 12_288


@pytest.mark.parametrize(("distance_m", "pixel"), [(1.0, 137), (2.5, 1_000), (2.5, 1_690)])
def test_a_point_in_an_anechoic_room_lands_in_its_exact_pixel(distance_m, pixel):
    array = vogel_spiral(128)
    grid = ImageGrid(distance_m=distance_m)
    room = pyroomacoustics.AnechoicRoom(fs=RATE_HZ)
    room.set_sound_speed(343.2)
    # Simulators have their own origin: somewhere within the room.
    origin = np.array([5.0, 4.0, 3.0])
    signal = np.random.default_rng(pixel).standard_normal(3 * 1_024)
    room.add_source(origin + grid.points_m()[pixel], signal=signal)
    room.add_microphone_array((origin + array.positions_m).T)
    room.simulate()
    recording = room.mic_array.signals.T[400:].astype("f4")
    energy = AcousticImager(array, grid, ImageSettings()).energy(cut_snapshots(recording))
    assert len(energy) >= 2
    assert [int(image.argmax()) for image in energy[:2]] == [pixel, pixel]
