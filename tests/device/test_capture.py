"""Sources number every sample, keep time by count, and say when sound was lost or is over."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.audio import AudioBlock, FloatArray
from soundpost.device.capture import (
    ChunkReader,
    ChunkRing,
    describe_inputs,
    find_input,
    open_file,
    open_microphone,
    open_source,
)
from soundpost.device.errors import CaptureError, InputError, UsageError


def write_noise(
    path: Path, n_samples: int, n_channels: int = 2, rate_hz: int = 16_000
) -> FloatArray:
    generator = np.random.default_rng(1)
    samples = generator.uniform(-0.5, 0.5, (n_samples, n_channels)).astype(np.float32)
    soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return samples


# Files


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


# Names of sources


def test_sources_open_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples = write_noise(tmp_path / "take:2.wav", 100)
    for url in ["take:2.wav", "file:take:2.wav", f"file://{tmp_path}/take:2.wav"]:
        with open_source(url, realtime=False) as source:
            assert np.array_equal(next(iter(source.blocks())).samples, samples)
    with pytest.raises(UsageError, match=r"unknown kind 'rtmp': expected one of .*file:.* mic:"):
        open_source("rtmp://camera/live")
    with pytest.raises(InputError, match="No such file"):
        open_source("nothing.wav")
    with pytest.raises(UsageError, match="block_s 0"):
        open_source("take:2.wav", block_s=0)


def device(index: int, name: str, n_inputs: int = 1) -> dict[str, Any]:
    return {
        "index": index,
        "name": name,
        "max_input_channels": n_inputs,
        "default_samplerate": 44_100.0,
    }


def cards(folder: Path, *ids: str) -> Path:
    for number, card in enumerate(ids):
        (folder / f"card{number}").mkdir(parents=True)
        (folder / f"card{number}" / "id").write_text(card + "\n")
    return folder


def test_a_card_keeps_its_name_when_its_number_changes(tmp_path: Path) -> None:
    """As the kernel writes /proc/asound/cardN/id and PortAudio names ALSA's devices."""
    before = describe_inputs(
        [
            device(0, "bcm2835 Headphones: - (hw:0,0)", 0),
            device(1, "USB Audio Device: - (hw:1,0)"),
            device(2, "HD Webcam C615: USB Audio (hw:2,0)"),
            device(3, "default", 32),
        ],
        3,
        cards(tmp_path / "before", "Headphones", "Device", "C615"),
    )
    after = describe_inputs(
        [
            device(0, "HD Webcam C615: USB Audio (hw:0,0)"),
            device(1, "USB Audio Device: - (hw:1,0)"),
        ],
        -1,
        cards(tmp_path / "after", "C615", "Device"),
    )
    assert [item.name for item in before] == ["Device", "C615", "default"]
    assert [item.is_default for item in before] == [False, False, True]
    assert find_input("C615", before).index == 2
    assert find_input("C615", after).index == 0
    assert find_input("HD Webcam C615: USB Audio (hw:0,0)", after).index == 0
    assert find_input("", before).name == "default"


def test_a_name_that_fits_none_or_several_lists_the_candidates(tmp_path: Path) -> None:
    inputs = describe_inputs(
        [device(0, "Codec: ADC (hw:0,0)"), device(1, "Codec: Line (hw:0,2)"), device(2, "pulse")],
        -1,
        cards(tmp_path, "Codec"),
    )
    assert find_input("Codec,2", inputs).index == 1
    with pytest.raises(CaptureError, match=r"several inputs: .* mic:Codec,0, mic:Codec,2 \("):
        find_input("Codec", inputs)
    with pytest.raises(CaptureError, match=r"'codec'.*one of mic:Codec,0, mic:Codec,2, mic:pulse"):
        find_input("codec", inputs)
    with pytest.raises(CaptureError, match=r"no default microphone.*mic:Codec,0"):
        find_input("", inputs)
    with pytest.raises(CaptureError, match="no microphone found: plug one in"):
        find_input("", [])
    assert find_input("", describe_inputs([device(4, "pulse")], -1)).index == 4


# The ring between PortAudio's thread and the reader. Samples hold their own number in the stream.


def numbered(first: int, length: int) -> FloatArray:
    return np.arange(first, first + length, dtype=np.float32)[:, None] * np.ones(2, np.float32)


