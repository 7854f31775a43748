"""Files of images: whole at any instant, gone on with, and refused for other settings."""

import json
import resource
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.array.image_file import ImageWriter, read_images
from soundpost.device.errors import InputError, UsageError

SHAPES = {"energy": (3, 4), "mfcc": (3, 4, 2)}
SETTINGS = {"array_sha256": "ab", "image_grid": {"rows": 3}, "rate": 12288.0}


def images(first, n, shape):
    """What belongs at these places, which tells one from another."""
    numbers = np.arange(first, first + n, dtype="f4").reshape(-1, *[1] * len(shape))
    return numbers * 1000 + np.arange(np.prod(shape), dtype="f4").reshape(shape)


def open_writer(path, n_images=11, chunk=4, settings=SETTINGS):
    return ImageWriter(path, SHAPES, settings, np.arange(n_images) * 4.5, chunk)


def put(writer, number, chunk=4):
    n = min(chunk, writer.n_images - number * chunk)
    made = {kind: images(number * chunk, n, shape) for kind, shape in SHAPES.items()}
    writer.write(number, made, np.arange(number * chunk, number * chunk + n) % 3 > 0)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(3)), opened=st.sets(st.integers(0, 2)))
def test_chunks_in_any_order_by_any_number_of_runs_are_the_same_file(
    tmp_path_factory, order, opened
):
    path = tmp_path_factory.mktemp("file") / "a.h5"
    writer = open_writer(path)
    for number in order:
        if number in opened:
            writer = open_writer(path)
        assert not writer.done[number]
        put(writer, number)
    assert not path.exists()
    writer.finish()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.h5"]
    found = read_images(path)
    assert found.settings == SETTINGS
    for kind, shape in SHAPES.items():
        assert np.array_equal(found.images[kind], images(0, 11, shape))
    assert found.valid.tolist() == [index % 3 > 0 for index in range(11)]
    assert found.samples.tolist() == [4.5 * index for index in range(11)]
    again = open_writer(path)
    assert again.finished
    assert again.done.all()


def test_any_hdf5_tool_reads_it(tmp_path):
    writer = open_writer(tmp_path / "a.h5")
    for number in range(3):
        put(writer, number)
    writer.finish()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["schema"] == "soundpost.images/1"
        assert json.loads(file.attrs["settings"]) == SETTINGS
        assert sorted(file) == ["done", "energy", "mfcc", "sample", "valid"]
        assert file["mfcc"].shape == (11, 3, 4, 2)
        assert file["mfcc"].dtype == np.float32


def test_before_its_end_the_file_is_whole_too_and_cannot_be_finished(tmp_path):
    writer = open_writer(tmp_path / "a.h5")
    put(writer, 1)
    with h5py.File(tmp_path / ".a.h5.part") as file:
        assert np.array_equal(file["energy"][4:8], images(4, 4, (3, 4)))
        assert file["done"][()].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="2 chunks are missing"):
        writer.finish()


KILLED = """
import sys
import numpy as np
from pathlib import Path
from soundpost.device.array.image_file import ImageWriter
writer = ImageWriter(Path(sys.argv[1]), {"energy": (300, 400)}, {}, np.arange(400.0), 2)
print("begun", flush=True)
for number in np.flatnonzero(~writer.done):
    made = np.full((2, 300, 400), number, np.float32)
    writer.write(int(number), {"energy": made}, np.ones(2, bool))
writer.finish()
"""


def test_a_run_that_is_killed_at_any_instant_goes_on(tmp_path):
    path = tmp_path / "a.h5"
    rng = np.random.default_rng(0)
    n_killed = 0
    while not path.exists() and n_killed < 3:
        process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        n_killed += 1
        # What counts as done is there, whole.
        if not path.exists() and (tmp_path / ".a.h5.part").exists():
            with h5py.File(tmp_path / ".a.h5.part") as file:
                for number in np.flatnonzero(file["done"]):
                    assert (file["energy"][2 * number : 2 * number + 2] == number).all()
    subprocess.run([sys.executable, "-c", KILLED, path], check=True, capture_output=True)
    found = read_images(path).images["energy"]
    assert (found == np.arange(400)[:, None, None] // 2).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_by_name(tmp_path, finished):
    writer = open_writer(tmp_path / "a.h5")
    for number in range(3):
        put(writer, number)
    if finished:
        writer.finish()
    message = r"a\.h5.*: has images made with rate 12288\.0; now it is 16000\.0: choose another"
    with pytest.raises(UsageError, match=message):
        open_writer(tmp_path / "a.h5", settings={**SETTINGS, "rate": 16000.0})


def test_another_file_in_its_place_is_left_alone(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("holiday")
    with pytest.raises(InputError, match="is no file of acoustic images; choose another --out"):
        open_writer(path)
    assert path.read_text() == "holiday"
    with pytest.raises(InputError, match="cannot be read as acoustic images"):
        read_images(path)
    path.unlink()
    with h5py.File(path, "w"):
        pass
    with pytest.raises(InputError, match="schema None; expected"):
        open_writer(path)


def test_a_full_disk_is_one_line_and_the_run_goes_on(tmp_path):
    writer = open_writer(tmp_path / "a.h5", 4_000, 400)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        with pytest.raises(InputError, match=r"a\.h5: cannot be written \(File too large\)"):
            put(writer, 5, 400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert not open_writer(tmp_path / "a.h5", 4_000, 400).done.any()
    put(writer, 5, 400)
    assert open_writer(tmp_path / "a.h5", 4_000, 400).done.tolist() == [
        number == 5 for number in range(10)
    ]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        open_writer(tmp_path / "none" / "a.h5")
