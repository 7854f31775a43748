"""Soundscapes as a folder in DESED's layout (see desed.py), with credits and settings.

Besides that layout: `soundscapes.json` (all settings and what the clips were), `attribution.csv`
(author and licence of every clip that is heard, and in which split), and `truth/` (events of all
recordings, those that are given as weakly labelled or unlabelled too, with the level and the clip
of each; nothing that trains reads it).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from soundpost.device.features import FloatArray
from soundpost.device.files import write_atomically
from soundpost.train.clips import ClipSet, read_clip_set
from soundpost.train.generated_sets import begin_set, fingerprint
from soundpost.train.sed.scenes import Event
from soundpost.train.sed.soundscape_settings import SoundscapeSettings
from soundpost.train.sed.soundscapes import Material, Plan, gather, plan_scene, render

SCHEMA = "soundpost.soundscapes/1"
SETTINGS_FILE = "soundscapes.json"
CREDITS_FILE = "attribution.csv"

# Part of a set -> folder of its recordings. Its table has the same name below metadata/.
_AUDIO = {
    "strong": "train/synthetic",
    "weak": "train/weak",
    "unlabelled": "train/unlabel_in_domain",
    "validation": "validation",
    "test": "eval/public",
}
_TABLES = _AUDIO | {"validation": "validation/validation"}


def write_soundscapes(
    settings: SoundscapeSettings, data: Path, out: Path, *, quiet: bool = False
) -> dict[str, int]:
    """Make a set of soundscapes from a folder of clips; go on with one that was begun.

    Returns
    -------
    number of recordings by part: strong, weak, unlabelled, validation, test

    Raises InputError where the clips do not do, or out holds a set with other settings.
    """
    clip_set = read_clip_set(data)
    _begin(out, settings, clip_set)
    material = gather(clip_set, settings, quiet=quiet)
    parts = _parts(settings, material)
    bar = tqdm(
        [(part, plan) for part, plans in parts.items() for plan in plans],
        "soundscapes",
        unit="file",
        disable=quiet,
    )
    for part, plan in bar:
        path = out / "audio" / _AUDIO[part] / _name(plan)
        # What has its name is whole.
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _flac(render(settings, material, plan).sound, settings.rate_hz))
    # The tables come last: a folder that has them is complete.
    _write_credits(out, parts, material, data)
    _write_tables(out, parts, settings.rate_hz, material, data)
    return {part: len(plans) for part, plans in parts.items()}


def _parts(settings: SoundscapeSettings, material: Material) -> dict[str, list[Plan]]:
    counts, shares = settings.counts, settings.shares
    plans = {
        split: [plan_scene(settings, material, split, i) for i in range(getattr(counts, split))]
        for split in material.palettes
    }
    strong = round(counts.train * shares.strong)
    weak = round(counts.train * (shares.strong + shares.weak))
    parts = {
        "strong": plans["train"][:strong],
        "weak": plans["train"][strong:weak],
        "unlabelled": plans["train"][weak:],
        "validation": plans["validation"],
    }
    parts |= {"test": plans["test"]} if "test" in plans else {}
    # A table without rows is refused by whoever reads it.
    return {part: found for part, found in parts.items() if found}


def _name(plan: Plan) -> str:
    return f"{plan.split}_{plan.index:05d}.flac"


def _begin(out: Path, settings: SoundscapeSettings, clip_set: ClipSet) -> None:
    """Write the settings first; refuse a folder that was begun with others."""
    note = {
        "schema": SCHEMA,
        "settings": asdict(settings),
        "labels": list(settings.labels()),
        "clips": {"folder": clip_set.folder.name, "sha256": fingerprint(clip_set, settings.roles)},
    }
    begin_set(out, SETTINGS_FILE, note)


def _flac(samples: FloatArray, rate_hz: int) -> bytes:
    whole = np.round(samples * 32_767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, whole, rate_hz, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _write_credits(out: Path, parts: dict[str, list[Plan]], material: Material, data: Path) -> None:
    heard: Counter[tuple[int, str]] = Counter()
    for plans in parts.values():
        for plan in plans:
            sounds = [plan.background, *(p.sound for p in plan.placements)]
            heard.update((clip, plan.split) for clip in {sound.clip for sound in sounds})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("filename", "label", "fold", "group", "licence", "attribution", "split", "recordings")
    )
    for (index, split), count in sorted(heard.items()):
        clip = material.clips[index]
        name = clip.path.relative_to(data).as_posix()
        writer.writerow(
            (
                name,
                clip.label,
                clip.fold,
                clip.group,
                clip.licence,
                clip.attribution,
                split,
                count,
            )
        )
    write_atomically(out / CREDITS_FILE, text.getvalue().encode())


def _write_tables(
    out: Path, parts: dict[str, list[Plan]], rate_hz: int, material: Material, data: Path
) -> None:
    for part, plans in parts.items():
        header: tuple[str, ...]
        rows: list[tuple[str, ...]]
        if part == "weak":
            header = ("filename", "event_labels")
            rows = [
                (_name(plan), ",".join(sorted({p.label for p in plan.placements})))
                for plan in plans
            ]
        elif part == "unlabelled":
            header = ("filename",)
            rows = [(_name(plan),) for plan in plans]
        else:
            header, rows = _STRONG, list(_strong_rows(plans, rate_hz))
        _write_table(out / "metadata" / f"{_TABLES[part]}.tsv", header, rows)
        truth = _true_rows(plans, rate_hz, material, data)
        _write_table(out / "truth" / f"{_TABLES[part]}.tsv", _TRUTH, truth)


_STRONG = ("filename", "onset", "offset", "event_label")
_TRUTH = (*_STRONG, "snr_db", "source_clip")


def _strong_rows(plans: Iterable[Plan], rate_hz: int) -> Iterator[tuple[str, ...]]:
    for plan in plans:
        events: Sequence[Event] = plan.events(rate_hz)
        if not events:
            # As DESED has it: the recording is listed, and nothing happens in it.
            yield _name(plan), "", "", ""
        for event in events:
            yield _name(plan), f"{event.onset_s:.3f}", f"{event.offset_s:.3f}", event.label


def _true_rows(
    plans: Sequence[Plan], rate_hz: int, material: Material, data: Path
) -> Iterator[tuple[str, ...]]:
    placed = (placement for plan in plans for placement in (plan.placements or (None,)))
    for row, placement in zip(_strong_rows(plans, rate_hz), placed, strict=True):
        if placement is None:
            yield (*row, "", "")
        else:
            clip = material.clips[placement.sound.clip].path.relative_to(data).as_posix()
            yield (*row, f"{placement.snr_db:.1f}", clip)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())
