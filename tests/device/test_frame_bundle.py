"""Bundles of kind `frames`: what is written is read, and a wrong manifest is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from soundpost.device.bundle import (
    MEMBERS,
    check_bundle,
    pack_bundle,
    parse_bundle,
    read_bundle,
    starter_bundle_path,
)
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.errors import BundleError, ConfigError
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import Quantisation
from soundpost.device.manifest import Manifest
from soundpost.device.plan import plan_sources, planned_classes
from soundpost.device.settings import ModelSettings, Settings, SourceSettings

EXAMPLE = Path(__file__).parent / "examples" / "manifest-frames.json"


def soundpost(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "soundpost.device", "bundle", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_manifest_is_frozen(frames: ModuleType) -> None:
    members = [name for name in sorted(MEMBERS) if name != "manifest.json"]
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in members}
    manifest = replace(frames.frames_manifest(), sha256=hashes)
    assert manifest.to_json() == EXAMPLE.read_bytes()
    assert Manifest.from_json(EXAMPLE.read_bytes()) == manifest


def test_unknown_fields_are_kept() -> None:
    table = json.loads(EXAMPLE.read_bytes())
    table["frames"]["colour"] = "blue"
    table["frames"]["states"][0]["input_quantisation"]["axis"] = 0
    assert json.loads(Manifest.from_json(json.dumps(table).encode()).to_json()) == table


def test_bundles_that_were_there_before_keep_their_bytes() -> None:
    bundle = read_bundle(starter_bundle_path())
    again = pack_bundle(bundle.manifest, bundle.model, bundle.golden, bundle.model_card)
    assert again == starter_bundle_path().read_bytes()


def state(**change: Any) -> Callable[[dict[str, Any]], object]:
    return lambda table: table["frames"]["states"][0].update(change)


REFUSED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("none", lambda t: t.pop("frames"), "frames is None"),
    ("window", lambda t: t.update(kind="window"), "embedding"),
    ("states", lambda t: t["frames"].pop("states"), "states is None"),
    ("many", lambda t: t["frames"].update(states=[{}] * 65), "states is 65: expected at most 64"),
    ("ahead", lambda t: t["frames"].update(look_ahead_frames=21), "is 21: expected 0 to 20, 0.2 s"),
    ("behind", lambda t: t["frames"].update(look_ahead_frames=-1), "is -1: expected 0 to 20"),
    (
        "hop",
        lambda t: t.update(hop_samples=800),
        "hop_samples is 800: expected 1600, a chunk of 10",
    ),
    ("shape", state(shape=[1, 2, 3]), r"states\[0\]: shape is \(1, 2, 3\): expected rows"),
    ("size", state(shape=[1, 10**9]), r"shape is \(1, 1000000000\): expected rows"),
    ("nothing", state(shape=[0, 2]), r"shape is \(0, 2\)"),
    ("text", state(shape=["1", 2]), r"shape is \['1', 2\]: expected whole numbers"),
    ("initial", state(initial=None), r"states\[0\].initial is None"),
    ("name", state(input="chunk"), "expected distinct names"),
    (
        "scale",
        state(input_quantisation={"scale": 1}),
        r"input_quantisation.zero_point is 'missing'",
    ),
    (
        "mean",
        lambda t: t["classes"][0].update(smoothing="mean"),
        "'mean': a bundle of kind 'frames'",
    ),
    ("cadence", lambda t: t["classes"][0].update(cadence="T3"), "confirms no cadence"),
]


@pytest.mark.parametrize(
    ("change", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_wrong_manifest_is_refused(
    change: Callable[[dict[str, Any]], object], words: str
) -> None:
    table = json.loads(EXAMPLE.read_bytes())
    change(table)
    with pytest.raises(BundleError, match=words) as refusal:
        Manifest.from_json(json.dumps(table).encode())
    assert "\n" not in str(refusal.value)


def test_the_golden_vector_goes_through_the_whole_chain(frames_bundle: Path) -> None:
    bundle = read_bundle(frames_bundle)
    check = check_bundle(bundle)
    assert (check.n_windows, check.score_error) == (5, 0.0)
    interpreter = bundle.load_interpreter()
    assert isinstance(interpreter, FrameInterpreter)
    assert bundle.golden.logits.shape == (50, 2)
    # It rises from silence, so that one chunk is not like another.
    assert np.ptp(bundle.golden.logits) > 3


def test_a_model_that_forgets_is_found_out(frames: ModuleType, frames_bundle: Path) -> None:
    """The golden vector's chunks are heard one after the other."""
    bundle = read_bundle(frames_bundle)
    interpreter = bundle.load_interpreter()
    assert isinstance(interpreter, FrameInterpreter)

    class Forgetful(FrameInterpreter):
        def run(self, chunk: Any, _: Any) -> Any:
            return super().run(chunk, self.initial_state())

    forgetful = Forgetful(interpreter._model, "forgetful", frames.SIGNATURE, frames.tiny_states())
    with pytest.raises(BundleError, match="golden vector: scores differ"):
        check_bundle(bundle, forgetful)


