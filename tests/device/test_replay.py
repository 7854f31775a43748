"""`soundpost replay`: the sensor's own events of a file, and one line for a file it cannot use."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.device.audio import AudioBlock
from soundpost.device.bundle import open_bundle, pack_bundle
from soundpost.device.commands.replay import parse_channel
from soundpost.device.errors import UsageError
from soundpost.device.levels import LevelMeter
from soundpost.device.microphone import MicrophoneProfile
from soundpost.device.pipeline import Pipeline, ScoredWindow

RATE_HZ = 44_100


def soundpost(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soundpost.device", "replay", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def sound() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise twice, and what is below it; (n_samples, 2) with nothing on the second channel."""
    rng = np.random.default_rng(6)
    samples = 1e-5 * rng.standard_normal((8 * RATE_HZ, 2))
    for on_s, off_s in [(1.0, 2.5), (5.0, 6.2)]:
        first, last = round(on_s * RATE_HZ), round(off_s * RATE_HZ)
        samples[first:last, 0] += 0.2 * rng.standard_normal(last - first)
    return np.clip(samples, -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def wav(sound: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("sound") / "two claps.wav"
    soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def expected(sound: Any, tiny_bundle: Path) -> list[ScoredWindow]:
    """The pipeline on the first channel, in one block."""
    bundle, interpreter, _ = open_bundle(tiny_bundle)
    pipeline = Pipeline(bundle, interpreter, RATE_HZ, channel=0)
    return [*pipeline.push(AudioBlock(sound, 0, RATE_HZ)), *pipeline.finish()]


def test_it_keeps_no_state(wav: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    places = dict.fromkeys(("TMPDIR", "STATE_DIRECTORY", "XDG_STATE_HOME"), str(tmp_path))
    done = soundpost(wav, "--bundle", tiny_bundle, env={**os.environ, **places}, cwd=tmp_path)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_events_are_those_of_the_pipeline(
    wav: Path, tiny_bundle: Path, expected: list[ScoredWindow]
) -> None:
    done = soundpost(wav, "--bundle", tiny_bundle, "--channel", 0, "--json")
    assert done.returncode == 0
    ends = [d for window in expected for d in window.detections if d.phase == "end"]
    assert len(ends) >= 2
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {
            "label": d.label,
            "onset_s": round(d.onset_sample / 16_000, 3),
            "offset_s": round((d.offset_sample or 0) / 16_000, 3),
            "score": round(d.score, 4),
            "threshold": round(d.threshold, 4),
        }
        for d in ends
    ]
    claps = [json.loads(line) for line in done.stdout.splitlines()]
    claps = [clap for clap in claps if clap["label"] == "clap"]
    assert [clap["onset_s"] for clap in claps] == pytest.approx([1.0, 5.0], abs=0.1)
    assert [clap["offset_s"] for clap in claps] == pytest.approx([2.5, 6.2], abs=0.2)
    windows = len([window for window in expected if len(window.scores)])
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"8.0 s heard, {windows} windows scored, {len(ends)} events, ")
    assert said.endswith("times as fast as real time (ai-edge-litert)")


def test_without_json_it_is_for_people(wav: Path, tiny_bundle: Path) -> None:
    done = soundpost(wav, "--bundle", tiny_bundle, "--channel", 0, "--label", "clap")
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["onset", "offset", "label"]
    assert len(rows) == 2
    assert all(row.split()[4] == "clap" for row in rows)


def test_every_window_is_in_the_table_of_scores(
    wav: Path, tiny_bundle: Path, expected: list[ScoredWindow], tmp_path: Path
) -> None:
    """Also those that the resampler held back until the end of the file."""
    table = tmp_path / "scores.csv"
    done = soundpost(wav, "--bundle", tiny_bundle, "--channel", 0, "--scores", table)
    assert done.returncode == 0
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["window_start_s", "clap", "smoke_alarm", "water drops"]
    scored = [window for window in expected if len(window.scores)]
    starts_s = [float(row[0]) for row in rows]
    assert starts_s == pytest.approx([0.05 * k for k in range(len(scored))])
    found = np.array([row[1:] for row in rows], np.float64)
    assert np.abs(found - [window.scores for window in scored]).max() <= 0.00005 + 1e-9
    # 8 s hold windows of 0.115 s up to the one that begins at 7.85 s.
    assert float(rows[-1][0]) == 7.85
    assert list(tmp_path.iterdir()) == [table]


def test_a_label_with_a_comma_stays_one_column(tiny: Any, wav: Path, tmp_path: Path) -> None:
    labels = ("Gasp, inhale", "smoke_alarm", 'a "quoted" one')
    student, manifest = tiny.tiny_student(), tiny.tiny_manifest(labels)
    golden = tiny.tiny_golden(student, manifest)
    bundle = tmp_path / "comma.bundle"
    bundle.write_bytes(pack_bundle(manifest, student.model, golden, "card"))
    table = tmp_path / "scores.csv"
    assert soundpost(wav, "--bundle", bundle, "--scores", table).returncode == 0
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["window_start_s", *labels]
    assert {len(row) for row in rows} == {4}


def test_a_table_that_does_not_fit_leaves_nothing(
    wav: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    table = tmp_path / "scores.csv"
    done = soundpost(
        *(wav, "--bundle", tiny_bundle, "--scores", table),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000)),
    )
    assert done.returncode == 3
    assert done.stderr == (
        f"{table}: cannot be written (File too large); free some space or choose another place, "
        "then run the same command again\n"
    )
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- levels


