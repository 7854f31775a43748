"""Prints how well the calibration of simulated arrays with random faults does.

python tests/benchmarks/calibration.py
python tests/benchmarks/calibration.py --arrays 10 --positions 5

Each array has 16 to 40 microphones at random places in a box of 0.45 x 0.45 x 0.04 m, no two nearer
than 20 mm, with gains of 1 dB and delays of 10 us standard deviation, and up to two dead, three
inverted, two noisy, one clipped and two swapped pairs. White noise sounds from four places for 5 s
in all, 20 dB above the microphones' own noise or that of a diffuse field, in turn.

Positions: twelve chirps of 0.3 s from all around, microphones 5 mm from the drawing along each
axis; what no motion of the whole array explains is the error.
"""

from __future__ import annotations

import argparse

import numpy as np
from machine import describe, one_thread, verdict
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.calibration.array_health import ArrayHealth, examine
from soundpost.calibration.array_response import Take
from soundpost.calibration.event_times import find_events, measure_times
from soundpost.calibration.microphones import Microphones, MicrophoneSettings
from soundpost.calibration.positions import find_positions, rigid_motion
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.scene import Noise, Scene, render
from soundpost.calibration.signals import at_level, chirp, white_noise
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.beamforming import speed_of_sound_m_s
from soundpost.device.array.geometry import ArrayGeometry
from soundpost.device.errors import InputError

Floats = NDArray[np.float64]

RATE_HZ = 16_000
SECONDS = 5.0
SNR_DB = 20.0
HIGHEST_HZ = 6_000.0
PLACES = np.array([[-0.9, 0.1, 1.4], [0.8, 0.3, 1.5], [0.1, 0.9, 1.3], [-0.1, -0.8, 1.6]])
NEAREST_M = 0.02
GAIN_LIMIT, PHASE_LIMIT_RAD, POSITION_LIMIT_M = 0.02, 0.02, 1e-3
SOUND_M_S = speed_of_sound_m_s(20.0)


def random_positions(rng: np.random.Generator) -> Floats:
    """16 to 40 microphones in a flat box, (n_mics, 3)."""
    wanted, places = int(rng.integers(16, 41)), np.empty((0, 3))
    while len(places) < wanted:
        place = rng.uniform(-1, 1, 3) * [0.225, 0.225, 0.02]
        if not len(places) or np.linalg.norm(places - place, axis=1).min() >= NEAREST_M:
            places = np.vstack([places, place])
    return places


def random_faults(n_mics: int, rng: np.random.Generator, seed: int) -> Microphones:
    settings = MicrophoneSettings(
        gain_db=1.0,
        delay_s=1e-5,
        inverted=int(rng.integers(0, 4)),
        dead=int(rng.integers(0, 3)),
        noisy=int(rng.integers(0, 3)),
        clipped=int(rng.integers(0, 2)),
        swapped=int(rng.integers(0, 3)),
        noise_dbfs=-22.0,
        clip_dbfs=-20.0,
    )
    return Microphones.draw(n_mics, settings, seed)


def record_noise(positions_m: Floats, microphones: Microphones, seed: int) -> list[Take]:
    rng = np.random.default_rng([seed, 1])
    takes = []
    for number, place in enumerate(PLACES + rng.normal(0, 0.1, PLACES.shape)):
        sound = at_level(white_noise(SECONDS / len(PLACES), RATE_HZ, rng), -12)
        scene = Scene(
            (PointSource(sound, Trajectory.at_rest(place)),),
            len(sound) + 160,
            RATE_HZ,
            noises=(Noise("self" if seed % 2 else "diffuse", snr_db=SNR_DB),),
            microphones=microphones,
            seed=10 * seed + number,
        )
        takes.append(Take(render(scene, positions_m).samples, RATE_HZ, place))
    return takes


def true_faults(microphones: Microphones) -> set[tuple[int, str]]:
    kinds = {
        "dead": microphones.dead,
        "inverted": microphones.inverted,
        "noisy": microphones.noise_rms > 0,
        "clipped": np.isfinite(microphones.clip_level),
        "swapped": microphones.order != np.arange(len(microphones.order)),
    }
    return {(int(mic), kind) for kind, has in kinds.items() for mic in np.flatnonzero(has)}


def errors_of(health: ArrayHealth, microphones: Microphones) -> tuple[Floats, Floats]:
    """Relative error of the gain and error of the phase at 6 kHz, of the good microphones."""
    good = np.array([state == "good" for state in health.states])
    gain = microphones.gain / np.exp(np.log(microphones.gain[good]).mean())
    late_s = microphones.delay_s - microphones.delay_s[good].mean()
    phase = 2 * np.pi * HIGHEST_HZ * (health.fit.delay_s - late_s)
    return (health.fit.gain / gain - 1)[good], phase[good]


