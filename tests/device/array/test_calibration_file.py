"""calibration.json as it is frozen, what is refused, and Acoular's factors both ways."""

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import soundpost.device
from soundpost.device.array.calibration_file import (
    Calibration,
    read_calibration,
    same_positions,
    write_calibration,
)
from soundpost.device.array.calibration_sections import (
    STATES,
    Evidence,
    LevelSection,
    MicrophoneSection,
    PositionSection,
    ResponseSection,
)
from soundpost.device.array.camera_sections import CameraSection, SyncSection
from soundpost.device.array.geometry import ArrayGeometry, vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError

# The format as others read it: change it only with the schema's version.
FROZEN = """\
{
 "schema": "soundpost.calibration/1",
 "array": {"name": "porch, Süd", "sha256": \
"e5e69b8c9c81f2f97eb0ee9ee4d36d4b68a0b5f1f7f0f6d1f0e6d0a53eac8fa2", "n_mics": 3},
 "microphones": {
  "date": "2026-11-29T10:00:00.250000Z",
  "temperature_c": 21.5,
  "method": "noise from a known place",
  "residuals": {"snr_db": 24.5},
  "gain": [1.0, 0.5, 2.0],
  "delay_s": [0.0, 1e-05, -2e-06],
  "inverted": [false, true, false],
  "state": ["good", "dead", "noisy"],
  "channels": [2, 0, 1],
  "positions_sha256": "abc"
 },
 "positions": {
  "date": "2026-11-29T10:00:00.250000Z",
  "temperature_c": null,
  "method": "chirps",
  "residuals": {},
  "positions_m": [[0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [-0.1, 0.0, 0.001]]
 },
 "level": {
  "date": "2026-11-29T10:00:00.250000Z",
  "temperature_c": null,
  "method": "94 dB",
  "residuals": {},
  "pa_per_unit": 12.5,
  "uncertainty_db": 0.25,
  "channel": 2
 },
 "response": {
  "date": "2026-11-29T10:00:00.250000Z",
  "temperature_c": null,
  "method": "maker",
  "residuals": {},
  "points": [[100.0, -3.0], [1000.0, 0.0]]
 },
 "camera": {
  "date": "2026-11-29T10:00:00.250000Z",
  "temperature_c": null,
  "method": "light",
  "residuals": {"rms_px": 0.5},
  "matrix": [[500.0, 0.0, 320.0], [0.0, -500.0, 240.0], [0.0, 0.0, 1.0]],
  "radial": -0.125,
  "width_px": 640,
  "height_px": 480
 },
 "sync": {
  "date": "2026-11-29T10:00:00.250000Z",
  "temperature_c": null,
  "method": "click",
  "residuals": {},
  "audio_late_s": 0.0375,
  "uncertainty_s": 0.001
 }
}
"""
DATE = datetime(2026, 11, 29, 10, 0, 0, 250_000, tzinfo=timezone.utc)
GEOMETRY = ArrayGeometry(np.array([[0.1, 0, 0], [0, 0.1, 0], [-0.1, 0, 0]]), "porch, Süd")


def noted(method, temperature_c=None, **residuals):
    return Evidence(DATE, method, temperature_c, residuals)


CALIBRATION = Calibration(
    "porch, Süd",
    "e5e69b8c9c81f2f97eb0ee9ee4d36d4b68a0b5f1f7f0f6d1f0e6d0a53eac8fa2",
    3,
    MicrophoneSection(
        noted("noise from a known place", 21.5, snr_db=24.5),
        (1.0, 0.5, 2.0),
        (0.0, 1e-5, -2e-6),
        (False, True, False),
        ("good", "dead", "noisy"),
        (2, 0, 1),
        "abc",
    ),
    PositionSection(noted("chirps"), np.array([[0.1, 0, 0], [0, 0.1, 0], [-0.1, 0, 0.001]])),
    LevelSection(noted("94 dB"), 12.5, 0.25, 2),
    ResponseSection(noted("maker"), ((100.0, -3.0), (1000.0, 0.0))),
    CameraSection(
        noted("light", rms_px=0.5),
        np.array([[500.0, 0, 320], [0, -500, 240], [0, 0, 1]]),
        -0.125,
        640,
        480,
    ),
    SyncSection(noted("click"), 0.0375, 0.001),
)


