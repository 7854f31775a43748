"""Labelling of real small files: what networks say, kills, broken clips, shared work."""

import csv
import fcntl
import os
import signal
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from soundpost.device.errors import InputError, UsageError
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.label_models import PictureModel, SecondModel
from soundpost.train.multimodal.labelling import fold_name, label_clips
from soundpost.train.multimodal.machine_labels import AUDIO_RATE_HZ, LabellingRules, fold_of
from soundpost.train.multimodal.soft_label_format import Teacher

_specification = spec_from_file_location(
    "layouts", Path(__file__).parents[1] / "datasets" / "layouts.py"
)
layouts = module_from_spec(_specification)
_specification.loader.exec_module(layouts)

GREYS = tuple(f"grey {k}" for k in range(12))
TONES_HZ = (220, 440, 880, 1760)
RULES = LabellingRules(top_visual=3, n_folds=4)
SECONDS = 2.0


def grey_scores(frames):
    """The nearer a picture is to a grey, the higher its score."""
    level = frames.mean(axis=(1, 2, 3))[:, None] / 255
    return 1 - np.abs(level - np.arange(12) / 11)


def tone_scores(seconds):
    """Amplitude of some tones in each second."""
    n = np.arange(seconds.shape[1])
    turns = np.exp(-2j * np.pi * np.outer(n, TONES_HZ) / AUDIO_RATE_HZ)
    return np.minimum(1, 2 * np.abs(seconds @ turns) / len(n))


SEEING = PictureModel(Teacher("grey", "ab" * 32), GREYS, grey_scores)
HEARING = SecondModel(Teacher("tone", "cd" * 32), tuple(f"{hz} Hz" for hz in TONES_HZ), tone_scores)


def media(name, path, seconds=SECONDS):
    return MediaClip(name, path, path, (), "train", seconds=seconds)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight videos of two seconds, each with its own tone."""
    folder = tmp_path_factory.mktemp("videos")
    found = []
    for i in range(8):
        samples = layouts.tone(SECONDS, TONES_HZ[i % 4])
        path = layouts.write_video(folder / f"v{i}.mkv", SECONDS, samples=samples)
        found.append(media(f"v{i}", path))
    return found


@pytest.fixture(scope="module")
def labelled(clips, tmp_path_factory):
    """A folder that was labelled in one go."""
    folder = tmp_path_factory.mktemp("labels")
    report = label_clips(clips, SEEING, HEARING, folder, RULES, quiet=True)
    assert (report.n_clips, report.n_new, report.problems) == (8, 8, ())
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(folder, kind="csv"):
    found = []
    for path in sorted(folder.glob(f"fold_?.{kind}")):
        with path.open(newline="", encoding="utf-8") as file:
            found += list(csv.DictReader(file))
    return found


def test_labels_are_what_the_networks_say_on_average(labelled):
    by_clip = {
        f"v{i}": [row for row in rows(labelled) if row["clip_id"] == f"v{i}"] for i in range(8)
    }
    # Two seconds at three a second: six pictures, at 0, 1/3 ... 5/3 s of ten a second.
    levels = np.array([layouts.grey_level(i) for i in (0, 3, 6, 10, 13, 16)]) / 255
    means = (1 - np.abs(levels[:, None] - np.arange(12) / 11)).mean(axis=0)
    best = np.argsort(-means)[:3]
    for i, found in enumerate(by_clip.values()):
        visual = [row for row in found if row["source"] == "visual"]
        assert {row["label"] for row in visual} == {GREYS[k] for k in best}
        for row in visual:
            assert float(row["score"]) == pytest.approx(means[GREYS.index(row["label"])], abs=0.02)
        assert {row["model"] for row in visual} == {"ab" * 6}
        # Its own tone of amplitude .3 is the only one above .1.
        (audio,) = (row for row in found if row["source"] == "audio")
        assert audio["label"] == f"{TONES_HZ[i % 4]} Hz"
        assert float(audio["score"]) == pytest.approx(0.3, abs=0.01)
        assert audio["model"] == "cd" * 6
        scores = [float(row["score"]) for row in visual]
        assert scores == sorted(scores, reverse=True)


def test_each_clip_is_in_the_table_of_its_fold(labelled):
    for path in labelled.glob("fold_*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            ids = [row["clip_id"] for row in csv.DictReader(file)]
        assert {fold_name(fold_of(name, 4), 4) for name in ids} <= {path.stem}
        assert ids == sorted(ids)
    assert {row["clip_id"] for row in rows(labelled)} == {f"v{i}" for i in range(8)}


KILLED = """
import os, signal, sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("case", sys.argv[1])
case = module_from_spec(spec)
spec.loader.exec_module(case)
seen = 0
def scores(frames):
    global seen
    seen += 1
    if seen == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return case.grey_scores(frames)
