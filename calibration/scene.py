"""Simulated sound around an array: sources in a free field or a room, noise, imperfect microphones.

    scene = Scene(
        sources=(PointSource(bark, Trajectory.at_rest((0.5, 0.0, 2.0)), start_s=1.0, label="dog"),),
        n_samples=61_440,
        rate_hz=12_288,
        noises=(Noise("diffuse", snr_db=20.0),),
    )
    rendering = render(scene, positions_m)

Samples are pressure in parts of the converter's full scale: those of a source at 1 m, and gain_db
is the sensitivity of all microphones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.calibration.microphones import Microphones
from soundpost.calibration.noise import Wind, diffuse_noise, self_noise, wind_noise
from soundpost.calibration.propagation import PointSource, free_field
from soundpost.calibration.rooms import Room, in_room, waypoints
from soundpost.calibration.trajectory import Floats
from soundpost.device.array.beamforming import speed_of_sound_m_s
from soundpost.device.audio import FloatArray
from soundpost.device.errors import UsageError

NoiseKind = Literal["diffuse", "wind", "self"]
# First part of the seed of everything that is drawn, so that no two draw the same.
_NOISE, _RECORDING = 1, 2


@dataclass(frozen=True)
class Noise:
    """Noise of one kind over the whole recording; one of the two levels says how much.

    kind : "diffuse" comes from all directions, "wind" is turbulence, "self" is the microphones' own
    snr_db : mean power of what the sources give while one of them sounds, over the noise's
    level_dbfs : root mean square of the noise, in dB of full scale
    slope_db_per_octave : of diffuse noise
    """

    kind: NoiseKind
    snr_db: float | None = None
    level_dbfs: float | None = None
    slope_db_per_octave: float = 0.0
    wind: Wind = field(default_factory=Wind)

    def __post_init__(self) -> None:
        if (self.snr_db is None) == (self.level_dbfs is None):
            raise UsageError(f"{self.kind} noise: expected one of snr_db and level_dbfs")


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that is heard, and by what.

    room : None for the free field
    microphones : None for perfect ones
    gain_db : of all sound of the sources
    seed : of the noises
    """

    sources: tuple[PointSource, ...]
    n_samples: int
    rate_hz: int
    temperature_c: float = 20.0
    room: Room | None = None
    noises: tuple[Noise, ...] = ()
    microphones: Microphones | None = None
    gain_db: float = 0.0
    seed: int = 0

    @property
    def sound_m_s(self) -> float:
        """Speed of sound."""
        return speed_of_sound_m_s(self.temperature_c)


@dataclass(frozen=True, eq=False)
class Rendering:
    """What an array records of a scene.

    samples : (n_samples, n_mics) float32
    spans_s : of each source, when its direct sound first and last reaches a microphone
    signal_rms : of what the sources give while one of them sounds, after gain_db; 0 without any
    noise_rms : of each noise
    """

    samples: FloatArray
    spans_s: tuple[tuple[float, float], ...]
    signal_rms: float
    noise_rms: tuple[float, ...]


def n_steps(scene: Scene) -> int:
    """How often `render` calls `progress`."""
    if scene.room is None:
        heard = len(scene.sources)
    else:
        heard = sum(len(waypoints(of, scene.rate_hz, scene.room)) for of in scene.sources)
    return heard + len(scene.noises)


def render(
    scene: Scene, positions_m: Floats, *, progress: Callable[[], object] | None = None
) -> Rendering:
    """What microphones at these positions, (n_mics, 3), record.

    Raises UsageError where a source is too near, too fast or outside of the room, and where noise
    has its level from a signal that is not there; MissingExtraError for a room without
    pyroomacoustics.
    """
    spans_s = tuple(arrival_s(source, positions_m, scene) for source in scene.sources)
    samples = _sources(scene, positions_m, progress)
    samples *= np.float32(10 ** (scene.gain_db / 20))
    signal_rms = _rms(samples[_sounding(spans_s, scene)])
    levels = []
    for index, noise in enumerate(scene.noises):
        levels.append(_noise_rms(noise, signal_rms))
        rng = np.random.default_rng([scene.seed, _NOISE, index])
        samples += np.float32(levels[-1]) * _noise(noise, scene, positions_m, rng)
        if progress is not None:
            progress()
    if scene.microphones is not None:
        rng = np.random.default_rng([scene.seed, _RECORDING])
        samples = scene.microphones.record(samples, scene.rate_hz, rng)
    return Rendering(samples, spans_s, signal_rms, tuple(levels))


def arrival_s(source: PointSource, positions_m: Floats, scene: Scene) -> tuple[float, float]:
    """When the direct sound of a source first and last reaches one of the microphones."""
    last_s = source.start_s + max(len(source.samples) - 1, 0) / scene.rate_hz
    first_m, last_m = (
        np.linalg.norm(positions_m - source.place.at(at_s), axis=1)
        for at_s in (source.start_s, last_s)
    )
    return (
        source.start_s + float(first_m.min()) / scene.sound_m_s,
        last_s + float(last_m.max()) / scene.sound_m_s,
    )


def _sources(
    scene: Scene, positions_m: Floats, progress: Callable[[], object] | None
) -> FloatArray:
    n_samples, rate_hz, sound_m_s = scene.n_samples, scene.rate_hz, scene.sound_m_s
    if scene.room is not None:
        return in_room(
            scene.sources,
            positions_m,
            n_samples,
            rate_hz,
            sound_m_s,
            scene.room,
            progress=progress,
        )
    return free_field(scene.sources, positions_m, n_samples, rate_hz, sound_m_s, progress=progress)


def _sounding(spans_s: tuple[tuple[float, float], ...], scene: Scene) -> NDArray[np.bool_]:
    sounding = np.zeros(scene.n_samples, bool)
    for onset_s, offset_s in spans_s:
        first = max(round(onset_s * scene.rate_hz), 0)
        sounding[first : max(round(offset_s * scene.rate_hz) + 1, first)] = True
    return sounding


def _rms(samples: FloatArray) -> float:
    if not samples.size:
        return 0.0
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _noise_rms(noise: Noise, signal_rms: float) -> float:
    if noise.level_dbfs is not None:
        return float(10 ** (noise.level_dbfs / 20))
    if signal_rms == 0:
        raise UsageError(
            f"{noise.kind} noise: snr_db is {noise.snr_db:g}, but no source sounds within the "
            "recording; give level_dbfs instead"
        )
    assert noise.snr_db is not None
    return float(signal_rms * 10 ** (-noise.snr_db / 20))


def _noise(noise: Noise, scene: Scene, positions_m: Floats, rng: np.random.Generator) -> FloatArray:
    if noise.kind == "self":
        return self_noise(scene.n_samples, len(positions_m), rng)
    if noise.kind == "wind":
        return wind_noise(positions_m, scene.n_samples, scene.rate_hz, rng, noise.wind)
    return diffuse_noise(
        positions_m,
        scene.n_samples,
        scene.rate_hz,
        scene.sound_m_s,
        rng,
        slope_db_per_octave=noise.slope_db_per_octave,
    )
