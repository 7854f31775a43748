"""Arrays with known faults, recorded in simulated scenes: the truth that calibration must find."""

import argparse

import numpy as np
import pytest
import soundfile

from soundpost.calibration.array_response import Take
from soundpost.calibration.microphones import Microphones
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.scene import Noise, Scene, render
from soundpost.calibration.signals import at_level, white_noise
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.geometry_files import write_array
from soundpost.device.commands import record as record_command
from soundpost.device.session.lost_parts import write_lost
from soundpost.device.session.session_tables import write_gaps

RATE_HZ = 16_000
PLACES = [(0.8, 0.2, 1.5), (-0.7, 0.6, 1.3), (0.1, -0.8, 1.6)]


@pytest.fixture(scope="session")
def record():
    """Function: what an array records of noise from each of some places."""

    def recorded(
        positions_m, microphones=None, places=PLACES, seconds=5 / 3, snr_db=20.0, **options
    ):
        options = {"kind": "self", "seed": 0, "level_dbfs": -12.0, "room": None} | options
        takes = []
        for number, place in enumerate(places):
            rng = np.random.default_rng([options["seed"], number])
            sound = at_level(white_noise(seconds, RATE_HZ, rng), options["level_dbfs"])
            scene = Scene(
                (PointSource(sound, Trajectory.at_rest(place)),),
                round(seconds * RATE_HZ) + 200,
                RATE_HZ,
                room=options["room"],
                noises=(Noise(options["kind"], snr_db=snr_db),),
                microphones=microphones,
                seed=100 * options["seed"] + number,
            )
            samples = render(scene, positions_m).samples
            takes.append(Take(samples, RATE_HZ, np.array(place, np.float64)))
        return takes

    return recorded


@pytest.fixture(scope="session")
def faulty():
    """Function: microphones with these faults, by name and the numbers of those that have them."""

    def made(n_mics, seed=0, *, dead=(), inverted=(), noisy=(), clipped=(), swapped=()):
        rng = np.random.default_rng(seed)
        order = np.arange(n_mics)
        for a, b in swapped:
            order[[a, b]] = order[[b, a]]
        numbers = np.arange(n_mics)
        return Microphones(
            gain=10 ** (rng.standard_normal(n_mics) / 20),
            delay_s=1e-5 * rng.standard_normal(n_mics),
            inverted=np.isin(numbers, inverted),
            dead=np.isin(numbers, dead),
            noise_rms=np.where(np.isin(numbers, noisy), 0.08, 0.0),
            clip_level=np.where(np.isin(numbers, clipped), 0.08, np.inf),
            order=order,
        )

    return made


@pytest.fixture
def record_session(tmp_path):
    """Function: a session as `soundpost record` makes it, and then said to lack something."""

    def recorded(
        name, samples, rate_hz, *, array=None, film=None, temperature_c=None, gaps=(), lost=()
    ):
        sound, folder = tmp_path / f"{name}-played.wav", tmp_path / name
        soundfile.write(sound, samples, rate_hz, subtype="PCM_24")
        words = ["--source", sound, "--fast", "--quiet", "--out", folder]
        if array is not None:
            write_array(tmp_path / f"{name}-array.json", array)
            words += ["--array", tmp_path / f"{name}-array.json"]
        words += [] if film is None else ["--camera", film]
        words += [] if temperature_c is None else ["--temperature", temperature_c]
        parser = argparse.ArgumentParser()
        record_command.COMMAND.add_arguments(parser)
        assert record_command.COMMAND.run(parser.parse_args(list(map(str, words)))) == 0
        if gaps:
            write_gaps(folder, gaps)
        write_lost(folder, lost)
        return folder

    return recorded


@pytest.fixture
def write_film():
    """Function: a film of grey pictures, each kept to the bit."""

    def write(path, frames, rate):
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=rate)
            stream.height, stream.width = frames[0].shape
            stream.pix_fmt = "gray"
            for picture in frames:
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write
