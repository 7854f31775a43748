"""Files replay in any blocks, at the pace of sound or faster, and say where they break off."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.audio import AudioBlock, FloatArray
from soundpost.device.errors import InputError
from soundpost.device.file_source import open_file


def write_noise(
    path: Path, n_samples: int, n_channels: int = 2, rate_hz: int = 16_000
) -> FloatArray:
    generator = np.random.default_rng(1)
    samples = generator.uniform(-0.5, 0.5, (n_samples, n_channels)).astype(np.float32)
    soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return samples


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-5, 0.5))
def test_a_file_replayed_in_any_blocks_is_the_file(
    tmp_path_factory: pytest.TempPathFactory, block_s: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "replay.wav"
    samples = write_noise(path, 3_000, 6)
    with open_file(f"file:{path}", realtime=False, block_s=block_s) as source:
        blocks = list(source.blocks())
    assert (source.rate_hz, source.n_channels, source.live) == (16_000, 6, False)
    lengths = [len(block.samples) for block in blocks]
    assert [block.first_sample for block in blocks] == [
        sum(lengths[:i]) for i in range(len(blocks))
    ]
    assert {block.time_s for block in blocks} == {None}
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), samples)


def test_real_time_follows_the_sample_count_and_makes_up_for_a_slow_reader(tmp_path: Path) -> None:
    rate_hz, n_samples = 44_100, 66_150
    write_noise(tmp_path / "a.wav", n_samples, rate_hz=rate_hz)
    start_s = time.monotonic()
    times_s = []
    with open_file(str(tmp_path / "a.wav"), block_s=0.01) as source:
        for block in source.blocks():
            assert block.time_s is not None
            assert time.monotonic() >= block.time_s  # never heard before it was made
            end_sample = block.first_sample + len(block.samples)
            times_s.append(block.time_s - end_sample / rate_hz)
            if block.first_sample == 441 * 20:
                time.sleep(0.4)
    assert max(times_s) - min(times_s) < 1e-6
    assert n_samples / rate_hz <= time.monotonic() - start_s < n_samples / rate_hz + 0.35


def test_a_loop_numbers_on(tmp_path: Path) -> None:
    samples = write_noise(tmp_path / "a.wav", 1_000, 1)
    with open_file(str(tmp_path / "a.wav"), realtime=False, block_s=0.03, loop=True) as source:
        blocks = list(islice(source.blocks(), 9))
    assert [block.first_sample for block in blocks[:5]] == [0, 480, 960, 1_000, 1_480]
    joined = np.concatenate([block.samples for block in blocks])
    assert np.array_equal(joined, np.tile(samples, (3, 1)))


def test_a_file_that_breaks_off_is_refused_where_it_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 160_000), 16_000)
    path.write_bytes(path.read_bytes()[:200_000])
    heard: list[AudioBlock] = []
    with (
        open_file(str(path), realtime=False) as source,
        pytest.raises(InputError, match=r"a\.flac: truncated"),
    ):
        heard.extend(source.blocks())
    assert 0 < sum(len(block.samples) for block in heard) < 160_000


def test_a_source_closed_by_another_thread_ends(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav", 160_000)
    source = open_file(str(tmp_path / "a.wav"), block_s=5.0)
    timer = threading.Timer(0.2, source.close)
    timer.start()
    start_s = time.monotonic()
    assert list(source.blocks()) == []
    assert time.monotonic() - start_s < 2
