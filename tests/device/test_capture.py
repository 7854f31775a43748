"""Sources open by their URL, and blocks are gathered without loss."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.audio import AudioBlock
from soundpost.device.capture import gathered, open_source
from soundpost.device.errors import CaptureError, InputError, UsageError


def test_sources_open_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples = np.linspace(-0.5, 0.5, 100, dtype=np.float32)[:, None]
    soundfile.write(tmp_path / "take:2.wav", samples, 16_000, subtype="FLOAT", format="WAV")
    for url in ["take:2.wav", "file:take:2.wav", f"file://{tmp_path}/take:2.wav"]:
        with open_source(url, realtime=False) as source:
            assert np.array_equal(next(iter(source.blocks())).samples, samples)
    with pytest.raises(UsageError, match=r"unknown kind 'rtmp': expected one of .*file:.* mic:"):
        open_source("rtmp://camera/live")
    with pytest.raises(InputError, match="No such file"):
        open_source("nothing.wav")
    with pytest.raises(UsageError, match="block_s 0"):
        open_source("take:2.wav", block_s=0)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=40),
    wishes=st.lists(st.integers(1, 4_000), min_size=1, max_size=8),
    fails=st.booleans(),
)
def test_gathered_sound_is_the_same_sound(
    lengths: list[tuple[int, bool]], wishes: list[int], fails: bool
) -> None:
    """In order, without a sample more or less, never over a gap, and before an error all of it."""
    rate_hz, first = 8_000, 0
    blocks = []
    for length, jumps in lengths:
        first += 77 * jumps
        samples = np.arange(first, first + length, dtype=np.float32)[:, None]
        blocks.append(AudioBlock(samples, first, rate_hz, (first + length) / rate_hz))
        first += length

    def source() -> Iterator[AudioBlock]:
        yield from blocks
        if fails:
            raise CaptureError("unplugged")

    wanted = itertools.cycle(wishes)
    asked: list[int] = []
    got: list[AudioBlock] = []

    def wish() -> int:
        asked.append(next(wanted))
        return asked[-1]

    with pytest.raises(CaptureError) if fails else contextlib.nullcontext():
        for block in gathered(source(), wish):
            got.append(block)
    sound = np.concatenate([block.samples for block in got])
    assert np.array_equal(sound, np.concatenate([block.samples for block in blocks]))
    assert len(asked) == len(got)
    for block, wish_then in zip(got, asked, strict=True):
        # Each sample is its own number: a block with a gap inside would not count on.
        end = block.first_sample + len(block.samples)
        assert np.array_equal(block.samples[:, 0], np.arange(block.first_sample, end))
        assert block.time_s == end / rate_hz
        # One part less would have been too little.
        assert len(block.samples) < min(wish_then, rate_hz // 4) + 500
