"""Sound in any usual form becomes the same float32 samples, and a cut stream the same stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.audio import (
    AudioFile,
    FloatArray,
    StreamResampler,
    read_clip,
    select_channel,
    to_float,
)
from soundpost.device.errors import InputError

RATES_HZ = [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]


def noise(n_samples: int, n_channels: int | None = None, seed: int = 0) -> FloatArray:
    shape = n_samples if n_channels is None else (n_samples, n_channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


# Sample formats: the integers n / 2^(bits - 1), computed by Python's exact fractions.


@pytest.mark.parametrize(
    ("dtype", "bits", "values", "full_scale"),
    [
        (np.uint8, None, [0, 1, 127, 128, 129, 255], 128),
        (np.int16, None, [-32768, -1, 0, 1, 32767], 2**15),
        (np.int32, None, [-(2**31), -1, 0, 2**30, 2**31 - 1], 2**31),
        (np.int32, 24, [-(2**23), -1, 0, 1, 2**23 - 1], 2**23),
    ],
)
def test_integer_formats_scale_to_full_scale_one(
    dtype: type, bits: int | None, values: list[int], full_scale: int
) -> None:
    zero = 128 if dtype is np.uint8 else 0
    expected = [np.float32((value - zero) / full_scale) for value in values]
    samples = to_float(np.array(values, dtype), bits)
    assert samples.dtype == np.float32
    assert samples.tolist() == [float(value) for value in expected]


@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=2, max_size=40), st.integers(0, 255))
def test_24_bit_sound_is_the_same_packed_or_padded_with_anything(
    values: list[int], padding: int
) -> None:
    signed = np.array(values, np.int32)
    packed = b"".join(value.to_bytes(3, "little", signed=True) for value in values)
    expected = np.array(values) / 2**23
    dirty = (signed & 0xFFFFFF) | np.array(padding << 24, np.uint32).astype(np.int32)
    assert np.array_equal(to_float(signed, 24), expected.astype(np.float32))
    assert np.array_equal(to_float(dirty, 24), expected.astype(np.float32))
    raw = np.frombuffer(packed, np.uint8).reshape(-1, 3)
    assert np.array_equal(to_float(raw, 24), expected.astype(np.float32))


def test_floats_pass_and_other_types_are_refused() -> None:
    assert to_float(np.array([0.25, -1.5])).tolist() == [0.25, -1.5]
    for raw, bits in [(np.zeros(3, np.int64), None), (np.zeros(3, np.int16), 24)]:
        with pytest.raises(InputError, match="expected uint8, int16"):
            to_float(raw, bits)


def test_a_channel_is_that_column_and_mix_is_the_mean() -> None:
    samples = noise(50, 6)
    for channel in range(6):
        assert np.array_equal(select_channel(samples, channel), samples[:, channel])
    expected = samples.astype(np.float64).sum(axis=1) / 6
    assert np.allclose(select_channel(samples, "mix"), expected, atol=1e-7)


def test_a_channel_that_is_not_there_is_refused() -> None:
    for channel in (-1, 6, True):
        with pytest.raises(InputError, match=r"channel"):
            select_channel(noise(5, 6), channel)
    with pytest.raises(InputError, match=r"9 channels.*--channel 0 to --channel 8"):
        select_channel(noise(5, 9), "mix")


# Resampling


def cut(samples: FloatArray, places: list[float]) -> list[FloatArray]:
    return np.split(samples, sorted(int(place * len(samples)) for place in places))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(RATES_HZ),
    st.sampled_from([16_000, 48_000]),
    st.integers(0, 20_000),
    st.lists(st.floats(0, 1), max_size=30),
)
def test_any_cut_of_a_stream_resamples_to_the_same_bits_as_one_shot(
    rate_in_hz: int, rate_out_hz: int, n_samples: int, places: list[float]
) -> None:
    samples = noise(n_samples)
    resampler = StreamResampler(rate_in_hz, rate_out_hz)
    for _ in range(2):  # a flushed resampler starts anew
        parts = [resampler.push(part) for part in cut(samples, places)]
        streamed = np.concatenate([*parts, resampler.flush()])
        assert np.array_equal(streamed, soxr.resample(samples, rate_in_hz, rate_out_hz, "HQ"))


@pytest.mark.parametrize("rates_hz", [(48_000, 12_288), (44_100, 12_288), (16_000, 16_000)])
def test_each_channel_of_an_array_is_resampled_as_if_alone(rates_hz: tuple[int, int]) -> None:
    samples = np.stack([noise(20_000, seed=seed) for seed in range(5)], axis=1)
    resampler = StreamResampler(*rates_hz, n_channels=5)
    parts = [resampler.push(part) for part in cut(samples, [0.1, 0.11, 0.7])]
    streamed = np.concatenate([*parts, resampler.flush()])
    assert streamed.shape[1] == 5
    for channel in range(5):
        alone = soxr.resample(samples[:, channel], *rates_hz, "HQ")
        assert np.array_equal(streamed[:, channel], alone)


@pytest.mark.parametrize("rate_in_hz", RATES_HZ)
def test_a_tone_keeps_its_phase_and_level(rate_in_hz: int) -> None:
    """Against the tone itself and against scipy's polyphase filter."""
    rate_out_hz = 16_000
    tone = (0.5 * np.sin(2 * np.pi * 1_000 * np.arange(rate_in_hz) / rate_in_hz)).astype(np.float32)
    resampler = StreamResampler(rate_in_hz, rate_out_hz)
    found = np.concatenate([*map(resampler.push, np.array_split(tone, 50)), resampler.flush()])
    expected = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(rate_out_hz) / rate_out_hz)
    polyphase = scipy.signal.resample_poly(
        tone.astype(np.float64), rate_out_hz, rate_in_hz, window=("kaiser", 12.0)
    )
    middle = slice(2_000, -2_000)  # the tone's ends are not band-limited
    assert len(found) == rate_out_hz
    assert np.abs(found[middle] - expected[middle]).max() < 2e-5
    assert np.abs(found[middle] - polyphase[middle]).max() < 2e-5


