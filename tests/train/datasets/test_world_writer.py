"""Worlds on disk: what their readers find, the same bytes each time, after a kill too."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from soundpost.device.array.acoustic_image import AcousticImager, cut_snapshots
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import read_actions
from soundpost.train.datasets.action_check import check_action_files
from soundpost.train.datasets.action_splits import action_parts
from soundpost.train.datasets.kinds import check_set
from soundpost.train.datasets.segments import Folders
from soundpost.train.datasets.world_settings import load_world_settings
from soundpost.train.datasets.world_tables import read_world, take_id
from soundpost.train.datasets.world_writer import recording_bytes, write_world
from soundpost.train.multimodal.clip_media import read_media_set

# One location x 2 subjects x 4 actions of two takes.
CHANGES = ["objects.hidden_share=0.3"]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(out):
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(world_clips, world_toml, tmp_path_factory):
    settings = load_world_settings(world_toml, CHANGES)
    out = tmp_path_factory.mktemp("world") / "set"
    counts = write_world(settings, world_clips, out, quiet=True)
    return settings, out, counts


def test_the_readers_of_the_published_layout_find_it_in_order(made):
    _, out, counts = made
    assert counts == {"train": 8, "validation": 0, "test": 8}
    actions, problems = read_actions(out)
    assert not problems
    assert check_action_files(actions, thorough=True, quiet=True) == []
    assert [recording.n_frames for recording in actions.recordings] == [24] * 8
    assert actions.settings.actions == {1: "car_horn", 2: "cat", 3: "dog", 4: "engine"}
    assert actions.settings.locations == {1: "anechoic"}
    first = actions.recordings[0]
    assert first.load_audio(settings=actions.settings).shape == (24 * 1_024, 16)
    assert first.load_pictures().shape == (24, 96, 128, 3)
    assert first.load_images().shape == (24, 36, 48, 12)


def test_written_images_are_those_of_the_written_sound(made):
    _, out, _ = made
    actions, _ = read_actions(out)
    imager = AcousticImager(vogel_spiral(16))
    for recording in actions.recordings[:2]:
        samples = recording.load_audio(settings=actions.settings)
        made_again = imager.mfcc(cut_snapshots(samples))
        assert np.abs(recording.load_images() - made_again).max() < 1e-2


def test_takes_are_clips_with_all_their_labels(made):
    settings, out, _ = made
    listing = read_world(out)
    assert not listing.problems
    media = listing.media
    assert (media.labels, media.splits()) == (settings.classes, ("train", "test"))
    assert len(media.clips) == 16
    events = defaultdict(set)
    for row in rows(out / "events.csv"):
        events[row["clip"]].add(row["label"])
    for clip in media.clips:
        assert set(clip.labels) == events[clip.id]
        action = settings.classes.index(clip.labels[0]) + 1
        assert clip.id.partition("#")[0].endswith(f"/Action_{action:02d}")
        assert (clip.seconds, clip.end_s - clip.start_s) == (1.0, 1.0)
        assert clip.split == ("test" if clip.subject == "02" else "train")
        assert clip.has("audio", "video", "images")
    # The ids are those of the recordings' parts.
    parts = action_parts(read_actions(out)[0], seconds=1.0)
    assert [part.id for part in parts] == [clip.id for clip in media.clips]
    assert take_id(1, 2, 3, 1, 5.0) == "Location_01/Subject_02/Action_03#5-10"


def test_a_take_is_heard_and_seen_at_its_place_in_the_recording(made):
    _, out, _ = made
    read = read_media_set("world", Folders(out))
    recording = read_actions(out)[0].recordings[0]
    first, second = (clip for clip in read.clips.clips if clip.id.startswith(f"{recording.id}#"))
    whole = recording.load_audio(microphones=[0], settings=read_actions(out)[0].settings)[:, 0]
    heard = [read.media.sound(clip, 12_288) for clip in (first, second)]
    np.testing.assert_array_equal(np.concatenate(heard), whole)
    assert len(read.media.sound(second, 16_000)) == 16_000
    # Twelve frames a take: at 0 and at 0.5 s the first and the seventh.
    for clip, frames in ((first, (0, 6)), (second, (12, 18))):
        seen = read.media.pictures(clip, 2.0)
        wanted = [recording.load_pictures(frame, 1)[0] for frame in frames]
        np.testing.assert_array_equal(seen, wanted)


def test_a_world_is_checked_by_its_takes(made, tmp_path):
    _, out, _ = made
    media, problems = check_set("world", Folders(out), thorough=True, quiet=True)
    assert (len(media.clips), problems) == (16, [])
    damaged = tmp_path / "set"
    shutil.copytree(out, damaged)
    frame = next(damaged.rglob("I_*.jpeg"))
    frame.write_bytes(b"no picture")
    _, problems = check_set("world", Folders(damaged), thorough=True, quiet=True)
    assert [Path(problem.where).name for problem in problems] == [frame.name]


def test_the_sound_read_back_comes_from_where_the_table_says(world_clips, world_toml, tmp_path):
    changes = [
        *CHANGES,
        "microphones=128",
        "takes=1",
        "classes=['cat', 'dog']",
        "looks={}",
        "objects.most_sounding=1",
        "objects.distractor_share=0",
    ]
    settings = load_world_settings(world_toml, changes)
    write_world(settings, world_clips, tmp_path / "set", quiet=True)
    actions, _ = read_actions(tmp_path / "set")
    imager = AcousticImager(vogel_spiral())
    places = {
        row["clip"]: row for row in rows(tmp_path / "set" / "objects.csv") if row["role"] == "main"
    }
    events = defaultdict(list)
    for row in rows(tmp_path / "set" / "events.csv"):
        events[row["clip"]].append((float(row["onset"]), float(row["offset"])))
    for recording in actions.recordings:
        clip = f"{recording.id}#0-1"
        energy = imager.energy(cut_snapshots(recording.load_audio(settings=actions.settings)))
        ends = np.array([float(places[clip][f"{axis}{end}"]) for end in "01" for axis in "xyz"])
        begin, end = ends.reshape(2, 3)
        heard = [
            number
            for number in range(12)
            if any(on <= number / 12 and (number + 1) / 12 <= off for on, off in events[clip])
        ]
        assert heard
        for number in heard:
            share = (number + 0.5) / 12
            expected = imager.grid.pixel_of(begin + share * (end - begin))
            found = np.unravel_index(energy[number].argmax(), energy[number].shape)
            assert np.abs(np.subtract(found, expected)).max() <= 2


def test_a_clip_and_its_author_are_heard_by_one_subject_alone(made):
    _, out, _ = made
    subject_of, fold_of = {}, defaultdict(set)
    credits = rows(out / "attribution.csv")
    for row in credits:
        assert subject_of.setdefault(row["group"], row["subject"]) == row["subject"]
        fold_of[row["subject"]].add(row["fold"])
        assert (row["licence"], row["attribution"]) == ("CC0-1.0", f"by {row['group']}")
        assert 1 <= int(row["takes"]) <= 8
    assert set(subject_of.values()) == {"1", "2"}
    assert all(len(folds) == 1 for folds in fold_of.values())
    assert len({row["filename"] for row in credits}) == len(credits)


def test_one_microphone_is_the_first_of_all(made, world_clips, world_toml, tmp_path):
    _, out, _ = made
    settings = load_world_settings(world_toml, [*CHANGES, "store.microphones=first"])
    write_world(settings, world_clips, tmp_path / "one", quiet=True)
    whole, one = (read_actions(folder)[0] for folder in (out, tmp_path / "one"))
    assert one.settings.n_microphones == 1
    assert not check_action_files(one, quiet=True)
    for every, single in zip(whole.recordings, one.recordings, strict=True):
        samples = every.load_audio(settings=whole.settings)[:, :1]
        assert np.array_equal(single.load_audio(settings=one.settings), samples)
        assert np.array_equal(single.load_images(), every.load_images())


def test_sizes_are_told_beforehand(made):
    settings, out, _ = made
    recording = out / "Location_01" / "Subject_01" / "Action_01"
    size = sum(path.stat().st_size for path in recording.rglob("*") if path.is_file())
    assert recording_bytes(settings) == pytest.approx(size, rel=0.1)


def children(pid):
    """Processes that this one began."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid and state != "Z":
            found.append(int(name.split()[0]))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_run_in_processes_goes_on_to_the_same_bytes(
    made, world_clips, world_toml, tmp_path
):
    _, whole, _ = made
    out = tmp_path / "set"
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from soundpost.train.datasets.world_settings import load_world_settings\n"
        "from soundpost.train.datasets.world_writer import write_world\n"
        "if __name__ == '__main__':\n"
        "    settings = load_world_settings(Path(sys.argv[1]), sys.argv[4:])\n"
        "    write_world(settings, Path(sys.argv[2]), Path(sys.argv[3]), workers=2, quiet=True)\n"
    )
    (tmp_path / "make.py").write_text(script)
    arguments = [sys.executable, tmp_path / "make.py", world_toml, world_clips, out, *CHANGES]
    running = subprocess.Popen(arguments)
    until = time.monotonic() + 120
    while not [*out.glob("Location_01/*/Action_*")] and time.monotonic() < until:
        time.sleep(0.01)
    workers = children(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    done = list(out.glob("Location_01/*/Action_*"))
    assert 1 <= len(done) < 8
    assert not (out / "events.csv").exists()
    with pytest.raises(InputError, match=r"the world is not complete"):
        read_world(out)
    # The processes that rendered end with the one that began them.
    assert workers
    until = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(alive, workers))
    kept = {path: path.stat().st_mtime_ns for path in done}
    settings = load_world_settings(world_toml, CHANGES)
    write_world(settings, world_clips, out, quiet=True)
    assert digests(out) == digests(whole)
    assert {path: path.stat().st_mtime_ns for path in done} == kept


