"""array.json as it is frozen, and Acoular's XML both ways."""

import json
import os
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.array.geometry import ArrayGeometry, ImageGrid, vogel_spiral
from soundpost.device.array.geometry_files import (
    ArrayDescription,
    read_acoular_xml,
    read_array,
    write_acoular_xml,
    write_array,
)
from soundpost.device.errors import InputError

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[4] / "shared" / "data")

# The format as others read it: change it only with the schema's version.
FROZEN = """\
{
 "schema": "soundpost.array/1",
 "name": "porch, Süd",
 "axes": "x right, y up, z towards the scene",
 "origin": "camera",
 "positions_m": [
  [0.1, -0.05, 0.0],
  [0.0, 0.03, 0.0],
  [-0.1, -0.05, 0.0],
  [0.0, 0.1, 0.002]
 ],
 "channels": [3, 0, 1, 2],
 "image": {"rows": 18, "columns": 24, "half_width_deg": 45.0, "half_height_deg": 32.0, \
"surface": "sphere", "distance_m": 1.5}
}
"""
DESCRIPTION = ArrayDescription(
    ArrayGeometry(
        np.array([[0.1, -0.05, 0], [0, 0.03, 0], [-0.1, -0.05, 0], [0, 0.1, 0.002]]), "porch, Süd"
    ),
    (3, 0, 1, 2),
    ImageGrid(18, 24, distance_m=1.5),
)


def test_the_file_is_frozen_byte_for_byte(tmp_path):
    path = tmp_path / "array.json"
    write_array(path, DESCRIPTION)
    assert path.read_bytes() == FROZEN.encode()
    assert read_array(path) == DESCRIPTION


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(3, 20),
    name=st.text(st.characters(categories=["L", "N", "P"]), max_size=20),
    surface=st.sampled_from(["sphere", "plane"]),
)
def test_every_bit_of_a_position_survives(seed, n, name, surface):
    rng = np.random.default_rng(seed)
    # In no order, yet neither on one line nor at one place
    positions = rng.permutation(vogel_spiral(n).positions_m + rng.uniform(0, 0.003, (n, 3)))
    array = ArrayDescription(
        ArrayGeometry(positions, name),
        tuple(rng.permutation(n).tolist()),
        ImageGrid(half_height_deg=rng.uniform(5, 40), surface=surface),
    )
    again = ArrayDescription.from_json(array.to_json())
    assert again == array
    assert again.geometry.hash() == array.geometry.hash()


def test_channels_are_in_order_unless_said(spiral):
    assert ArrayDescription(spiral).channels == tuple(range(128))


