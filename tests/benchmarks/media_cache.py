"""Prints how much quicker rows of the media cache are read than the clips they are made of.

python tests/benchmarks/media_cache.py
python tests/benchmarks/media_cache.py --data films

Without DIR, a film of ten seconds is made first (340 x 256 pixels, 25 pictures a second, a tone).
Of each film two kinds of rows are made: its first ten seconds of sound at 16 kHz, and a picture of
224 x 224 a second of them, what a frozen visual network is fed with. A row is read as a batch takes
it, copied out of the mapping; the files are in the page cache, as those of a film are when it is
decoded. CPU time, medians of all rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from machine import describe, medians_ms, one_thread

from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media import read_audio, read_frames_per_second
from soundpost.train.datasets.media_cache import open_rows

RATE_HZ, SECONDS = 16_000, 10
SIZE = (224, 224)
LIMIT = 20
FILM_SIZE, FILM_RATE = (256, 340), 25


def write_film(path: Path) -> None:
    """Ten seconds of a moving slope with some noise, and a tone."""
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 40, (*FILM_SIZE, 3))
    slope = np.add.outer(np.arange(FILM_SIZE[0]), np.arange(FILM_SIZE[1]))[..., None]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FILM_RATE)
        video.height, video.width = FILM_SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for i in range(SECONDS * FILM_RATE):
            picture = ((slope + 3 * i) % 216 + np.roll(grain, i, axis=1)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FILM_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = 10_000 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * RATE_HZ) / RATE_HZ)
        for start in range(0, len(wave), 1024):
            block = wave[None, start : start + 1024].astype(np.int16)
            sound = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder of .mp4 files")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    one_thread()
    describe()
    with tempfile.TemporaryDirectory() as folder:
        films = sorted(arguments.data.glob("*.mp4")) if arguments.data else []
        if not films:
            films = [Path(folder) / "film.mp4"]
            write_film(films[0])
        clips = [MediaClip(film.stem, film, film, (), "train") for film in films]

        def sound(clip: MediaClip) -> np.ndarray:
            return read_audio(clip.audio, RATE_HZ, 0.0, SECONDS)

        def pictures(clip: MediaClip) -> np.ndarray:
            return read_frames_per_second(clip.video, 1, 0.0, SECONDS, SIZE)

        for name, make in (("sound", sound), ("pictures", pictures)):
            rows = open_rows(clips, name, make, Path(folder) / "rows", quiet=True)
            for i, clip in enumerate(clips):
                assert np.array_equal(rows[i], make(clip))
            spent = medians_ms(
                {
                    "decoded": lambda make=make: [make(clip) for clip in clips],
                    "read": lambda rows=rows: [np.array(rows[i]) for i in range(len(clips))],
                },
                arguments.rounds,
            )
            ratio = spent["decoded"] / spent["read"]
            each = {kind: time / len(clips) for kind, time in spent.items()}
            print(
                f"{name}: {each['decoded']:.1f} ms a clip decoded, {each['read']:.3f} ms read from "
                f"the cache ({rows[0].nbytes / 1e6:.2f} MB): {ratio:.0f} x, "
                f"{'at least' if ratio >= LIMIT else 'BELOW'} {LIMIT}"
            )


if __name__ == "__main__":
    main()
