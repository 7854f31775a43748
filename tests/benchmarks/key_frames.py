"""Prints what choosing 4 key frames among the 240 of a clip costs, against its limit of 1 s.

usage: key_frames.py [--frames N] [--keys K]

Clips of several kinds, since the solver's work depends on them; features as large as AlexNet's
conv5. CPU seconds of one thread: the wall's on an idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
from machine import describe, one_thread, verdict
from numpy.typing import NDArray

from soundpost.train.multimodal.key_frames import (
    KEY_FRAMES,
    euclidean_distances,
    select_representatives,
)

LIMIT_S = 1.0
CONV5 = 256 * 13 * 13


def clips(n: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Kinds of clips, in 64 dimensions."""
    rng = np.random.default_rng(0)
    grain = 0.1 * rng.standard_normal((n, 64))
    shot = np.sort(rng.integers(0, 6, n))
    angle = np.linspace(0, 4 * np.pi, n, endpoint=False)
    turns = np.zeros((n, 64))
    turns[:, 0], turns[:, 1] = np.cos(angle), np.sin(angle)
    yield "six shots", rng.standard_normal((6, 64))[shot] + grain
    yield "one long pan", np.linspace(0, 5, n)[:, None] + grain
    yield "a camera that wanders", np.cumsum(rng.standard_normal((n, 64)), axis=0)
    yield "a still camera", 1e-3 * grain
    yield "two turns around oneself", turns
    yield "two turns, spiralling", turns * np.linspace(0, 1, n)[:, None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--keys", type=int, default=KEY_FRAMES)
    arguments = parser.parse_args()
    one_thread()
    describe()
    rng = np.random.default_rng(1)
    # As many features as conv5 has, with the distances of the 64 dimensions but for a scale.
    directions = rng.standard_normal((64, CONV5)).astype(np.float32)
    # What is loaded and set up once for all clips.
    select_representatives(euclidean_distances(rng.standard_normal((8, 64))), 2)
    worst = 0.0
    for name, clip in clips(arguments.frames):
        features = clip.astype(np.float32) @ directions
        began = time.process_time()
        distances = euclidean_distances(features)
        measured = time.process_time()
        found = select_representatives(distances, arguments.keys)
        ended = time.process_time()
        active = int((found.row_maxima > 1e-6).sum())
        print(
            f"{name}: distances {measured - began:.2f} s, selection {ended - measured:.2f} s; "
            f"frames {found.chosen.tolist()}, {active} rows active"
        )
        worst = max(worst, ended - began)
    print(
        f"{arguments.frames} frames to {arguments.keys}: {worst:.2f} s at most, "
        f"{verdict(worst, LIMIT_S)} {LIMIT_S:g} s"
    )


if __name__ == "__main__":
    main()
