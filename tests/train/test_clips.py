import numpy as np
import pytest
import soundfile

from soundpost.device.errors import InputError
from soundpost.train.clips import load_waveforms, pack, read_clip_set


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(1600), 16_000)
    return tmp_path


def write(folder, text, name="clips.csv"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def test_reads_rows_groups_and_labels(folder):
    write(folder, "filename,label,fold,group,licence\na.wav,dog,1,g1,CC0\nb.wav,cat,2,,\n")
    clip_set = read_clip_set(folder)
    assert clip_set.labels == ("cat", "dog")
    assert clip_set.folds() == (1, 2)
    # A clip without a group is a group of its own.
    assert [clip.group for clip in clip_set.clips] == ["g1", "b.wav"]
    assert clip_set.clips[0].licence == "CC0"


def test_reads_esc50_as_published(folder):
    (folder / "audio").mkdir()
    (folder / "a.wav").rename(folder / "audio" / "1-100-A-0.wav")
    write(
        folder,
        "filename,fold,target,category,esc10,src_file,take\n1-100-A-0.wav,1,0,dog,True,100032,A\n",
        "meta/esc50.csv",
    )
    (clip,) = read_clip_set(folder).clips
    assert (clip.label, clip.fold, clip.group) == ("dog", 1, "100032")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,label\na.wav,dog\n", r"clips.csv: line 1: column fold is missing"),
        ("filename,label,fold\na.wav,,1\n", r"clips.csv: line 2: a.wav has no label"),
        ("filename,label,fold\na.wav,dog,1\na.wav,dog,1\n", r"line 3: a.wav is listed before"),
        ("filename,label,fold\nc.wav,dog,1\n", r"line 2: .*c.wav does not exist"),
        ("filename,label,fold\na.wav,dog,first\n", r"line 2: fold is 'first'"),
        ("filename,label,fold\n,dog,1\n", r"line 2: filename is empty"),
        ("filename,label,fold\n", r"lists no clips"),
    ],
)
def test_names_the_row_that_is_wrong(folder, text, message):
    write(folder, text)
    with pytest.raises(InputError, match=message):
        read_clip_set(folder)


def test_a_table_in_review_leaves_out_what_has_no_label(folder):
    rows = "a.wav,,1,dog,\nb.wav,cat,2,dog,\n"
    write(folder, f"filename,label,fold,suggested,review\n{rows}")
    (clip,) = read_clip_set(folder).clips
    assert (clip.path.name, clip.label) == ("b.wav", "cat")
    rejected = rows.replace("cat,2,dog,", "cat,2,dog,rejected")
    write(folder, f"filename,label,fold,suggested,review\n{rejected}")
    with pytest.raises(InputError, match=r"none of its 2 clips has a label yet"):
        read_clip_set(folder)
    # Without a suggestion nobody is at work on it: an empty label is a mistake.
    write(folder, "filename,label,fold,review\na.wav,,1,\n")
    with pytest.raises(InputError, match=r"line 2: a\.wav has no label"):
        read_clip_set(folder)


def test_no_list(tmp_path):
    with pytest.raises(InputError, match=r"neither clips.csv nor meta/esc50.csv"):
        read_clip_set(tmp_path)
    with pytest.raises(InputError, match=r"no such folder"):
        read_clip_set(tmp_path / "absent")


def test_not_utf8(folder):
    (folder / "clips.csv").write_bytes("filename,label,fold\na.wav,Vögel,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"UTF-8"):
        read_clip_set(folder)


def test_waveforms_keep_the_samples(folder):
    rng = np.random.default_rng(0)
    sounds = [rng.uniform(-1, 1, n).astype(np.float32) for n in (1, 5_000, 300)]
    packed = pack(sounds)
    for index, sound in enumerate(sounds):
        np.testing.assert_allclose(packed.clip(index), sound, atol=2 / 32_768)


def test_broken_audio_is_named(folder):
    (folder / "b.wav").write_bytes(b"RIFF is not enough")
    write(folder, "filename,label,fold\na.wav,dog,1\nb.wav,cat,1\n")
    with pytest.raises(InputError, match=r"b\.wav"):
        load_waveforms(read_clip_set(folder).clips, 16_000, quiet=True)