@given(st.lists(st.tuples(st.sampled_from("wwr"), st.integers(1, 70)), max_size=80))
def test_every_sample_is_read_once_at_its_place_or_dropped_with_its_chunk(
    steps: list[tuple[str, int]],
) -> None:
    capacity, position, kept, read = 100, 0, [], []
    ring = ChunkRing(capacity, 2)
    for step, count in steps:
        if step == "w":
            if len(kept) - len(read) + count <= capacity:  # what must fit
                kept += range(position, position + count)
            ring.write(numbered(position, count), 0.0, False)
            position += count
        elif (run := ring.read(count)) is not None:
            assert 0 < len(run.samples) <= count
            assert np.array_equal(run.samples, numbered(run.position, len(run.samples)))
            read += range(run.position, run.position + len(run.samples))
    while (run := ring.read(1_000)) is not None:
        assert np.array_equal(run.samples, numbered(run.position, len(run.samples)))
        read += range(run.position, run.position + len(run.samples))
    assert read == kept


def test_a_writer_and_a_reader_on_two_threads_never_mix_up_samples() -> None:
    ring = ChunkRing(512, 2)
    n_chunks, length = 20_000, 100

    def write() -> None:
        for chunk in range(n_chunks):
            ring.write(numbered(chunk * length, length), 0.0, False)

    writer = threading.Thread(target=write)
    writer.start()
    last = -1
    n_read = 0
    writing = True
    while writing:
        writing = writer.is_alive()  # asked first: what it wrote last is still read below
        while (run := ring.read(70)) is not None:
            assert run.position > last
            assert np.array_equal(run.samples, numbered(run.position, len(run.samples)))
            last = run.position + len(run.samples) - 1
            n_read += len(run.samples)
    writer.join()
    assert n_read > 0
    assert n_read + ring.dropped_chunks * length == n_chunks * length


