"""AudioSet's tables as published, with whatever files there are."""

import pytest

from soundpost.device.errors import InputError
from soundpost.train.datasets.audioset import read_audioset
from soundpost.train.datasets.segments import Folders


@pytest.fixture
def folder(layouts, tmp_path):
    return layouts.write_audioset(tmp_path)


def lines(listing):
    return [problem.line() for problem in listing.problems]


def test_segments_with_their_files(folder):
    listing = read_audioset(Folders(folder))
    assert listing.problems == ()
    media = listing.media
    assert media.labels == ("Speech", "Dog", "Air horn, truck horn")
    assert media.splits() == ("balanced_train", "eval")
    seen, heard, absent, both = media.clips
    assert (seen.id, seen.labels) == (
        "-0RWZT-miFs_4.000_6.000",
        ("Speech", "Air horn, truck horn"),
    )
    # A video has its sound with it.
    assert seen.audio == seen.video == folder / "video" / "-0RWZT-miFs_4000_6000.mp4"
    assert (heard.audio.name, heard.video) == ("Y--aE2O5G5WE.wav", None)
    assert (absent.audio, absent.video, absent.group) == (None, None, "Y10I9JSvJuQ")
    assert (both.audio.suffix, both.video.suffix) == (".wav", ".mp4")
    assert both.labels == ("Dog", "Speech")
    for clip in media.clips:
        assert (clip.start_s, clip.end_s, clip.seconds) == (None, None, 2.0)
    assert seen.source == f"{folder}/balanced_train_segments.csv: line 4"


def test_whole_videos_have_the_clip_at_its_times(folder, layouts):
    layouts.write_video(folder / "whole" / "Y10I9JSvJuQ.mp4", 33.0, sound=False)
    by_id = {
        clip.group: clip
        for clip in read_audioset(
            Folders(folder, video=folder / "whole", audio=folder / "audio", whole_videos=True)
        ).media.clips
    }
    whole = by_id["Y10I9JSvJuQ"]
    assert (whole.video.name, whole.start_s, whole.end_s) == ("Y10I9JSvJuQ.mp4", 30.0, 32.0)
    cut = by_id["--ZhevVpy1s"]
    assert (cut.audio.name, cut.start_s) == ("Y--ZhevVpy1s_5.500_7.500.wav", None)


def test_a_cut_file_and_a_whole_one_have_no_common_part(folder, layouts):
    layouts.write_sound(folder / "audio" / "-0RWZT-miFs.wav", 7.0)
    clip = read_audioset(Folders(folder, whole_videos=True)).media.clips[0]
    assert (clip.audio, clip.start_s) == (None, None)
    assert clip.video.name == "-0RWZT-miFs_4000_6000.mp4"


def test_tables_may_lie_in_metadata(folder):
    (folder / "metadata").mkdir()
    for path in folder.glob("*.csv"):
        path.rename(folder / "metadata" / path.name)
    listing = read_audioset(Folders(folder))
    assert len(listing.media.clips) == 4
    assert listing.problems == ()


def test_without_the_classes_labels_stay_ids(folder):
    (folder / "class_labels_indices.csv").unlink()
    listing = read_audioset(Folders(folder))
    assert listing.media.labels == ("/m/05x_td", "/m/09x0r", "/m/0bt9lr")
    assert listing.media.clips[0].labels == ("/m/09x0r", "/m/05x_td")
    assert lines(listing) == [
        f"{folder}/class_labels_indices.csv: no such file, so that labels stay ids; expected the "
        "table index,mid,display_name: download it from where the segments are"
    ]


def test_all_that_is_wrong_with_a_table_is_listed(folder):
    table = folder / "eval_segments.csv"
    table.write_text(
        '--ZhevVpy1s, 5.500, 7.500, "Dog,/m/09x0r,/m/zzz"\n'
        "--PJHxphWEs, 30.000\n"
        '--aO5cdqSAg, 40.000, 30.000, "/m/09x0r"\n'
        "--aaILOrkII, 0.000, 10.000, /m/09x0r, /m/0bt9lr\n"
        '--aaILOrkII, 0.000, 10.000, "/m/09x0r"\n'
        '--aE2O5G5WE, 0.000, 2.000, "/m/0bt9lr"\n'
    )
    listing = read_audioset(Folders(folder))
    assert lines(listing) == [
        f"{table}: line 2: has 2 cells; expected YTID, start_seconds, end_seconds, "
        "positive_labels: correct the row",
        f"{table}: line 3: from '40.000' to '30.000'; expected two times in seconds, the end after "
        "the start: correct the times",
        f"{table}: line 1: label 'Dog' is not one of the set's 3; expected '/m/0bt9lr': correct "
        "the name",
        f"{table}: line 1: label '/m/zzz' is not one of the set's 3; expected one of its labels: "
        "correct the name or take the row out",
        f"{table}: line 5: --aaILOrkII_0.000_10.000 is listed before, in {table}: line 4; expected "
        "every clip once: delete one row",
        f"{table}: line 6: --aE2O5G5WE_0.000_2.000 is listed before, in "
        f"{folder}/balanced_train_segments.csv: line 5, for balanced_train; expected no clip on "
        "both sides of a split: delete one row",
    ]
    of_eval = listing.media.of("eval").clips
    assert of_eval[0].labels == ("Speech",)
    assert of_eval[1].labels == ("Speech", "Dog")


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(InputError, match=r"has none of balanced_train_segments\.csv, .*download"):
        read_audioset(Folders(tmp_path))
    with pytest.raises(InputError, match=r"away: no such folder; give the one"):
        read_audioset(Folders(tmp_path / "away"))
    with pytest.raises(InputError, match=r"sound: no such folder; give the one"):
        read_audioset(Folders(tmp_path, audio=tmp_path / "sound"))