def position_error_m(seed: int) -> float:
    """Root mean square of what is left of 5 mm, or the error where it was refused."""
    rng = np.random.default_rng([seed, 2])
    drawn_m = random_positions(rng)
    true_m = drawn_m + rng.normal(0, 5e-3, drawn_m.shape)
    z = (rng.permutation(12) + rng.random(12)) / 12 * 0.8 + 0.15
    angle = 2 * np.pi * (np.arange(12) + rng.random(12)) / 12
    side = np.sqrt(1 - z**2)
    directions = np.stack([side * np.cos(angle), side * np.sin(angle), z], axis=1)
    places = directions * rng.uniform(0.6, 2.0, (12, 1))
    sound = at_level(chirp(300, 6500, 0.3, RATE_HZ), -20)
    scene = Scene(
        tuple(
            PointSource(sound, Trajectory.at_rest(place), 0.2 + 0.5 * number)
            for number, place in enumerate(places)
        ),
        round(6.4 * RATE_HZ),
        RATE_HZ,
        noises=(Noise("self" if seed % 2 else "diffuse", snr_db=SNR_DB),),
        microphones=Microphones.draw(
            len(drawn_m), MicrophoneSettings(gain_db=1.0, delay_s=1e-5), seed
        ),
        seed=seed,
    )
    samples = render(scene, true_m).samples
    times = measure_times(samples, RATE_HZ, find_events(samples, RATE_HZ), 3e-3)
    laid, _ = rigid_motion(find_positions(times, drawn_m, SOUND_M_S).positions_m, true_m)
    return float(np.sqrt(np.mean(np.square(laid - true_m).sum(axis=1))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arrays", type=int, default=100, metavar="N", help="of faults (100)")
    parser.add_argument("--positions", type=int, default=30, metavar="N", help="arrays (30)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the arrays (0)")
    arguments = parser.parse_args()
    one_thread()
    describe()
    missed, wrong, refused = [], [], []
    gains, phases, n_faults = [], [], 0
    seeds = range(arguments.first, arguments.first + arguments.arrays)
    for seed in tqdm(seeds, desc="faults", unit="array"):
        rng = np.random.default_rng([seed, 0])
        positions_m = random_positions(rng)
        microphones = random_faults(len(positions_m), rng, seed)
        takes = record_noise(positions_m, microphones, seed)
        truth = true_faults(microphones)
        n_faults += len(truth)
        try:
            health = examine(takes, ArrayGeometry(positions_m), SOUND_M_S)
        except InputError as error:
            refused.append(f"array {seed}: {error}")
            continue
        named = {(of.microphone, of.kind) for of in health.findings}
        missed += [f"array {seed}: {mic} {kind}" for mic, kind in sorted(truth - named)]
        wrong += [f"array {seed}: {mic} {kind}" for mic, kind in sorted(named - truth)]
        gain, phase = errors_of(health, microphones)
        gains.append(gain)
        phases.append(phase)
    if gains:
        gain, phase = np.concatenate(gains), np.concatenate(phases)
        gain_rms, phase_rms = (float(np.sqrt(np.mean(of**2))) for of in (gain, phase))
        print(f"{len(seeds)} arrays, {n_faults} faults, {SECONDS:g} s at {SNR_DB:g} dB")
        print(f"missed {len(missed)}, falsely named {len(wrong)}, refused {len(refused)}", end="  ")
        print(verdict(len(missed) + len(wrong) + len(refused), 0))
        for line in [*missed, *wrong, *refused]:
            print(f"  {line}")
        print(f"gain  {gain_rms:.3%} RMS, {np.abs(gain).max():.3%} at most", end="  ")
        print(verdict(gain_rms, GAIN_LIMIT))
        print(
            f"phase {phase_rms:.5f} rad RMS at 6 kHz, {np.abs(phase).max():.5f} at most", end="  "
        )
        print(verdict(phase_rms, PHASE_LIMIT_RAD))
    errors, refusals = [], []
    for seed in tqdm(range(arguments.positions), desc="positions", unit="array"):
        try:
            errors.append(position_error_m(seed))
        except InputError as error:
            refusals.append(f"array {seed}: {error}")
    if errors:
        rms_m = float(np.sqrt(np.mean(np.square(errors))))
        print(
            f"positions {rms_m * 1e3:.2f} mm RMS over {len(errors)} arrays, median "
            f"{np.median(errors) * 1e3:.2f}, at most {max(errors) * 1e3:.2f}, refused "
            f"{len(refusals)}",
            end="  ",
        )
        print(verdict(np.inf if refusals else rms_m, POSITION_LIMIT_M))
        for line in refusals:
            print(f"  {line}")


if __name__ == "__main__":
    main()