def test_golden_vectors_of_other_shapes_are_refused(frames: ModuleType) -> None:
    student, manifest = frames.tiny_frames(), frames.frames_manifest()
    golden = frames.frames_golden(student, manifest)
    for change in (
        {"logits": golden.logits[:-1]},
        {"embedding": golden.embedding[:-1]},
        {"samples": golden.samples[:-1]},
    ):
        with pytest.raises(BundleError, match=r"golden.npz: .*expected"):
            pack_bundle(manifest, student.model, replace(golden, **change), "card")


def test_a_model_with_other_scales_than_the_manifest_says_is_refused(frames: ModuleType) -> None:
    student, manifest = frames.tiny_frames(), frames.frames_manifest()
    assert manifest.frames is not None
    (memory,) = manifest.frames.states
    other = replace(memory, output_quantisation=Quantisation(0.02, 2))
    wrong = replace(manifest, frames=replace(manifest.frames, states=(other,)))
    raw = pack_bundle(wrong, student.model, frames.frames_golden(student, manifest), "card")
    with pytest.raises(BundleError, match=r"next_memory is quantised by 0.01 and 2, .* says 0.02"):
        parse_bundle(raw, "x").load_interpreter()


def test_the_command_shows_and_checks_it(frames_bundle: Path) -> None:
    shown = soundpost("show", frames_bundle)
    assert shown.returncode == 0
    assert "chunk      0.115 s every 0.100 s at 16000 Hz, 10 x 64 log-mel" in shown.stdout
    assert "medians look ahead 0.200 s at most" in shown.stdout
    assert "carries    memory 1 x 2" in shown.stdout
    assert "low   0.600    0.400  median 9" in shown.stdout
    told = soundpost("check", frames_bundle)
    assert told.returncode == 0
    assert "golden vector of 5 chunks within" in told.stdout
    assert json.loads(soundpost("check", frames_bundle, "--json").stdout)["windows"] == 5


def settings_of(bundle: Path, **detector: Any) -> Settings:
    return Settings(
        device_id="porch-pi",
        outbox=OutboxSettings(path=bundle.with_name("outbox.db")),
        sources=(SourceSettings("porch", "file:x.wav"),),
        model=ModelSettings(bundle=bundle),
        detector=detector,
    )


def test_settings_move_thresholds_and_medians(frames_bundle: Path) -> None:
    (plan,) = plan_sources(settings_of(frames_bundle, onset=0.8, smoothing_windows=5))
    assert isinstance(plan.interpreter, FrameInterpreter)
    assert [(known.onset, known.smoothing_windows) for known in plan.classes] == [(0.8, 5)] * 2


def test_settings_that_frames_do_not_take_are_refused_before_anything_listens(
    frames_bundle: Path,
) -> None:
    bundle = read_bundle(frames_bundle)
    with pytest.raises(ConfigError, match=r"settings: .*smoothing is 'mean': a bundle of kind"):
        planned_classes(settings_of(frames_bundle, smoothing="mean"), "mic0", bundle)
