"""A set's sound as a folder of clips: the same samples, ids, labels, and nobody on both sides."""

import csv
import json

import numpy as np
import pytest
import soundfile

from soundpost.device.errors import InputError, UsageError
from soundpost.train.clips import read_clip_set
from soundpost.train.datasets.catalogue import MediaClip, MediaSet
from soundpost.train.datasets.clip_folders import media_of_clips
from soundpost.train.datasets.command import COMMAND
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.clip_export import export_clips
from soundpost.train.multimodal.clip_media import FileMedia, ReadSet, read_media_set


def test_recordings_become_clips_with_their_ids(tiny, hums, tmp_path, capsys):
    out = tmp_path / "clips"
    assert tiny.run(COMMAND, "clips", "actions", hums, "--out", out, "--quiet") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"8 clips in {out}\nfolds: 1 is 01, 2 is 02\n")
    assert f"next: soundpost train finetune --init starter --data {out} --fold 2" in told
    read = read_media_set("actions", Folders(hums))
    found = read_clip_set(out)
    by_id = {clip.id: clip for clip in read.clips.clips}
    assert {clip.id for clip in media_of_clips(found).clips} == by_id.keys()
    for clip in found.clips:
        published = by_id[clip.id]
        assert (clip.label,) == published.labels
        assert clip.fold == int(published.subject)
        assert clip.group == published.group
        samples, rate_hz = soundfile.read(clip.path)
        assert rate_hz == 16_000
        np.testing.assert_allclose(samples, read.media.sound(published, 16_000), atol=2 / 2**15)


def test_clips_with_several_labels_or_no_sound_are_left_out(tiny, vehicles, tmp_path, capsys):
    out = tmp_path / "clips"
    arguments = ("clips", "dcase2017", vehicles, "--out", out, "--split", "training", "--json")
    assert tiny.run(COMMAND, *arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"n_clips": 12, "several": 4, "silent": 0, "folds": {"training": 1}}
    with (out / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"Car", "Train", "Bus"}
    with pytest.raises(UsageError, match=r"--split trian: the set has training, testing"):
        tiny.run(COMMAND, *arguments[:5], "--split", "trian")


def test_a_killed_call_goes_on_and_another_set_is_refused(tiny, hums, vehicles, tmp_path):
    out = tmp_path / "clips"
    command = (COMMAND, "clips", "actions", hums, "--out", out, "--quiet")
    assert tiny.run(*command) == 0
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    # As a kill leaves it: without the table and some of the sound.
    first, *_, last = sorted(out.rglob("*.wav"))
    kept = first.stat().st_mtime_ns
    last.unlink()
    (out / "clips.csv").unlink()
    assert tiny.run(*command) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole
    assert first.stat().st_mtime_ns == kept
    with pytest.raises(InputError, match=r"clips\.csv: lists other clips; give another --out"):
        tiny.run(COMMAND, "clips", "dcase2017", vehicles, "--out", out, "--quiet")


def set_of(folder, ids):
    path = folder / "sound.wav"
    soundfile.write(path, np.zeros(1_600), 16_000)
    clips = tuple(
        MediaClip(name, audio=path, video=None, labels=("hum",), split="all") for name in ids
    )
    return ReadSet(MediaSet(folder, "sounds", ("hum",), clips), FileMedia())


@pytest.mark.parametrize("name", ["../../up", "/etc/passwd", "a/./../b", "%2e%2e/x", "ä ö.wav"])
def test_no_id_leads_out_of_the_folder(name, tmp_path):
    out = tmp_path / "deep" / "clips"
    export_clips(set_of(tmp_path, [name]), [], out, 16_000, quiet=True)
    (clip,) = read_clip_set(out).clips
    assert clip.id == name
    assert clip.path.resolve().is_relative_to(out.resolve())
    assert [path for path in tmp_path.rglob("*.wav") if not path.is_relative_to(out)] == [
        tmp_path / "sound.wav"
    ]


def test_what_cannot_be_written_says_so(tmp_path):
    with pytest.raises(InputError, match=r"clips a b and a_b would both be a_b\.wav; rename one"):
        export_clips(set_of(tmp_path, ["a b", "a_b"]), [], tmp_path / "out", 16_000)
    with pytest.raises(InputError, match="none of 0 clips has one label and sound"):
        export_clips(set_of(tmp_path, []), [], tmp_path / "out", 16_000)
    assert not (tmp_path / "out").exists()