@given(
    st.lists(st.floats(0.02, 3.0), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([8_000, 48_000]),
)
def test_what_the_driver_lost_shows_as_a_jump_within_the_jitter_of_its_clock(
    gaps_s: list[float], seed: int, rate_hz: int
) -> None:
    """A simulated crystal 100 ppm fast and capture times with 0.5 ms of jitter."""
    generator = np.random.default_rng(seed)
    length, clock_offset_s, jitter_s = rate_hz // 50, 1_000.0, 5e-4
    ring = ChunkRing(rate_hz, 1)
    reader = ChunkReader(ring, rate_hz)
    true_position, expected = 0, 0
    for gap_s in [0.0, *gaps_s]:
        true_position += round(gap_s * rate_hz)
        for chunk in range(200):
            capture_s = true_position / (rate_hz * 1.0001)
            ring.write(
                np.zeros((length, 1), np.float32),
                capture_s + generator.uniform(-jitter_s, jitter_s),
                chunk == 0 and gap_s > 0,
            )
            true_position += length
            now_s = clock_offset_s + true_position / (rate_hz * 1.0001) + 0.05
            found = reader.read(length, clock_offset_s, now_s)
            assert found is not None
            if chunk > 0:
                assert found[0] == expected  # no jump without a loss
            expected = found[0] + length
            assert abs(expected - true_position) <= 2e-3 * rate_hz * (1 + len(gaps_s))
    assert reader.overflows == len(gaps_s)


# A real sound server


def write_tones(path: Path, seconds: float, rate_hz: int = 48_000) -> None:
    """977 Hz at 0.5 on the left, 2.5 kHz at 0.25 on the right; 977 divides no chunk evenly."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    left, right = np.sin(2 * np.pi * 977 * time_s), np.sin(2 * np.pi * 2_500 * time_s)
    soundfile.write(path, np.stack([0.5 * left, 0.25 * right], 1), rate_hz, subtype="PCM_24")


def wait_for_sound(blocks: Any) -> None:
    deadline_s = time.monotonic() + 20
    for block in blocks:
        if np.abs(block.samples).max() > 0.2:
            return
        assert time.monotonic() < deadline_s, "the tone does not arrive"


def phase(block: AudioBlock) -> float:
    """Phase in rad of 977 Hz on the left at sample 0 of the stream."""
    time_s = (block.first_sample + np.arange(len(block.samples))) / block.rate_hz
    return float(np.angle(np.sum(block.samples[:, 0] * np.exp(-2j * np.pi * 977 * time_s))))


def test_what_is_played_is_heard_with_its_pitch_level_and_channel(
    pulseaudio: Any, tmp_path: Path
) -> None:
    write_tones(tmp_path / "tones.wav", 30)
    pulseaudio.play(tmp_path / "tones.wav")
    with open_microphone("mic:pulse", rate_hz=48_000, channels=2, block_s=0.02) as source:
        assert (source.name, source.n_channels, source.live) == ("pulse", 2, True)
        blocks = source.blocks()
        wait_for_sound(blocks)
        heard = []
        for block in islice(blocks, 100):
            assert block.time_s is not None
            assert block.time_s <= time.monotonic()
            heard.append(block)
        assert time.monotonic() - heard[-1].time_s < 1.0
        assert source.overflows == 0
    firsts = np.array([block.first_sample for block in heard])
    assert np.array_equal(np.diff(firsts), np.full(99, 960))
    samples = np.concatenate([block.samples for block in heard])[-48_000:]
    for channel, frequency_hz, level in [(0, 977, 0.5), (1, 2_500, 0.25)]:
        magnitude = np.abs(np.fft.rfft(samples[:, channel])) / 24_000
        assert np.argmax(magnitude) == frequency_hz  # one second: bins of 1 Hz
        assert magnitude[frequency_hz] == pytest.approx(level, rel=0.01)


def test_sound_that_nobody_reads_is_lost_openly_and_the_numbering_stays_true(
    pulseaudio: Any, tmp_path: Path
) -> None:
    write_tones(tmp_path / "tones.wav", 30)
    pulseaudio.play(tmp_path / "tones.wav")
    length = 624  # no divisor of the chunks that PortAudio delivers
    with open_microphone(
        "mic:pulse", rate_hz=48_000, channels=2, block_s=length / 48_000, ring_s=0.3
    ) as source:
        blocks = source.blocks()
        wait_for_sound(blocks)
        before = next(blocks)
        time.sleep(1.5)
        after = list(islice(blocks, 120))
        assert source.overflows >= 1
    numbers = [before.first_sample, *(block.first_sample for block in after)]
    ends = [before.first_sample + length] + [b.first_sample + len(b.samples) for b in after]
    jumps = np.array(numbers[1:]) - np.array(ends[:-1])
    assert jumps.min() >= 0
    assert jumps.sum() > 0.5 * 48_000
    # The tone runs on at the sample number that a block claims: one sample off is 0.13 rad.
    whole = [block for block in after if len(block.samples) == length]
    turns = [np.angle(np.exp(1j * (phase(block) - phase(before)))) for block in whole]
    assert np.abs(turns).max() < 0.1


def test_a_microphone_that_goes_away_is_an_error_with_a_remedy(pulseaudio: Any) -> None:
    with open_microphone("mic:pulse") as source:
        blocks = source.blocks()
        next(blocks)
        pulseaudio.kill()
        with pytest.raises(CaptureError, match=r"'pulse' (stopped|delivers nothing).*start again"):
            for _ in blocks:
                pass


def test_a_microphone_closed_by_another_thread_ends(pulseaudio: Any) -> None:
    with open_microphone("mic:pulse") as source:
        threading.Timer(0.3, source.close).start()
        assert sum(1 for _ in source.blocks()) < 1_000


def test_what_a_microphone_cannot_do_is_refused(pulseaudio: Any) -> None:
    with pytest.raises(
        CaptureError, match=r"'pulse': cannot be opened .* 99 channels: .*offers 32"
    ):
        open_microphone("mic:pulse", channels=99)
    with pytest.raises(CaptureError, match=r"no input has this name: expected one of .*mic:pulse"):
        open_microphone("mic:Kitchen")
    with pytest.raises(InputError, match="expected 8000 to 192000 Hz"):
        open_microphone("mic:pulse", rate_hz=4_000)


def test_ctrl_c_closes_the_microphone(pulseaudio: Any) -> None:
    code = (
        "from soundpost.device.capture import open_source\n"
        "try:\n"
        "    with open_source('mic:') as source:\n"
        "        for block in source.blocks():\n"
        "            print(block.first_sample, flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('closed')\n"
    )
    listener = subprocess.Popen(
        [sys.executable, "-c", code], env=pulseaudio.environment, stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "0\n"
    listener.send_signal(signal.SIGINT)
    printed, _ = listener.communicate(timeout=10)
    assert printed.splitlines()[-1] == "closed"
    assert listener.returncode == 0
