"""What was collected from sensors is trained with once a person has labelled it, and not before."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import soundfile

from soundpost.device.errors import InputError
from soundpost.device.events import ModelRef
from soundpost.device.feedback.collected_set import CollectedSet
from soundpost.device.feedback.example import Example
from soundpost.device.identifiers import uuid7
from soundpost.train.clips import read_clip_set

HZ = {"low": 400.0, "high": 4_000.0}


def tone(label, hour):
    """An example of a sensor that took the sound for another."""
    content = io.BytesIO()
    rng = np.random.default_rng(hour)
    sound = 0.3 * np.sin(2 * np.pi * HZ[label] * np.arange(24_000) / 16_000)
    sound += 0.01 * rng.standard_normal(24_000)
    soundfile.write(content, sound, 16_000, format="FLAC", subtype="PCM_16")
    example = Example(
        id=uuid7(),
        device="porch-pi",
        source="mic0",
        time=datetime(2026, 11, 20, tzinfo=timezone.utc) + timedelta(hours=hour),
        time_synced=True,
        stream=uuid7(),
        sample=0,
        rate_hz=16_000,
        length_s=1.5,
        label="doorbell",
        reason="uncertain",
        score=0.5,
        threshold=0.5,
        new_score=None,
        top=("doorbell",),
        model=ModelRef("tiny", "1.0.0", "a" * 64),
        what="clips",
        n_bytes=len(content.getvalue()),
        sha256=hashlib.sha256(content.getvalue()).hexdigest(),
        seen=1,
    )
    return example, content.getvalue()


@pytest.fixture
def collected(tmp_path):
    into = CollectedSet(tmp_path / "examples")
    for hour in range(12):
        into.add(*tone("low" if hour % 2 else "high", hour))
    into.save()
    return into


def label(collected, decisions):
    """Write label and review into rows, as the page or an editor does."""
    rows = collected.rows()
    for row, (name, review) in zip(rows, decisions, strict=False):
        row["label"], row["review"] = name, review
    with (collected.folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_nothing_is_trained_with_before_it_is_labelled(collected):
    with pytest.raises(InputError, match=r"none of its 12 clips has a label yet; open index\.html"):
        read_clip_set(collected.folder)


def test_labelled_rows_are_read_and_others_left_out(collected):
    rows = label(collected, [("low", "labelled"), ("high", ""), ("high", "rejected"), ("  ", "")])
    clip_set = read_clip_set(collected.folder)
    assert [(clip.path.name, clip.label) for clip in clip_set.clips] == [
        (rows[at]["filename"].split("/")[1], rows[at]["label"]) for at in (0, 1)
    ]
    assert clip_set.labels == ("high", "low")
    assert [clip.group for clip in clip_set.clips] == [row["group"] for row in rows[:2]]
    assert [clip.id for clip in clip_set.clips] == [row["id"] for row in rows[:2]]


def test_labelled_examples_train(collected, tmp_path):
    rows = collected.rows()
    truth = ["low" if row["time"][12] in "13579" else "high" for row in rows]
    label(collected, [(name, "labelled") for name in truth[:10]])
    recipe = tmp_path / "short.toml"
    recipe.write_text(
        'name = "short"\n[model]\nwidth = 0.35\n[data]\nvalidation_fraction = 0.0\n'
        "[training]\nepochs = 1\nbatch_size = 8\n"
    )
    run = tmp_path / "run"
    subprocess.run(
        [
            *(sys.executable, "-m", "soundpost.device", "train", str(recipe)),
            *("--data", str(collected.folder), "--out", str(run), "--quiet"),
            *("--threads", "1", "--device", "cpu"),
        ],
        check=True,
        timeout=900,
    )
    settings = json.loads((run / "settings.json").read_text())
    assert settings["labels"] == ["high", "low"]
    assert (run / "model.safetensors").is_file()
    assert "10" in str(settings["data"])
