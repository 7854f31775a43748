"""Clips of a stream: what is written is what was heard, all of it judged, nothing of it speech."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device import clips as clips_module
from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import open_bundle
from soundpost.device.clip_ring import FULL_SCALE, Int16Array
from soundpost.device.clip_store import ClipSettings, ClipStore
from soundpost.device.clips import ClipRecorder, Clips
from soundpost.device.errors import InputError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.manifest import Manifest
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.speech import GATE_MARGIN_S, Judgement, SpeechGate

PATIENCE_S = 30.0
RATE_HZ = 8_000
ONSET = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)
# A sample of this value is what the gate below takes for speech.
SPEECH = 32_000


class MarkGate(SpeechGate):
    """Knows speech by a mark; remembers all that it was shown. (test_speech.py has real voices.)"""

    def __init__(self) -> None:
        self.judged: list[Int16Array] = []
        self.waits = threading.Event()
        self.waits.set()
        self.fails = False

    def judge(self, sound: Int16Array, rate_hz: int) -> Judgement:
        assert self.waits.wait(PATIENCE_S)
        if self.fails:
            raise RuntimeError("the detector broke")
        self.judged.append(sound)
        return "speech" if (sound == SPEECH).any() else "clear"


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return open_bundle(tiny_bundle)[0].manifest


@pytest.fixture
def made(manifest: Manifest, tmp_path: Path) -> Iterator[Callable[..., Made]]:
    opened: list[Clips] = []

    def open_clips(n_channels: int = 1, known: Manifest = manifest, **settings: object) -> Made:
        folder = tmp_path / str(len(opened))
        gate = MarkGate()
        clips = Clips(
            ClipSettings(
                enabled=True, folder=folder, min_free_mb=0.0, max_age_days=3_650.0, **settings
            ),  # type: ignore[arg-type]
            gate,
        )
        opened.append(clips)
        recorder = clips.recorder("mic0", RATE_HZ, n_channels, "mix", known)
        return Made(clips, recorder, gate, folder)

    yield open_clips
    for clips in opened:
        clips.close(PATIENCE_S)


class Made:
    """Clips, one stream's recorder, and where they go."""

    def __init__(self, clips: Clips, recorder: ClipRecorder, gate: MarkGate, folder: Path) -> None:
        self.clips = clips
        self.recorder = recorder
        self.gate = gate
        self.folder = folder

    def hear(self, first: int, samples: Int16Array) -> None:
        sound = (samples / FULL_SCALE).astype(np.float32)
        self.recorder.heard(AudioBlock(sound, first, RATE_HZ))

    def wait(self) -> list[SoundEvent]:
        """Events that were held, once there are any."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not (found := [event for event, _ in self.recorder.ready()]):
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        return found

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.flac"))


def stream(first: int, length: int, n_channels: int = 1) -> Int16Array:
    """Samples that tell their number and channel."""
    numbers = (np.arange(first, first + length)[:, None] * 3 + np.arange(n_channels)) % 30_000
    return numbers.astype(np.int16)


def start(sample: int, label: str = "clap") -> SoundEvent:
    return SoundEvent(
        id=uuid7(),
        device="porch-pi",
        source="mic0",
        label=label,
        phase="start",
        score=0.9,
        threshold=0.5,
        onset=ONSET + timedelta(seconds=sample / RATE_HZ),
        offset=None,
        time_synced=True,
        stream=uuid7(),
        sample=sample,
        rate_hz=RATE_HZ,
        model=ModelRef("tiny", "1.0.0", "0" * 64),
    )


def end(event: SoundEvent, sample: int) -> SoundEvent:
    length_s = (sample - event.sample) / RATE_HZ
    return replace(event, phase="end", offset=event.onset + timedelta(seconds=length_s))


def test_a_clip_holds_the_event_with_what_came_before_and_after(
    made: Callable[..., Made],
) -> None:
    one = made(pre_roll_s=0.5, post_roll_s=0.25)
    one.hear(0, stream(0, 10_000))
    event = start(9_000)
    assert not one.recorder.hold(event, 1.0)
    one.hear(10_000, stream(10_000, 3_000))
    assert one.recorder.hold(end(event, 12_000), 2.0)
    # The post-roll and the margin of the gate are still to come.
    assert list(one.recorder.ready()) == []
    one.hear(13_000, stream(13_000, 4_999))
    assert list(one.recorder.ready()) == []
    one.hear(17_999, stream(17_999, 1))
    (held,) = one.wait()
    name = f"20261120T100000.625000Z__mic0__clap__{event.id}.flac"
    assert held == replace(end(event, 12_000), clip=name)
    assert [path.name for path in one.files()] == [name]
    sound, rate_hz = soundfile.read(one.folder / name, dtype="int16", always_2d=True)
    assert rate_hz == RATE_HZ
    assert np.array_equal(sound, stream(5_000, 9_000))
    # Judged with half a second on both sides.
    (judged,) = one.gate.judged
    assert np.array_equal(judged, stream(1_000, 17_000))
    record = json.loads((one.folder / name).with_suffix(".json").read_text(encoding="utf-8"))
    assert record.pop("event") == held.to_dict()
    assert record == {
        "schema": "soundpost.clip/1",
        "first_sample": 5_000,
        "length_s": 1.125,
        "rate_hz": RATE_HZ,
        "n_channels": 1,
    }
    assert one.clips.counts("mic0") == {"written": 1, "gated": 0, "unjudged": 0, "failed": 0}
    assert one.clips.counts("mic1") == {"written": 0, "gated": 0, "unjudged": 0, "failed": 0}


@given(
    blocks=st.lists(st.integers(1, 4_000), min_size=1, max_size=12),
    gap_before=st.integers(0, 14),
    lost=st.integers(1, 20_000),
    onset=st.integers(0, 30_000),
    length=st.integers(0, 12_000),
    late=st.integers(0, 4_000),
    mark=st.integers(0, 40_000),
)
def test_any_cut_and_any_gap(
    blocks: list[int],
    gap_before: int,
    lost: int,
    onset: int,
    length: int,
    late: int,
    mark: int,
    manifest: Manifest,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A file holds what was heard, without a gap, all judged; and never a mark."""
    folder = tmp_path_factory.mktemp("clips")
    gate = MarkGate()
    settings = ClipSettings(enabled=True, folder=folder, min_free_mb=0.0, max_length_s=2.0)
    clips = Clips(settings, gate)
    one = Made(clips, clips.recorder("mic0", RATE_HZ, 1, "mix", manifest), gate, folder)
    event = start(onset)
    heard = np.full(80_000, -1, np.int32)
    at = 0
    begins = 0
    told = held = False
    out: list[SoundEvent] = []
    for number, n_samples in enumerate(blocks):
        if number == gap_before and number:
            at += lost
            begins = at
        samples = stream(at, n_samples)
        if at <= mark < at + n_samples:
            samples[mark - at] = SPEECH
        one.hear(at, samples)
        heard[at : at + n_samples] = samples[:, 0]
        at += n_samples
        if not told and at >= onset + late:
            told = not one.recorder.hold(event, 0.0)
        if told and not held and at >= onset + length + late:
            held = one.recorder.hold(end(event, onset + length), 0.0)
        out += [event for event, _ in one.recorder.ready()]
    if told and not held:
        assert one.recorder.hold(end(event, min(onset + length, max(at, onset))), 0.0)
    out += [event for event, _ in one.recorder.finish(PATIENCE_S)]
    clips.close(PATIENCE_S)
    # Every detection goes out, once, whatever becomes of its sound.
    assert [found.id for found in out] == [event.id] * told
    for path in one.files():
        assert out[0].clip == path.name
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        sound = soundfile.read(path, dtype="int16")[0]
        first = record["first_sample"]
        margin = round(GATE_MARGIN_S * RATE_HZ)
        assert np.array_equal(sound, heard[first : first + len(sound)])
        assert max(0, onset - RATE_HZ) <= first
        assert len(sound) <= 2 * RATE_HZ
        (judged,) = gate.judged
        # All of it was judged, and what lies around it as far as it was heard.
        last = min(first + len(sound) + margin, at)
        around = heard[max(first - margin, begins if first >= begins else 0) : last]
        assert np.array_equal(judged[: len(around), 0], around)
        assert not (around == SPEECH).any()
    if told and not one.files():
        reason = out[0].extra["clip_reason"]
        span = heard[max(0, onset - RATE_HZ - 4_000) : onset + length + RATE_HZ + 4_000]
        # Not for nothing: a mark or a gap was near, or there was hardly any sound.
        assert reason == ("speech" if (span == SPEECH).any() else "unjudged") or (
            reason == "unjudged" and (begins > onset or at <= onset)
        )


