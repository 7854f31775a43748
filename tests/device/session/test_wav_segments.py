"""Segments on disk: libsndfile reads at any instant all that was written, to the bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.device.session.wav_segments import (
    SegmentWriter,
    pack_24_bit,
    segment_length,
    wav_header,
)

RATE_HZ = 16_000


def test_packed_samples_are_those_of_libsndfile(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(-(2**23), 2**23, (1_000, 5), dtype=np.int32)
    steps[:3, 0] = [-(2**23), 2**23 - 1, 0]
    path = tmp_path / "by_libsndfile.wav"
    soundfile.write(path, steps << 8, RATE_HZ, subtype="PCM_24")
    samples, _ = soundfile.read(path, dtype="float32")
    assert path.read_bytes().endswith(pack_24_bit(samples).tobytes())


def test_beyond_full_scale_it_is_clipped() -> None:
    packed = pack_24_bit(np.array([[1.0, 7.5, -1.0, -3.0, 0.4999 / 2**23]], np.float32))
    assert [int.from_bytes(value.tobytes(), "little", signed=True) for value in packed] == [
        *(2**23 - 1, 2**23 - 1, -(2**23), -(2**23), 0),
    ]


@settings(max_examples=40)
@given(
    parts=st.lists(st.tuples(st.booleans(), st.integers(1, 700)), min_size=1, max_size=12),
    n_channels=st.integers(1, 5),
    segment=st.integers(20, 400),
)
def test_at_any_instant_the_files_hold_what_was_written(
    parts: list[tuple[bool, int]], n_channels: int, segment: int
) -> None:
    """Sound and gaps of any length, cut anywhere: after each, libsndfile reads all of it."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = SegmentWriter(folder, RATE_HZ, n_channels, segment)
        written = np.zeros((0, n_channels), np.int32)
        for is_sound, length in parts:
            steps = np.zeros((length, n_channels), np.int32)
            if is_sound:
                steps = rng.integers(-(2**23), 2**23, steps.shape, dtype=np.int32)
                writer.write((steps / 2**23).astype(np.float32))
            else:
                writer.skip(length)
            written = np.concatenate([written, steps])
            assert writer.position == len(written)
        for number in range(-(-len(written) // segment)):
            path = folder / "audio" / f"{number:06d}.wav"
            expected = written[number * segment : (number + 1) * segment]
            if not path.exists():
                # All of it is a gap.
                assert not expected.any()
                continue
            info = soundfile.info(path)
            assert (info.channels, info.samplerate, info.subtype) == (
                n_channels,
                RATE_HZ,
                "PCM_24",
            )
            read, _ = soundfile.read(path, dtype="int32", always_2d=True)
            np.testing.assert_array_equal(read >> 8, expected)
        writer.close()


def test_a_minute_unless_a_wav_cannot_hold_it() -> None:
    assert segment_length(48_000, 128) == 48_000 * 60
    assert segment_length(192_000, 128) * 128 * 3 + len(wav_header(192_000, 128, 0)) < 2**31


def test_a_folder_that_holds_sound_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    with pytest.raises(InputError, match="cannot be made: File exists"):
        SegmentWriter(tmp_path, RATE_HZ, 2, 100)