def test_a_folder_made_otherwise_is_not_mixed_in(made, world_clips, world_toml, tmp_path):
    _, out, _ = made
    other = load_world_settings(world_toml, [*CHANGES, "objects.silent_share=0.5"])
    with pytest.raises(InputError, match=r"another settings.objects.silent_share \(0.15, now 0.5"):
        write_world(other, world_clips, out, quiet=True)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"has files but no world.json; choose an empty folder"):
        write_world(other, world_clips, tmp_path, quiet=True)


def test_a_recording_that_is_gone_is_a_problem_of_its_takes(made, tmp_path):
    _, out, _ = made
    copy = tmp_path / "copy"
    for name in ("world.json", "actions.json", "events.csv"):
        copy.mkdir(exist_ok=True)
        (copy / name).write_bytes((out / name).read_bytes())
    (copy / "Location_01").mkdir()
    (copy / "Location_01" / "Subject_02").symlink_to(out / "Location_01" / "Subject_02")
    listing = read_world(copy)
    assert len(listing.media.clips) == 8
    assert len(listing.problems) == 8
    assert "Location_01/Subject_01/Action_01 is not there; expected" in listing.problems[0].line()
    (copy / "world.json").write_text(json.dumps({"schema": "soundpost.world/9"}))
    with pytest.raises(
        InputError, match=r"world.json: cannot be used \(schema 'soundpost.world/9'"
    ):
        read_world(copy)
