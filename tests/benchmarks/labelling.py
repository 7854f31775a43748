"""Prints how many clips a second one core labels: with stub networks, and with ResNet-50.

usage: labelling.py [--clips N] [--network-clips N] [--data DIR]

Clips of 4 s as jia2019 has them: 340 x 256 pictures at 25 a second, mono sound at 44.1 kHz,
generated unless --data has videos. The stubs cost next to nothing, so that the first figure is what
everything else costs: decoding, scaling, resampling, tables. ResNet-50 has random weights, which
take as long as trained ones. Rates are by the process' CPU time on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from machine import describe, one_thread
from torch import nn

from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone
from soundpost.train.backbones.resnet import resnet50
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media_files import VIDEO_SUFFIXES
from soundpost.train.multimodal.label_models import SecondModel, visual_model
from soundpost.train.multimodal.labelling import label_clips
from soundpost.train.multimodal.machine_labels import LabellingRules
from soundpost.train.multimodal.soft_label_format import Teacher

SECONDS, PICTURES_PER_S, SIZE, RATE_HZ = 4, 25, (256, 340), 44_100
N_AUDIO_LABELS = 527


def write_clip(path: Path, rng: np.random.Generator) -> None:
    """A moving texture with noise, as MPEG-4 and AAC."""
    texture = rng.integers(0, 256, (32, 43, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    texture = texture[: SIZE[0], : SIZE[1]]
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=PICTURES_PER_S)
        video.height, video.width = SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for i in range(SECONDS * PICTURES_PER_S):
            picture = np.ascontiguousarray(np.roll(texture, 3 * i, axis=1))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, PICTURES_PER_S)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        noise = rng.normal(0, 3_000, SECONDS * RATE_HZ).astype(np.int16)
        for start in range(0, len(noise), 1_024):
            block = av.AudioFrame.from_ndarray(
                noise[None, start : start + 1_024], format="s16", layout="mono"
            )
            block.sample_rate, block.pts, block.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def stub_audio() -> SecondModel:
    """Scores of a second from its energy in 64 parts."""
    weights = np.random.default_rng(0).random((64, N_AUDIO_LABELS), np.float32) / 64
    labels = tuple(f"sound {k}" for k in range(N_AUDIO_LABELS))
    return SecondModel(
        Teacher("stub", "0" * 64),
        labels,
        lambda seconds: np.clip(
            np.abs(seconds).reshape(len(seconds), 64, -1).mean(2) @ weights, 0, 1
        ),
    )


def measure(name: str, network: nn.Module, clips: list[MediaClip]) -> None:
    """Label clips into a folder that goes again, and print the rate."""
    labels = tuple(f"thing {k}" for k in range(1_000))
    visual = visual_model(Teacher(name, "0" * 64), labels, FrozenBackbone(network), "sigmoid")
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.monotonic(), time.process_time()
        report = label_clips(
            clips, visual, stub_audio(), Path(folder), LabellingRules(n_folds=4), quiet=True
        )
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    usable = report.n_new - len({problem.partition(":")[0] for problem in report.problems})
    print(
        f"{name}: {report.n_new / cpu:.2f} clips/s per core ({report.n_new} clips, {usable} "
        f"without a problem, {cpu:.1f} s of CPU, {wall:.1f} s by the clock)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24, help="for the stubs")
    parser.add_argument("--network-clips", type=int, default=3, help="for ResNet-50")
    parser.add_argument("--data", type=Path, metavar="DIR", help="videos to label")
    arguments = parser.parse_args()
    one_thread()
    torch.set_num_threads(1)
    describe()
    n = max(arguments.clips, arguments.network_clips)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data is None:
            rng = np.random.default_rng(0)
            paths = [Path(folder) / f"clip{i}.mp4" for i in range(n)]
            for path in paths:
                write_clip(path, rng)
        else:
            found = sorted(p for p in arguments.data.rglob("*") if p.suffix in VIDEO_SUFFIXES)
            paths = found[:n]
        clips = [MediaClip(path.name, path, path, (), "train") for path in paths]
        measure("stub", StubBackbone(), clips[: arguments.clips])
        torch.manual_seed(0)
        measure("ResNet-50", resnet50(), clips[: arguments.network_clips])


if __name__ == "__main__":
    main()