def test_this_tree_is_tested():
    assert Path(soundpost.device.__file__).resolve().parents[1] == Path(__file__).parents[3]


def test_the_file_is_frozen_byte_for_byte(tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(path, CALIBRATION)
    assert path.read_bytes() == FROZEN.encode()
    assert read_calibration(path) == CALIBRATION


def test_fields_of_a_later_version_are_kept_at_every_level():
    data = json.loads(FROZEN)
    data["moisture"] = {"percent": 40}
    data["array"]["photograph"] = "a.jpg"
    for name in ("microphones", "positions", "level", "response", "camera", "sync"):
        data[name]["operator"] = name
    assert json.loads(Calibration.from_json(json.dumps(data)).to_json()) == data


def test_responses_of_single_microphones_are_kept_in_their_order():
    own = {2: ((100.0, 1.0), (2000.0, 0.5)), 0: ((500.0, -1.0), (1000.0, 0.0))}
    changed = CALIBRATION.with_section(
        ResponseSection(noted("maker"), ((100.0, -3.0), (1000.0, 0.0)), own)
    )
    told = FROZEN.replace(
        '"points": [[100.0, -3.0], [1000.0, 0.0]]',
        '"points": [[100.0, -3.0], [1000.0, 0.0]],\n'
        '  "by_microphone": {"0": [[500.0, -1.0], [1000.0, 0.0]], '
        '"2": [[100.0, 1.0], [2000.0, 0.5]]}',
    )
    assert changed.to_json() == told
    assert Calibration.from_json(told) == changed
    # Microphone 0 is 1 dB low at 500 Hz; 1 has that of all; 2 is 0.75 dB above 1 kHz at 100.
    found = changed.response.response_db(np.array([100.0, 500.0]), 3)
    np.testing.assert_allclose(found[:, 0], -1.0)
    np.testing.assert_allclose(found[0, 1], -3.0)
    at_1_khz = 1.0 - 0.5 * np.log(10) / np.log(20)
    np.testing.assert_allclose(found[0, 2], 1.0 - at_1_khz)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ('{"3": [[1, 0], [2000, 0]]}', "section response has microphone 3; expected 0 to 2"),
        ('{"-1": [[1, 0], [2000, 0]]}', "expected numbers of microphones from 0, found '-1'"),
        ('{"01": [[1, 0], [2000, 0]]}', "expected numbers of microphones from 0, found '01'"),
        ('{"1": [[1, 0], [900, 0]]}', "microphone 1: response: found 1 to 900 Hz"),
        ('{"1": [[1, 0], [2000]]}', "field 'by_microphone': field '1': expected a list of lists"),
        ("7", "field 'by_microphone': expected an object"),
    ],
)
def test_wrong_responses_of_single_microphones_are_refused(own, message):
    points = '"points": [[100.0, -3.0], [1000.0, 0.0]]'
    with pytest.raises(InputError, match=message):
        Calibration.from_json(FROZEN.replace(points, f'{points}, "by_microphone": {own}'))


def test_what_would_not_be_read_again_is_not_written(tmp_path):
    hertz = np.linspace(1, 9_999, 9_999).tolist()
    points = tuple((of, 0.123456789012345) for of in hertz)
    long = ResponseSection(noted("maker"), points, dict.fromkeys(range(40), points))
    large = replace(CALIBRATION, n_mics=40, microphones=None, positions=None, response=long)
    with pytest.raises(InputError, match=r"expected 10000000 at most: give responses at fewer"):
        write_calibration(tmp_path / "calibration.json", large)
    assert list(tmp_path.iterdir()) == []


