"""Microphones of a real sound server: what is heard, and how soon and how a fault is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.device import capture_client, microphone_source
from soundpost.device.audio import AudioBlock
from soundpost.device.errors import (
    CaptureError,
    DeviceAbsentError,
    DeviceBusyError,
    DeviceLostError,
    DigitalSilenceError,
    InputError,
    SampleRateError,
    StreamStalledError,
    UsageError,
)
from soundpost.device.inputs import Card
from soundpost.device.microphone_source import open_microphone

PATIENCE_S = 30.0
# From a fault to its report, on an idle machine; a busy one adds what it takes to start a program.
NOTICED_S = 5.0
BUSY_S = 10.0


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


# Faults


def told(blocks: Iterator[AudioBlock], since_s: float) -> None:
    """Read on until the fault is told; fails where that takes too long."""
    for _ in blocks:
        assert time.monotonic() < since_s + PATIENCE_S
    raise AssertionError("ended without a fault")


@pytest.mark.parametrize(
    ("break_it", "kind", "line"),
    [
        (lambda yard, _: yard.unplug(), CaptureError, "'yard' (has stopped|delivers nothing)"),
        (lambda yard, _: setattr(yard, "speed", 0.0), StreamStalledError, "delivers nothing for 3"),
        (
            lambda yard, _: setattr(yard, "sound", lambda n, _: np.zeros(n)),
            DigitalSilenceError,
            "nothing but zeros for 2 s.*digital_silence_s",
        ),
        (lambda yard, _: setattr(yard, "speed", 2.0), SampleRateError, "instead of 48000"),
        (lambda yard, _: setattr(yard, "speed", 0.5), SampleRateError, "instead of 48000"),
        (
            lambda _, pid: os.kill(pid, signal.SIGKILL),
            DeviceLostError,
            r"'yard': its capture process ended \(signal 9\)",
        ),
        (lambda _, pid: os.kill(pid, signal.SIGSTOP), StreamStalledError, "delivers nothing for 3"),
    ],
    ids=["unplugged", "stalled", "zeros", "twice", "half", "crashed", "hung"],
)
def test_a_fault_is_told_in_time_and_the_microphone_opens_again(
    running: ModuleType,
    yard: Any,
    break_it: Callable[[Any, int], None],
    kind: type[CaptureError],
    line: str,
) -> None:
    before = running.held()
    with open_microphone("mic:yard", rate_hz=48_000) as source:
        blocks = source.blocks()
        for _ in islice(blocks, 20):
            pass
        assert source.fault is None
        broken_s = time.monotonic()
        break_it(yard, source.pid)
        with pytest.raises(kind, match=line) as caught:
            told(blocks, broken_s)
        assert time.monotonic() - broken_s < NOTICED_S + BUSY_S
        assert len(str(caught.value).splitlines()) == 1
        assert list(source.blocks()) == []
    # A microphone that was unplugged is fed no more, either.
    running.expect_held_again(before)


def test_a_reader_that_is_busy_for_seconds_finds_all_that_the_ring_holds(yard: Any) -> None:
    with open_microphone("mic:yard", rate_hz=48_000) as source:
        blocks = source.blocks()
        next(blocks)
        time.sleep(2.5)
        heard = list(islice(blocks, 30))
        assert source.overflows == 0
    assert set(np.diff([block.first_sample for block in heard])) == {4_800}


def test_what_is_heard_after_a_hold_up_keeps_its_place_in_time(yard: Any) -> None:
    """The process is stopped for most of two seconds, and the sound server holds what it can."""

    def beep(n_samples: int, first: int) -> Any:
        """A click every half second of the microphone's own time."""
        samples = yard.noise(n_samples, first) * 0.02
        samples[(first + np.arange(n_samples)) % 24_000 == 0] = 0.9
        return samples

    yard.sound = beep
    with open_microphone("mic:yard", rate_hz=48_000) as source:
        blocks = source.blocks()
        heard = list(islice(blocks, 30))
        os.kill(source.pid, signal.SIGSTOP)
        time.sleep(1.8)
        os.kill(source.pid, signal.SIGCONT)
        heard += islice(blocks, 60)
    clicks = [
        block.first_sample + int(at)
        for block in heard
        for at in np.flatnonzero(block.samples[:, 0] > 0.5)
    ]
    assert len(clicks) > 8
    # In place by the count: each on its half second, but where a loss was told.
    shifts = np.diff(clicks) % 24_000
    assert np.count_nonzero(shifts) <= source.overflows
    # And by the clock, which the pause of 1.8 s has not moved. A busy machine makes blocks late.
    late = [float(block.time_s or 0) - block.first_sample / 48_000 for block in heard]
    assert min(late[30:]) == pytest.approx(min(late[:30]), abs=1.0)


