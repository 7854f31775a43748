"""Prints what an acoustic image costs, as a ratio to what this machine's products of floats allow.

python tests/benchmarks/acoustic_images.py
python tests/benchmarks/acoustic_images.py --rounds 20
python tests/benchmarks/acoustic_images.py --acoular       beside Acoular, some minutes

128 microphones, 36 x 48 pixels, 512 bins. The limit is the time that as many complex products and
sums take at the speed of a square product of float matrices: 0.906 GFLOP an image. Beams are
steering, products and power; whole images are made from samples, with energy map and MFCC. Live
maps are those of 128 channels at 48 kHz in blocks of 20 ms, resampling included. Acoular makes its
cross spectra and its beams in float64, for the same pixels, bins and snapshots, on one thread.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from machine import describe, medians_ms, one_thread, verdict
from numpy.typing import NDArray

from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings
from soundpost.device.array.beamforming import (
    Beamformer,
    ComplexArray,
    arrival_delays,
    snapshot_spectra,
    speed_of_sound_m_s,
    steering_vectors,
)
from soundpost.device.array.fast_path import SeparableBeamformer
from soundpost.device.array.general_path import SteeredBeamformer
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.live_images import LiveImages
from soundpost.device.audio import AudioBlock

N_MICS, N_PIXELS, N_BINS, N_FRAMES = 128, 36 * 48, 512, 24
BIN_HZ = 12.0
SNAPSHOT_MS = 1000 / BIN_HZ
# A complex product and sum are four real products and four sums.
FLOP = 8 * N_MICS * N_PIXELS * N_BINS
SQUARE = 1_024
# At 24 frames: at least this many times the limit
LEAST = {"fast": 2.0, "general": 0.65}
ERROR_LIMIT = 1e-5
# Whole images at 24 frames: at least this many times real time; and one image, at most, in ms
LEAST_REAL_TIME = {"fast": 25.0, "general": 8.0}
MOST_MS = 10.0
MOST_MB = 500.0
# At least this many times as fast as Acoular's BeamformerBase, for one frame and for 24 averaged
LEAST_ACOULAR = {1: 1_000.0, N_FRAMES: 50.0}
# Bins whose beams are made in float64 to compare with
COMPARED = range(5, N_BINS, 46)


def recording(rng: np.random.Generator) -> NDArray[np.float32]:
    """Two plane waves and noise of the microphones, (N_FRAMES, N_MICS, 1024)."""
    array, grid = vogel_spiral(N_MICS), ImageGrid()
    delays_s = arrival_delays(array, grid, speed_of_sound_m_s(20.0))[[400, 1_300]]
    samples = rng.normal(0, 0.01, (N_FRAMES, N_MICS, 2 * N_BINS))
    for delay_s in delays_s:
        spectrum = np.fft.rfft(rng.normal(0, 0.1, (N_FRAMES, 1, 2 * N_BINS)))
        turns = np.multiply.outer(delay_s, np.arange(N_BINS + 1) * BIN_HZ)
        samples += np.fft.irfft(spectrum * np.exp(-2j * np.pi * turns))
    return samples.astype(np.float32)


def whole(beams: Beamformer, spectra: ComplexArray) -> Callable[[], object]:
    """A function that makes all power and keeps none of it."""

    def once() -> None:
        for _ in beams.power(spectra, range(N_BINS)):
            pass

    return once


def error(beams: Beamformer, spectra: ComplexArray) -> float:
    """Greatest error of the power re the greatest power in its bin, against float64."""
    delays_s = arrival_delays(vogel_spiral(N_MICS), ImageGrid(), speed_of_sound_m_s(20.0))
    worst = 0.0
    for index in COMPARED:
        vectors = steering_vectors(delays_s, np.array([index * BIN_HZ]))[0]
        expected = np.abs(vectors @ spectra[index].astype(np.complex128)) ** 2
        _, found = next(iter(beams.power(spectra, range(index, index + 1))))
        worst = max(worst, float(np.abs(found[0] - expected).max() / expected.max()))
    return worst


def live_share(imager: AcousticImager, rounds: int) -> float:
    """CPU time of live maps, as a part of the time that their sound takes."""
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 0.01, (48_000 * 2, N_MICS)).astype(np.float32)
    live = LiveImages(imager)
    spent = []
    for turn in range(rounds + 1):
        began = time.process_time()
        for first in range(0, len(sound), 960):
            place = turn * len(sound) + first
            live.push(AudioBlock(sound[first : first + 960], place, 48_000))
        spent.append((time.process_time() - began) / 2)
    return statistics.median(spent[1:])


def acoular_ms(samples: NDArray[np.float32], method: str, **more: int) -> tuple[float, float]:
    """CPU time of Acoular for one map of some snapshots averaged: (cross spectra, beams)."""
    import acoular
    import numba

    numba.set_num_threads(1)
    acoular.config.global_caching = "none"
    array, grid = vogel_spiral(N_MICS), ImageGrid()
    sound = samples.transpose(0, 2, 1).reshape(-1, N_MICS).astype(np.float64)

    def once(n_bins: int) -> tuple[float, float]:
        spectra = acoular.PowerSpectra(
            source=acoular.TimeSamples(data=sound, sample_freq=2 * N_BINS * BIN_HZ),
            block_size=2 * N_BINS,
            window="Hanning",
            overlap="None",
            ind_low=0,
            ind_high=n_bins,
        )
        beamformer = getattr(acoular, method)(
            freq_data=spectra,
            steer=acoular.SteeringVector(
                grid=acoular.ImportGrid(pos=5 * grid.directions().T),
                mics=acoular.MicGeom(pos_total=array.positions_m.T),
            ),
            r_diag=False,
            **more,
        )
        began = time.process_time()
        spectra.csm.sum()
        between = time.process_time()
        beamformer.result[:n_bins].sum()
        return between - began, time.process_time() - between

    # The first call compiles.
    once(2)
    csm_s, beams_s = once(N_BINS)
    return 1000 * csm_s, 1000 * beams_s


def compare_with_acoular(
    samples: NDArray[np.float32], times: Mapping[str, float], limits: Mapping[int, float]
) -> None:
    """Print how much faster whole images are than Acoular's maps."""
    for n_frames, least in limits.items():
        ours_ms = {route: times[f"images {route} {n_frames}"] for route in ("fast", "general")}
        for method, more in (("BeamformerBase", {}), ("BeamformerEig", {"n": 1})):
            csm_ms, beams_ms = acoular_ms(samples[:n_frames], method, **more)
            ratios = ", ".join(
                f"{beams_ms / ms:.0f} x {route} (with cross spectra {(csm_ms + beams_ms) / ms:.0f})"
                for route, ms in ours_ms.items()
            )
            note = ""
            if method == "BeamformerBase":
                met = "meets" if beams_ms / ours_ms["fast"] >= least else "BELOW"
                note = f"  {met} {least:g} x"
            print(
                f"Acoular {method}, {n_frames:>2} frames averaged: {beams_ms:.0f} ms, cross "
                f"spectra {csm_ms:.0f} ms: {ratios}{note}"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--acoular", action="store_true", help="compare with Acoular, in minutes")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    one_thread()
    describe()
    rng = np.random.default_rng(0)
    square = rng.standard_normal((SQUARE, SQUARE)).astype(np.float32)
    array, grid, sound_m_s = vogel_spiral(N_MICS), ImageGrid(), speed_of_sound_m_s(20.0)
    everyone = np.arange(N_MICS)
    samples = recording(rng)
    spectra = snapshot_spectra(samples, np.ones(2 * N_BINS, np.float32))
    spectra /= np.float32(N_MICS)
    one = np.ascontiguousarray(spectra[:, :, :1])

    routes: dict[str, Beamformer] = {
        "fast": SeparableBeamformer(array, grid, everyone, BIN_HZ, N_BINS, sound_m_s),
        "general": SteeredBeamformer(arrival_delays(array, grid, sound_m_s), BIN_HZ, N_BINS),
    }
    imagers = {}
    setup_ms = {}
    for route in ("fast", "general"):
        began = time.process_time()
        imagers[route] = AcousticImager(array, grid, ImageSettings(route=route))
        setup_ms[route] = 1000 * (time.process_time() - began)

    contenders: dict[str, Callable[[], object]] = {"limit": lambda: square @ square}
    for route, beams in routes.items():
        contenders[f"beams {route} 24"] = whole(beams, spectra)
        contenders[f"beams {route} 1"] = whole(beams, one)
    for route, imager in imagers.items():
        contenders[f"images {route} 24"] = lambda imager=imager: imager.images(samples)
        contenders[f"images {route} 1"] = lambda imager=imager: imager.images(samples[:1])
    times = medians_ms(contenders, rounds)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    gflops = 2 * SQUARE**3 / times["limit"] / 1e6
    limit_ms = FLOP / gflops / 1e6
    print(f"limit: {gflops:.0f} GFLOPS of sgemm, {limit_ms:.2f} ms an image; {rounds} rounds")
    for route in routes:
        for n_frames in (N_FRAMES, 1):
            ms = times[f"beams {route} {n_frames}"] / n_frames
            ratio = limit_ms / ms
            note = ""
            if n_frames == N_FRAMES:
                met = "meets" if ratio >= LEAST[route] else "BELOW"
                note = f"  {met} {LEAST[route]:g} x"
            print(
                f"beams, {route:<8} {n_frames:>2} frames at once {ms:7.2f} ms an image "
                f"{ratio:6.2f} x limit{note}"
            )
    for route, beams in routes.items():
        found = error(beams, spectra)
        print(
            f"error, {route:<8} {found:.1e} of the peak  {verdict(found, ERROR_LIMIT)} "
            f"{ERROR_LIMIT:g}"
        )
    for route in imagers:
        for n_frames in (N_FRAMES, 1):
            ms = times[f"images {route} {n_frames}"] / n_frames
            note = ""
            if n_frames == N_FRAMES:
                met = "meets" if SNAPSHOT_MS / ms >= LEAST_REAL_TIME[route] else "BELOW"
                note = f"  {met} {LEAST_REAL_TIME[route]:g} x"
            elif route == "fast":
                note = f"  {verdict(ms, MOST_MS)} {MOST_MS:g} ms"
            print(
                f"whole, {route:<8} {n_frames:>2} frames at once {ms:7.2f} ms an image "
                f"{limit_ms / ms:6.2f} x limit {SNAPSHOT_MS / ms:6.1f} x real time{note}"
            )
        print(f"setup, {route:<8} {setup_ms[route]:.0f} ms, once for an array and a temperature")
    share = live_share(imagers["fast"], rounds)
    print(
        f"live, fast: {100 * share:.0f} % of a core for 12 maps a second of 128 channels at 48 kHz"
    )
    print(
        f"peak memory {peak_mb:.0f} MB, with Python and both routes  {verdict(peak_mb, MOST_MB)} "
        f"{MOST_MB:g} MB"
    )
    if arguments.acoular:
        compare_with_acoular(samples, times, LEAST_ACOULAR)


if __name__ == "__main__":
    main()
