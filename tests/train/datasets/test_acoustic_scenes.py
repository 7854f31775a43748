"""TUT Urban Acoustic Scenes: the published split, places on one side of it."""

import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_scenes import SCENES, read_scenes


@pytest.fixture
def folder(layouts, tmp_path):
    return layouts.write_scenes(tmp_path)


def lines(folder):
    return [problem.line() for problem in read_scenes(folder).problems]


def test_recordings_with_their_place_and_split(folder, layouts):
    listing = read_scenes(folder)
    assert listing.problems == ()
    media = listing.media
    assert media.labels == SCENES
    assert len(SCENES) == len(set(SCENES)) == 10
    assert [(c.id, c.labels, c.group, c.split) for c in media.clips] == [
        (name, (scene,), place, split or "unused")
        for name, scene, place, split in layouts.SCENE_FILES
    ]
    assert [clip.location for clip in media.clips[1:4]] == ["barcelona", "helsinki", "london"]
    assert all(clip.audio == folder / clip.id and clip.video is None for clip in media.clips)
    assert media.seconds() == {"train": 30.0, "test": 10.0, "unused": 10.0}


def test_lists_of_the_successor_have_a_first_line(folder):
    setup = folder / "evaluation_setup"
    for path in list(setup.iterdir()):
        names = "filename\n" if path.stem == "fold1_test" else "filename\tscene_label\n"
        path.with_suffix(".csv").write_text(names + path.read_text())
        path.unlink()
    listing = read_scenes(folder)
    assert listing.problems == ()
    assert [clip.split for clip in listing.media.clips] == [
        *("train", "train", "train", "test", "unused")
    ]


def test_a_list_to_test_alone_is_enough(folder):
    (folder / "evaluation_setup" / "fold1_evaluate.txt").unlink()
    assert lines(folder) == []


def test_a_file_that_is_not_there_is_none(folder):
    (folder / "audio" / "park-london-93-2796-a.wav").unlink()
    assert [clip.audio is None for clip in read_scenes(folder).media.clips] == [
        *(False, False, False, True, False)
    ]


def test_a_place_on_both_sides(folder):
    setup = folder / "evaluation_setup"
    moved = "audio/airport-barcelona-0-1-a.wav"
    train = (setup / "fold1_train.txt").read_text()
    (setup / "fold1_train.txt").write_text(train.replace(f"{moved}\tairport\n", ""))
    for name, row in (("evaluate", f"{moved}\tairport\n"), ("test", f"{moved}\n")):
        path = setup / f"fold1_{name}.txt"
        path.write_text(path.read_text() + row)
    assert lines(folder) == [
        f"{folder}/meta.csv: line 3: {moved} is of place barcelona-0 and for test, "
        "audio/airport-barcelona-0-0-a.wav for train; expected all recordings of a place on one "
        "side of the split: take the lists as published"
    ]


def test_all_that_is_wrong_is_listed(folder):
    setup = folder / "evaluation_setup"
    meta = folder / "meta.csv"
    meta.write_text(
        meta.read_text()
        .replace("helsinki-60-1785-a.wav\tmetro_station", "helsinki-60-1785-a.wav\tmetro station")
        .replace("london-93\ta", "london-94\ta")
        + "audio/tram-milan-1136-42000-a.wav\ttram\tmilan-1136\ta\n"
    )
    with (setup / "fold1_train.txt").open("a") as file:
        file.write("audio/bus-paris-1-1-a.wav\tbus\n")
    evaluate = setup / "fold1_evaluate.txt"
    evaluate.write_text("audio/park-london-93-2796-a.wav\ttram\naudio/airport-barcelona-0-0-a.wav")
    assert lines(folder) == [
        f"{evaluate}: line 2: audio/airport-barcelona-0-0-a.wav and 0 more are in this list of the "
        "fold alone; expected the same files to test and to evaluate: download evaluation_setup "
        "again",
        f"{evaluate}: line 2: audio/airport-barcelona-0-0-a.wav is listed in "
        f"{setup}/fold1_train.txt: line 1 too; expected no file on both sides of the split: delete "
        "one row",
        f"{meta}: line 4: audio/metro_station-helsinki-60-1785-a.wav with scene metro station and "
        "place helsinki-60; expected those of its name: take the row as published",
        f"{setup}/fold1_train.txt: line 3: audio/metro_station-helsinki-60-1785-a.wav is "
        f"metro_station; expected metro station, as in {meta}: line 4: download both tables again",
        f"{meta}: line 5: audio/park-london-93-2796-a.wav with scene park and place london-94; "
        "expected those of its name: take the row as published",
        f"{evaluate}: line 1: audio/park-london-93-2796-a.wav is tram; expected park, as in {meta}:"
        " line 5: download both tables again",
        f"{meta}: line 4: label 'metro station' is not one of the set's 10; expected "
        "'metro_station': correct the name",
        f"{setup}/fold1_train.txt: line 4: audio/bus-paris-1-1-a.wav is not in meta.csv; expected "
        "a file of the set: download both again",
        f"{meta}: line 7: audio/tram-milan-1136-42000-a.wav is listed before, in {meta}: line 6; "
        "expected every clip once: delete one row",
    ]


def test_a_folder_that_is_another(tmp_path, folder):
    with pytest.raises(InputError, match=r"away: has no meta\.csv; expected the development set"):
        read_scenes(tmp_path / "away")
    with pytest.raises(InputError, match=r"evaluation_setup: has no fold2_train\.txt"):
        read_scenes(folder, fold=2)