def test_a_long_event_keeps_its_beginning_and_needs_no_end(made: Callable[..., Made]) -> None:
    one = made(max_length_s=2.0)
    event = start(8_000)
    one.hear(0, stream(0, 9_000))
    one.recorder.hold(event, 0.0)
    one.hear(9_000, stream(9_000, 11_000))
    deadline_s = time.monotonic() + PATIENCE_S
    while not one.files():
        assert list(one.recorder.ready()) == []
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    for first in range(20_000, 400_000, 20_000):
        one.hear(first, stream(first, 20_000))
        assert list(one.recorder.ready()) == []
    one.recorder.hold(end(event, 390_000), 0.0)
    (held,) = one.wait()
    (path,) = one.files()
    assert held.clip == path.name
    assert np.array_equal(soundfile.read(path, dtype="int16")[0], stream(0, 16_000)[:, 0])


def test_speech_anywhere_in_the_span_leaves_no_trace(made: Callable[..., Made]) -> None:
    for mark in (1_001, 5_000, 9_500, 13_999, 17_990):
        one = made(pre_roll_s=0.5, post_roll_s=0.25)
        samples = stream(0, 18_000)
        samples[mark] = SPEECH
        one.hear(0, samples)
        event = start(9_000)
        one.recorder.hold(event, 0.0)
        one.recorder.hold(end(event, 12_000), 0.0)
        (held,) = one.wait()
        assert (held.phase, held.clip, held.extra) == ("end", None, {"clip_reason": "speech"})
        assert list(one.folder.iterdir()) == []
        assert one.clips.counts("mic0")["gated"] == 1


