"""`soundpost dataset`: what it prints and how it ends."""

import argparse
import json

import pytest

from soundpost.device.errors import InputError, UsageError
from soundpost.train.datasets.command import COMMAND, KIND_NAMES
from soundpost.train.datasets.kinds import KINDS


def run(*arguments):
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return COMMAND.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def dcase17(layouts, tmp_path):
    return layouts.write_dcase2017(tmp_path / "dcase17")


def test_every_kind_has_a_name_and_a_line_of_help():
    assert tuple(KINDS) == KIND_NAMES
    for name in KIND_NAMES:
        assert f"\n  {name:<10} " in COMMAND.description


@pytest.mark.parametrize(
    ("kind", "n_clips"), [("dcase2017", 3), ("esc50", 2), ("scenes", 5), ("actions", 2)]
)
def test_a_set_in_order(layouts, tmp_path, capsys, kind, n_clips):
    folder = getattr(layouts, f"write_{kind}")(tmp_path / kind)
    for more in ((), ("--thorough",)):
        assert run("check", kind, folder, *more) == 0
        assert capsys.readouterr().out == f"{folder}: in order, {n_clips} clips\n"


def test_all_problems_are_listed_and_it_ends_with_3(dcase17, capsys):
    (dcase17 / "video" / "-JMT0mK0Dbg_30000_32000.mp4").unlink()
    (dcase17 / "video" / "-5QrBL6MzLg_60000_62000.mp4").write_text("not found")
    with (dcase17 / "training_set.csv").open("a") as file:
        file.write("06RreMb5qbE,9,1,Car\n")
    assert run("check", "dcase2017", dcase17) == 3
    out = capsys.readouterr().out.splitlines()
    truth = f"{dcase17}/groundtruth_weak_label_evaluation_set.csv: line 1: -JMT0mK0Dbg_30.000_32"
    assert [line.partition(";")[0] for line in out] == [
        f"{dcase17}/training_set.csv: line 3: from '9' to '1'",
        f"{dcase17}/video/-5QrBL6MzLg_60000_62000.mp4: is not a container that can be read "
        "(invalid data found when processing input)",
        f"{truth}.000 has no sound",
        f"{truth}.000 has no video",
        "problems: 4, clips: 3",
    ]


def test_problems_for_a_program(dcase17, capsys):
    (dcase17 / "video" / "-JMT0mK0Dbg_30000_32000.mp4").unlink()
    assert run("check", "dcase2017", dcase17, "--need", "video", "--json") == 3
    table = json.loads(capsys.readouterr().out)
    assert (table["schema"], table["clips"]) == ("soundpost.dataset/1", 3)
    (problem,) = table["problems"]
    assert problem["found"] == "-JMT0mK0Dbg_30.000_32.000 has no video"
    assert set(problem) == {"where", "found", "expected", "remedy"}


def test_what_is_not_needed_may_be_missing(layouts, tmp_path, capsys):
    folder = layouts.write_dcase2018(tmp_path)
    assert run("check", "dcase2018", folder, "--need", "audio") == 0
    assert run("check", "dcase2018", folder, "--need", "both") == 3
    assert "problems: 5, clips: 6" in capsys.readouterr().out


def test_files_of_other_folders(dcase17, tmp_path, capsys):
    (dcase17 / "video").rename(tmp_path / "films")
    assert run("check", "dcase2017", dcase17, "--need", "video") == 3
    videos = ("--video", tmp_path / "films")
    assert run("check", "dcase2017", dcase17, "--need", "both", *videos) == 0


def test_classes_that_two_sets_name_differently(layouts, tmp_path, capsys):
    audioset = layouts.write_audioset(tmp_path / "audioset")
    (audioset / "class_labels_indices.csv").write_text(
        "index,mid,display_name\n0,/m/09x0r,speech\n1,/m/0bt9lr,Dog\n2,/m/05x_td,Horn\n"
    )
    dcase18 = layouts.write_dcase2018(tmp_path / "dcase18")
    end = run("check", "dcase2018", dcase18, "--need", "audio", "--against", "audioset", audioset)
    assert end == 3
    assert capsys.readouterr().out.splitlines() == [
        f"{dcase18}: label 'Speech'; expected 'speech', as in {audioset}: rename it in one of the "
        "two (MediaSet.renamed)",
        "problems: 1, clips: 6",
    ]


def test_counts_by_split_and_label(dcase17, capsys):
    assert run("show", "dcase2017", dcase17) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["split", "clips", "hours", "sound", "video"]
    assert out[1].split() == ["training", "2", "0.00", "2", "2"]
    assert out[2].split() == ["evaluation", "1", "0.00", "1", "1"]
    assert out[4].split() == ["label", "training", "evaluation"]
    rows = {line.rsplit(maxsplit=2)[0]: line.rsplit(maxsplit=2)[1:] for line in out[5:]}
    assert len(rows) == 17
    assert rows["Air horn, truck horn"] == ["0", "1"]
    assert rows["Train"] == ["1", "0"]


def test_counts_for_a_program(layouts, tmp_path, capsys):
    folder = layouts.write_actions(tmp_path / "set")
    (folder / "Location_02/Subject_01/Action_03/video/I_000002.jpeg").unlink()
    assert run("show", "actions", folder, "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert table["problems"] == 1
    assert table["splits"]["anechoic"] == {
        "clips": 1,
        "seconds": 0.25,
        "audio": 1,
        "video": 1,
        "labels": {"clap": 1, "speak": 0},
    }
    assert table["splits"]["office"]["seconds"] == pytest.approx(1 / 12, abs=1e-3)
    assert run("show", "actions", folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"problems in the tables: 1; to list them: soundpost dataset check actions {folder}"
    )


def test_folds_ascend_and_unknown_lengths_are_called_so(layouts, tmp_path, capsys):
    for i in range(3):
        layouts.write_sound(tmp_path / f"{i}.wav")
    layouts.write_table(
        tmp_path / "clips.csv", "filename,label,fold\n0.wav,a,10\n1.wav,b,2\n2.wav,a,1\n"
    )
    assert run("show", "esc50", tmp_path) == 0
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert out[1:4] == [[fold, "1", "unknown", "1", "0"] for fold in ("1", "2", "10")]


def test_options_that_do_not_belong_to_the_layout(layouts, tmp_path):
    folder = layouts.write_esc50(tmp_path)
    with pytest.raises(UsageError, match=r"esc50: the files of this layout lie in its folder; --a"):
        run("check", "esc50", folder, "--audio", folder)
    with pytest.raises(UsageError, match=r"--against esc: expected one of audioset, dcase2017"):
        run("check", "esc50", folder, "--against", "esc", folder)
    with pytest.raises(InputError, match=r"away: no such folder"):
        run("show", "audioset", tmp_path / "away")


def test_a_kind_that_is_none(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("show", "esc", tmp_path)
    assert "invalid choice: 'esc'" in capsys.readouterr().err
