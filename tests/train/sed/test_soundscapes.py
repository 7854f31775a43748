"""Soundscapes: exact labels, levels as drawn, folds that are kept, the same bytes again."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

import soundpost.train.sed.soundscape_writer as writer
from soundpost.device.errors import ConfigError, InputError
from soundpost.train.clips import read_clip_set
from soundpost.train.ours import path_of_ours
from soundpost.train.sed.desed import read_desed
from soundpost.train.sed.soundscape_settings import load_soundscape_settings
from soundpost.train.sed.soundscape_writer import write_soundscapes
from soundpost.train.sed.soundscapes import SPLITS, gather, plan_scene, render

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[4] / "shared" / "data")


@pytest.fixture(scope="module")
def made(event_clips, soundscape_settings, tmp_path_factory):
    settings = load_soundscape_settings(soundscape_settings, [])
    out = tmp_path_factory.mktemp("made") / "set"
    write_soundscapes(settings, event_clips, out, quiet=True)
    return settings, out


@pytest.fixture(scope="module")
def material(event_clips, soundscape_settings):
    settings = load_soundscape_settings(soundscape_settings, [])
    return settings, gather(read_clip_set(event_clips), settings, quiet=True)


def rows(path, delimiter="\t"):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def digests(out):
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


def plans(settings, material, n=40):
    return [plan_scene(settings, material, split, i) for split in SPLITS for i in range(n)]


def test_an_event_sounds_within_its_label_alone(material):
    """Of a dry one no sample outside; in a room the tail, and nothing before the onset."""
    settings, sounds = material
    seen = set()
    for plan in plans(settings, sounds, 12):
        rendering = render(settings, sounds, plan)
        for placement, track in zip(plan.placements, rendering.events, strict=True):
            energy = np.square(track, dtype=float)
            before = energy[: placement.onset].sum()
            inside = energy[placement.onset : placement.onset + placement.n_samples].sum()
            assert before == 0
            if plan.room is None:
                assert not track[placement.onset + placement.n_samples :].any()
            else:
                assert inside > 0.9 * energy.sum()
            seen.add(plan.room is None)
    assert seen == {True, False}


def test_levels_are_as_drawn(material):
    settings, sounds = material
    for plan in plans(settings, sounds, 12):
        rendering = render(settings, sounds, plan)
        assert np.abs(rendering.sound).max() <= 0.981
        background = np.mean(np.square(rendering.background, dtype=float))
        for placement, track in zip(plan.placements, rendering.events, strict=True):
            span = track[placement.onset : placement.onset + placement.n_samples]
            found = 10 * np.log10(np.mean(np.square(span, dtype=float)) / background)
            assert found == pytest.approx(placement.snr_db, abs=1e-3)


def test_a_beep_is_labelled_where_its_clip_has_it(material):
    """Beeps stand from 0.5 to 1.2 s in their clips, taps from 0.5 to 0.6 s."""
    settings, sounds = material
    for palette in sounds.palettes.values():
        for label, offset in (("beep", 1.2), ("tap", 0.6)):
            for (sound,) in palette.events[label]:
                assert sound.first / 16_000 == pytest.approx(0.5, abs=settings.rule.window_s)
                assert sound.stop / 16_000 == pytest.approx(offset, abs=settings.rule.window_s)


def test_events_of_one_label_stand_apart_and_few_sound_at_once(material):
    settings, sounds = material
    n_events = []
    for plan in plans(settings, sounds):
        events = plan.events(settings.rate_hz)
        n_events.append(len(events))
        for event in events:
            assert 0 <= event.onset_s < event.offset_s <= settings.seconds
            at_once = [e for e in events if e.onset_s <= event.onset_s < e.offset_s]
            assert len(at_once) <= settings.most_at_once
        for label in settings.labels():
            for one, next_one in pairwise(e for e in events if e.label == label):
                assert next_one.onset_s - one.offset_s >= settings.apart_s - 1e-9
    assert set(n_events) >= {0, 1, 2, 3}


def test_a_clip_is_heard_in_one_split_alone(made):
    settings, out = made
    credits = rows(out / "attribution.csv", ",")
    split_of = {}
    for row in credits:
        assert split_of.setdefault(row["filename"], row["split"]) == row["split"]
        assert (row["fold"] == str(settings.test_fold)) == (row["split"] == "test")
        assert (row["licence"], row["attribution"][:6]) == ("CC0-1.0", "author")
    assert set(split_of.values()) == set(SPLITS)


def test_what_is_written_reads_as_desed(made):
    settings, out = made
    sets = read_desed(out, quiet=True)
    kinds = [scene.labelling for scene in sets.train.scenes]
    assert [kinds.count(k) for k in ("strong", "weak", "unlabelled")] == [3, 3, 6]
    assert (len(sets.validation.scenes), len(sets.test.scenes)) == (3, 4)
    assert set(sets.train.labels) <= set(settings.labels())
    for scene in sets.test.scenes:
        info = soundfile.info(scene.path)
        assert (info.samplerate, info.channels, info.frames) == (16_000, 1, 160_000)
        assert info.format == "FLAC"
    note = json.loads((out / "soundscapes.json").read_text())
    assert note["settings"]["snr_db"] == [6.0, 30.0]
    # The events of what is given as weak are kept aside, and agree with its labels.
    truth = rows(out / "truth/train/weak.tsv")
    for row in rows(out / "metadata/train/weak.tsv"):
        events = {r["event_label"] for r in truth if r["filename"] == row["filename"]}
        assert ",".join(sorted(events - {""})) == row["event_labels"]


def test_the_truth_of_every_part_has_level_and_clip(made, material):
    _, out = made
    settings, sounds = material
    for part in ("train/synthetic", "train/weak", "validation/validation", "eval/public"):
        truth = rows(out / f"truth/{part}.tsv")
        assert truth
        for row in truth:
            split, _, number = row["filename"].removesuffix(".flac").partition("_")
            plan = plan_scene(settings, sounds, split, int(number))
            expected = [
                (f"{p.onset / settings.rate_hz:.3f}", p.label, f"{p.snr_db:.1f}")
                for p in plan.placements
            ]
            if row["onset"]:
                assert (row["onset"], row["event_label"], row["snr_db"]) in expected
                assert row["source_clip"].startswith(row["event_label"])
            else:
                assert (expected, row["snr_db"], row["source_clip"]) == ([], "", "")


def test_a_table_says_to_the_millisecond_what_was_placed(made, material):
    _, out = made
    settings, sounds = material
    found = rows(out / "metadata/eval/public.tsv")
    for index in range(settings.counts.test):
        events = plan_scene(settings, sounds, "test", index).events(settings.rate_hz)
        of_file = [r for r in found if r["filename"] == f"test_{index:05d}.flac" and r["onset"]]
        assert [(float(r["onset"]), float(r["offset"])) for r in of_file] == [
            (event.onset_s, event.offset_s) for event in events
        ]


def test_same_settings_same_bytes_and_a_killed_run_goes_on(
    made, event_clips, tmp_path, monkeypatch
):
    settings, out = made
    whole = digests(out)
    real, calls = writer._flac, []

    def killed(samples, rate_hz):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(samples, rate_hz)

    again = tmp_path / "again"
    monkeypatch.setattr(writer, "_flac", killed)
    with pytest.raises(KeyboardInterrupt):
        write_soundscapes(settings, event_clips, again, quiet=True)
    half = digests(again)
    assert len([name for name in half if name.endswith(".flac")]) == 7
    assert not (again / "metadata").exists()
    assert half.items() <= whole.items()
    write_soundscapes(settings, event_clips, again, quiet=True)
    assert digests(again) == whole
    # Those seven were not made again.
    assert len(calls) == 8 + sum(name.endswith(".flac") for name in whole) - 7


def test_a_set_without_a_kind_or_a_test_fold(event_clips, soundscape_settings, tmp_path):
    changes = ["shares.strong=1", "shares.weak=0", "shares.unlabelled=0", "counts.test=0"]
    settings = load_soundscape_settings(soundscape_settings, [*changes, "room.share=0"])
    made = write_soundscapes(settings, event_clips, tmp_path / "set", quiet=True)
    assert made == {"strong": 12, "validation": 3}
    sets = read_desed(tmp_path / "set", quiet=True)
    assert {scene.labelling for scene in sets.train.scenes} == {"strong"}
    assert sets.test is None


def test_another_seed_gives_other_sound(material, event_clips, soundscape_settings):
    settings, sounds = material
    other = load_soundscape_settings(soundscape_settings, ["seed=1"])
    assert plan_scene(settings, sounds, "test", 0) != plan_scene(other, sounds, "test", 0)


def test_a_folder_made_otherwise_is_not_mixed_in(made, event_clips, soundscape_settings, tmp_path):
    _, out = made
    other = load_soundscape_settings(soundscape_settings, ["room.share=0.25"])
    with pytest.raises(InputError, match=r"another settings.room.share \(0.5, now 0.25\)"):
        write_soundscapes(other, event_clips, out, quiet=True)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"has files but no soundscapes.json"):
        write_soundscapes(other, event_clips, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shares.strong=0.5", r"shares is 0.5 \+ 0.25 \+ 0.5; expected .* 1 together"),
        ("counts.train=1", r"shares.strong is 0.25 of 1; expected one strongly labelled"),
        ("roles.beep=loud", r"roles.beep is 'loud'; expected event, stationary, background"),
        ("roles.hiss=event", r"roles has no background"),
        ("counts.validation=0", r"counts.validation is 0; expected at least 1"),
        ("stationary_s=[2, 20]", r"stationary_s is \[2.0, 20.0\]"),
        ("snr=3", r"unknown key snr"),
    ],
)
def test_settings_are_checked(soundscape_settings, change, message):
    with pytest.raises(ConfigError, match=message):
        load_soundscape_settings(soundscape_settings, [change])


def test_labels_without_clips(event_clips, soundscape_settings):
    clip_set = read_clip_set(event_clips)
    settings = load_soundscape_settings(soundscape_settings, ['roles.cow="event"'])
    with pytest.raises(InputError, match=r"has no clip with the label cow"):
        gather(clip_set, settings, quiet=True)
    settings = load_soundscape_settings(soundscape_settings, ["test_fold=9"])
    with pytest.raises(InputError, match=r"has no fold 9"):
        gather(clip_set, settings, quiet=True)


def test_the_command(event_clips, soundscape_settings, tmp_path):
    def command(name, *more):
        arguments = [sys.executable, "-m", "soundpost.device", "soundscapes", name, "--data"]
        arguments += [event_clips, "--out", tmp_path / "set", "--quiet", *more]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)

    done = command(str(soundscape_settings), "--json", "counts.train=4", "room.share=0")
    assert done.returncode == 0, done.stderr
    made = {"strong": 1, "weak": 1, "unlabelled": 2, "validation": 3, "test": 4}
    assert json.loads(done.stdout) == made
    refused = command("esc51")
    assert refused.returncode == 2
    assert "no settings esc51; ours: esc50_scenes" in refused.stderr


@pytest.mark.data
def test_the_benchmark_set_has_its_classes_in_every_split():
    settings = load_soundscape_settings(
        path_of_ours("esc50_scenes", "soundpost.train.sed", "settings"), []
    )
    sounds = gather(read_clip_set(DATA / "esc50"), settings, quiet=True)
    assert len(settings.labels()) == 10
    assert settings.counts.test >= 400
    for palette in sounds.palettes.values():
        assert all(len(clips) >= 4 for clips in palette.events.values())
    groups = {
        name: {
            sounds.clips[sound.clip].group
            for clips in palette.events.values()
            for spans in clips
            for sound in spans
        }
        for name, palette in sounds.palettes.items()
    }
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    for index in range(20):
        plan = plan_scene(settings, sounds, "test", index)
        assert all(sounds.clips[p.sound.clip].fold == 5 for p in plan.placements)
        rendering = render(settings, sounds, plan)
        for placement, track in zip(plan.placements, rendering.events, strict=True):
            energy = np.square(track, dtype=float)
            inside = energy[placement.onset : placement.onset + placement.n_samples].sum()
            assert inside > 0.9 * energy.sum()