model = case.PictureModel(case.SEEING.teacher, case.GREYS, scores)
clips = [case.media(f"v{i}", case.Path(sys.argv[2]) / f"v{i}.mkv") for i in range(8)]
case.label_clips(clips, model, case.HEARING, case.Path(sys.argv[3]), case.RULES, quiet=True)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(clips, labelled, tmp_path):
    # Killed in the middle of the 3rd clip, then in the middle of the 4th of those left.
    for kill_at in ("3", "4"):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, __file__, clips[0].video.parent, tmp_path, kill_at],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
    report = label_clips(clips, SEEING, HEARING, tmp_path, RULES, quiet=True)
    # 2 and 3 clips were done before; what was cut short is done again.
    assert (report.n_clips, report.n_new) == (8, 3)
    assert content(tmp_path) == content(labelled)


@pytest.mark.parametrize(
    "torn", [b'{"clip": "v', b"\0\0\0\n", b'{"clip": "other", "labels": []}\n']
)
def test_a_torn_line_is_done_again(clips, labelled, tmp_path, torn):
    calls = []

    def failing(frames):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return grey_scores(frames)

    stopped = PictureModel(SEEING.teacher, GREYS, failing)
    with pytest.raises(KeyboardInterrupt):
        label_clips(clips, stopped, HEARING, tmp_path, RULES, quiet=True)
    (part,) = tmp_path.glob("*.part")
    with part.open("ab") as file:
        file.write(torn)
    assert label_clips(clips, SEEING, HEARING, tmp_path, RULES, quiet=True).n_new == 4
    assert content(tmp_path) == content(labelled)


def test_work_is_shared_by_folds_and_never_done_twice(clips, labelled, tmp_path):
    for folds in ((3, 1), (0, 2)):
        label_clips(clips, SEEING, HEARING, tmp_path, RULES, folds=folds, quiet=True)
    assert content(tmp_path) == content(labelled)

    def unasked(frames):
        raise AssertionError("labelled again")

    idle = PictureModel(SEEING.teacher, GREYS, unasked)
    report = label_clips(clips, idle, HEARING, tmp_path, RULES, quiet=True)
    assert (report.n_clips, report.n_new) == (8, 0)