def test_the_bundles_own_labels_close_the_gate(
    made: Callable[..., Made], manifest: Manifest
) -> None:
    spoken = replace(manifest, speech_labels=("water drops",))
    at = spoken.labels.index("water drops")
    release = spoken.classes[at].release
    rate_hz = spoken.front_end.sample_rate_hz
    for score, kept in ((release, False), (release - 0.01, True)):
        one = made(known=spoken)
        one.hear(0, stream(0, 20_000))
        scores = np.zeros(3, np.float32)
        scores[at] = score
        # One window in the middle of the event.
        one.recorder.scored(ScoredWindow(rate_hz, scores, (), 0.0))
        event = start(8_000)
        one.recorder.hold(event, 0.0)
        one.recorder.hold(end(event, 9_000), 0.0)
        one.hear(20_000, stream(20_000, 4_000))
        (held,) = one.wait()
        assert (held.clip is not None) == kept
        assert (len(one.gate.judged) == 1) == kept


def test_other_labels_are_not_held(made: Callable[..., Made]) -> None:
    one = made(labels=("smoke_alarm",))
    one.hear(0, stream(0, 20_000))
    event = start(8_000, "clap")
    assert not one.recorder.hold(event, 0.0)
    assert not one.recorder.hold(end(event, 9_000), 0.0)
    assert list(one.recorder.finish()) == []
    assert list(one.folder.iterdir()) == []


def test_a_detector_that_breaks_keeps_nothing_and_holds_no_event(
    made: Callable[..., Made],
) -> None:
    one = made()
    one.gate.fails = True
    one.hear(0, stream(0, 24_000))
    for _ in range(2):
        event = start(8_000)
        one.recorder.hold(event, 0.0)
        one.recorder.hold(end(event, 9_000), 0.0)
        (held,) = one.wait()
        assert held.extra == {"clip_reason": "failed"}
    assert list(one.folder.iterdir()) == []
    assert one.clips.fault is not None
    assert "the detector broke" in one.clips.fault
    assert one.clips.counts("mic0")["failed"] == 2
    one.gate.fails = False
    event = start(8_000)
    one.recorder.hold(event, 0.0)
    one.recorder.hold(end(event, 9_000), 0.0)
    (held,) = one.wait()
    assert held.clip is not None
    assert one.clips.fault is None


def test_a_slow_disk_never_holds_up_the_listener(made: Callable[..., Made]) -> None:
    one = made()
    one.gate.waits.clear()
    one.hear(0, stream(0, 24_000))
    events = [start(8_000) for _ in range(12)]
    for event in events:
        one.recorder.hold(event, 0.0)
        one.recorder.hold(end(event, 9_000), 0.0)
    # All of these return while the writer stands.
    refused = [event for event, _ in one.recorder.ready()]
    assert {event.extra["clip_reason"] for event in refused} == {"failed"}
    assert 1 <= len(refused) <= 4
    late = [event for event, _ in one.recorder.finish(0.05)]
    assert {event.extra["clip_reason"] for event in late} == {"late"}
    assert {event.id for event in refused + late} == {event.id for event in events}
    one.gate.waits.set()