def test_fields_of_a_later_version_are_kept():
    data = json.loads(FROZEN)
    data["photograph"] = {"file": "a.jpg"}
    data["image"]["lens"] = [1, 2]
    again = json.loads(ArrayDescription.from_json(json.dumps(data)).to_json())
    assert again == data


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("soundpost.array/1", "soundpost.array/2", "field 'schema': expected 'soundpost.array/1'"),
        ('"camera"', '"centre"', "field 'origin': expected 'camera'"),
        ("y up", "y down", "field 'axes'"),
        ("0.03, 0.0]", '"0.03", 0.0]', r"'positions_m': expected a list of \[x, y, z\] in metres"),
        ("0.03, 0.0]", "0.03]", "'positions_m'"),
        ("0.03, 0.0]", f"1{'0' * 400}, 0.0]", "'positions_m'"),
        ("0.03, 0.0]", "NaN, 0.0]", "not JSON: NaN"),
        ("0.03, 0.0]", "1e999, 0.0]", "cannot be passed on"),
        ("[0.0, 0.03, 0.0]", "[0.1, -0.05, 0.0]", "microphones 0 and 1 are at the same place"),
        ("[3, 0, 1, 2]", "[3, 0, 1]", "'channels': expected 4 channels"),
        ("[3, 0, 1, 2]", "[3, 0, 1, 1]", "stands for two microphones"),
        ("[3, 0, 1, 2]", "[3, 0, 1, true]", "'channels': expected a list of whole numbers"),
        ("[3, 0, 1, 2]", "7", "'channels': expected a list of whole numbers"),
        ('"rows": 18', '"rows": 18.5', "field 'image': field 'rows': expected a whole number"),
        ('"rows": 18', '"rows": 0', "image grid: 0 rows"),
        ('"sphere"', '"cone"', "surface 'cone'"),
        ('"name"', '"title"', "field 'name' is missing"),
        ("1.5}", "null", "not JSON"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_field(tmp_path, old, new, message):
    path = tmp_path / "array.json"
    assert FROZEN.count(old) == 1
    path.write_text(FROZEN.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_array(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1


def test_a_missing_file_and_a_huge_one_are_refused(tmp_path):
    path = tmp_path / "array.json"
    with pytest.raises(InputError, match=r"array.json: cannot be read: No such file"):
        read_array(path)
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(InputError, match="more than 1000000 bytes"):
        read_array(path)


# ------------------------------------------------------------------------------------ Acoular


# What Acoular's MicGeom.export_mpos writes: XML 1.1, one line without a break at its end.
ACOULAR = """<?xml version="1.1" encoding="utf-8"?><MicArray name="tub_vogel64">
  <pos Name="Point 1" x="0.1524" y="0.1143" z="0.0"/>
  <pos Name="Point 2" x="-0.02" y="1e-02" z="-0.0"/>
  <pos Name="Point 3" x="0.05" y="0" z="0.001"/>
</MicArray>"""


def test_what_acoular_writes_is_read(tmp_path):
    path = tmp_path / "array.xml"
    path.write_text(ACOULAR)
    array = read_acoular_xml(path)
    assert array.name == "tub_vogel64"
    expected = [[0.1524, 0.1143, 0.0], [-0.02, 0.01, 0.0], [0.05, 0.0, 0.001]]
    assert array.positions_m.tolist() == expected


def test_acoular_reads_what_is_written(tmp_path):
    path = tmp_path / "array.xml"
    array = ArrayGeometry(vogel_spiral(32).positions_m, 'roof & "wall" <1>')
    write_acoular_xml(path, array)
    # As its MicGeom.import_mpos does
    document = xml.dom.minidom.parse(str(path))
    places = [
        [float(element.getAttribute(axis)) for axis in "xyz"]
        for element in document.getElementsByTagName("pos")
    ]
    assert np.array_equal(places, array.positions_m)
    assert read_acoular_xml(path) == array


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<MicArray", "<!DOCTYPE a><MicArray", "document type or an entity"),
        ("</MicArray>", "", "is not XML"),
        ('encoding="utf-8"', 'encoding="foo"', "is not XML"),
        ("MicArray", "Calib", "is a <Calib>; expected a <MicArray>"),
        ('x="-0.02"', 'x="left"', "<pos> 1: found"),
        ('x="-0.02"', "", "<pos> 1: found"),
        ('x="-0.02"', 'x="nan"', "microphone 1 is at nan"),
        ("pos", "mic", "0 microphones"),
    ],
)
def test_other_xml_is_refused_with_its_name(tmp_path, old, new, message):
    path = tmp_path / "array.xml"
    path.write_text(ACOULAR.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        read_acoular_xml(path)
    assert str(caught.value).startswith(str(path))


# ------------------------------------------------------------------------- a real array's file


@pytest.mark.data
def test_the_positions_of_a_real_array_of_128_are_an_array(tmp_path):
    raw = json.loads(
        (DATA / "multichannel" / "geometries" / "norsonic_nor848a_128mic.json").read_bytes()
    )
    positions = [[place[axis] for axis in "xyz"] for place in raw["elements"]]
    array = ArrayDescription(ArrayGeometry(np.array(positions), "Nor848A"))
    assert array.geometry.n_mics == 128
    write_array(tmp_path / "array.json", array)
    write_acoular_xml(tmp_path / "array.xml", array.geometry)
    assert read_array(tmp_path / "array.json") == array
    assert read_acoular_xml(tmp_path / "array.xml") == array.geometry


def test_an_entity_does_not_hide_in_another_encoding(tmp_path):
    path = tmp_path / "array.xml"
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "0.1">]><MicArray/>'
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(InputError, match=r"array\.xml: is not UTF-8; expected a <MicArray>"):
        read_acoular_xml(path)
