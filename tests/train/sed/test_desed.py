"""Reader of DESED's layout: what it reads, and the row that it names."""

import logging

import numpy as np
import pytest
import soundfile

from soundpost.device.errors import InputError
from soundpost.train.sed.desed import Reading, read_desed, read_table
from soundpost.train.sed.scenes import Event

RATE = 16_000
STRONG = "filename\tonset\toffset\tevent_label\n"


def make(folder, names, seconds=10.0, rate=RATE):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        soundfile.write(folder / name, np.zeros(round(seconds * rate), np.int16), rate)


@pytest.fixture
def desed(tmp_path):
    """One of everything, as published in 2019: .wav files and tables that end in .csv."""
    for name, table, files in (
        ("train/synthetic", STRONG + "s.wav\t1.5\t2.25\tDog\ns.wav\t0.5\t3\tCat\n", ["s.wav"]),
        ("train/weak", "filename\tevent_labels\nw.wav\tDog,Speech\nv.wav\t\n", ["w.wav", "v.wav"]),
        ("train/unlabel_in_domain", "filename\nu.wav\n", ["u.wav"]),
    ):
        make(tmp_path / "audio" / name, files)
        path = tmp_path / "metadata" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table)
    make(tmp_path / "audio/validation", ["a.wav", "b.wav"])
    (tmp_path / "metadata/validation").mkdir()
    (tmp_path / "metadata/validation/validation.tsv").write_text(
        STRONG + "a.wav\t0\t10.000\tDog\nb.wav\t\t\t\n"
    )
    return tmp_path


def test_reads_all_kinds(desed):
    sets = read_desed(desed, quiet=True)
    strong, weak, nothing, unlabelled = sets.train.scenes
    assert sets.train.labels == sets.validation.labels == ("Cat", "Dog", "Speech")
    assert strong.events == (Event("Cat", 0.5, 3.0), Event("Dog", 1.5, 2.25))
    assert (strong.labelling, strong.tags, strong.seconds) == ("strong", {"Cat", "Dog"}, 10.0)
    assert (weak.labelling, weak.tags, weak.events) == ("weak", {"Dog", "Speech"}, ())
    assert (nothing.labelling, nothing.tags) == ("weak", frozenset())
    assert (unlabelled.labelling, unlabelled.tags) == ("unlabelled", frozenset())
    assert [scene.events for scene in sets.validation.scenes] == [(Event("Dog", 0, 10),), ()]
    assert sets.test is None


def test_reads_the_evaluation_set(desed):
    make(desed / "audio/eval/public", ["e.wav"])
    (desed / "metadata/eval").mkdir()
    (desed / "metadata/eval/public.tsv").write_text(STRONG + "e.wav\t1\t2\tCat\n")
    (scene,) = read_desed(desed, quiet=True).test.scenes
    assert scene.path == desed / "audio/eval/public/e.wav"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("s.wav\t2.5\t1.5\tDog\n", r"line 2: Dog from 2.5 to 1.5 s: expected an onset"),
        ("s.wav\t2.5\t2.5\tDog\n", r"line 2: Dog from 2.5 to 2.5 s"),
        ("s.wav\t-1\t2.5\tDog\n", r"line 2: Dog from -1 to 2.5 s"),
        ("s.wav\t1\t2\tDog\ns.wav\t9\t10.5\tCat\n", r"line 3: Cat ends at 10.5 s; s.wav is 10"),
        (
            "s.wav\t1\t3\tDog\ns.wav\t2\t4\tDog\n",
            r"line 3: Dog from 2 to 4 s overlaps the one from 1 to 3 s in line 2; .*merge",
        ),
        # The later row of the table may be the earlier event: both lines are named.
        ("s.wav\t2\t4\tDog\ns.wav\t1\t3\tDog\n", r"line 2: Dog .* overlaps .* in line 3"),
        ("s.wav\tsoon\t4\tDog\n", r"line 2: onset is 'soon'; expected seconds"),
        ("s.wav\t1\tinf\tDog\n", r"line 2: offset is 'inf'"),
        ("s.wav\t1\t\tDog\n", r"line 2: offset is ''"),
        ("s.wav\t1\t2\t\n", r"line 2: s.wav has an empty label"),
        ("s.wav\t1\t2\tDgo\n", r"line 2: label 'Dgo' is outside the vocabulary; did you mean Dog"),
        ("t.wav\t1\t2\tDog\n", r"line 2: .*t.wav does not exist"),
        ("\t1\t2\tDog\n", r"line 2: filename is empty"),
        ("s.wav\t1\t2\tDog\tmore\n", r"line 2: has more cells than line 1"),
        ("", r"synthetic.csv: lists no recordings"),
    ],
)
def test_names_the_row_that_is_wrong(desed, rows, message):
    (desed / "metadata/train/synthetic.csv").write_text(STRONG + rows)
    with pytest.raises(InputError, match=message):
        read_desed(desed, labels=("Cat", "Dog", "Speech"), quiet=True)