@given(
    st.lists(
        st.tuples(
            st.floats(1e-3, 1e3), st.floats(-0.01, 0.01), st.booleans(), st.sampled_from(STATES)
        ),
        min_size=3,
        max_size=12,
    ),
    st.sets(st.sampled_from(["microphones", "level", "response", "camera", "sync"])),
    st.randoms(use_true_random=False),
)
def test_every_bit_of_any_sections_survives(microphones, absent, random):
    gain, delay, inverted, states = zip(*microphones, strict=True)
    channels = list(range(20))
    random.shuffle(channels)
    section = MicrophoneSection(
        noted("x"), gain, delay, inverted, states, tuple(channels[: len(gain)]), "0" * 64
    )
    whole = replace(CALIBRATION, n_mics=len(gain), positions=None, microphones=section)
    some = replace(whole, **dict.fromkeys(absent))
    assert Calibration.from_json(some.to_json()) == some


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("calibration/1", "calibration/2", "field 'schema': expected 'soundpost.calibration/1'"),
        ('"n_mics": 3', '"n_mics": 4', "section microphones has 3 microphones; expected 4"),
        ('"n_mics": 3', '"n_mics": true', "field 'array': field 'n_mics'"),
        ("[1.0, 0.5, 2.0]", "[1.0, 0.5]", "delay_s is 3; expected 2 values"),
        ("[1.0, 0.5, 2.0]", "[1.0, 0.0, 2.0]", "gain is 0.0; expected 0.0001 to 10000"),
        ("[1.0, 0.5, 2.0]", '[1.0, "a", 2.0]', "'gain': expected a list of numbers"),
        ("[1.0, 0.5, 2.0]", f"[1{'0' * 400}, 1, 2]", "'gain': expected a list of numbers"),
        ("-2e-06", "0.2", "delay_s is 0.2"),
        ("-2e-06", "NaN", "not JSON: NaN"),
        ('"noisy"', '"tired"', "state is 'tired'; expected one of good, dead, noisy, clipped"),
        ("[2, 0, 1]", "[2, 0, 2]", "channels is .*expected another channel"),
        ("[2, 0, 1]", "[2, 0, true]", "'channels': expected a list of whole numbers"),
        ("[-0.1, 0.0, 0.001]", "[-0.1, 0.0]", "'positions_m': expected a list of lists of 3"),
        ("12.5", "0", "pa_per_unit is 0.0"),
        ("[100.0, -3.0]", "[2000.0, -3.0]", "field 'response': response, point 2"),
        ("[[500.0, 0.0, 320.0]", "[[0.0, 0.0, 320.0]", "matrix .* onto an area, not a line"),
        ("0.0, 0.0, 1.0]]", "0.0, 0.0, 2.0]]", "matrix is .* the last of them 1"),
        ("-0.125", "9", "radial is 9"),
        ("0.0375", "61", "audio_late_s is 61"),
        ('"click"', "7", "field 'sync': field 'method': expected text"),
        ("94 dB", "94\\ud800", "cannot be passed on"),
        ('"level": {', '"level": 7, "rest": {', "field 'level': expected an object"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_field(tmp_path, old, new, message):
    path = tmp_path / "calibration.json"
    assert FROZEN.count(old) == 1
    path.write_text(FROZEN.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_calibration(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1


def test_a_missing_file_and_a_huge_one_are_refused(tmp_path):
    path = tmp_path / "calibration.json"
    with pytest.raises(InputError, match=r"calibration.json: cannot be read: No such file"):
        read_calibration(path)
    path.write_bytes(b" " * 10_000_001)
    with pytest.raises(InputError, match="10000001 bytes"):
        read_calibration(path)


def test_a_calibration_of_another_array_is_refused(tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(path, Calibration.of(vogel_spiral(16)))
    assert read_calibration(path, vogel_spiral(16)).array_name == "vogel-16"
    moved = vogel_spiral(16).positions_m + np.array([0, 0, 1e-12])
    message = r"calibration.json: belongs to array 'vogel-16' \([0-9a-f]{12}\), not to 'moved'"
    with pytest.raises(InputError, match=message):
        read_calibration(path, ArrayGeometry(moved, "moved"))


def test_a_section_takes_the_place_of_its_kind_alone():
    level = LevelSection(noted("114 dB"), 3.0, 0.1, 0)
    changed = CALIBRATION.with_section(level)
    assert changed.level == level
    assert replace(changed, level=CALIBRATION.level) == CALIBRATION


def test_delays_measured_with_other_positions_are_told():
    array = ArrayDescription(vogel_spiral(16))
    empty = Calibration.of(array.geometry)
    assert same_positions(empty, array)
    even = MicrophoneSection(
        noted("x"),
        (1.0,) * 16,
        (0.0,) * 16,
        (False,) * 16,
        ("good",) * 16,
        array.channels,
        array.geometry.hash(),
    )
    held = empty.with_section(even)
    assert same_positions(held, array)
    moved = PositionSection(noted("chirps"), array.geometry.positions_m * 1.01)
    assert not same_positions(held.with_section(moved), array)