def test_levels_are_those_of_the_meter(wav: Path, sound: Any, tmp_path: Path) -> None:
    profile = tmp_path / "m.toml"
    profile.write_text('schema = "soundpost.microphone/1"\nsensitivity_dbfs = -26\n')
    options = ("--levels", "--channel", 0, "--interval", 3)
    done = soundpost(wav, *options, "--profile", profile, "--bands", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    meter = LevelMeter(RATE_HZ, 3.0, MicrophoneProfile("m", -26.0), bands=True)
    expected = [*meter.push(np.ascontiguousarray(sound[:, 0]), 0), *meter.finish()]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["start_s"] for line in lines] == [0.0, 3.0, 6.0]
    assert [line["interval_s"] for line in lines] == [3.0, 3.0, 2.0]
    assert [line["laeq_db"] for line in lines] == [round(one.laeq_db, 2) for one in expected]
    assert [line["l90_db"] for line in lines] == [round(one.l90_db or 0, 2) for one in expected]
    assert all(line["calibrated"] for line in lines)
    assert {line["upper_limit_hz"] for line in lines} == {None}
    assert all(len(line["bands_db"]) == 30 for line in lines)


def test_levels_without_json_are_for_people(wav: Path) -> None:
    done = soundpost(wav, "--levels", "--channel", 0)
    unit, header, row = done.stdout.splitlines()
    assert unit == "levels in dBFS, not calibrated; dBFS and peak re full scale"
    assert header.split()[:5] == ["from", "to", "LAeq", "LCeq", "LAFmax"]
    assert row.split()[:4] == ["0.0", "s", "8.0", "s"]
    assert len(row.split()) == 4 + len(header.split()) - 2


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--profile", "m.toml"], 2, "--profile: is about levels; add --levels"),
        (["--interval", "0"], 2, "--interval: is about levels; add --levels"),
        (["--levels", "--label", "clap"], 2, "--label: is about events, and --levels prints none"),
        (["--levels", "--interval", "0"], 2, "--interval 0: expected 1 to 3600 seconds"),
        (["--levels", "--interval", "nan"], 2, "--interval nan: expected 1 to 3600 seconds"),
        (["--levels", "--profile", "none.toml"], 3, "none.toml: cannot read the microphone prof"),
        (["--levels", "--channel", "7"], 3, "{wav}: has no channel 7"),
    ],
)
def test_a_wrong_option_of_levels_is_one_line(
    options: list[str], code: int, said: str, wav: Path
) -> None:
    done = soundpost(wav, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said.format(wav=wav))
    assert done.stderr.count("\n") == 1


def test_a_file_too_short_for_levels_says_so(sound: Any, tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, sound[:4_000], RATE_HZ)
    done = soundpost(path, "--levels")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert done.stderr.startswith(f"{path}: 0.09 s of sound: expected more than 0.1 s")


# ------------------------------------------------------------------------------- bad input


def truncated(path: Path, sound: Any) -> None:
    soundfile.write(path, sound, RATE_HZ)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def not_a_number(path: Path, sound: Any) -> None:
    spoilt = sound.copy()
    spoilt[50_000, 1] = np.nan
    soundfile.write(path, spoilt, RATE_HZ, subtype="FLOAT")


def damaged_flac(path: Path, sound: Any) -> None:
    soundfile.write(path, sound, RATE_HZ, format="FLAC")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def header_only(path: Path, _sound: Any) -> None:
    soundfile.write(path, np.zeros((0, 1)), RATE_HZ)