def test_labels_of_validation_are_those_of_training(desed):
    (desed / "metadata/validation/validation.tsv").write_text(STRONG + "a.wav\t1\t2\tBlender\n")
    with pytest.raises(InputError, match=r"validation.tsv: line 2: label 'Blender' is outside"):
        read_desed(desed, quiet=True)


def test_a_vocabulary_is_kept_to(desed):
    labels = ["Speech", "Dog", "Cat"]
    assert read_desed(desed, labels=labels, quiet=True).train.labels == ("Cat", "Dog", "Speech")
    with pytest.raises(InputError, match=r"train: no recording has the label 'Owl' of reading"):
        read_desed(desed, labels=["Owl", *labels], quiet=True)
    weak = desed / "metadata/train/weak.csv"
    weak.write_text(weak.read_text().replace("Dog", "Dgo"))
    with pytest.raises(InputError, match=r"weak.csv: line 2: label 'Dgo' is .* mean Dog"):
        read_desed(desed, labels=labels, quiet=True)


def test_a_label_that_looks_like_a_typing_error_is_pointed_out(desed, caplog):
    """One alone, and much like one of several: no other is rare enough to speak of."""
    make(desed / "audio/train/weak", ["x.wav", "y.wav"])
    weak = desed / "metadata/train/weak.csv"
    weak.write_text(weak.read_text() + "x.wav\tSpeech\ny.wav\tSpech,Cat\n")
    with caplog.at_level(logging.WARNING):
        assert "Spech" in read_desed(desed, quiet=True).train.labels
    (line,) = caplog.messages
    assert "label 'Spech' stands in one recording alone; if 'Speech' (in 2)" in line


@pytest.mark.parametrize(
    ("seconds", "rate", "message"),
    [
        (7.3, RATE, r"line 2: .*s.wav is 7.30 s long; expected 10 s"),
        (12.0, RATE, r"is 12.00 s long"),
        (10.0, 8_000, r"line 2: .*s.wav has 8000 Hz; expected at least 16000 Hz"),
        (0.0, RATE, r"holds no sound"),
    ],
)
def test_clips_of_another_rate_or_length(desed, seconds, rate, message):
    make(desed / "audio/train/synthetic", ["s.wav"], seconds, rate)
    with pytest.raises(InputError, match=message):
        read_desed(desed, quiet=True)


def test_lengths_that_are_made_to_fit(desed):
    table = desed / "metadata/train/synthetic.csv"
    table.write_text(STRONG + "s.wav\t8\t11.5\tDog\ns.wav\t10.5\t11\tCat\n")
    audio = desed / "audio/train/synthetic"
    make(audio, ["s.wav"], 12.0)
    (scene,) = read_table(table, audio, "strong", Reading(lengths="fit"), quiet=True)
    # What lies after the tenth second is not heard.
    assert (scene.seconds, scene.events) == (10.0, (Event("Dog", 8.0, 10.0),))