def test_a_clip_is_no_longer_than_memory_allows(
    made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(clips_module, "MAX_RING_BYTES", 2 * 2 * 20 * RATE_HZ)
    one = made(n_channels=2, channels="all", max_length_s=300.0)
    assert "at most 4 s long here" in caplog.text
    event = start(8_000)
    for first in range(0, 400_000, 8_000):
        one.hear(first, stream(first, 8_000, 2))
        if first == 8_000:
            one.recorder.hold(event, 1.0)
        assert list(one.recorder.ready()) == []
    one.recorder.hold(end(event, 300_000), 2.0)
    (held,) = one.wait()
    clip, _ = soundfile.read(one.folder / str(held.clip), dtype="int16")
    assert len(clip) == 4 * RATE_HZ
    assert one.recorder._ring._held.nbytes <= clips_module.MAX_RING_BYTES


def test_spans_that_wait_take_no_more_memory_than_allowed(
    made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made()
    one.gate.waits.clear()
    monkeypatch.setattr(clips_module, "_MAX_WAITING_BYTES", 100_000)
    one.hear(0, stream(0, 60_000))
    for sample in range(8_000, 40_000, 8_000):
        event = start(sample)
        one.recorder.hold(event, 1.0)
        one.recorder.hold(end(event, sample + 1_000), 2.0)
    early = list(one.recorder.ready())
    # Each takes 50,000 bytes: the post- and pre-roll and both margins are in it.
    assert [event.extra["clip_reason"] for event, _ in early] == ["failed"] * len(early)
    assert 1 <= len(early) <= 3
    one.gate.waits.set()
    deadline_s = time.monotonic() + PATIENCE_S
    while len(one.files()) < 4 - len(early) or one.clips._waiting_bytes:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_all_channels_at_another_rate(made: Callable[..., Made]) -> None:
    one = made(n_channels=4, channels="all", rate_hz=16_000)
    seconds = np.arange(3 * RATE_HZ)[:, None] / RATE_HZ
    tones = 10_000 * np.sin(2 * np.pi * seconds * np.array([200.0, 400.0, 800.0, 1_600.0]))
    one.hear(0, np.rint(tones).astype(np.int16))
    event = start(8_000)
    one.recorder.hold(event, 0.0)
    one.recorder.hold(end(event, 9_000), 0.0)
    (held,) = one.wait()
    sound, rate_hz = soundfile.read(one.folder / str(held.clip), always_2d=True)
    assert (rate_hz, sound.shape) == (16_000, (34_000, 4))
    peaks = np.abs(np.fft.rfft(sound[:32_000], axis=0)).argmax(axis=0) / 2
    assert peaks.tolist() == [200.0, 400.0, 800.0, 1_600.0]
    (judged,) = one.gate.judged
    assert judged.shape[1] == 4


def test_more_channels_than_a_file_holds_are_refused(
    made: Callable[..., Made], manifest: Manifest
) -> None:
    clips = made(channels="all").clips
    with pytest.raises(InputError, match="source array: has 16 channels, and a clip holds at most"):
        clips.recorder("array", RATE_HZ, 16, 3, manifest)


def test_a_folder_that_is_away_costs_clips_alone_until_it_is_back(
    made: Callable[..., Made], tmp_path: Path
) -> None:
    """A file lies in its place: as with a disk that is not there, no folder can be made."""
    (tmp_path / "0").write_text("no folder")
    one = made()
    assert one.clips.fault is not None
    assert "cannot hold clips" in one.clips.fault

    def clip() -> SoundEvent:
        first = one.recorder._ring.end
        one.hear(first, stream(first, 8_000))
        event = start(first + 2_000)
        one.recorder.hold(event, 1.0)
        one.recorder.hold(end(event, first + 4_000), 2.0)
        one.hear(first + 8_000, stream(first + 8_000, 20_000))
        (held,) = one.wait()
        return held

    lost = clip()
    assert (lost.clip, lost.extra["clip_reason"]) == (None, "failed")
    (tmp_path / "0").unlink()
    kept = clip()
    assert [path.name for path in one.files()] == [kept.clip]
    assert one.clips.fault is None
    assert one.clips.counts("mic0") == {"written": 1, "gated": 0, "unjudged": 0, "failed": 1}


def test_the_folder_is_looked_after_while_nothing_happens(
    made: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips_module, "_RETRY_S", 0.02)
    monkeypatch.setattr(clips_module, "_EXPIRE_S", 0.02)
    (tmp_path / "0").write_text("no folder")
    one = made()
    (tmp_path / "0").unlink()
    deadline_s = time.monotonic() + PATIENCE_S
    while one.clips.fault is not None:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    expired = threading.Event()
    monkeypatch.setattr(ClipStore, "expire", lambda _: expired.set())
    assert expired.wait(PATIENCE_S)
