"""Torch 7 files, from bytes assembled by the documented format."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.backbones.torch7 import Torch7Object, read_torch7

# A number, as the documentation has it: kind 1, then a double.
NUMBER_FIVE = bytes.fromhex("01000000 0000000000001440")


def test_a_number_by_its_bytes():
    assert read_torch7(NUMBER_FIVE) == 5


@pytest.mark.parametrize(
    "value",
    [None, True, False, 3, -2.5, "läute", {}, {1: "a", 2: {"b": None}, "c": 0.5}],
)
def test_plain_values(torch7, value):
    assert read_torch7(torch7.write(value)) == value


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "uint8"])
def test_tensors_of_each_kind(torch7, kind):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    read = read_torch7(torch7.write(array))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype


def test_a_tensor_may_look_at_its_storage_through_strides(torch7):
    storage = np.arange(12, dtype=np.float32)
    # The transpose of a 3 x 4 matrix that starts at the storage's second number.
    shape = np.empty((2, 3), np.float32)
    raw = torch7.tensor(shape, offset=2, strides=(1, 4), storage=storage)
    np.testing.assert_array_equal(read_torch7(raw), [[1, 5, 9], [2, 6, 10]])


def test_objects_keep_class_and_fields(torch7):
    layer = read_torch7(torch7.write(("nn.Linear", {"bias": np.ones(2), "train": False})))
    assert isinstance(layer, Torch7Object)
    assert layer.class_name == "nn.Linear"
    assert layer.fields["train"] is False
    np.testing.assert_array_equal(layer.fields["bias"], np.ones(2))


def test_an_object_that_is_met_twice_is_one(torch7):
    # A table whose entry 1 is a table of index 2, and entry 2 the index alone.
    inner = struct.pack("<iii", 3, 2, 0)
    again = struct.pack("<ii", 3, 2)
    key = [struct.pack("<id", 1, n) for n in (1, 2)]
    raw = struct.pack("<iii", 3, 1, 2) + key[0] + inner + key[1] + again
    table = read_torch7(raw)
    assert table[1] is table[2]


def test_functions_are_passed_over(torch7):
    # Kind 8, index, length, code; then what it had in its scope.
    function = struct.pack("<iii", 8, 9, 4) + b"code" + torch7.write({})
    raw = struct.pack("<iii", 3, 100, 2) + torch7.write("f") + function
    raw += torch7.write("after") + torch7.write(7)
    assert read_torch7(raw) == {"f": None, "after": 7}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_and_never_crash(data):
    array = struct.pack("<ii", 4, 3) + struct.pack("<i", 17) + b"torch.FloatTensor"
    array += struct.pack("<iqqqqq", 2, 2, 2, 2, 1, 1) + struct.pack("<ii", 4, 4)
    array += struct.pack("<i", 18) + b"torch.FloatStorage" + struct.pack("<q", 4) + bytes(16)
    whole = struct.pack("<iii", 3, 1, 1) + NUMBER_FIVE + array
    assert read_torch7(whole)[5].shape == (2, 2)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] = data.draw(st.integers(0, 255))
    refused = None
    try:
        read_torch7(bytes(damaged[: data.draw(st.integers(0, len(whole)))]))
    except InputError as error:
        refused = str(error)
    assert refused is None or "is not a readable Torch 7 file" in refused


def test_a_tensor_larger_than_its_storage_is_refused(torch7):
    shape = np.empty((2, 3), np.float32)
    for strides in ((3, 1), (0, 0)):
        raw = torch7.tensor(shape, strides=strides, storage=np.zeros(5, np.float32))
        with pytest.raises(InputError, match="beyond its storage"):
            read_torch7(raw)


def test_tables_within_tables_without_end_are_refused():
    deep = b"".join(struct.pack("<iii", 3, n, 1) for n in range(100_000))
    with pytest.raises(InputError, match="not a readable Torch 7 file"):
        read_torch7(deep)
