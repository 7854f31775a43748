"""Files of a frame: what other programs wrote is read, what is written other programs read."""

import io

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.io import loadmat, savemat

from soundpost.device.errors import InputError
from soundpost.train.datasets.action_files import (
    BROKEN_MICROPHONES,
    RATE_HZ,
    block_bytes,
    block_name,
    block_samples,
    image_bytes,
    image_name,
    pad_image,
    picture_bytes,
    picture_name,
    read_block,
    read_image,
    read_picture,
)

RNG = np.random.default_rng(0)


def test_names_and_numbers_of_the_published_set():
    assert (image_name(1), block_name(12), picture_name(123_456)) == (
        *("Data_1.mat", "A_000012.npy", "I_123456.jpeg"),
    )
    assert RATE_HZ == 12_288
    assert BROKEN_MICROPHONES == (79, 105)


@pytest.mark.parametrize("shape", [(36, 48, 12), (35, 48, 12), (36, 46, 11), (1, 1, 1)])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_image_that_is_too_small_is_padded_in_front(tmp_path, shape, compressed):
    path = tmp_path / "Data_1.mat"
    image = RNG.normal(size=shape)
    savemat(path, {"MFCC": np.atleast_3d(image)}, do_compression=compressed)
    found = read_image(path)
    assert (found.shape, found.dtype) == ((36, 48, 12), np.float32)
    rows, columns, depth = shape
    assert_array_equal(found[-rows:, -columns:, -depth:], image.astype(np.float32))
    assert np.count_nonzero(found) == image.size


@pytest.mark.parametrize("shape", [(37, 48, 12), (36, 48), (36, 48, 12, 2)])
def test_an_image_that_is_none(tmp_path, shape):
    path = tmp_path / "Data_1.mat"
    savemat(path, {"MFCC": np.zeros(shape)})
    with pytest.raises(InputError, match=r"Data_1\.mat: an acoustic image of 3.*expected at most"):
        read_image(path)
    with pytest.raises(InputError, match=r"here: an acoustic image of 40 x 1 x 1"):
        pad_image(np.zeros((40, 1, 1), np.float32), "here")


def test_a_mat_file_of_something_else(tmp_path):
    path = tmp_path / "Data_1.mat"
    savemat(path, {"energy": np.zeros(3), "label": "clap"})
    with pytest.raises(InputError, match=r"holds energy, label; expected numbers under the key MF"):
        read_image(path)
    savemat(path, {"MFCC": "text"})
    with pytest.raises(InputError, match=r"holds MFCC; expected numbers"):
        read_image(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_that_is_cut_short(tmp_path, compressed):
    path = tmp_path / "Data_1.mat"
    savemat(path, {"MFCC": RNG.normal(size=(36, 48, 12))}, do_compression=compressed)
    content = path.read_bytes()
    for n in (0, 4, 100, 128, 131, 140, 150, 200, 1_000, len(content) - 1):
        path.write_bytes(content[:n])
        with pytest.raises(InputError, match=r"Data_1\.mat: .*expected"):
            read_image(path)


def test_files_that_are_not_there_or_something_else(tmp_path):
    for read in (read_image, read_block, read_picture):
        with pytest.raises(InputError, match=r"a: cannot be read \(No such file or directory\)"):
            read(tmp_path / "a")
        (tmp_path / "b").write_bytes(b"something else entirely" * 20)
        with pytest.raises(InputError, match=r"b: cannot be read \(.*\); expected a file of the s"):
            read(tmp_path / "b")
        (tmp_path / "c").touch()
        with pytest.raises(InputError, match=r"c: .*expected"):
            read(tmp_path / "c")


def test_a_block_of_another_shape(tmp_path):
    path = tmp_path / "A_000001.npy"
    np.save(path, np.zeros((127, 1024), np.int32))
    with pytest.raises(
        InputError, match=r"holds 127 x 1024; expected 128 microphones x 1024 samples: copy"
    ):
        read_block(path)
    assert read_block(path, 127).dtype == np.int32


@pytest.mark.parametrize(
    ("stored", "full_scale"), [(np.int32, 2.0**31), (np.int16, 2.0**15), (np.float32, 1.0)]
)
def test_whole_numbers_are_full_scale_at_the_end_of_their_type(stored, full_scale):
    block = np.array([[0, 1], [0.5, -1]]) * full_scale
    block = np.clip(block, -full_scale, full_scale - (stored is not np.float32)).astype(stored)
    found = block_samples(block)
    assert found.dtype == np.float32
    # Samples come first, microphones last.
    assert_allclose(found, [[0, 0.5], [1, -1]], atol=1e-4)


def test_sound_that_is_written_is_the_same_again():
    samples = RNG.uniform(-1, 1, (1024, 5)).astype(np.float32)
    stored = np.load(io.BytesIO(block_bytes(samples)))
    assert (stored.shape, stored.dtype) == ((5, 1024), np.int32)
    assert_allclose(block_samples(stored), samples, atol=2**-24)
    loud = np.full((1024, 1), 7.0, np.float32)
    assert block_samples(np.load(io.BytesIO(block_bytes(loud)))).max() == 1.0


def test_an_image_that_is_written_is_read_by_scipy_and_has_the_same_bytes_always():
    image = RNG.normal(size=(36, 48, 12)).astype(np.float32)
    content = image_bytes(image)
    assert_array_equal(loadmat(io.BytesIO(content))["MFCC"], image)
    # scipy would write the time and the machine here.
    assert content[:116].rstrip() == b"MATLAB 5.0 MAT-file, soundpost"
    assert content == image_bytes(image)


def test_a_picture_that_is_written_is_read_by_pillow(tmp_path):
    from PIL import Image

    # A slope of each colour: JPEG keeps smooth pictures well.
    picture = np.stack(
        np.broadcast_arrays(
            np.arange(48)[:, None] * 4, np.arange(64)[None] * 3, 200 - np.arange(64)[None]
        ),
        axis=-1,
    ).astype(np.uint8)
    content = picture_bytes(picture)
    theirs = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), float)
    assert theirs.shape == picture.shape
    assert np.abs(theirs - picture).mean() < 3
    path = tmp_path / "I_000001.jpeg"
    path.write_bytes(content)
    assert np.abs(read_picture(path).astype(float) - theirs).mean() < 2
    assert content == picture_bytes(picture)


def test_a_picture_of_pillow_is_read_and_scaled(tmp_path, layouts):
    path = tmp_path / "I_000001.jpeg"
    picture = np.full((48, 64, 3), (200, 120, 40), np.uint8)
    layouts.write_jpeg(path, picture)
    assert np.abs(read_picture(path).astype(int) - picture).max() <= 4
    scaled = read_picture(path, (12, 20))
    assert scaled.shape == (12, 20, 3)
    assert np.abs(scaled.astype(int) - picture[0, 0]).max() <= 5


@pytest.mark.parametrize("write", [image_bytes, block_bytes])
def test_only_whole_frames_are_written(write):
    with pytest.raises(ValueError, match="expected"):
        write(np.zeros((35, 48, 12), np.float32))
