"""A camera with a clock of its own, as a program: shows a flash at every whole second, late.

python tests/benchmarks/flash_camera.py > flash.nut       until the reader goes away

Frames are exposed all of the time from one to the next, so that the first one of a flash tells by
its brightness when the flash began. Time stamps are the ends of exposure by a clock that is off and
counts from another second; each frame is handed over then, or late. (Where a camera stamps the
start, or always takes as long to hand over, that is a constant, which `calibrate sync` measures.)
"""

from __future__ import annotations

import argparse
import sys
import time
from fractions import Fraction

import av
import numpy as np

FPS = 30
FLASH_S = 0.15
DARK, BRIGHT = 40, 215


def lit(start_s: float, end_s: float) -> float:
    """Part of an exposure in which the lamp is on: from every whole second for FLASH_S."""
    second = np.floor(end_s)
    on_s = sum(
        max(0.0, min(end_s, first + FLASH_S) - max(start_s, first))
        for first in (second - 1, second)
    )
    return float(on_s / (end_s - start_s))


def main() -> None:
    """Show flashes until nobody looks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ppm", type=float, default=50.0, help="the clock runs fast by so much")
    parser.add_argument("--jitter-ms", type=float, default=10.0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    rate = 1 + 1e-6 * arguments.ppm
    with av.open("pipe:1", "w", format="nut", options={"flush_packets": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = arguments.width, arguments.height, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1_000_000)
        stream.codec_context.qmin = stream.codec_context.qmax = 3
        began_s = time.monotonic()
        number = 0
        while True:
            # Frames follow one another by the camera's clock, a little faster than by ours.
            start_s, end_s = (began_s + (number + more) / FPS / rate for more in (0, 1))
            shade = round(DARK + (BRIGHT - DARK) * lit(start_s, end_s))
            picture = np.full((arguments.height, arguments.width), shade, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuvj420p")
            frame.pts = round(1e6 * (17.0 + (number + 1) / FPS))
            frame.time_base = Fraction(1, 1_000_000)
            packets = stream.encode(frame)
            late_s = rng.uniform(0.0, 1e-3 * arguments.jitter_ms)
            time.sleep(max(0.0, end_s + late_s - time.monotonic()))
            container.mux(packets)
            number += 1


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