def ninety_six_channels(path: Path, _sound: Any) -> None:
    soundfile.write(path, np.zeros((16_000, 96)), 16_000)


def too_short(path: Path, sound: Any) -> None:
    soundfile.write(path, sound[:4_000], RATE_HZ)


def slow(path: Path, sound: Any) -> None:
    soundfile.write(path, sound, 4_000)


# What is made, what is said after the file's name, and the remedy.
BAD: dict[str, tuple[Callable[[Path, Any], object], str, str]] = {
    "truncated": (truncated, "truncated: holds ", "copy or record it again"),
    "truncated flac": (damaged_flac, "truncated or damaged after ", "copy or record it again"),
    "empty": (lambda path, _: path.write_bytes(b""), "is empty (0 bytes)", "copy it again"),
    "no samples": (header_only, "holds no samples", "record it again"),
    "nan": (not_a_number, "sample 50000 of channel 1 is nan", "write the file again without NaN"),
    "96 channels": (ninety_six_channels, "96 channels", "--channel 0 to --channel 95"),
    "text": (lambda path, _: path.write_text("no sound\n" * 99), "is not sound", "convert it"),
    "short": (too_short, "0.09 s of sound: expected at least", "give a longer recording"),
    "4 kHz": (slow, "sample rate 4000 Hz", "16000 Hz or more"),
    "missing": (lambda *_: None, "cannot be read: No such file", "check the path"),
    "folder": (lambda path, _: path.mkdir(), "is a folder", "give the file itself"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_with_its_name_and_the_remedy(
    kind: str, sound: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    make, problem, remedy = BAD[kind]
    path, table = tmp_path / "street.wav", tmp_path / "scores.csv"
    make(path, sound)
    done = soundpost(path, "--bundle", tiny_bundle, "--json", "--scores", table)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{path}: {problem}")
    assert remedy in line
    assert not table.exists()


def test_what_is_unusual_but_sound_is_heard(tiny_bundle: Path, tmp_path: Path, sound: Any) -> None:
    eight_bit, wide = tmp_path / "old.wav", tmp_path / "array.wav"
    soundfile.write(eight_bit, sound, RATE_HZ, subtype="PCM_U8")
    soundfile.write(wide, np.tile(sound[: 4 * RATE_HZ], (1, 48)), RATE_HZ)
    done = soundpost(eight_bit, "--bundle", tiny_bundle, "--json", "--label", "clap")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    done = soundpost(wide, "--bundle", tiny_bundle, "--json", "--label", "clap", "--channel", 94)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    done = soundpost(wide, "--bundle", tiny_bundle, "--channel", 96)
    assert done.returncode == 3
    assert "array.wav: has no channel 96: choose --channel 0 to --channel 95" in done.stderr


def test_a_file_may_have_any_name(tiny_bundle: Path, tmp_path: Path, sound: Any) -> None:
    """A name that looks like a microphone or an unknown kind of source is a file all the same."""
    for name in ("mic:", "12:30 street.wav", "-x.wav"):
        soundfile.write(tmp_path / name, sound[:RATE_HZ], RATE_HZ, format="WAV")
        done = soundpost("--bundle", tiny_bundle, "--", name, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    done = soundpost("mic:USB", "--bundle", tiny_bundle, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--label", "dog"], 2, "--label dog: the bundle has no such label; known: clap, "),
        (["--channel", "left"], 2, "--channel left: expected a number from 0, or mix"),
        (["--channel", "-1"], 2, "--channel -1: expected a number from 0, or mix"),
        (["--runtime", "onnx"], 2, "runtime 'onnx': expected auto, ai-edge-litert"),
        (["--bundle", "none.bundle"], 3, "none.bundle: cannot be read (No such file"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str], code: int, said: str, wav: Path, tiny_bundle: Path
) -> None:
    done = soundpost(wav, "--bundle", tiny_bundle, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_a_bundle_that_was_changed_is_refused(wav: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    content = bytearray(tiny_bundle.read_bytes())
    content[len(content) // 2] ^= 0xFF
    bundle = tmp_path / "changed.bundle"
    bundle.write_bytes(content)
    done = soundpost(wav, "--bundle", bundle)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"{bundle}: ")
    assert done.stderr.count("\n") == 1


def test_channels_are_numbers_or_mix() -> None:
    assert [parse_channel(text) for text in ("mix", "0", "95")] == ["mix", 0, 95]
    for text in ("", "1.5", "٣", "²", "MIX"):
        with pytest.raises(UsageError):
            parse_channel(text)