def test_silence_that_a_new_stream_does_not_end_is_told_without_giving_up(yard: Any) -> None:
    yard.sound = lambda n_samples, _: np.zeros(n_samples)
    options: dict[str, Any] = {"rate_hz": 48_000, "digital_silence_s": 0.5}
    with open_microphone("mic:yard", **options) as source, pytest.raises(DigitalSilenceError):
        told(source.blocks(), time.monotonic())
    with open_microphone("mic:yard", **options) as source:
        blocks = source.blocks()
        for _ in islice(blocks, 15):
            assert source.fault is not None
            assert "nothing but zeros" in source.fault
        yard.sound = yard.noise
        deadline_s = time.monotonic() + PATIENCE_S
        while source.fault is not None:
            next(blocks)
            assert time.monotonic() < deadline_s


def test_a_server_that_is_killed_and_comes_back_is_heard_again(pulseaudio: Any, yard: Any) -> None:
    with open_microphone("mic:yard") as source:
        blocks = source.blocks()
        next(blocks)
        pulseaudio.kill()
        with pytest.raises(DeviceLostError, match=r"'yard' (has stopped|delivers nothing)"):
            told(blocks, time.monotonic())
    yard.hush()
    with pytest.raises(CaptureError, match="'yard'"):
        open_microphone("mic:yard")
    pulseaudio.start()
    yard.plug()
    with open_microphone("mic:yard") as source:
        assert len(next(source.blocks()).samples)


def test_a_frozen_server_is_given_up_and_leaves_nothing_behind(
    running: ModuleType, pulseaudio: Any
) -> None:
    before = running.held()
    pulseaudio.freeze()
    began_s = time.monotonic()
    with pytest.raises(DeviceLostError, match="hangs"):
        open_microphone("mic:pulse")
    assert time.monotonic() - began_s < NOTICED_S + BUSY_S
    running.expect_held_again(before)
    pulseaudio.thaw()
    with open_microphone("mic:pulse") as source:
        assert len(next(source.blocks()).samples)


class Unkillable(subprocess.Popen[bytes]):
    """As one in the kernel, in a driver that hangs: nothing of it runs, and no signal ends it."""

    def kill(self) -> None:
        self.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("when", ["while it is opened", "while it is heard"])
