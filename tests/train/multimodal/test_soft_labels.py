"""What is stored is read again, whatever stops the writer; teachers and labels are held apart."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.multimodal.soft_label_format import CLIPS, HEADER, SCORES, Teacher
from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
from soundpost.train.multimodal.soft_labels import (
    SoftLabelEnsemble,
    SoftLabelStore,
    missing_clips,
)
from soundpost.train.multimodal.time_spans import spans_between

LABELS = ("dog", "rain", "speech")
TEACHER = Teacher("yin2021", "0123456789abcdef" * 4)


def scores_of(clip, n_rows=4, n_labels=3):
    return np.random.default_rng(zlib.crc32(clip.encode())).random((n_rows, n_labels), np.float32)


def written(folder, clips=("a", "b"), labels=LABELS, teacher=TEACHER, offset=0.0):
    with SoftLabelWriter(folder, teacher, labels) as writer:
        for number, clip in enumerate(clips):
            scores = np.clip(scores_of(clip, 4 + number, len(labels)) + offset, 0, 1)
            writer.add(clip, scores, 0.0, 0.5)
    return SoftLabelStore(folder)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "soft"


def test_what_was_written_is_read(folder):
    store = written(folder)
    assert store.labels == LABELS
    assert store.teachers == (TEACHER,)
    assert store.clip_ids == {"a", "b"}
    rows, edges = store.rows("b")
    np.testing.assert_array_equal(rows, scores_of("b", 5))
    np.testing.assert_allclose(edges, [0, 0.5, 1, 1.5, 2, 2.5])


def test_windows_and_starts_come_back(folder):
    with SoftLabelWriter(folder, TEACHER, LABELS) as writer:
        writer.add("a", scores_of("a", 2), start_s=-0.5, hop_s=0.25, window_s=1.0)
        writer.add("b", scores_of("b", 1), start_s=0.0, hop_s=10.0)
    store = SoftLabelStore(folder)
    np.testing.assert_allclose(store.rows("a")[1], [-0.5, 0.125, 0.75])
    np.testing.assert_allclose(store.rows("b")[1], [0.0, 10.0])


@given(n_clips=st.integers(0, 12), at_once=st.integers(1, 5), data=st.data())
def test_it_does_not_matter_where_a_run_was_interrupted(tmp_path_factory, n_clips, at_once, data):
    folder = tmp_path_factory.mktemp("soft")
    clips = [f"clip {i}" for i in range(n_clips)]
    stop = data.draw(st.integers(0, n_clips))
    with SoftLabelWriter(folder, TEACHER, LABELS, clips_at_once=at_once) as writer:
        for clip in clips[:stop]:
            writer.add(clip, scores_of(clip), 0.0, 1.0)
    # Half of what the next flush would have written: rows without lines, or half a line.
    if data.draw(st.booleans()):
        with (folder / SCORES).open("ab") as file:
            file.write(b"\x3f" * data.draw(st.integers(1, 100)))
        with (folder / CLIPS).open("ab") as file:
            file.write(b'{"clip": "clip 0", "ro'[: data.draw(st.integers(0, 22))])
    assert SoftLabelStore(folder).clip_ids == set(clips[:stop])
    with SoftLabelWriter(folder, TEACHER, LABELS, clips_at_once=at_once) as writer:
        assert writer.clip_ids == set(clips[:stop])
        for clip in clips[stop:]:
            writer.add(clip, scores_of(clip), 0.0, 1.0)
    store = SoftLabelStore(folder)
    assert store.clip_ids == set(clips)
    for clip in clips:
        np.testing.assert_array_equal(store.rows(clip)[0], scores_of(clip))


KILLED = """
import sys, numpy as np
from pathlib import Path
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
with SoftLabelWriter(Path(sys.argv[1]), Teacher("t", "0" * 64), ("x",), clips_at_once=3) as writer:
    for i in range(len(writer.clip_ids), 10**6):
        writer.add(str(i), np.full((7, 1), (i % 97) / 97), 0.0, 1.0)
        print(i, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_had_finished(folder):
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        done = -1
        for line in process.stdout:
            done = int(line)
            if done % 50 == 49:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = SoftLabelStore(folder)
        # At most the clips of one flush, and the one that was being said, are not there.
        assert len(store.clip_ids) >= done - 3
        for i in range(len(store.clip_ids)):
            np.testing.assert_allclose(store.rows(str(i))[0], (i % 97) / 97, rtol=1e-6)


def test_clips_that_are_there_are_passed_over(folder):
    store = written(folder)
    assert missing_clips(store, ["c", "a", "d"]) == ("c", "d")


def test_an_exception_keeps_the_clips_before_it(folder):
    def label_two():
        with SoftLabelWriter(folder, TEACHER, LABELS) as writer:
            writer.add("a", scores_of("a"), 0.0, 1.0)
            raise RuntimeError("the teacher fell over")

    with pytest.raises(RuntimeError, match="teacher"):
        label_two()
    assert SoftLabelStore(folder).clip_ids == {"a"}


def test_a_full_disk_leaves_what_was_there(folder, tmp_path):
    written(folder)
    # The kernel refuses what would make a file larger than this.
    program = f"""
    import resource, signal, sys
    import numpy as np
    from pathlib import Path
    from soundpost.device.errors import InputError
    from soundpost.train.multimodal.soft_label_format import Teacher
    from soundpost.train.multimodal.soft_label_writer import SoftLabelWriter
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    teacher = Teacher("yin2021", {TEACHER.sha256!r})
    try:
        with SoftLabelWriter(Path(sys.argv[1]), teacher, {LABELS!r}) as writer:
            writer.add("big", np.zeros((1000, 3)), 0.0, 1.0)
    except InputError as error:
        print(error)
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(folder)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "File too large" in said
    assert SoftLabelStore(folder).clip_ids == {"a", "b"}
    with SoftLabelWriter(folder, TEACHER, LABELS) as writer:
        writer.add("c", scores_of("c"), 0.0, 1.0)
    np.testing.assert_array_equal(SoftLabelStore(folder).rows("c")[0], scores_of("c"))


def test_only_one_writes(folder):
    with SoftLabelWriter(folder, TEACHER, LABELS) as writer:
        writer.add("a", scores_of("a"), 0.0, 1.0)
        with pytest.raises(InputError, match="another process"):
            SoftLabelWriter(folder, TEACHER, LABELS)
    assert SoftLabelStore(folder).clip_ids == {"a"}


def test_a_reader_sees_whole_clips_while_somebody_writes(folder):
    with SoftLabelWriter(folder, TEACHER, LABELS, clips_at_once=2) as writer:
        for clip in ("a", "b", "c"):
            writer.add(clip, scores_of(clip), 0.0, 1.0)
        assert SoftLabelStore(folder).clip_ids == {"a", "b"}
        assert writer.clip_ids == {"a", "b", "c"}


def test_another_teacher_or_other_labels_are_not_appended(folder):
    written(folder)
    other = Teacher("yin2021", "f" * 64)
    for teacher, labels, word in ((other, LABELS, "teacher"), (TEACHER, LABELS[:2], "labels")):
        with pytest.raises(InputError, match=f"with {word}"):
            SoftLabelWriter(folder, teacher, labels)
    assert SoftLabelStore(folder).clip_ids == {"a", "b"}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 2)), r"shape \(2, 2\): expected rows of 3"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.full((1, 3), 1.5), "0 to 1"),
        (np.full((1, 3), -3.0), "sigmoid"),
        (np.full((1, 3), np.nan), "nan"),
    ],
)
def test_scores_that_are_no_probabilities_are_refused(folder, scores, message):
    with (
        SoftLabelWriter(folder, TEACHER, LABELS) as writer,
        pytest.raises(InputError, match=message),
    ):
        writer.add("a", scores, 0.0, 1.0)
    assert SoftLabelStore(folder).clip_ids == set()


@pytest.mark.parametrize(("start_s", "hop_s"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0)])
def test_times_that_are_no_grid_are_refused(folder, start_s, hop_s):
    with (
        SoftLabelWriter(folder, TEACHER, LABELS) as writer,
        pytest.raises(InputError, match="hop"),
    ):
        writer.add("a", scores_of("a"), start_s, hop_s)


def test_a_clip_is_labelled_once(folder):
    with SoftLabelWriter(folder, TEACHER, LABELS) as writer:
        writer.add("a", scores_of("a"), 0.0, 1.0)
        with pytest.raises(InputError, match="clip a: has soft labels already"):
            writer.add("a", scores_of("a"), 0.0, 1.0)
    assert SoftLabelStore(folder).clip_ids == {"a"}


@pytest.mark.parametrize("labels", [(), ("a", "a")])
def test_labels_must_be_there_and_differ(folder, labels):
    with pytest.raises(InputError, match="labels"):
        SoftLabelWriter(folder, TEACHER, labels)


@pytest.mark.parametrize("sha256", ["", "abc", "Z" * 64, "A" * 64])
def test_a_teacher_without_its_hash_is_refused(sha256):
    with pytest.raises(InputError, match="64 hexadecimal"):
        Teacher("t", sha256)


def test_an_unknown_clip_is_named(folder):
    with pytest.raises(InputError, match="no soft labels of clip z; label it with yin2021"):
        written(folder).rows("z")


def test_no_time_in_common_names_the_clip(folder):
    with pytest.raises(InputError, match=r"soft: clip a: soft labels cover 0\.000 to 2\.000 s"):
        written(folder).on_spans("a", np.array([[2.0, 3.0]]))


def damage(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (HEADER, b"{", "is no store of soft labels"),
        (HEADER, b'{"schema": "soundpost.soft_labels/9"}', "soft_labels/9"),
        (HEADER, b'{"schema": "soundpost.soft_labels/1", "labels": ["a"]}', "is no store"),
        (HEADER, b"[]", "is no store"),
        (CLIPS, b'{"clip": "a"}\n', "line 1 is damaged"),
        (CLIPS, b"\xff\n", "line 1 is damaged"),
        (SCORES, b"1234", "has 4 bytes, clips.jsonl promises 108"),
    ],
)
def test_a_damaged_store_says_which_file(folder, name, content, message):
    written(folder)
    damage(folder, name, content)
    with pytest.raises(InputError, match=message) as error:
        SoftLabelStore(folder)
    assert str(folder / name) in str(error.value)


def test_a_clip_that_stands_twice_is_damage(folder):
    written(folder)
    line = (folder / CLIPS).read_bytes().splitlines()[0]
    with (folder / CLIPS).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(InputError, match="line 3"):
        SoftLabelStore(folder)


def test_no_store_is_said_to_be_none(tmp_path):
    with pytest.raises(InputError, match="is no store of soft labels"):
        SoftLabelStore(tmp_path)


def test_the_students_labels_are_found_by_name(folder):
    store = written(folder).for_labels(("speech", "hound"), {"hound": "dog"})
    assert store.labels == ("speech", "hound")
    np.testing.assert_array_equal(store.rows("a")[0], scores_of("a")[:, [2, 0]])
    again = store.for_labels(("hound",))
    np.testing.assert_array_equal(again.rows("a")[0], scores_of("a")[:, [0]])


def test_labels_that_are_called_otherwise_are_named_with_the_nearest(folder):
    with pytest.raises(InputError, match=r"no label 'Speech' \(nearest: 'speech'\)"):
        written(folder).for_labels(("dog", "Speech"))


def test_an_ensemble_is_the_mean_whatever_the_order_of_labels_and_the_grids(tmp_path):
    first = written(tmp_path / "one")
    with SoftLabelWriter(tmp_path / "two", Teacher("two", "1" * 64), LABELS[::-1]) as writer:
        # 8 rows of a quarter second, each pair of equal rows standing for one of the first's.
        writer.add("a", np.repeat(scores_of("other"), 2, 0), 0.0, 0.25)
    both = SoftLabelEnsemble([first, SoftLabelStore(tmp_path / "two")])
    assert both.labels == LABELS
    assert both.clip_ids == {"a"}
    assert [t.name for t in both.teachers] == ["yin2021", "two"]
    spans = spans_between(np.arange(5) * 0.5)
    expected = (scores_of("a") + scores_of("other")[:, ::-1]) / 2
    np.testing.assert_allclose(both.on_spans("a", spans), expected, atol=1e-6)


def test_three_seeds_of_one_clip_by_hand(tmp_path):
    stores = []
    for seed, p in enumerate((0.2, 0.3, 0.7)):
        with SoftLabelWriter(tmp_path / str(seed), Teacher("t", f"{seed}" * 64), ("x",)) as writer:
            writer.add("a", np.array([[p]]), 0.0, 10.0)
        stores.append(SoftLabelStore(tmp_path / str(seed)))
    found = SoftLabelEnsemble(stores).on_spans("a", np.array([[3.0, 4.0], [9.0, 11.0]]))
    np.testing.assert_allclose(found, 0.4, atol=1e-7)


def test_an_ensemble_of_other_labels_is_refused(tmp_path):
    first = written(tmp_path / "one")
    other = written(tmp_path / "two", labels=("Dog", "rain", "speech"))
    with pytest.raises(InputError, match=r"two: lacks 'dog' \(nearest: 'Dog'\) and has"):
        SoftLabelEnsemble([first, other])
    with pytest.raises(InputError, match="no soft labels were given"):
        SoftLabelEnsemble([])


def test_an_empty_store_opens(folder):
    store = written(folder, clips=())
    assert store.clip_ids == frozenset()
    assert missing_clips(store, ["a"]) == ("a",)


def test_the_files_are_what_the_format_says(folder):
    written(folder)
    header = json.loads((folder / HEADER).read_text())
    assert header == {
        "schema": "soundpost.soft_labels/1",
        "teacher": {"name": "yin2021", "sha256": TEACHER.sha256},
        "labels": list(LABELS),
    }
    line = json.loads((folder / CLIPS).read_text().splitlines()[1])
    assert line == {"clip": "b", "rows": 5, "start_s": 0.0, "window_s": 0.5, "hop_s": 0.5}
    raw = np.frombuffer((folder / SCORES).read_bytes(), "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(raw[4:], scores_of("b", 5))
    assert {path.name for path in Path(folder).iterdir()} == {HEADER, CLIPS, SCORES}