@pytest.mark.parametrize(
    ("rate_in_hz", "latency_s"),
    [(8_000, 0.116), (32_000, 0.059), (44_100, 0.041), (48_000, 0.038), (192_000, 0.080)],
)
def test_the_stream_withholds_no_more_than_its_documentation_says(
    rate_in_hz: int, latency_s: float
) -> None:
    resampler = StreamResampler(rate_in_hz, 16_000)
    pushed = ready = 0
    withheld_s = []
    for part in np.array_split(noise(rate_in_hz), 1_000):
        pushed += len(part)
        ready += len(resampler.push(part))
        withheld_s.append(pushed / rate_in_hz - ready / 16_000)
    assert max(withheld_s) <= latency_s
    assert min(withheld_s) >= -1 / 16_000


def test_rates_outside_8_to_192_khz_are_refused() -> None:
    for rates_hz in [(7_999, 16_000), (16_000, 192_001)]:
        with pytest.raises(InputError, match="expected 8000 to 192000 Hz"):
            StreamResampler(*rates_hz)


# Clips


@pytest.mark.parametrize(
    ("name", "subtype", "step"),
    [
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 2**-23),
        ("a.wav", "DOUBLE", 2**-23),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_16", 2**-15),
    ],
)
def test_a_clip_reads_as_written_within_its_step(
    tmp_path: Path, name: str, subtype: str, step: float
) -> None:
    samples = noise(1_000, 3)
    soundfile.write(tmp_path / name, samples, 16_000, subtype=subtype)
    assert np.abs(read_clip(tmp_path / name, 16_000, 1) - samples[:, 1]).max() <= step
    assert np.abs(read_clip(tmp_path / name) - samples.mean(axis=1)).max() <= step


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 192_000])
def test_a_clip_of_another_rate_is_resampled_as_a_whole(tmp_path: Path, rate_hz: int) -> None:
    samples = noise(rate_hz * 5 // 2)
    soundfile.write(tmp_path / "a.wav", samples, rate_hz, subtype="FLOAT")
    expected = soxr.resample(samples, rate_hz, 16_000, "HQ")
    assert np.array_equal(read_clip(tmp_path / "a.wav"), expected)


def test_96_channels_need_a_choice(tmp_path: Path) -> None:
    samples = noise(500, 96)
    soundfile.write(tmp_path / "array.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"array\.wav: 96 channels.*--channel 0 to --channel 95"):
        read_clip(tmp_path / "array.wav")
    with pytest.raises(InputError, match=r"array\.wav: has no channel 96"):
        read_clip(tmp_path / "array.wav", channel=96)
    assert np.array_equal(read_clip(tmp_path / "array.wav", channel=95), samples[:, 95])


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_clip(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_what_is_no_sound_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("not sound at all\n" * 100)
    empty = tmp_path / "empty.flac"
    empty.touch()
    os.mkfifo(tmp_path / "pipe.wav")
    assert "No such file" in refusal(tmp_path / "missing.wav")
    assert "is a folder" in refusal(tmp_path)
    assert "not a regular file" in refusal(tmp_path / "pipe.wav")
    assert "is empty (0 bytes)" in refusal(empty)
    assert "expected WAV, FLAC" in refusal(text)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16_000)
    assert "holds no samples" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("rate_hz", [4_000, 384_000])
def test_a_file_of_a_rate_out_of_range_is_refused(tmp_path: Path, rate_hz: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100), rate_hz)
    assert f"sample rate {rate_hz} Hz: expected 8000 to 192000 Hz" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.au", "a.w64", "a.rf64", "a.mp3"])
@pytest.mark.parametrize("kept", [0.2, 0.7])
def test_a_file_shorter_than_its_header_says_is_refused(
    tmp_path: Path, name: str, kept: float
) -> None:
    whole, part = tmp_path / name, tmp_path / f"part-{name}"
    soundfile.write(whole, noise(40_000), 16_000)
    data = whole.read_bytes()
    part.write_bytes(data[: int(len(data) * kept)])
    assert abs(len(read_clip(whole)) - 40_000) <= 1
    assert "truncated" in refusal(part)


def test_a_wav_written_into_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1_000), 16_000)
    data = bytearray(path.read_bytes())
    assert data[36:40] == b"data"
    for unknown in (0xFFFF_FFFF, 0x7FFF_F000):
        data[40:44] = unknown.to_bytes(4, "little")
        path.write_bytes(data)
        assert len(read_clip(path)) == 1_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named_with_its_place(tmp_path: Path, value: float) -> None:
    samples = noise(40_000, 2)
    samples[30_001, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    assert f"sample 30001 of channel 1 is {value}" in refusal(tmp_path / "a.wav")


@settings(deadline=None)
@given(st.integers(1, 3_000))
def test_blocks_of_any_size_join_to_the_file(
    tmp_path_factory: pytest.TempPathFactory, block_length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks.wav"
    samples = noise(2_000, 2)
    soundfile.write(path, samples, 48_000, subtype="FLOAT")
    with AudioFile(path) as file:
        blocks = list(file.blocks(block_length))
    assert all(len(block) == block_length for block in blocks[:-1])
    assert np.array_equal(np.concatenate(blocks), samples)


def test_importing_audio_and_capture_loads_neither_portaudio_nor_scipy_signal() -> None:
    code = (
        "import sys, soundpost.device.audio, soundpost.device.capture\n"
        "print(sorted({'scipy.signal', 'sounddevice', 'soundfile', 'torch'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "[]"
