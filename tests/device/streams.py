"""Sound cut into blocks, and what a pipeline heard in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.detection import Detection
from soundpost.device.pipeline import Pipeline

FloatArray = NDArray[np.float32]


@dataclass
class Heard:
    """firsts, scores : first sample and scores of each window or chunk."""

    firsts: list[int]
    scores: list[list[float]]
    detections: list[Detection]


def cut(
    samples: FloatArray, lengths: Sequence[int], rate_hz: int, first: int = 0
) -> list[AudioBlock]:
    """Blocks of these lengths, the last one of the rest."""
    blocks, position = [], 0
    for length in [*lengths, len(samples)]:
        part = samples[position : position + length]
        if len(part):
            blocks.append(AudioBlock(part[:, None], first + position, rate_hz))
        position += len(part)
    return blocks


def lengths_over(samples: FloatArray, some: Sequence[int], rate_hz: int) -> list[int]:
    """Some lengths, again and again until they reach the end; as they are where that takes long."""
    again = len(samples) // max(1, sum(some)) + 1 if sum(some) > rate_hz // 10 else 1
    return [*some] * again


def streamed_after(pipeline: Pipeline, blocks: Sequence[AudioBlock]) -> Heard:
    """What a pipeline that may have heard something before says of these, to the end."""
    windows = [window for block in blocks for window in pipeline.push(block)]
    windows += pipeline.finish()
    scored = [window for window in windows if len(window.scores)]
    return Heard(
        [window.first_sample for window in scored],
        [window.scores.tolist() for window in scored],
        [detection for window in windows for detection in window.detections],
    )


def streamed(pipeline: Pipeline, blocks: Sequence[AudioBlock]) -> Heard:
    """What a fresh pipeline says of these, to the end; its counters are held to it."""
    heard = streamed_after(pipeline, blocks)
    assert pipeline.windows == len(heard.firsts)
    assert pipeline.samples == sum(len(block.samples) for block in blocks)
    return heard