def test_overlaps_are_merged_on_demand_and_said(desed, caplog):
    table = desed / "metadata/train/synthetic.csv"
    table.write_text(STRONG + "s.wav\t1\t3\tDog\ns.wav\t2\t4\tDog\ns.wav\t2\t3\tCat\n")
    with caplog.at_level(logging.WARNING):
        (scene,) = read_table(
            table,
            desed / "audio/train/synthetic",
            "strong",
            Reading(overlaps="merge"),
            quiet=True,
        )
    assert scene.events == (Event("Dog", 1, 4), Event("Cat", 2, 3))
    assert "line 3: Dog overlaps line 2: merged" in caplog.text


def test_files_that_are_gone_are_skipped_on_demand(desed, caplog):
    (desed / "audio/train/weak/w.wav").unlink()
    with pytest.raises(InputError, match=r"weak.csv: line 2: .*w.wav does not exist"):
        read_desed(desed, quiet=True)
    with caplog.at_level(logging.WARNING):
        sets = read_desed(desed, Reading(missing="skip"), quiet=True)
    assert [s.path.name for s in sets.train.scenes] == ["s.wav", "v.wav", "u.wav"]
    assert "1 of 2 files are missing, the first is w.wav" in caplog.text


def test_a_recording_listed_twice(desed):
    (desed / "metadata/train/weak.csv").write_text(
        "filename\tevent_labels\nw.wav\tDog\nw.wav\tCat\n"
    )
    with pytest.raises(InputError, match=r"line 3: w.wav is listed before, in line 2"):
        read_desed(desed, quiet=True)


def test_tables_may_overlap_where_they_say_the_same(desed):
    """DCASE 2019 has validation.csv beside the two tables of 2018 that it is made of."""
    parts = {
        "validation.csv": ["a.wav", "b.wav", "c.wav"],
        "test_dcase2018.csv": ["a.wav"],
        "eval_dcase2018.csv": ["b.wav", "c.wav"],
    }
    make(desed / "audio/validation", ["c.wav"])
    events = {"a.wav": "0.2\t10\tDog", "b.wav": "\t\t", "c.wav": "1\t2\tCat"}
    (desed / "metadata/validation/validation.tsv").unlink()
    for name, files in parts.items():
        rows = "".join(f"{file}\t{events[file]}\n" for file in files)
        (desed / "metadata/validation" / name).write_text(STRONG + rows)
    scenes = read_desed(desed, quiet=True).validation.scenes
    assert sorted(scene.path.name for scene in scenes) == ["a.wav", "b.wav", "c.wav"]
    (desed / "metadata/validation/test_dcase2018.csv").write_text(STRONG + "a.wav\t0.3\t10\tDog\n")
    with pytest.raises(InputError, match=r"a.wav stands in two tables that differ"):
        read_desed(desed, quiet=True)


def test_sets_that_are_missing(desed, tmp_path):
    (desed / "metadata/validation/validation.tsv").write_text(STRONG)
    with pytest.raises(InputError, match=r"validation.tsv: lists no recordings"):
        read_desed(desed, quiet=True)
    (desed / "metadata/validation/validation.tsv").unlink()
    with pytest.raises(InputError, match=r"validation: has no table"):
        read_desed(desed, quiet=True)
    (desed / "metadata/train/synthetic.csv").unlink()
    with pytest.raises(InputError, match=r"has no synthetic.tsv"):
        read_desed(desed, quiet=True)
    with pytest.raises(InputError, match=r"has no folder metadata"):
        read_desed(tmp_path / "absent", quiet=True)


def test_tables_that_are_no_tables(desed):
    table = desed / "metadata/train/weak.csv"
    table.write_text("filename,event_labels\nw.wav,Dog\n")
    with pytest.raises(InputError, match=r"line 1: column filename is missing; .*parted by tabs"):
        read_desed(desed, quiet=True)
    table.write_bytes("filename\tevent_labels\nw.wav\tVögel\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"UTF-8"):
        read_desed(desed, quiet=True)
    (desed / "audio/train/weak/w.wav").write_bytes(b"RIFF")
    table.write_text("filename\tevent_labels\nw.wav\tDog\n")
    with pytest.raises(InputError, match=r"line 2: .*w.wav cannot be read as sound"):
        read_desed(desed, quiet=True)