def test_a_fold_has_one_writer(clips, tmp_path):
    label_clips(clips, SEEING, HEARING, tmp_path, RULES, folds=[0], quiet=True)
    fold = fold_of("v0", 4)
    (tmp_path / f"fold_{fold}.csv").unlink(missing_ok=True)
    with (tmp_path / f"fold_{fold}.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=rf"fold_{fold}\.part: another process labels this"):
            label_clips(clips, SEEING, HEARING, tmp_path, RULES, quiet=True)


def test_clips_that_cannot_be_used_are_listed_and_stop_nothing(clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a container" * 100)
    mute = layouts.write_video(tmp_path / "mute.mp4", SECONDS, sound=False)
    sound = layouts.write_sound(tmp_path / "sound.wav", SECONDS, 440)
    bad = [
        MediaClip("silent film", None, mute, (), "train"),
        MediaClip("radio", sound, None, (), "train"),
        media("broken", broken),
        media("gone", tmp_path / "gone.mp4"),
        media("mute", mute),
    ]
    folder = tmp_path / "labels"
    report = label_clips([*clips, *bad], SEEING, HEARING, folder, RULES, quiet=True)
    assert report.n_new == 13
    listed = {
        (row["clip_id"], row["source"]): row["problem"] for row in rows(folder, "problems.csv")
    }
    assert set(listed) == {
        ("silent film", "audio"),
        ("radio", "visual"),
        ("mute", "audio"),
        *((name, source) for name in ("broken", "gone") for source in ("visual", "audio")),
    }
    assert listed["silent film", "audio"] == "has no audio"
    assert listed["radio", "visual"] == "has no video"
    assert "no such file" in listed["gone", "visual"]
    assert "broken.mp4" in listed["broken", "audio"]
    assert len(report.problems) == len(listed)
    # What they do have is labelled, and so are all others.
    sources = {(row["clip_id"], row["source"]) for row in rows(folder)}
    assert {("silent film", "visual"), ("radio", "audio"), ("mute", "visual")} <= sources
    assert {(f"v{i}", source) for i in range(8) for source in ("visual", "audio")} <= sources
    assert not {name for name, _ in sources} & {"broken", "gone"}


def test_one_network_is_enough(clips, tmp_path):
    label_clips(clips[:2], None, HEARING, tmp_path, RULES, quiet=True)
    assert {row["source"] for row in rows(tmp_path)} == {"audio"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"visual": PictureModel(Teacher("grey", "ef" * 32), GREYS, grey_scores)}, "with visual"),
        ({"visual": PictureModel(SEEING.teacher, GREYS[::-1], grey_scores)}, "with visual"),
        ({"audio": None}, "with audio"),
        ({"rules": LabellingRules(top_visual=3, n_folds=8)}, "with rules"),
        ({"clips": "fewer"}, "with clips"),
    ],
)
def test_a_folder_holds_one_labelling(clips, labelled, changed, message):
    before = content(labelled)
    given = {"clips": clips, "visual": SEEING, "audio": HEARING, "rules": RULES, **changed}
    if given["clips"] == "fewer":
        given["clips"] = clips[:-1]
    with pytest.raises(InputError, match=rf"holds labels {message}.*give another folder"):
        label_clips(**given, folder=labelled, quiet=True)
    assert content(labelled) == before


def test_a_network_that_gives_no_scores_stops_the_run(clips, tmp_path):
    deaf = SecondModel(HEARING.teacher, HEARING.labels, lambda seconds: np.full((2, 4), np.nan))
    with pytest.raises(InputError, match="tone: a score is nan; expected 0 to 1"):
        label_clips(clips, SEEING, deaf, tmp_path, RULES, quiet=True)
    assert not list(tmp_path.glob("fold_*.csv"))


def test_bad_input_is_named(clips, tmp_path):
    with pytest.raises(UsageError, match="no network; give a visual or an audio one"):
        label_clips(clips, None, None, tmp_path, RULES)
    with pytest.raises(UsageError, match="fold 4; expected 0 to 3"):
        label_clips(clips, SEEING, HEARING, tmp_path, RULES, folds=[4])
    with pytest.raises(InputError, match="clip v0 is listed twice"):
        label_clips([*clips, clips[0]], SEEING, HEARING, tmp_path, RULES)
    (tmp_path / "labelling.json").write_text("[]")
    with pytest.raises(InputError, match=r"holds labels with schema None"):
        label_clips(clips, SEEING, HEARING, tmp_path, RULES)
    (tmp_path / "labelling.json").write_text("{")
    with pytest.raises(InputError, match=r"labelling\.json: is no header of labels"):
        label_clips(clips, SEEING, HEARING, tmp_path, RULES)