def test_a_process_that_cannot_be_killed_is_told_in_time_and_stays_the_only_one(
    running: ModuleType, pulseaudio: Any, yard: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Each attempt would leave one more of them, until the machine has no room for another."""
    cards = [Card(0, ("usb-1-1.2", "usb-1-1.2:1.0", "Device"), (0,), {})]
    monkeypatch.setattr(microphone_source, "read_cards", lambda: list(cards))
    before = running.held()
    started: list[int] = []

    def unkillable(*args: Any, **options: Any) -> Unkillable:
        process = Unkillable(*args, **options)
        started.append(process.pid)
        return process

    with monkeypatch.context() as patch:
        patch.setattr(capture_client.subprocess, "Popen", unkillable)
        if when == "while it is opened":
            pulseaudio.freeze()
            began_s = time.monotonic()
            with pytest.raises(DeviceLostError, match="did not open"):
                open_microphone("mic:yard")
            pulseaudio.thaw()
        else:
            with open_microphone("mic:yard") as source:
                blocks = source.blocks()
                next(blocks)
                began_s = time.monotonic()
                os.kill(source.pid, signal.SIGSTOP)
                with pytest.raises(StreamStalledError):
                    told(blocks, began_s)
        # Opening is given four seconds, a stream three; a busy machine starts programs slowly.
        assert time.monotonic() - began_s < NOTICED_S + 1.0
    (hanging,) = started
    try:
        for _ in range(3):
            with pytest.raises(DeviceLostError, match=f"process {hanging} hangs in its driver"):
                open_microphone("mic:yard")
        # Another card, or the same in another place of the kernel's: worth a try.
        cards[0] = cards[0]._replace(number=1)
        with open_microphone("mic:yard") as source:
            assert len(next(source.blocks()).samples)
        cards[0] = cards[0]._replace(number=0)
        with pytest.raises(DeviceLostError, match=f"process {hanging} hangs in its driver"):
            open_microphone("mic:yard")
    finally:
        os.kill(hanging, signal.SIGKILL)
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            source = open_microphone("mic:yard")
            break
        except DeviceLostError:
            assert time.monotonic() < deadline_s
    with source:
        assert len(next(source.blocks()).samples)
    running.expect_held_again(before)


def test_two_sources_hear_one_device_of_a_sound_server(yard: Any) -> None:
    with open_microphone("mic:yard") as first, open_microphone("mic:yard") as second:
        for source in (first, second):
            assert len(next(source.blocks()).samples)


def test_the_process_has_no_files_of_ours_and_no_numpy(pulseaudio: Any, tmp_path: Path) -> None:
    with (tmp_path / "private").open("w") as private:
        os.set_inheritable(private.fileno(), True)
        with open_microphone("mic:pulse") as source:
            next(source.blocks())
            held_files = [path.readlink() for path in Path(f"/proc/{source.pid}/fd").iterdir()]
            assert tmp_path / "private" not in held_files
            assert "numpy" not in Path(f"/proc/{source.pid}/maps").read_text()


def test_a_card_that_is_away_is_looked_for_in_the_kernels_files_alone(
    pulseaudio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking each second must cost nothing; the same line, until the cards change."""
    cards = [Card(0, ("usb-1-1.2", "usb-1-1.2:1.0", "Device"), (0,), {})]
    monkeypatch.setattr(microphone_source, "read_cards", lambda: cards)
    lines = set()
    for _ in range(200):
        with pytest.raises(DeviceAbsentError, match=r"one of mic:pulse, mic:default") as caught:
            open_microphone("mic:usb-1-1.3")
        lines.add(str(caught.value))
    began_s = time.process_time()
    for _ in range(200):
        with pytest.raises(DeviceAbsentError):
            open_microphone("mic:usb-1-1.3")
    assert time.process_time() - began_s < 0.2
    assert len(lines) == 1
    cards.append(Card(1, ("usb-1-1.3", "Device_1"), (0,), {}))
    used = os.times().children_user
    with pytest.raises(DeviceAbsentError):  # The process sees the true kernel's files.
        open_microphone("mic:usb-1-1.3")
    assert os.times().children_user > used


def test_a_card_that_is_there_is_looked_for_again_soon_and_one_that_is_not_after_a_while(
    pulseaudio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loose plug: away just while the process looked, and back before anyone saw it away."""
    cards = [Card(0, ("usb-1-1.2", "usb-1-1.2:1.0", "Device"), (0, 1), {})]
    monkeypatch.setattr(microphone_source, "read_cards", lambda: list(cards))
    started: list[str] = []

    def start(what: str, request: dict[str, Any]) -> capture_client.CaptureProcess:
        started.append(request["name"])
        return capture_client.CaptureProcess(what, request)

    monkeypatch.setattr(microphone_source, "CaptureProcess", start)

    def attempts(name: str) -> int:
        """How many of two looked for it; the process sees the true kernel's files: no card."""
        started.clear()
        for _ in range(2):
            with pytest.raises(DeviceAbsentError):
                open_microphone(f"mic:{name}")
        return len(started)

    assert attempts("usb-1-1.2") == 1
    monkeypatch.setattr(microphone_source._Names, "_LOOK_AGAIN_S", 0.0)
    cards.append(Card(1, ("usb-1-1.4", "Device_1"), (0,), {}))
    assert attempts("usb-1-1.2") == attempts("usb-1-1.2,1") == 2
    assert attempts("usb-1-1.3") == 1
    monkeypatch.setattr(microphone_source._Names, "_LOOK_AGAIN_FOR_CARD_S", 0.0)
    # The same card with another number is another.
    cards[1] = cards[1]._replace(number=2)
    assert attempts("usb-1-1.3") == 2


def test_a_process_that_cannot_be_started_is_a_fault_that_may_pass(
    pulseaudio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a source may try again is a CaptureError: any other ends it for good."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(
            CaptureError, match=r"'pulse': its capture process cannot be started .*No such file"
        ) as caught:
            open_microphone("mic:pulse")
        assert len(str(caught.value).splitlines()) == 1
    with open_microphone("mic:pulse") as source:
        assert len(next(source.blocks()).samples)


def test_a_microphone_closed_by_another_thread_ends(pulseaudio: Any) -> None:
    with open_microphone("mic:pulse") as source:
        threading.Timer(0.3, source.close).start()
        assert sum(1 for _ in source.blocks()) < 1_000


def test_what_a_microphone_cannot_do_is_refused(pulseaudio: Any) -> None:
    with pytest.raises(
        DeviceBusyError, match=r"'pulse': cannot be opened .* 99 channels: .*offers 32"
    ):
        open_microphone("mic:pulse", channels=99)
    with pytest.raises(
        DeviceAbsentError, match=r"no input has this name: expected one of .*mic:pulse"
    ):
        open_microphone("mic:Kitchen")
    with pytest.raises(InputError, match="expected 8000 to 192000 Hz"):
        open_microphone("mic:pulse", rate_hz=4_000)
    with pytest.raises(UsageError, match="block_s 0"):
        open_microphone("mic:pulse", block_s=0)


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
